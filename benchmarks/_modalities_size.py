"""One large quadratic job, in a process of its own: ``python -m benchmarks._modalities_size CELLS``.

Cells lie along a curve with a side branch and uneven density; each modality sees the latent place through random smooth
functions of its own, with noise.
"""

from __future__ import annotations

import json
import sys
import time

import anndata as ad
import numpy as np
import pandas as pd

import scgenot
from benchmarks._common import peak_memory_gib, two_populations
from scgenot.metrics import foscttm

STEPS, LANDMARKS = 1000, 500
HELD = 1000


def views(rng: np.random.Generator, widths: tuple[int, int]):
    """Return functions from latent places to cells, one for each modality."""
    weights = [rng.normal(size=(4, width)) for width in widths]
    return [
        lambda latent, mixing=mixing: latent @ mixing + 0.05 * rng.normal(size=(len(latent), mixing.shape[1]))
        for mixing in weights
    ]


def latent(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return places on a curve that is denser at its start, a quarter of them on a branch from its middle."""
    along = 3.0 * rng.beta(1.0, 2.0, n)
    branch = np.where(rng.random(n) < 0.25, 1.5 * rng.random(n), 0.0)
    along = np.where(branch > 0, 1.5, along)
    return np.stack([along, branch, 0.3 * np.sin(2.0 * along), 0.3 * np.square(branch)], axis=1)


def main() -> None:
    cells = int(sys.argv[1])
    rng = np.random.default_rng(0)
    first, second = views(rng, (30, 20))
    source, target = first(latent(rng, cells)), second(latent(rng, cells))
    names = {"source": "X_source", "target": "X_target"}
    both = two_populations(np.zeros((cells, 1)), np.zeros((cells, 1)))
    del both.obsm["X_rep"]
    for side, values in (("source", source), ("target", target)):
        filled = np.full((2 * cells, values.shape[1]), np.nan, np.float32)
        filled[(both.obs["population"] == side).to_numpy()] = values
        both.obsm[names[side]] = filled
    del source, target, filled
    scgenot.GENOT.setup_anndata(
        both,
        population_key="population",
        source="source",
        target="target",
        source_rep="X_source",
        target_rep="X_target",
    )
    model = scgenot.GENOT(both, landmarks=LANDMARKS)
    before, started = peak_memory_gib(), time.perf_counter()
    model.train(max_steps=STEPS, validation_size=0.0, progress_bar=False)
    trained = time.perf_counter()
    summary = model.coupling_summary().iloc[0]
    after_training = peak_memory_gib()
    model.summarize(n_samples=4)
    summarised = time.perf_counter()
    places = latent(rng, HELD)
    unseen = ad.AnnData(
        obs=pd.DataFrame(index=np.arange(HELD).astype(str)), obsm={"X_source": first(places).astype(np.float32)}
    )
    means = model.get_transported_mean(unseen, indices=np.arange(HELD))
    print(
        json.dumps(
            {
                "cells a side": cells,
                "coupling and training, s": trained - started,
                "marginal violation": float(summary["marginal_violation"]),
                "converged": float(summary["converged"]),
                "summaries of all cells, 4 samples each, s": summarised - trained,
                f"FOSCTTM of {HELD} unseen cells": foscttm(means, second(places)),
                "memory before training, GiB": before,
                "peak memory of training, GiB": after_training,
                "peak memory, GiB": peak_memory_gib(),
            }
        )
    )


if __name__ == "__main__":
    main()
