"""Training steps per second, sampling, compilations and peak memory; with ``--cells N``, the whole job at that size.

Steps are counted at batch 1024, 50 features and three hidden layers of 256, after compilation, between two calls of
``train`` that differ only in their number of steps. The machine's own matrix product, measured in the same run, gives
the ratio.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd

import scgenot
from benchmarks._common import parser, peak_memory_gib, report, two_populations
from benchmarks._tables import Table, from_frame
from scgenot.flow import FlowConfig, _sampler, _trainer

BATCH, FEATURES, WIDTHS = 1024, 50, (256, 256, 256)


def matrix_product_flops() -> float:
    """Return what ``(1024 x 256) @ (256 x 256)`` reaches, the product that training consists of."""
    a, b = jax.random.normal(jax.random.key(0), (BATCH, 256)), jax.random.normal(jax.random.key(1), (256, 256))
    multiply = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(multiply(a, b))
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(200):
            product = multiply(a, b)
        jax.block_until_ready(product)
        best = min(best, time.perf_counter() - started)
    return 200 * 2 * BATCH * 256 * 256 / best


def flops_a_step(config: FlowConfig) -> float:
    """Return the floating point operations of the products in one step: forward, and twice that backward."""
    widths = (2 * FEATURES + 2 * config.time_frequencies, *config.hidden, FEATURES)
    return 3 * 2 * BATCH * sum(before * after for before, after in zip(widths, widths[1:], strict=False))


def populations(cells: int):
    rng = np.random.default_rng(0)
    spread = np.geomspace(4.0, 0.4, FEATURES)
    source, target = (rng.normal(size=(cells, FEATURES)) * spread for _ in range(2))
    adata = two_populations(source, target + np.linspace(0, 2, FEATURES) * (source[:, :1] > 0))
    scgenot.GENOT.setup_anndata(
        adata, population_key="population", source="source", target="target", source_rep="X_rep"
    )
    return adata


def timed_train(model, steps: int) -> float:
    started = time.perf_counter()
    model.train(max_steps=steps, batch_size=BATCH, validation_size=0.0, progress_bar=False)
    return time.perf_counter() - started


def small(steps: int = 1000) -> pd.DataFrame:
    config = FlowConfig(hidden=WIDTHS)
    model = scgenot.GENOT(populations(4096), flow_config=config)
    timed_train(model, 200)
    few, many = timed_train(model, 200), timed_train(model, 200 + steps)
    rate = steps / (many - few)
    flops, machine = rate * flops_a_step(config), matrix_product_flops()
    calls = []
    for cells in (100, 300, 37):
        started = time.perf_counter()
        model.sample(indices=np.arange(cells), n_samples=30)
        calls.append(time.perf_counter() - started)
    rows = {
        "training steps / s": rate,
        "GFLOPS of the steps' products": flops / 1e9,
        "GFLOPS of the machine's product": machine / 1e9,
        "ratio": flops / machine,
        "first sample call, 100 cells x 30, s": calls[0],
        "second sample call, 300 cells x 30, s": calls[1],
        "third sample call, 37 cells x 30, s": calls[2],
        "compilations of the training loop": _trainer._run_steps._cache_size(),
        "compilations of the sampler": _sampler._solve_rows._cache_size(),
        "peak memory, GiB": peak_memory_gib(),
    }
    return pd.DataFrame({"figure": rows}).rename_axis("what")


def large(cells: int, steps: int) -> pd.DataFrame:
    adata = populations(cells)
    model = scgenot.GENOT(adata)
    before = peak_memory_gib()
    seconds = timed_train(model, steps)
    summary = model.coupling_summary().iloc[0]
    started = time.perf_counter()
    model.get_uncertainty(indices=np.arange(1000))
    rows = {
        "cells a side": cells,
        "training steps": steps,
        "coupling and training, s": seconds,
        "Sinkhorn iterations at full size": summary["iterations"],
        "marginal violation": summary["marginal_violation"],
        "converged": float(summary["converged"]),
        "uncertainty of 1000 cells, s": time.perf_counter() - started,
        "memory before training, GiB": before,
        "peak memory, GiB": peak_memory_gib(),
    }
    return pd.DataFrame({"figure": rows}).rename_axis("what")


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the table for the harness; what depends on what the process did before is left out."""
    found = small(100 if quick else 1000)
    kept = [name for name in found.index if not name.startswith(("compilations", "peak"))]
    yield from_frame(
        found.loc[kept],
        f"Batch {BATCH}, {FEATURES} features, hidden {WIDTHS}",
        reference="machine's product",
        no_floor="speed has none; the row of the machine's own product is what arithmetic allows",
        no_baseline="speed has none",
    )


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--cells", type=int, default=None, help="cells a side of the whole job; nothing else is run")
    arguments.add_argument("--steps", type=int, default=2000, help="training steps of the whole job")
    options = arguments.parse_args()
    if options.cells is None:
        report(small(), f"speed: batch {BATCH}, {FEATURES} features, hidden {WIDTHS}", options.json)
    else:
        report(large(options.cells, options.steps), f"{options.cells} cells a side, {FEATURES} features", options.json)


if __name__ == "__main__":
    main()
