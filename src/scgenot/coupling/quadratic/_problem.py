"""The quadratic and fused problems: costs, objective, and its linearisation at a plan."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_RANK_TOLERANCE = 1e-6
_FEWEST_DIRECTIONS, _SHARE_OF_DIRECTIONS = 16, 16


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
        products with them instead of the whole matrices make a linearisation as cheap as a Sinkhorn iteration. ``None``: not
        computed.
    """

    within_source: Float[Array, "n n"]
    within_target: Float[Array, "m m"]
    shared: Float[Array, "n m"]
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    alpha: Float[Array, ""] | float
    epsilon: Float[Array, ""] | float
    taus: tuple[Float[Array, ""] | float, Float[Array, ""] | float]
    bases: tuple[Float[Array, "n r"], Float[Array, "m s"]] | None
    values: tuple[Float[Array, " r"], Float[Array, " s"]] | None

    def rough(self) -> QuadraticProblem:
        """The same problem with few leading directions of both costs: enough to tell starts apart, and much faster."""
        if self.bases is None:
            return self
        few = max(_FEWEST_DIRECTIONS, min(len(self.a), len(self.b)) // _SHARE_OF_DIRECTIONS)
        bases, values = [], []
        for basis, value in zip(self.bases, self.values, strict=True):
            leading = np.sort(np.argsort(-np.abs(np.asarray(value)))[:few])
            bases.append(basis[:, leading])
            values.append(value[leading])
        return dataclasses.replace(self, bases=tuple(bases), values=tuple(values))


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


def dense_problem(
    within_source: Float[Array, "n n"],
    within_target: Float[Array, "m m"],
    shared: Float[Array, "n m"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    alpha: Float[Array, ""] | float,
    epsilon: Float[Array, ""] | float,
    taus: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
) -> QuadraticProblem:
    """Return the problem without decompositions, which cost more than they save where it is solved only once."""
    return QuadraticProblem(within_source, within_target, shared, a, b, alpha, epsilon, taus, None, None)


@jax.jit
def quadratic_cost(problem: QuadraticProblem, plan: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Return ``sum_kl |cX_ik - cY_jl|^2 P_kl``, without ever holding four indices (Peyre et al. 2016, proposition 1)."""
    rows = jnp.square(problem.within_source) @ plan.sum(axis=1)
    columns = jnp.square(problem.within_target) @ plan.sum(axis=0)
    if problem.bases is not None and sum(basis.shape[1] for basis in problem.bases) < min(plan.shape):
        (left, right), (left_values, right_values) = problem.bases, problem.values
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
