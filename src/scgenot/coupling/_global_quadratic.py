"""The quadratic and fused global couplings: Gromov-Wasserstein from many starts, extended to all cells."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot.costs import resolve_cost_pair
from scgenot.coupling._base import StartReport
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._lift import lifted_cost, lifts
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling.quadratic._iterate import QuadraticState, polish, settle, solve_from
from scgenot.coupling.quadratic._problem import QuadraticProblem, quadratic_problem
from scgenot.coupling.quadratic._sides import SharedTerm, Side
from scgenot.coupling.quadratic._starts import start_plans
from scgenot.sinkhorn import Geometry, Potentials, refine_potentials

_POLISHED = 3
_MAX_POLISH = 200
_PROBES = 256
# Objectives closer than this are one optimum reached twice: only one of the two starts is polished.
_SAME = 1e-4


def quadratic_coupling(
    key: jax.Array,
    source: Float[Array, "n dx"],
    target: Float[Array, "m dy"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
    *,
    shared: tuple[Float[Array, "n s"], Float[Array, "m s"]] | None = None,
    pairs: Int[np.ndarray, "p 2"] | None = None,
) -> PotentialCoupling:
    """Solve the quadratic or fused entropic problem: cells that are close go to cells that are close.

    Minimises ``alpha sum |cX_ik - cY_jl|^2 P_ij P_kl / mass(P) + (1 - alpha) <C, P> + epsilon KL(P | a b')``, with the
    marginals relaxed where a tau is below 1. The problem is not convex: it is solved from several starts, the best few are
    followed until they stand still, and the lowest objective wins.

    Parameters
    ----------
    key
        Chooses landmarks.
    source, target
        Cells of the two populations, which need not share a space.
    a, b
        Marginals; each sums to 1.
    config
        Costs, epsilon, alpha, taus, landmarks.
    shared
        Features that both populations have, which makes the problem fused.
    pairs
        Rows of source and target cells known to correspond: costs to them become the shared features.

    Returns
    -------
    The coupling, with a report of each start in its diagnostics.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    costs = resolve_cost_pair(config.cost)
    sides = [Side.of(rng, *side, cost, config) for side, cost in zip(((source, a), (target, b)), costs, strict=True)]
    left, right = sides
    within, scales = (left.within, right.within), (left.scale, right.scale)
    fused = None if shared is None and pairs is None else SharedTerm.of(sides, costs, config, shared, pairs)
    alpha = 1.0 if fused is None else config.alpha
    shared_costs = None if fused is None else fused.between_landmarks(sides)
    problem = quadratic_problem(
        *within,
        left.weights,
        right.weights,
        config.epsilon,
        shared=shared_costs,
        alpha=alpha,
        taus=(config.tau_source, config.tau_target),
    )
    state, reports = best_state(problem, shared_costs)

    offset = -alpha * float(jnp.sum(state.quadratic * state.plan))
    whole = len(left.chosen) == len(source) and len(right.chosen) == len(target)
    anchored, probes = (left.anchored, right.anchored), None if whole else (_some(left), _some(right))
    lift = lifts(anchored, within, scales, state.plan, alpha, offset, config.epsilon, probes)
    between, features = lifted_cost(), (None, None)
    if fused is not None:
        lift, features = fused.added_to(lift, 1.0 - alpha), (fused.source, fused.target)
        between = lifted_cost(lift[0].map.shape[1] + 2, fused.cost)
    geometry = Geometry(lift[0](source, features[0]), lift[1](target, features[1]), 1.0 / config.epsilon, between)
    matrix, u, v, violation = settle(problem, state)
    if whole:
        geometry, winner = dataclasses.replace(geometry, matrix=matrix), reports[0]
        potentials = Potentials(u, v, float(violation), winner.iterations, winner.converged)
    else:
        found = refine_potentials(geometry, a, b, (left.chosen, left.weights, u), config.sinkhorn)
        potentials = dataclasses.replace(found, converged=found.converged and reports[0].converged)
    kind = "quadratic, global" if fused is None else "fused, global"
    kind += "" if whole else f", {len(left.chosen)} x {len(right.chosen)} landmarks"
    return PotentialCoupling(geometry, a, b, potentials, config, kind, scales[0], lift=lift, starts=tuple(reports))


def _some(side: Side) -> Float[np.ndarray, "k d"]:
    """Return cells that are no landmarks, where there are some, to measure how well lifted costs hold between them."""
    others = np.setdiff1d(np.arange(len(side.cells)), side.chosen)
    others = others if len(others) else side.chosen
    return np.asarray(side.cells)[
        others[np.linspace(0, len(others) - 1, min(len(others), _PROBES)).round().astype(int)]
    ]


def best_state(
    problem: QuadraticProblem, shared: Float[Array, "n m"] | None
) -> tuple[QuadraticState, list[StartReport]]:
    """Return the state of the lowest objective, and the reports of all starts, best first."""
    found: list[tuple[str, QuadraticState]] = []
    rough = problem.rough()
    for name, anneal, plan in start_plans(problem.within_source, problem.within_target, problem.a, problem.b, shared):
        found.append((name, solve_from(rough, plan, anneal)))
    found.sort(key=lambda one: _value(one[1]))
    reports, kept = [], []
    for name, state in found:
        rough = _value(state)
        again = any(abs(rough - other) <= _SAME * abs(other) for other, _ in kept)
        if len(kept) < _POLISHED and not again:
            state, iterations, converged = polish(problem, state, _MAX_POLISH)
            kept.append((rough, state))
            reports.append(StartReport(name, _value(state), iterations, float(state.change), True, converged))
        else:
            reports.append(StartReport(name, rough, 0, float(state.change), False, False))
    best = min((state for _, state in kept), key=_value)
    followed = iter(kept)
    for k, report in enumerate(reports):
        if report.polished:
            overlap = 1.0 - 0.5 * float(jnp.abs(next(followed)[1].plan - best.plan).sum())
            reports[k] = dataclasses.replace(report, overlap=overlap)
    return best, sorted(reports, key=lambda one: (not one.polished, one.objective))


def _value(state: QuadraticState) -> float:
    """Return the objective; a start that broke down comes last instead of winning by NaN."""
    value = float(state.objective)
    return value if np.isfinite(value) else float("inf")
