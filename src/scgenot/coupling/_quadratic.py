"""The quadratic global coupling: Gromov-Wasserstein from many starts, extended to all cells."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot.costs import Cost, cost_scale, resolve_cost_pair
from scgenot.coupling._base import StartReport
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._geometry import Geometry
from scgenot.coupling._gromov import (
    QuadraticProblem,
    QuadraticState,
    linearised_cost,
    polish,
    quadratic_problem,
    solve_from,
)
from scgenot.coupling._lift import LIFTED, lifts
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling._sinkhorn import Potentials, solve_potentials
from scgenot.coupling._starts import start_plans

_POLISHED = 3
_MAX_POLISH = 200
# Objectives closer than this are one optimum reached twice: only one of the two starts is polished.
_SAME = 1e-4


def quadratic_coupling(
    key: jax.Array,
    source: Float[Array, "n dx"],
    target: Float[Array, "m dy"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
) -> PotentialCoupling:
    """Solve the quadratic entropic problem: cells that are close go to cells that are close.

    Minimises ``sum |cX_ik - cY_jl|^2 P_ij P_kl + epsilon KL(P | a b')``. The problem is not convex: it is solved from
    several starts, the best few are followed until they stand still, and the lowest objective wins.

    Parameters
    ----------
    key
        Chooses landmarks.
    source, target
        Cells of the two populations, which need not share a space.
    a, b
        Marginals; each sums to 1.
    config
        Costs, epsilon, landmarks.

    Returns
    -------
    The coupling, with a report of each start in its diagnostics.

    Raises
    ------
    ValueError
        If a tau is below 1: relaxed marginals are for linear problems so far.
    """
    if min(config.tau_source, config.tau_target) < 1.0:
        raise ValueError(
            f"`tau_source`={config.tau_source:g} and `tau_target`={config.tau_target:g}: quadratic problems must be "
            "balanced in this version. Set both to 1."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    costs = resolve_cost_pair(config.cost)
    sides = [_landmarks(rng, *side, config.landmarks) for side in ((source, a), (target, b))]
    scales = tuple(
        cost_scale(cost, cells, cells, config.scale_cost) for cost, (cells, _) in zip(costs, sides, strict=True)
    )
    within = tuple(_within(cost, cells) / scale for cost, (cells, _), scale in zip(costs, sides, scales, strict=True))
    (anchors_x, anchor_a), (anchors_y, anchor_b) = sides
    problem = quadratic_problem(*within, anchor_a, anchor_b, config.epsilon)
    state, reports = _best(problem, None)

    left, right = lifts(anchors_x, anchors_y, costs, scales, problem.bases, state.plan, 1.0)
    whole = len(anchors_x) == len(source) and len(anchors_y) == len(target)
    geometry = Geometry(left(source), right(target), 1.0 / config.epsilon, LIFTED)
    if whole:
        geometry = dataclasses.replace(geometry, matrix=linearised_cost(problem, state.quadratic))
        winner = reports[0]
        potentials = Potentials(state.u, state.v, float(state.violation), winner.iterations, winner.converged)
    else:
        potentials = solve_potentials(geometry, a, b, config, key=key)
    kind = "quadratic, global" if whole else f"quadratic, global, {len(anchors_x)} x {len(anchors_y)} landmarks"
    return PotentialCoupling(
        geometry, a, b, potentials, config, kind, scales[0], lift=(left, right), starts=tuple(reports)
    )


def _best(problem: QuadraticProblem, shared) -> tuple[QuadraticState, list[StartReport]]:
    """Return the state of the lowest objective, and all reports, best first."""
    found: list[tuple[str, QuadraticState]] = []
    starts = start_plans(problem.within_source, problem.within_target, problem.a, problem.b, shared)
    for name, anneal, plan in starts:
        found.append((name, solve_from(problem, plan, anneal)))
    found.sort(key=lambda one: float(one[1].objective))
    reports, kept = [], []
    for name, state in found:
        rough = float(state.objective)
        again = any(abs(rough - other) <= _SAME * abs(other) for other, _, _ in kept)
        if len(kept) < _POLISHED and not again:
            state, iterations, converged = polish(problem, state, _MAX_POLISH)
            kept.append((rough, state, len(reports)))
            reports.append(StartReport(name, float(state.objective), iterations, float(state.change), True, converged))
        else:
            reports.append(StartReport(name, rough, 0, float(state.change), False, False))
    best = min(kept, key=lambda one: float(one[1].objective))
    order = sorted(range(len(reports)), key=lambda k: (not reports[k].polished, reports[k].objective))
    return best[1], [reports[k] for k in order]


def _landmarks(rng: np.random.Generator, cells, weights, most: int):
    """Return up to `most` cells, drawn in proportion to their weights, with their weights."""
    if len(cells) <= most:
        return cells, weights
    p = np.asarray(weights, np.float64)
    chosen = np.sort(rng.choice(len(cells), most, replace=False, p=p / p.sum()))
    return cells[chosen], jnp.full(most, 1.0 / most, jnp.float32)


def _within(cost: Cost, cells: Float[Array, "n d"]) -> Float[Array, "n n"]:
    return jax.jit(cost.pairwise)(cells, cells)
