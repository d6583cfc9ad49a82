"""Plans between Gaussians against their closed forms.

A sample of 2000 has second moments of its own, and closed forms are functions of the second moments. So errors are told
three times: of the raw sample against the law, of the raw sample against the closed form of its own second moments, and of a
sample that was transformed to have exactly the law's second moments ("exact moments") against the law.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from benchmarks.couplings._common import Tables, against_bars, dense_plan, table
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import GaussianProblem, QuadraticGaussianProblem, gaussian_pair, quadratic_gaussian

N = 2000
DIMENSIONS = (2, 8)
SAMPLES = ("raw", "exact moments")


def run(seeds: Sequence[int], n: int = N) -> Tables:
    linear_rows, quadratic_rows = dict(linear(seeds, n)), dict(quadratic(seeds, n))
    linear_table = table(linear_rows, ["features", "sample", "seed"])
    quadratic_table = table(quadratic_rows, ["sample", "seed"])
    against = {"raw": "vs own, %", "exact moments": "vs law, %"}
    claims = []
    for d in DIMENSIONS:
        for sample, column in against.items():
            worst = linear_table.loc[(d, sample), column].max()
            claims.append((f"linear, {d}-d, {sample}, {column}: worst seed", worst, "<=", 3.0))
    for sample, column in against.items():
        for what in ("first", "second", "value"):
            worst = quadratic_table.loc[sample, f"{what} {column}"].max()
            claims.append((f"inner-product GW, {what}, {sample}, {column}: worst seed", worst, "<=", 3.0))
    return {
        f"linear plan between Gaussians, n = {n}: relative error of the cross-covariance (Frobenius)": linear_table,
        f"inner-product Gromov-Wasserstein, n = {n}: 1.6583, 0.5916 and value 3.3402 up to sign": quadratic_table,
        "closed forms, against the bars": against_bars(*claims),
    }


def linear(seeds: Sequence[int], n: int = N) -> Iterator[tuple[tuple, dict[str, float]]]:
    for d in DIMENSIONS:
        for sample in SAMPLES:
            for seed in seeds:
                problem = gaussian_pair(d, rng=seed)
                source, target = draw(problem, seed, n, exact=sample != "raw")
                config = CouplingConfig(epsilon=problem.epsilon, scale_cost=1.0)
                started = time.perf_counter()
                found = solve_coupling(jax.random.key(seed), source, target, config=config)
                cross = (source - source.mean(axis=0)).T @ dense_plan(found) @ (target - target.mean(axis=0))
                seconds = time.perf_counter() - started
                own = GaussianProblem(*(np.cov(cells.T, bias=True) for cells in (source, target)), problem.epsilon)
                yield (
                    (d, sample, seed),
                    {
                        "vs law, %": _percent(np.linalg.norm(cross - problem.cross_cov), problem.cross_cov),
                        "vs own, %": _percent(np.linalg.norm(cross - own.cross_cov), own.cross_cov),
                        "own vs law, %": _percent(np.linalg.norm(own.cross_cov - problem.cross_cov), problem.cross_cov),
                        "s": seconds,
                    },
                )


def quadratic(seeds: Sequence[int], n: int = N) -> Iterator[tuple[tuple, dict[str, float]]]:
    problem = quadratic_gaussian()
    for sample in SAMPLES:
        for seed in seeds:
            source, target = draw(problem, seed, n, exact=sample != "raw")
            config = CouplingConfig(cost="inner_product", epsilon=problem.epsilon, scale_cost=1.0)
            started = time.perf_counter()
            found = solve_coupling(jax.random.key(seed), source, target, problem="quadratic", config=config)
            seconds = time.perf_counter() - started
            singular = np.linalg.svd(source.T @ dense_plan(found) @ target, compute_uv=False)
            # Inner products are about the origin, so these moments are too.
            moments = [np.linalg.eigvalsh(cells.T @ cells / len(cells))[::-1] for cells in (source, target)]
            own = QuadraticGaussianProblem(*moments, problem.epsilon)
            row = {"first": singular[0], "second": singular[1], "value": found.diagnostics.objective}
            for reference, name in ((problem, "law"), (own, "own")):
                truth = (*reference.cross_singular_values, reference.value)
                for what, right in zip(("first", "second", "value"), truth, strict=True):
                    row[f"{what} vs {name}, %"] = _percent(row[what] - right, right)
            yield (sample, seed), row | {"s": seconds}


def draw(problem, seed: int, n: int = N, *, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a sample of both laws; an exact one is moved to the laws' means and second moments by a linear map."""
    rng = np.random.default_rng(seed)
    cells = problem.sample_source(rng, n), problem.sample_target(rng, n)
    if not exact:
        return cells
    return tuple(
        _with_moments(one, cov) for one, cov in zip(cells, (problem.source_cov, problem.target_cov), strict=True)
    )


def _with_moments(cells: np.ndarray, cov: np.ndarray) -> np.ndarray:
    cells = cells - cells.mean(axis=0)
    own, wanted = (np.linalg.cholesky(one) for one in (np.cov(cells.T, bias=True), cov))
    return np.linalg.solve(own, cells.T).T @ wanted.T


def _percent(error, truth) -> float:
    return 100.0 * float(np.abs(error)) / float(np.linalg.norm(truth))
