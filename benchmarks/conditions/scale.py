"""100 conditions of 1000 cells each in 50 dimensions: seconds, peak memory, programs compiled."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pandas as pd
from jax import monitoring

from benchmarks._common import peak_memory_gib
from benchmarks.conditions import _models
from benchmarks.conditions._models import CONTROL, adata_of

FEATURES = 50


def screen(conditions: int, cells: int):
    """Return controls and conditions that each shift and shrink cells along directions of their own."""
    rng = np.random.default_rng(0)
    scales = np.geomspace(4.0, 0.4, FEATURES)
    control = rng.normal(size=(cells, FEATURES)) * scales
    parts, names = [control], [np.repeat(CONTROL, cells)]
    for number in range(conditions):
        direction = rng.normal(size=FEATURES) * scales
        treated = rng.normal(size=(cells, FEATURES)) * scales * rng.uniform(0.7, 1.1, FEATURES)
        parts.append(treated + 0.7 * direction * (treated[:, :1] > 0))
        names.append(np.repeat(f"drug{number}", cells))
    return adata_of(np.concatenate(parts), perturbation=np.concatenate(names))


def run(options) -> dict[str, pd.DataFrame]:
    counted = [0]
    monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: counted.__setitem__(
            0, counted[0] + (event == "/jax/core/compile/backend_compile_duration")
        )
    )
    sizes = [(4, 100), (8, 100)] if options.quick else [(10, 1000), (100, 1000)]
    steps = 100 if options.quick else 5000
    rows = {}
    for conditions, cells in sizes:
        adata, before = screen(conditions, cells), counted[0]
        started = time.perf_counter()
        # Setup, coupling and training; few steps first, so that what is left is training.
        setup = {"population_key": "perturbation", "source": CONTROL, "target": None}
        _models.fit(adata.copy(), replace(options.training, steps=1), 0, setup=setup)
        coupled = time.perf_counter() - started
        few = counted[0] - before
        started = time.perf_counter()
        model = _models.fit(adata, replace(options.training, steps=steps), 0, setup=setup)
        rows[f"{conditions} x {cells}"] = {
            "set up and coupled, s": coupled,
            f"whole job, {steps} steps, s": time.perf_counter() - started,
            "programs, set up and coupled": few,
            "programs, whole job again": counted[0] - before - few,
            "peak GiB so far": peak_memory_gib(),
            "plans not converged": int((~model.conditions["converged"].astype(bool)).sum()),
        }
    return {f"conditions x cells, {FEATURES} dimensions": pd.DataFrame(rows).T.rename_axis("conditions x cells")}
