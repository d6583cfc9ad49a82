"""Relaxed marginals and the meaning of epsilon, against POT and OTT on small problems.

POT solves in double precision, by plain Sinkhorn iterations until they stand still. The quadratic plan is compared with POT's
solution of the linear problem that the plan itself defines: its cost is recomputed here with all four indices, and a plan
that is stationary comes back.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import ot
from ott.geometry import geometry as ott_geometry
from ott.problems.linear import linear_problem
from ott.problems.quadratic import quadratic_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn
from ott.solvers.quadratic import gromov_wasserstein as ott_gromov
from scipy.spatial.distance import cdist

from benchmarks.couplings._common import Tables, against_bars, dense_plan, table
from scgenot.coupling import CouplingConfig, solve_coupling

TAUS = ((1.0, 1.0), (1.0, 0.9), (0.8, 1.0), (0.9, 0.9), (0.95, 0.5), (0.2, 0.3))
EPSILONS = (0.05, 0.5)
N, M = 24, 20
A, B = np.full(N, 1 / N), np.full(M, 1 / M)


def run(seeds: Sequence[int]) -> Tables:
    linear_table, quadratic_table = linear(seeds), quadratic(seeds[:3])
    conventions = epsilon_conventions()
    relative = conventions.loc[[name for name in conventions.index if "ours" in name], "L1"].max()
    return {
        f"linear plans against POT, {2 * N} x {2 * M} cells, worst of {len(seeds)} seeds": linear_table,
        f"quadratic plans against POT on their own linearised cost, {N} x {M} cells": quadratic_table,
        "epsilon: L1 distance to the plan of others at the same, half and double epsilon": conventions,
        "relaxed marginals, against the bars": against_bars(
            ("linear: L1 over mass, worst", linear_table["L1 / mass"].max(), "<=", 1e-3),
            ("linear: largest entry over largest entry, worst", linear_table["max / max"].max(), "<=", 1e-3),
            ("quadratic: L1 over mass, worst", quadratic_table["L1 / mass"].max(), "<=", 1e-3),
            ("epsilon: L1 to POT and OTT at our epsilon, worst", relative, "<=", 1e-3),
        ),
    }


def strengths(taus: tuple[float, float], epsilon: float) -> tuple[float, float]:
    return tuple(epsilon * tau / (1 - tau) if tau < 1 else float("inf") for tau in taus)


def reference(a, b, cost, epsilon: float, taus: tuple[float, float]) -> np.ndarray:
    # Not "sinkhorn_stabilized", which does not solve the semi-relaxed problem.
    return ot.unbalanced.sinkhorn_unbalanced(
        a,
        b,
        cost,
        epsilon,
        strengths(taus, epsilon),
        method="sinkhorn",
        reg_type="kl",
        numItermax=50_000,
        stopThr=1e-12,
    )


def distances(plan: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "L1 / mass": np.abs(plan - truth).sum() / truth.sum(),
        "max / max": np.abs(plan - truth).max() / truth.max(),
        "mass": plan.sum(),
        "mass of POT": truth.sum(),
    }


def linear(seeds: Sequence[int]):
    rows = {}
    for epsilon in EPSILONS:
        for taus in TAUS:
            found = []
            for seed in seeds:
                rng = np.random.default_rng(seed)
                x, y = rng.normal(size=(2 * N, 3)), rng.normal(size=(2 * M, 3)) + 0.5
                a, b = (rng.dirichlet(np.full(len(cells), 5.0)) for cells in (x, y))
                config = CouplingConfig(epsilon=epsilon, tau_source=taus[0], tau_target=taus[1], tolerance=1e-5)
                ours = solve_coupling(jax.random.key(seed), x, y, source_weights=a, target_weights=b, config=config)
                cost = cdist(x, y, "sqeuclidean")
                found.append(distances(dense_plan(ours), reference(a, b, cost / cost.mean(), epsilon, taus)))
            worst = max(found, key=lambda one: one["L1 / mass"])
            rows[epsilon, *taus] = worst | {"max / max": max(one["max / max"] for one in found)}
    return table(rows, ["epsilon", "tau source", "tau target"])


def quadratic(seeds: Sequence[int]):
    rows, epsilon = {}, 0.1
    for taus in TAUS:
        found = []
        for seed in seeds:
            x, y, costs = shapes(seed)
            config = CouplingConfig(
                cost="sqeuclidean", epsilon=epsilon, tau_source=taus[0], tau_target=taus[1], tolerance=1e-5
            )
            ours = solve_coupling(jax.random.key(seed), x, y, problem="quadratic", config=config)
            plan = dense_plan(ours)
            share = plan / plan.sum()
            within = four_indices(costs, share)
            cost = 2 * within - np.sum(within * share)
            summary = {"converged": float(ours.diagnostics.converged)}
            found.append(distances(plan, reference(A, B, cost, epsilon, taus)) | summary)
        rows[taus] = max(found, key=lambda one: one["L1 / mass"])
    return table(rows, ["tau source", "tau target"])


def shapes(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Two lopsided clouds of different dimension, and their scaled squared distances."""
    rng = np.random.default_rng(seed)
    x, y = rng.gamma(1.5, size=(N, 3)) * [2.0, 1.0, 0.5], rng.gamma(1.5, size=(M, 2)) * [1.0, 0.4]
    costs = tuple(cdist(cells, cells, "sqeuclidean") for cells in (x, y))
    return x, y, tuple(one / one.mean() for one in costs)


def four_indices(costs: tuple[np.ndarray, np.ndarray], plan: np.ndarray) -> np.ndarray:
    x, y = costs
    return np.einsum("ijkl,kl->ij", (x[:, None, :, None] - y[None, :, None, :]) ** 2, plan)


def epsilon_conventions():
    """What others call our epsilon: the same in linear problems; half of it in OTT's quadratic ones."""
    rows, epsilon = {}, 0.1
    x, y, costs = shapes(0)
    plan = dense_plan(
        solve_coupling(jax.random.key(0), x, y, problem="quadratic", config=_tight("sqeuclidean", epsilon))
    )
    for factor, name in ((1.0, "ours"), (0.5, "half of it"), (2.0, "twice")):
        theirs = ot.gromov.entropic_gromov_wasserstein(
            *costs, A, B, "square_loss", epsilon=factor * epsilon, max_iter=2000, tol=1e-9, G0=plan, solver="PGD"
        )
        rows[f"quadratic, POT, epsilon = {name}"] = {"L1": np.abs(theirs - plan).sum()}
        # OTT's linearised cost lacks the factor 2 of the gradient.
        theirs = ott_quadratic(costs, 0.5 * factor * epsilon)
        rows[f"quadratic, OTT, epsilon = half of {name}"] = {"L1": np.abs(theirs - plan).sum()}
    cost = cdist(x[:, :2], y, "sqeuclidean")
    cost /= cost.mean()
    plan = dense_plan(solve_coupling(jax.random.key(0), x[:, :2], y, config=_tight("sqeuclidean", epsilon)))
    for factor, name in ((1.0, "ours"), (0.5, "half of it"), (2.0, "twice")):
        theirs = ot.sinkhorn(A, B, cost, factor * epsilon, method="sinkhorn_log", numItermax=10_000, stopThr=1e-10)
        rows[f"linear, POT, epsilon = {name}"] = {"L1": np.abs(theirs - plan).sum()}
        geometry = ott_geometry.Geometry(cost_matrix=jnp.asarray(cost, jnp.float32), epsilon=factor * epsilon)
        solver = ott_sinkhorn.Sinkhorn(threshold=1e-5, max_iterations=10_000)
        theirs = np.asarray(solver(linear_problem.LinearProblem(geometry)).matrix, np.float64)
        rows[f"linear, OTT, epsilon = {name}"] = {"L1": np.abs(theirs - plan).sum()}
    return table(rows, "solver")


def ott_quadratic(costs: tuple[np.ndarray, np.ndarray], epsilon: float) -> np.ndarray:
    """Return OTT's plan, from its own start: this problem is easy enough for it to end in the same optimum."""
    geometries = [ott_geometry.Geometry(cost_matrix=jnp.asarray(one, jnp.float32)) for one in costs]
    problem = quadratic_problem.QuadraticProblem(*geometries)
    linear_solver = ott_sinkhorn.Sinkhorn(threshold=1e-5, max_iterations=10_000)
    solver = ott_gromov.GromovWasserstein(
        linear_solver=linear_solver, epsilon=epsilon, threshold=1e-7, max_iterations=300
    )
    return np.asarray(solver(problem).matrix, np.float64)


def _tight(cost: str, epsilon: float) -> CouplingConfig:
    return CouplingConfig(cost=cost, epsilon=epsilon, tolerance=1e-5)
