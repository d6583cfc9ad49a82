"""Entropic Gromov-Wasserstein on two matrices of costs: linearise, solve, repeat, with epsilon annealed."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot.coupling._dense import dense_sinkhorn

_STAGES = 8
_ROUNDS, _MANY_ROUNDS = 3, 8
_LOOSE, _TIGHT = 1e-3, 1e-4
_PLAN_CHANGE = 1e-3
_FREE_STEP, _SMALLEST_STEP = 0.7, 0.05
_RANK_TOLERANCE = 1e-6


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("within_source", "within_target", "shared", "a", "b", "alpha", "epsilon", "taus", "bases", "values"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class QuadraticProblem:
    """A quadratic or fused problem, small enough to be dense.

    Minimises ``alpha sum |cX_ik - cY_jl|^2 P_ij P_kl / mass(P) + (1 - alpha) <C, P> + epsilon KL(P | a b')`` over the plans
    with marginals a and b, or with a penalty ``lambda KL(P 1 | a)``, ``lambda = epsilon tau / (1 - tau)``, for a marginal
    whose tau is below 1. Divided by the mass (1 in a balanced problem), the quadratic term grows with the mass as the linear
    one does. Undivided it grows with its square, so that a plan could escape its cost by losing all mass, or blow up.

    Attributes
    ----------
    within_source, within_target
        Scaled costs within each population.
    shared
        Scaled costs between shared features; zeros in a purely quadratic problem.
    a, b
        Marginals.
    alpha
        Weight of the quadratic term; 1 in a purely quadratic problem.
    epsilon
        Factor of the entropy.
    taus
        How strictly each marginal is kept, in (0, 1].
    bases, values
        Leading eigenvectors and eigenvalues of the two costs within. Few suffice (d + 2 for squared Euclidean costs), and
        products with them instead of the whole matrices make a linearisation as cheap as a Sinkhorn iteration.
    """

    within_source: Float[Array, "n n"]
    within_target: Float[Array, "m m"]
    shared: Float[Array, "n m"]
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    alpha: Float[Array, ""] | float
    epsilon: Float[Array, ""] | float
    taus: tuple[Float[Array, ""] | float, Float[Array, ""] | float]
    bases: tuple[Float[Array, "n r"], Float[Array, "m s"]]
    values: tuple[Float[Array, " r"], Float[Array, " s"]]


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


def quadratic_problem(
    within_source: Float[Array, "n n"],
    within_target: Float[Array, "m m"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    epsilon: float,
    *,
    shared: Float[Array, "n m"] | None = None,
    alpha: float = 1.0,
    taus: tuple[float, float] = (1.0, 1.0),
) -> QuadraticProblem:
    """Return the problem with its costs decomposed; without `shared` features it is purely quadratic."""
    if shared is None:
        shared, alpha = jnp.zeros((len(a), len(b)), jnp.float32), 1.0
    decomposed = [_leading(costs) for costs in (within_source, within_target)]
    bases, values = zip(*decomposed, strict=True)
    return QuadraticProblem(within_source, within_target, shared, a, b, alpha, epsilon, taus, bases, values)


def _leading(costs: Float[Array, "n n"]) -> tuple[Float[Array, "n r"], Float[Array, " r"]]:
    values, vectors = np.linalg.eigh(np.asarray(costs, np.float64))
    keep = np.abs(values) > _RANK_TOLERANCE * np.abs(values).max()
    return jnp.asarray(vectors[:, keep], jnp.float32), jnp.asarray(values[keep], jnp.float32)


@jax.jit
def quadratic_cost(problem: QuadraticProblem, plan: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Return ``sum_kl |cX_ik - cY_jl|^2 P_kl``, without ever holding four indices (Peyre et al. 2016, proposition 1)."""
    rows = jnp.square(problem.within_source) @ plan.sum(axis=1)
    columns = jnp.square(problem.within_target) @ plan.sum(axis=0)
    (left, right), (left_values, right_values) = problem.bases, problem.values
    if left.shape[1] + right.shape[1] < min(plan.shape):
        middle = left_values[:, None] * (left.T @ plan @ right) * right_values[None, :]
        crossed = (left @ middle) @ right.T
    else:
        crossed = problem.within_source @ (plan @ problem.within_target.T)
    return rows[:, None] + columns[None, :] - 2.0 * crossed


def linearised_cost(
    problem: QuadraticProblem, plan: Float[Array, "n m"], quadratic: Float[Array, "n m"]
) -> Float[Array, "n m"]:
    """Return the gradient of the unregularised problem: the linear cost that a stationary plan is optimal for.

    The factor 2 is the derivative of a quadratic form. Solvers that leave it out mean half of our epsilon. The constant
    is the derivative of the division by the mass; it matters where a marginal is relaxed.
    """
    return problem.alpha * (2.0 * quadratic - jnp.sum(quadratic * plan)) + (1.0 - problem.alpha) * problem.shared


def solve_from(problem: QuadraticProblem, plan: Float[Array, "n m"], anneal: float) -> QuadraticState:
    """Follow a start from `anneal` times epsilon down to epsilon."""
    n, m = plan.shape
    plan = plan / plan.sum()
    unknown = jnp.asarray(jnp.inf)
    state = QuadraticState(
        plan, quadratic_cost(problem, plan), jnp.zeros(n), jnp.zeros(m), jnp.zeros(()), unknown, unknown, unknown
    )
    factors = np.geomspace(max(anneal, 1.0), 1.0, _STAGES)
    for before, factor in zip([factors[0], *factors], factors, strict=False):
        state = _stage(problem, state, factor, before / factor, _LOOSE, _ROUNDS, _step(problem))
    # Objectives of starts compare only where the marginals are met: a plan that misses them can be cheaper than any.
    return _stage(problem, state, 1.0, 1.0, _TIGHT, _MANY_ROUNDS, 1.0)


def polish(problem: QuadraticProblem, state: QuadraticState, max_iterations: int) -> tuple[QuadraticState, int, bool]:
    """Repeat at epsilon until the plan stands still; return the state, the repeats, and whether it did."""
    step, before = _step(problem), float("inf")
    balanced = step == 1.0
    for iteration in range(1, max_iterations + 1):
        state = _stage(problem, state, 1.0, 1.0, _TIGHT, _MANY_ROUNDS, step)
        if float(state.change) < _PLAN_CHANGE and float(state.violation) < _PLAN_CHANGE:
            return state, iteration, True
        if not balanced:
            step = max(0.7 * step, _SMALLEST_STEP) if float(state.change) > before else min(1.15 * step, 1.0)
        before = float(state.change)
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
