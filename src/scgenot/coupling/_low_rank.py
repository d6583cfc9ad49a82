"""Quadratic couplings through low-rank plans: linear in the number of cells, with all of them in the plan."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float

from scgenot._blocks import matmul
from scgenot._sampling import host_rng
from scgenot.costs import resolve_cost_pair
from scgenot.coupling._base import StartReport
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._kinds import LowRank
from scgenot.coupling._lift import Lift, anchor_lifts, lifted_cost
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling.quadratic._sides import Side
from scgenot.sinkhorn import Geometry, solve_potentials

# What we call a start, and the class that makes it.
_STARTS = {"random": "RandomInitializer", "two ranks": "Rank2Initializer", "k-means": "KMeansInitializer"}
_MAX_ITERATIONS, _INNER_ITERATIONS = 2000, 20
# Smaller steps stop at the product plan, of which most starts are close neighbours.
_STEP = 100.0


def lowrank_coupling(
    key: jax.Array,
    source: Float[Array, "n dx"],
    target: Float[Array, "m dy"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
) -> PotentialCoupling:
    """Solve the quadratic problem over plans of low rank, then couple cells by the cost linearised at the best of them.

    The plan ``Q diag(1/g) R'`` (Scetbon et al., 2022, "Linear-time Gromov Wasserstein distances using low rank couplings
    and costs") and the costs ``A B'`` have few columns, so no pass is quadratic in the number of cells but those of the
    final linear problem, and no cell is left out. Its few starts often end in a worse optimum than those of the global
    coupling over landmarks (split gene panels of blood cells: FOSCTTM .2 to .6 instead of .05), which is the better choice
    unless plans of low rank are what you are after.

    Parameters
    ----------
    key
        Chooses landmarks for the factors of the costs, and the random starts.
    source, target
        Cells of the two populations.
    a, b
        Marginals; each sums to 1.
    config
        Costs, epsilon, rank.

    Returns
    -------
    The coupling, with a report of each start.

    Raises
    ------
    ValueError
        If a tau is below 1: low-rank plans are balanced.
    """
    from ott.geometry.low_rank import LRCGeometry
    from ott.problems.quadratic.quadratic_problem import QuadraticProblem

    if min(config.tau_source, config.tau_target) < 1.0:
        raise ValueError(
            f"`tau_source`={config.tau_source:g} and `tau_target`={config.tau_target:g}: low-rank couplings are balanced. "
            "Set both to 1, or use coupling='global'."
        )
    rng = host_rng(key)
    costs = resolve_cost_pair(config.cost)
    sides = [
        Side.of(rng, *side, cost, config, number)
        for number, (side, cost) in enumerate(zip(((source, a), (target, b)), costs, strict=True))
    ]
    lifts = [
        anchor_lifts(side.anchored, np.asarray(side.within) * side.scale, side.scale, config.epsilon) for side in sides
    ]
    factors = [(one(side.cells), other(side.cells)) for side, (one, other) in zip(sides, lifts, strict=True)]
    geometries = [LRCGeometry(*pair) for pair in factors]
    if min(len(source), len(target)) < 2:
        raise ValueError(
            f"low-rank couplings need at least 2 cells a side, got {len(source)} in `source` and {len(target)} in `target`. "
            "Use coupling='global'."
        )
    rank = min(config.rank or LowRank.rank, len(source) // 2, len(target) // 2)
    problem = QuadraticProblem(*geometries, a=a, b=b)
    found, reports = [], []
    for name in _STARTS:
        try:
            start = _start(problem, key, max(rank, 1), name)
        except ValueError:
            # k-means needs more cells than clusters on both sides.
            continue
        out = _solved(problem, start)
        value = float(out.primal_cost)
        iterations = int(np.count_nonzero(np.asarray(out.costs) != -1.0)) * _INNER_ITERATIONS
        found.append(out)
        reports.append(
            StartReport(name, value if np.isfinite(value) else np.inf, iterations, np.nan, True, bool(out.converged))
        )
    best = int(np.argmin([report.objective for report in reports]))
    return _coupled(key, sides, lifts, factors, found[best], reports, best, a, b, config)


@partial(jax.jit, static_argnames=("rank", "name"))
def _start(problem, key: jax.Array, rank: int, name: str) -> tuple[Array, Array, Array]:
    from ott.initializers.linear import initializers_lr

    return getattr(initializers_lr, _STARTS[name])(rank)(problem, rng=jax.random.split(key)[1])


@jax.jit
def _solved(problem, start: tuple[Array, Array, Array]):
    """Solve the problem from a start: one program for all of them, where the solver by itself is hundreds of little ones."""
    from ott.solvers.quadratic.gromov_wasserstein_lr import LRGromovWasserstein

    solver = LRGromovWasserstein(
        rank=start[0].shape[1],
        gamma=_STEP,
        min_iterations=100,
        max_iterations=_MAX_ITERATIONS,
        inner_iterations=_INNER_ITERATIONS,
    )
    return solver(problem, start, rng=jax.random.key(0))


def _coupled(key, sides, lifts, factors, out, reports, best, a, b, config) -> PotentialCoupling:
    """Linearise at the low-rank plan, and solve the linear problem for its potentials."""
    left, right = sides
    (_, x_right), (y_left, _) = factors
    middle = -4.0 * matmul(matmul(x_right.T, out.q) / out.g[None, :], matmul(out.r.T, y_left))
    # sum_k cX(x, x_k)^2 a_k, by the landmarks, whose weights stand for those of all cells.
    lift = (
        Lift(left.anchored, left.scale, matmul(lifts[0][0].map, middle), 2.0 * left.weights),
        Lift(right.anchored, right.scale, lifts[1][1].map, 2.0 * right.weights, one_first=True),
    )
    geometry = Geometry(lift[0](left.cells), lift[1](right.cells), 1.0 / config.epsilon, lifted_cost())
    potentials = solve_potentials(geometry, a, b, config.sinkhorn, key=key)
    reports = [reports[best], *(report for k, report in enumerate(reports) if k != best)]
    kind = f"quadratic, low rank ({out.g.shape[0]})"
    converged = potentials.converged and reports[0].converged
    potentials = dataclasses.replace(potentials, converged=converged)
    return PotentialCoupling(geometry, a, b, potentials, config, kind, left.scale, lift=lift, starts=tuple(reports))
