"""Entropic Gromov-Wasserstein on two matrices of costs: linearise, solve, repeat, with epsilon annealed."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import rel_entr
from jaxtyping import Array, Bool, Float, Int

from scgenot._progress import SILENT, Progress
from scgenot.coupling.quadratic._problem import QuadraticProblem, linearised_cost, quadratic_cost
from scgenot.sinkhorn import dense_sinkhorn

# Epsilons on the way down to the last one: from 50 times, each is 1.7 times smaller. Not tuned by itself: with it the gene
# panels and SNARE-seq find their optima (`benchmarks.couplings`); fewer were not tried.
_STAGES = 8
# Rounds of Sinkhorn (eleven iterations each) for one linearisation. On the way a plan need not be exact: the next cost is another
# one. At the end it must be: objectives of starts compare only where marginals are met.
_ROUNDS, _MANY_ROUNDS = 3, 8
_LOOSE, _TIGHT = 1e-3, 1e-4
# The marginals of a linearised problem are met ten times better than the plan has to stand still, so that what is left to
# change is the plan's.
_INNER = 0.1
# Step towards a new plan where marginals are free: full steps can swing to and fro. The step adapts, so that its first value and
# the factors matter little; below the smallest one polishing would crawl.
_FREE_STEP, _SMALLEST_STEP = 0.7, 0.05
_SHORTER, _LONGER = 0.7, 1.15
# Linearisations a compiled call: between two calls an interrupt is heard and progress is told.
A_CALL = 20


class Limits(NamedTuple):
    """When a plan counts as settled, and how many linearisations may be spent on that."""

    tolerance: float = 1e-3
    linearisations: int = 200


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuadraticState:
    """A plan of mass 1, the potentials (over epsilon) that gave it, and how far it is from settled.

    ``quadratic`` is the quadratic cost at the plan, ``log_mass`` the logarithm of the mass that the plan was divided by, ``change`` the L1 distance to the plan before, ``violation`` that of
    the row marginals, ``objective`` the value of the problem.
    """

    plan: Float[Array | np.ndarray, "n m"]
    quadratic: Float[Array | np.ndarray, "n m"]
    u: Float[Array | np.ndarray, " n"]
    v: Float[Array | np.ndarray, " m"]
    log_mass: Float[Array | np.ndarray, ""]
    objective: Float[Array | np.ndarray, ""]
    change: Float[Array | np.ndarray, ""]
    violation: Float[Array | np.ndarray, ""]

    def scaled(self, shrink: float) -> QuadraticState:
        """The same with potentials over an epsilon that is `shrink` times smaller."""
        return dataclasses.replace(self, u=np.asarray(self.u) * shrink, v=np.asarray(self.v) * shrink)


def solve_from(problem: QuadraticProblem, plan: Float[Array | np.ndarray, "n m"], anneal: float) -> QuadraticState:
    """Follow a start from `anneal` times epsilon down to epsilon."""
    return _annealed(problem, plan, np.float32(max(anneal, 1.0)), np.float32(_step(problem)))


@jax.jit
def _annealed(problem: QuadraticProblem, plan, anneal, step) -> QuadraticState:
    factors, shrinks = _schedule(anneal, 1)
    last = len(factors) - 1

    def stage(k, state):
        exact = k == last
        return _stage(
            problem,
            state,
            factors[k],
            shrinks[k],
            jnp.where(exact, _TIGHT, _LOOSE),
            jnp.where(exact, _MANY_ROUNDS, _ROUNDS),
            jnp.where(exact, 1.0, step),
        )

    return jax.lax.fori_loop(0, len(factors), stage, _start(problem, plan))


def iterate(
    problem: QuadraticProblem, plan: Float[Array, "n m"], anneal: float, relaxed: bool, repeats: int
) -> QuadraticState:
    """Do about what :func:`solve_from` and :func:`polish` do with a fixed number of repeats, inside compiled code."""
    factors, shrinks = _schedule(anneal, repeats)
    step = _FREE_STEP if relaxed else 1.0
    body = lambda k, state: _stage(problem, state, factors[k], shrinks[k], _TIGHT, _ROUNDS, step)
    return jax.lax.fori_loop(0, len(factors), body, _start(problem, plan))


def plan_for(problem: QuadraticProblem, cost: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Return the entropic plan of a linear cost with the marginals of the problem, roughly."""
    scaled = cost / problem.epsilon
    zeros = jnp.zeros_like(problem.a), jnp.zeros_like(problem.b)
    u, v, _ = dense_sinkhorn(scaled, problem.a, problem.b, *zeros, (1.0, 1.0), _TIGHT, _MANY_ROUNDS)
    return problem.a[:, None] * problem.b[None, :] * jnp.exp(u[:, None] + v[None, :] - scaled)


def _schedule(anneal, repeats: int) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Return what multiplies epsilon in each repeat, and what multiplies potentials before it."""
    factors = jnp.concatenate([jnp.geomspace(anneal, 1.0, _STAGES), jnp.ones(repeats)])
    return factors, jnp.concatenate([jnp.ones(1), factors[:-1] / factors[1:]])


def _start(problem: QuadraticProblem, plan) -> QuadraticState:
    n, m = plan.shape
    plan, unknown = plan / plan.sum(), jnp.asarray(jnp.inf)
    zeros = jnp.zeros(n), jnp.zeros(m), jnp.zeros(())
    return QuadraticState(plan, quadratic_cost(problem, plan), *zeros, unknown, unknown, unknown)


def polish(
    problem: QuadraticProblem, state: QuadraticState, limits: Limits, progress: Progress = SILENT
) -> tuple[QuadraticState, int, bool]:
    """Repeat at epsilon until the plan stands still; return the state, the repeats, and whether it did."""
    walk, done, tolerance = walk_from(problem, state), 0, np.float32(limits.tolerance)
    while done < limits.linearisations and not bool(walk.settled):
        walk, more = walked(problem, walk, tolerance, min(A_CALL, limits.linearisations - done))
        done += int(more)
        progress.advance(0, change=float(walk.state.change), violation=float(walk.state.violation))
    return walk.state, done, bool(walk.settled)


class Walk(NamedTuple):
    """Where polishing is: the state, the step, the change and the value before, and whether the plan stands still."""

    state: QuadraticState
    step: Float[Array | np.ndarray, ""]
    change: Float[Array | np.ndarray, ""]
    value: Float[Array | np.ndarray, ""]
    settled: Bool[Array, ""] | bool


def walk_from(problem: QuadraticProblem, state: QuadraticState) -> Walk:
    """Return the beginning of a walk from a state."""
    return Walk(state, np.float32(_step(problem)), np.float32(np.inf), np.float32(np.inf), False)


@jax.jit
def walked(problem: QuadraticProblem, walk: Walk, tolerance, most) -> tuple[Walk, Int[Array, ""]]:
    """Go on until the plan stands still, `most` linearisations at most; return where that led, and how many they were."""
    balanced = (problem.taus[0] == 1.0) & (problem.taus[1] == 1.0)

    def again(carry):
        walk, done = carry
        state = _stage(problem, walk.state, 1.0, 1.0, _INNER * tolerance, _MANY_ROUNDS, walk.step)
        # On the way from a saddle to an optimum plans change more and more, while the objective falls: no swing.
        swings = (state.change > walk.change) & (state.objective >= walk.value)
        shorter = jnp.maximum(_SHORTER * walk.step, _SMALLEST_STEP)
        step = jnp.where(swings, shorter, jnp.minimum(_LONGER * walk.step, 1.0))
        settled = (state.change < tolerance) & (state.violation < tolerance)
        return Walk(state, jnp.where(balanced, 1.0, step), state.change, state.objective, settled), done + 1

    unfinished = lambda carry: (carry[1] < most) & ~carry[0].settled
    walk = jax.tree.map(jnp.asarray, walk)
    walk = walk._replace(state=dataclasses.replace(walk.state, quadratic=quadratic_cost(problem, walk.state.plan)))
    return jax.lax.while_loop(unfinished, again, (walk, 0))


def _step(problem: QuadraticProblem) -> float:
    """Return how far to go towards each new plan.

    With both marginals kept the objective falls with full steps (for costs that are distances it is concave there); with
    free ones full steps can swing to and fro.
    """
    return 1.0 if problem.balanced else _FREE_STEP


@jax.jit
def settle(
    problem: QuadraticProblem, state: QuadraticState, tolerance: Float[Array | np.ndarray, ""] | float = 1e-3
) -> tuple[Float[Array, "n m"], Float[Array, " n"], Float[Array, " m"], Float[Array, ""]]:
    """Return the linearised cost at the plan of `state`, the potentials that fit it, and how far the marginals are off."""
    cost = linearised_cost(problem, state.plan, state.quadratic)
    scaled = cost / problem.epsilon
    u, v, violation = dense_sinkhorn(
        scaled, problem.a, problem.b, state.u, state.v, problem.taus, _INNER * tolerance, 10 * _MANY_ROUNDS
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
    """Return ``KL(p | q)`` of masses: ``sum p log(p / q) - p + q``; cells without weight get no mass."""
    return jnp.sum(jnp.where(q > 0, rel_entr(p, q), 0.0) - p + q)
