"""The quadratic and fused problems: costs, objective, its linearisation at a plan, and the shape it is solved in."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot._blocks import matmul

# Eigenvalues below this share of the largest one are rounding of the costs, which are single precision.
_RANK_TOLERANCE = 1e-6
# Directions that tell starts apart. The best few starts are polished with whole costs, so that these need not be exact: with them
# the gene panels and SNARE-seq find their optima (`benchmarks.couplings`).
_FEWEST_DIRECTIONS, _SHARE_OF_DIRECTIONS = 16, 16
# Cells are padded to one of eight sizes an octave: at most 12 % more cells, and as many programs as there are sizes.
_SIZES_AN_OCTAVE, _SMALLEST_STEP = 8, 8
# A marginal whose tau is nearer to 1 counts as kept where starts are compared: its penalty, divided by 1 - tau, would compare what
# rounding left of the marginals (at a tau of .9999 and an epsilon of .1 objectives of .6 became 2.3 to 5.8).
_KEPT = 1e-4
_number = partial(np.asarray, dtype=np.float32)


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
        Marginals; cells that only fill up a shape have none.
    alpha
        Weight of the quadratic term; 1 in a purely quadratic problem.
    epsilon
        Factor of the entropy.
    taus
        How strictly each marginal is kept, in (0, 1].
    bases, values
        Leading eigenvectors and eigenvalues of the two costs within. Few suffice (d + 2 for squared Euclidean costs), and
        products with them instead of the whole matrices make a linearisation as cheap as a Sinkhorn iteration. ``None``: the
        whole matrices are used.
    """

    within_source: Float[Array | np.ndarray, "n n"]
    within_target: Float[Array | np.ndarray, "m m"]
    shared: Float[Array | np.ndarray, "n m"]
    a: Float[Array | np.ndarray, " n"]
    b: Float[Array | np.ndarray, " m"]
    alpha: Float[Array | np.ndarray, ""] | float
    epsilon: Float[Array | np.ndarray, ""] | float
    taus: tuple[Float[Array | np.ndarray, ""] | float, Float[Array | np.ndarray, ""] | float]
    bases: tuple[Float[Array | np.ndarray, "n r"], Float[Array | np.ndarray, "m s"]] | None = None
    values: tuple[Float[Array | np.ndarray, " r"], Float[Array | np.ndarray, " s"]] | None = None

    @property
    def balanced(self) -> bool:
        """Whether both marginals are kept."""
        return all(float(tau) == 1.0 for tau in self.taus)

    def at(self, epsilon: float) -> QuadraticProblem:
        """The same problem at another epsilon: what a missed marginal costs stays the same, so that taus change."""
        before = float(self.epsilon)
        if epsilon == before:
            return self
        taus = []
        for tau in map(float, self.taus):
            strength = before * tau / (1.0 - tau) if tau < 1.0 else np.inf
            relaxed = epsilon / (strength + epsilon)
            taus.append(_number(1.0 if relaxed < _KEPT else 1.0 - relaxed))
        return dataclasses.replace(self, epsilon=_number(epsilon), taus=tuple(taus))

    def unit(self) -> float:
        """What the two terms are worth where nothing is known: epsilon is small or large by this."""
        a, b = np.asarray(self.a, np.float64), np.asarray(self.b, np.float64)
        within = np.sqrt((a @ np.square(self.within_source) @ a) * (b @ np.square(self.within_target) @ b))
        alpha = float(self.alpha)
        return float(alpha * within + (1.0 - alpha) * (a @ np.abs(self.shared) @ b))


def quadratic_problem(
    within_source: Float[Array | np.ndarray, "n n"],
    within_target: Float[Array | np.ndarray, "m m"],
    a: Float[Array | np.ndarray, " n"],
    b: Float[Array | np.ndarray, " m"],
    epsilon: float,
    *,
    shared: Float[Array | np.ndarray, "n m"] | None = None,
    alpha: float = 1.0,
    taus: tuple[float, float] = (1.0, 1.0),
) -> QuadraticProblem:
    """Return the problem; without `shared` features it is purely quadratic."""
    if shared is None:
        shared, alpha = np.zeros((len(a), len(b)), np.float32), 1.0
    return dense_problem(within_source, within_target, shared, a, b, alpha, epsilon, taus)


def dense_problem(
    within_source: Float[Array | np.ndarray, "n n"],
    within_target: Float[Array | np.ndarray, "m m"],
    shared: Float[Array | np.ndarray, "n m"],
    a: Float[Array | np.ndarray, " n"],
    b: Float[Array | np.ndarray, " m"],
    alpha: Float[Array, ""] | float,
    epsilon: Float[Array, ""] | float,
    taus: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
) -> QuadraticProblem:
    """Return the problem as it stands: no decomposition, which costs more than it saves where it is solved only once."""
    return QuadraticProblem(within_source, within_target, shared, a, b, alpha, epsilon, taus)


def in_shape(problem: QuadraticProblem) -> tuple[QuadraticProblem, QuadraticProblem]:
    """Return the problem in one of a few shapes, and a rough one with few leading directions of both costs.

    Cells without mass fill up a shape, and directions with eigenvalue zero a rank, so that other data meet the programs that
    are there. The rough problem is enough to tell starts apart, and much faster.
    """
    whole = whole_in_shape(problem)
    sizes = len(whole.a), len(whole.b)
    few = max(_FEWEST_DIRECTIONS, min(sizes) // _SHARE_OF_DIRECTIONS)
    parts = [_leading(np.asarray(costs, np.float64)) for costs in (problem.within_source, problem.within_target)]
    rank = few
    while rank < max(len(values) for _, values in parts):
        rank *= 2
    rough = _with_directions(whole, parts, few)
    return (_with_directions(whole, parts, rank) if 2 * rank < min(sizes) else whole), rough


def whole_in_shape(problem: QuadraticProblem) -> QuadraticProblem:
    """Return the problem in one of a few shapes, with whole costs."""
    sizes = _padded_size(len(problem.a)), _padded_size(len(problem.b))
    whole = dataclasses.replace(
        problem,
        within_source=_padded(problem.within_source, sizes[0], sizes[0]),
        within_target=_padded(problem.within_target, sizes[1], sizes[1]),
        shared=_padded(problem.shared, *sizes),
        a=_padded(problem.a, sizes[0]),
        b=_padded(problem.b, sizes[1]),
        alpha=_number(problem.alpha),
        epsilon=_number(problem.epsilon),
        taus=tuple(_number(tau) for tau in problem.taus),
    )
    # On the device once; programs would move NumPy arrays there in each call.
    return jax.device_put(whole)


def _with_directions(problem: QuadraticProblem, parts, rank: int) -> QuadraticProblem:
    sizes = len(problem.a), len(problem.b)
    bases = tuple(_padded(vectors[:, :rank], size, rank) for (vectors, _), size in zip(parts, sizes, strict=True))
    values = tuple(_padded(one[:rank], rank) for _, one in parts)
    return dataclasses.replace(problem, bases=jax.device_put(bases), values=jax.device_put(values))


def _leading(costs: Float[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, " r"]]:
    """Return eigenvectors and eigenvalues of symmetric costs, the largest first."""
    values, vectors = np.linalg.eigh(costs)
    order = np.argsort(-np.abs(values))
    order = order[np.abs(values[order]) > _RANK_TOLERANCE * np.abs(values).max()]
    return vectors[:, order], values[order]


def _padded_size(n: int) -> int:
    step = max(2 ** int(np.log2(n)) // _SIZES_AN_OCTAVE, _SMALLEST_STEP)
    return -(-n // step) * step


def _padded(array, *shape: int) -> Float[np.ndarray, "..."]:
    array = np.asarray(array, np.float32)
    return np.pad(array, [(0, size - had) for size, had in zip(shape, array.shape, strict=True)])


@jax.jit
def quadratic_cost(problem: QuadraticProblem, plan: Float[Array | np.ndarray, "n m"]) -> Float[Array, "n m"]:
    """Return ``sum_kl |cX_ik - cY_jl|^2 P_kl``, without ever holding four indices (Peyre et al. 2016, proposition 1)."""
    rows = matmul(jnp.square(problem.within_source), plan.sum(axis=1))
    columns = matmul(jnp.square(problem.within_target), plan.sum(axis=0))
    if problem.bases is None:
        crossed = matmul(problem.within_source, matmul(plan, problem.within_target.T))
    else:
        (left, right), (left_values, right_values) = problem.bases, problem.values
        middle = left_values[:, None] * matmul(matmul(left.T, plan), right) * right_values[None, :]
        crossed = matmul(matmul(left, middle), right.T)
    return rows[:, None] + columns[None, :] - 2.0 * crossed


def linearised_cost(
    problem: QuadraticProblem, plan: Float[Array | np.ndarray, "n m"], quadratic: Float[Array | np.ndarray, "n m"]
) -> Float[Array, "n m"]:
    """Return the gradient of the unregularised problem: the linear cost that a stationary plan is optimal for.

    The factor 2 is the derivative of a quadratic form. Solvers that leave it out mean half of our epsilon. The constant
    is the derivative of the division by the mass; it matters where a marginal is relaxed.
    """
    return problem.alpha * (2.0 * quadratic - jnp.sum(quadratic * plan)) + (1.0 - problem.alpha) * problem.shared
