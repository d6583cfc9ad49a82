"""Entropic Gromov-Wasserstein on two matrices of costs: linearise, solve, repeat, with epsilon annealed."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot.coupling.quadratic._problem import QuadraticProblem, linearised_cost, quadratic_cost
from scgenot.sinkhorn import dense_sinkhorn

_STAGES = 8
_ROUNDS, _MANY_ROUNDS = 3, 8
_LOOSE, _TIGHT = 1e-3, 1e-4
_PLAN_CHANGE = 1e-3
_FREE_STEP, _SMALLEST_STEP = 0.7, 0.05


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuadraticState:
    """A plan of mass 1, the potentials (over epsilon) that gave it, and how far it is from settled.

    ``quadratic`` is the quadratic cost at the plan, ``log_mass`` the logarithm of the mass that the plan was divided by, ``change`` the L1 distance to the plan before, ``violation`` that of
    the row marginals, ``objective`` the value of the problem.
    """

    plan: Float[Array, "n m"]
    quadratic: Float[Array, "n m"]
    u: Float[Array, " n"]
    v: Float[Array, " m"]
    log_mass: Float[Array, ""]
    objective: Float[Array, ""]
    change: Float[Array, ""]
    violation: Float[Array, ""]


def solve_from(problem: QuadraticProblem, plan: Float[Array, "n m"], anneal: float) -> QuadraticState:
    """Follow a start from `anneal` times epsilon down to epsilon."""
    state = _start(problem, plan)
    factors = np.geomspace(max(anneal, 1.0), 1.0, _STAGES)
    for before, factor in zip([factors[0], *factors], factors, strict=False):
        state = _stage(problem, state, factor, before / factor, _LOOSE, _ROUNDS, _step(problem))
    # Objectives of starts compare only where the marginals are met: a plan that misses them can be cheaper than any.
    return _stage(problem, state, 1.0, 1.0, _TIGHT, _MANY_ROUNDS, 1.0)


def iterate(
    problem: QuadraticProblem, plan: Float[Array, "n m"], anneal: float, relaxed: bool, repeats: int
) -> QuadraticState:
    """Do about what :func:`solve_from` and :func:`polish` do with a fixed number of repeats, inside compiled code."""
    factors = jnp.concatenate([jnp.geomspace(anneal, 1.0, _STAGES), jnp.ones(repeats)])
    shrinks = jnp.concatenate([jnp.ones(1), factors[:-1] / factors[1:]])
    step = _FREE_STEP if relaxed else 1.0
    body = lambda k, state: _stage(problem, state, factors[k], shrinks[k], _TIGHT, _ROUNDS, step)
    return jax.lax.fori_loop(0, len(factors), body, _start(problem, plan))


def plan_for(problem: QuadraticProblem, cost: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Return the entropic plan of a linear cost with the marginals of the problem, roughly."""
    scaled = cost / problem.epsilon
    zeros = jnp.zeros_like(problem.a), jnp.zeros_like(problem.b)
    u, v, _ = dense_sinkhorn(scaled, problem.a, problem.b, *zeros, (1.0, 1.0), _TIGHT, _MANY_ROUNDS)
    return problem.a[:, None] * problem.b[None, :] * jnp.exp(u[:, None] + v[None, :] - scaled)


def _start(problem: QuadraticProblem, plan: Float[Array, "n m"]) -> QuadraticState:
    n, m = plan.shape
    plan, unknown = plan / plan.sum(), jnp.asarray(jnp.inf)
    zeros = jnp.zeros(n), jnp.zeros(m), jnp.zeros(())
    return QuadraticState(plan, quadratic_cost(problem, plan), *zeros, unknown, unknown, unknown)


def polish(problem: QuadraticProblem, state: QuadraticState, max_iterations: int) -> tuple[QuadraticState, int, bool]:
    """Repeat at epsilon until the plan stands still; return the state, the repeats, and whether it did."""
    step, change, value = _step(problem), float("inf"), float("inf")
    balanced = step == 1.0
    for iteration in range(1, max_iterations + 1):
        state = _stage(problem, state, 1.0, 1.0, _TIGHT, _MANY_ROUNDS, step)
        if float(state.change) < _PLAN_CHANGE and float(state.violation) < _PLAN_CHANGE:
            return state, iteration, True
        if not balanced:
            # On the way from a saddle to an optimum plans change more and more, while the objective falls: no swing.
            swings = float(state.change) > change and float(state.objective) >= value
            step = max(0.7 * step, _SMALLEST_STEP) if swings else min(1.15 * step, 1.0)
        change, value = float(state.change), float(state.objective)
    return state, max_iterations, False


def _step(problem: QuadraticProblem) -> float:
    """Return how far to go towards each new plan.

    With both marginals kept the objective falls with full steps (for costs that are distances it is concave there); with
    free ones full steps can swing to and fro.
    """
    return 1.0 if all(float(tau) == 1.0 for tau in problem.taus) else _FREE_STEP


@jax.jit
def settle(
    problem: QuadraticProblem, state: QuadraticState
) -> tuple[Float[Array, "n m"], Float[Array, " n"], Float[Array, " m"], Float[Array, ""]]:
    """Return the linearised cost at the plan of `state`, the potentials that fit it, and how far the marginals are off."""
    cost = linearised_cost(problem, state.plan, state.quadratic)
    scaled = cost / problem.epsilon
    u, v, violation = dense_sinkhorn(
        scaled, problem.a, problem.b, state.u, state.v, problem.taus, _TIGHT, 10 * _MANY_ROUNDS
    )
    return cost, u, v, violation


@jax.jit
def _stage(problem, state, factor, shrink, tolerance, rounds, step) -> QuadraticState:
    """Linearise at the plan, run Sinkhorn from the potentials at hand at `factor` times epsilon, and go there by `step`."""
    a, b = problem.a, problem.b
    cost = linearised_cost(problem, state.plan, state.quadratic) / (problem.epsilon * factor)
    # Potentials are over epsilon, so they grow when it shrinks.
    u, v, violation = dense_sinkhorn(cost, a, b, state.u * shrink, state.v * shrink, problem.taus, tolerance, rounds)
    log_ratio = u[:, None] + v[None, :] - cost
    # Through the logarithm: with small taus the mass can be too small for a float.
    log_plan = jnp.log(a)[:, None] + jnp.log(b)[None, :] + log_ratio
    log_mass = jax.nn.logsumexp(log_plan)
    # Rows are off by the violation; without this the error would grow from repeat to repeat.
    plan = jnp.exp(log_plan - log_mass)
    quadratic = quadratic_cost(problem, plan)
    balanced = jnp.asarray([tau == 1.0 for tau in problem.taus])
    mass = jnp.where(balanced.any(), 1.0, jnp.exp(log_mass))
    value = problem.alpha * jnp.sum(quadratic * plan) + (1.0 - problem.alpha) * jnp.sum(problem.shared * plan)
    entropy = jnp.sum(jnp.where(plan > 0, plan * log_ratio, 0.0))
    objective = mass * value + problem.epsilon * (mass * entropy - mass + 1.0)
    for tau, weights, marginal in zip(problem.taus, (a, b), (plan.sum(axis=1), plan.sum(axis=0)), strict=True):
        penalty = _divergence(mass * marginal, weights) * tau / jnp.maximum(1.0 - tau, 1e-12)
        objective += problem.epsilon * jnp.where(tau == 1.0, 0.0, penalty)
    change = jnp.abs(plan - state.plan).sum()
    plan, quadratic = state.plan + step * (plan - state.plan), state.quadratic + step * (quadratic - state.quadratic)
    return QuadraticState(plan, quadratic, u, v, log_mass, objective, change, violation)


def _divergence(p: Float[Array, " n"], q: Float[Array, " n"]) -> Float[Array, ""]:
    """Return ``KL(p | q)`` of masses: ``sum p log(p / q) - p + q``."""
    used = (p > 0) & (q > 0)
    ratio = jnp.where(used, p, 1.0) / jnp.where(used, q, 1.0)
    return jnp.sum(jnp.where(used, p * jnp.log(ratio), 0.0) - p + q)
