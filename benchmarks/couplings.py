"""Couplings without training: closed forms, and modalities whose true pairing is known.

FOSCTTM is that of the discrete plan's conditional means in the target space. Targets are shuffled before solving, default
starts are used, and no label or pairing is looked at. Times include all starts; the first one includes compilation.
"""

from __future__ import annotations

import time

import jax
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.decomposition import PCA

from benchmarks._common import data, parser, report
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import quadratic_gaussian
from scgenot.metrics import foscttm

# As published for these data: distances divided by their largest, epsilon 1e-3 in our convention.
MODALITIES = CouplingConfig(cost="euclidean", epsilon=1e-3, scale_cost="max")


def dense_plan(coupling) -> np.ndarray:
    found, geometry = coupling.potentials, coupling.geometry
    logs = np.asarray(found.u)[:, None] + np.asarray(found.v) - float(geometry.inverse) * np.asarray(geometry.matrix)
    return np.asarray(coupling.a)[:, None] * np.asarray(coupling.b) * np.exp(logs.astype(np.float64))


def paired(source: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Solve between two modalities of the same cells; score with the pairing that the solver does not see."""
    order = rng.permutation(len(target))
    started = time.perf_counter()
    found = solve_coupling(jax.random.key(0), source, target[order], problem="quadratic", config=MODALITIES)
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


def gaussians(seeds: int) -> pd.DataFrame:
    """Inner-product Gromov-Wasserstein between Gaussians against its closed form."""
    problem = quadratic_gaussian()
    rows = {"closed form": {"first": 1.6583, "second": 0.5916, "value": problem.value}}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        source, target = problem.sample_source(rng, 2000), problem.sample_target(rng, 2000)
        started = time.perf_counter()
        config = CouplingConfig(cost="inner_product", epsilon=problem.epsilon, scale_cost=1.0)
        found = solve_coupling(jax.random.key(seed), source, target, problem="quadratic", config=config)
        singular = np.linalg.svd(source.T @ dense_plan(found) @ target, compute_uv=False)
        # What the closed form gives for the second moments that this sample happens to have.
        sampled = [np.linalg.eigvalsh(cells.T @ cells / len(cells))[::-1] for cells in (source, target)]
        own = type(problem)(*sampled, problem.epsilon)
        rows[f"seed {seed}"] = {
            "first": singular[0],
            "second": singular[1],
            "value": found.diagnostics.objective,
            "first, of the sample": own.cross_singular_values[0],
            "second, of the sample": own.cross_singular_values[1],
            "value, of the sample": own.value,
            "s": time.perf_counter() - started,
        }
    return pd.DataFrame(rows).T.rename_axis("singular values of the cross-covariance")


def panels(splits: int) -> pd.DataFrame:
    """Two random disjoint gene panels of 700 blood cells, 20 principal components each."""
    genes = sc.datasets.pbmc68k_reduced().raw.X.toarray()
    rows = {}
    for seed in range(splits):
        rng = np.random.default_rng(seed)
        order = rng.permutation(genes.shape[1])
        half = len(order) // 2
        sides = [PCA(20, random_state=0).fit_transform(genes[:, some]) for some in (order[:half], order[half:])]
        rows[f"split {seed}"] = paired(*sides, rng)
    table = pd.DataFrame(rows).T
    table.loc["median"], table.loc["worst"] = table.median(), table.max()
    return table.rename_axis("panels")


def snareseq(subsets: int) -> pd.DataFrame:
    """Chromatin to RNA of 1047 cells of four lines: all cells, and random 80 % of them."""
    sides = []
    for name in ("atac", "rna"):
        adata = data(f"snareseq_celllines_{name}")
        values = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
        sides.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    rows = {"all": paired(*sides, np.random.default_rng(0))}
    for seed in range(subsets):
        rng = np.random.default_rng(seed)
        some = rng.permutation(len(sides[0]))[: round(0.8 * len(sides[0]))]
        rows[f"subset {seed}"] = paired(sides[0][some], sides[1][some], rng)
    table = pd.DataFrame(rows).T
    table.loc["worst"] = table.max()
    return table.rename_axis("SNARE-seq")


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--only", choices=["gaussians", "panels", "snareseq"], default=None)
    arguments.add_argument("--seeds", type=int, default=10, help="seeds of the Gaussians, subsets of SNARE-seq")
    arguments.add_argument("--splits", type=int, default=20, help="splits of the gene panels")
    options = arguments.parse_args()
    if options.only in (None, "gaussians"):
        report(gaussians(options.seeds), "inner-product Gromov-Wasserstein between Gaussians, n = 2000", options.json)
    if options.only in (None, "panels"):
        report(panels(options.splits), "split gene panels of the same cells, Euclidean", options.json)
    if options.only in (None, "snareseq"):
        report(snareseq(options.seeds), "SNARE-seq, Euclidean on L2-normalised rows", options.json)


if __name__ == "__main__":
    main()
