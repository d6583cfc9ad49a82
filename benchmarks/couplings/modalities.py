"""Two modalities of the same cells: whether a quadratic coupling finds the pairing that it does not see.

FOSCTTM is that of the discrete plan's conditional means in the target space. Targets are shuffled before solving; settings
are the default ones, but for the cost where a row names one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.decomposition import PCA

from benchmarks._common import data
from benchmarks.couplings._common import Tables, against_bars, dense_plan, table
from scgenot.costs import Geodesic
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.metrics import foscttm

# Of 1047 cells, as published for these data; scaled with the number of cells.
_NEIGHBOURS = 110 / 1047
PUBLISHED = "hops, correlation"
COSTS = {
    "euclidean": lambda n: None,
    "geodesic": lambda n: "geodesic",
    PUBLISHED: lambda n: Geodesic(n_neighbors=round(_NEIGHBOURS * n), metric="correlation", lengths="hops"),
}


def paired(source: np.ndarray, target: np.ndarray, rng: np.random.Generator, cost=None) -> dict[str, float]:
    """Solve between two modalities of the same cells; score with the pairing."""
    order = rng.permutation(len(target))
    started = time.perf_counter()
    with warnings.catch_warnings():
        # A graph in pieces is told once, by the column.
        warnings.filterwarnings("ignore", message="the neighbour graph")
        found = solve_coupling(
            jax.random.key(0), source, target[order], problem="quadratic", config=CouplingConfig(cost=cost)
        )
    seconds = time.perf_counter() - started
    plan = dense_plan(found)
    starts = {start.start: start for start in found.diagnostics.starts}
    return {
        "FOSCTTM": foscttm(plan @ target[order] / plan.sum(axis=1, keepdims=True), target),
        "objective": found.diagnostics.objective,
        "objective of the product start": starts["product"].objective,
        "effective targets": found.diagnostics.effective_targets,
        "converged": float(found.diagnostics.converged),
        "s": seconds,
    }


def panels(splits: Sequence[int]) -> Tables:
    """Two random disjoint gene panels of 700 blood cells, 20 principal components each."""
    genes = sc.datasets.pbmc68k_reduced().raw.X.toarray()
    rows = {}
    for seed in splits:
        rng = np.random.default_rng(seed)
        order = rng.permutation(genes.shape[1])
        half = len(order) // 2
        sides = [PCA(20, random_state=0).fit_transform(genes[:, some]) for some in (order[:half], order[half:])]
        rows[f"split {seed}"] = paired(*sides, rng)
    found = table(rows, "split")
    bars = against_bars(
        ("FOSCTTM, median", found["FOSCTTM"].median(), "<=", 0.055),
        ("FOSCTTM, worst", found["FOSCTTM"].max(), "<=", 0.08),
    )
    return {"split gene panels of the same cells, default settings": found, "panels, against the bars": bars}


def snareseq(subsets: Sequence[int]) -> Tables:
    """Chromatin to RNA of 1047 cells of four lines, rows L2-normalised: all cells, and random 80 % of them."""
    sides = []
    for name in ("atac", "rna"):
        adata = data(f"snareseq_celllines_{name}")
        values = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
        sides.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    n, rows, claims = len(sides[0]), {}, []
    for name, cost in COSTS.items():
        rows[name, "all"] = paired(*sides, np.random.default_rng(0), cost(n))
        for seed in subsets:
            rng = np.random.default_rng(seed)
            some = rng.permutation(n)[: round(0.8 * n)]
            rows[name, f"subset {seed}"] = paired(sides[0][some], sides[1][some], rng, cost(len(some)))
        own = pd.DataFrame({key[1]: row for key, row in rows.items() if key[0] == name}).T
        claims += [
            (f"{name}: FOSCTTM, all cells", own.loc["all", "FOSCTTM"], "<=", 0.152),
            (f"{name}: FOSCTTM, worst subset", own["FOSCTTM"].drop("all").max(), "<=", 0.17),
            (f"{name}: seconds, slowest solve", own["s"].max(), "<=", 30.0),
        ]
    return {
        "chromatin to RNA, default settings but for the cost": table(rows, ["cost", "cells"]),
        "SNARE-seq, against the bars": against_bars(*claims),
    }
