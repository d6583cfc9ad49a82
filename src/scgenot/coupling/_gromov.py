"""Entropic Gromov-Wasserstein on two matrices of costs: linearise, solve, repeat, with epsilon annealed."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_STAGES = 8
_ROUNDS, _MANY_ROUNDS = 3, 8
_SCALINGS = 10
_LOOSE, _TIGHT = 1e-3, 1e-4
_PLAN_CHANGE = 1e-3
_RANK_TOLERANCE = 1e-6


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("within_source", "within_target", "shared", "a", "b", "alpha", "epsilon", "bases", "values"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class QuadraticProblem:
    """A quadratic or fused problem, small enough to be dense.

    Minimises ``alpha sum |cX_ik - cY_jl|^2 P_ij P_kl + (1 - alpha) <C, P> + epsilon KL(P | a b')`` over the plans
    with marginals a and b.

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
    bases: tuple[Float[Array, "n r"], Float[Array, "m s"]]
    values: tuple[Float[Array, " r"], Float[Array, " s"]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuadraticState:
    """A plan, the potentials (over epsilon) that gave it, and how far it is from settled.

    ``quadratic`` is the quadratic cost at the plan, ``change`` the L1 distance to the plan before, ``violation`` that of
    the row marginals, ``objective`` the value of the problem.
    """

    plan: Float[Array, "n m"]
    quadratic: Float[Array, "n m"]
    u: Float[Array, " n"]
    v: Float[Array, " m"]
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
) -> QuadraticProblem:
    """Return the problem with its costs decomposed; without `shared` features it is purely quadratic."""
    if shared is None:
        shared, alpha = jnp.zeros((len(a), len(b)), jnp.float32), 1.0
    decomposed = [_leading(costs) for costs in (within_source, within_target)]
    bases, values = zip(*decomposed, strict=True)
    return QuadraticProblem(within_source, within_target, shared, a, b, alpha, epsilon, bases, values)


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


def linearised_cost(problem: QuadraticProblem, quadratic: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Return the gradient of the unregularised problem: the linear cost that a stationary plan is optimal for.

    The factor 2 is the derivative of a quadratic form. Solvers that leave it out mean half of our epsilon.
    """
    return 2.0 * problem.alpha * quadratic + (1.0 - problem.alpha) * problem.shared


def solve_from(problem: QuadraticProblem, plan: Float[Array, "n m"], anneal: float) -> QuadraticState:
    """Follow a start from `anneal` times epsilon down to epsilon."""
    n, m = plan.shape
    state = QuadraticState(
        plan, quadratic_cost(problem, plan), jnp.zeros(n), jnp.zeros(m), *3 * (jnp.asarray(jnp.inf),)
    )
    factors = np.geomspace(max(anneal, 1.0), 1.0, _STAGES)
    for before, factor in zip([factors[0], *factors], factors, strict=False):
        state = _stage(problem, state, factor, before / factor, _LOOSE, _ROUNDS)
    # Objectives of starts compare only where the marginals are met: a plan that misses them can be cheaper than any.
    return _stage(problem, state, 1.0, 1.0, _TIGHT, _MANY_ROUNDS)


def polish(problem: QuadraticProblem, state: QuadraticState, max_iterations: int) -> tuple[QuadraticState, int, bool]:
    """Repeat at epsilon until the plan stands still; return the state, the repeats, and whether it did."""
    for iteration in range(1, max_iterations + 1):
        state = _stage(problem, state, 1.0, 1.0, _TIGHT, _MANY_ROUNDS)
        if float(state.change) < _PLAN_CHANGE and float(state.violation) < _PLAN_CHANGE:
            return state, iteration, True
    return state, max_iterations, False


@jax.jit
def _stage(problem, state, factor, shrink, tolerance, rounds) -> QuadraticState:
    """Linearise at the plan, and run Sinkhorn from the potentials at hand, at `factor` times epsilon."""
    cost = linearised_cost(problem, state.quadratic) / (problem.epsilon * factor)
    # Potentials are over epsilon, so they grow when it shrinks.
    u, v, violation = _sinkhorn(cost, problem.a, problem.b, state.u * shrink, state.v * shrink, tolerance, rounds)
    log_ratio = u[:, None] + v[None, :] - cost
    plan = problem.a[:, None] * problem.b[None, :] * jnp.exp(log_ratio)
    # Rows are off by the violation; without this the error would grow from repeat to repeat.
    plan = plan / plan.sum()
    quadratic = quadratic_cost(problem, plan)
    value = problem.alpha * jnp.sum(quadratic * plan) + (1.0 - problem.alpha) * jnp.sum(problem.shared * plan)
    entropy = jnp.sum(jnp.where(plan > 0, plan * log_ratio, 0.0))
    change = jnp.abs(plan - state.plan).sum()
    return QuadraticState(plan, quadratic, u, v, value + problem.epsilon * entropy, change, violation)


def _sinkhorn(cost, a, b, u, v, tolerance, rounds):
    """Run rounds of Sinkhorn on a dense cost over epsilon: one iteration on logarithms, then several on their exponential.

    Matrix-vector products are an order of magnitude cheaper than sums of exponentials, and are safe as long as scalings
    stay near 1, which the iteration on logarithms sees to; where they do not, its result is kept.
    """
    log_a, log_b = jnp.log(a), jnp.log(b)

    def more(carry):
        return (carry[2] > tolerance) & (carry[3] < rounds)

    def one_round(carry):
        u, v, _, count = carry
        new_u = -jax.nn.logsumexp(log_b[None, :] + v[None, :] - cost, axis=1)
        violation = jnp.sum(a * jnp.abs(jnp.expm1(u - new_u)))
        new_v = -jax.nn.logsumexp(log_a[:, None] + new_u[:, None] - cost, axis=0)
        ratio = jnp.exp(new_u[:, None] + new_v[None, :] - cost)

        def scale(_, scalings):
            rows = 1.0 / (ratio @ (b * scalings[1]))
            return rows, 1.0 / ((a * rows) @ ratio)

        rows, columns = jax.lax.fori_loop(0, _SCALINGS, scale, (jnp.ones_like(a), jnp.ones_like(b)))
        safe = jnp.isfinite(rows).all() & jnp.isfinite(columns).all() & (rows > 0).all() & (columns > 0).all()
        rows, columns = jnp.where(safe, rows, 1.0), jnp.where(safe, columns, 1.0)
        return new_u + jnp.log(rows), new_v + jnp.log(columns), violation, count + 1

    u, v, violation, _ = jax.lax.while_loop(more, one_round, (u, v, jnp.asarray(jnp.inf), 0))
    return u, v, violation
