"""A solved quadratic problem as a linear one: features in which the linearised cost is an inner product.

At the solved plan the linearised cost is ``2 alpha (sum_k cX(x, x_k)^2 p_k + sum_l cY(y, y_l)^2 q_l - 2 cX(x, .) P cY(., y))``
up to a constant, plus the cost between shared features in fused problems. So it is defined for any pair of cells, also ones
that were not solved over.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot.costs import Anchored, Cost
from scgenot.coupling.quadratic._pairs import PairProfile

_BLOCK = 4096
# The bilinear term is kept in so many directions that its largest error is this share of epsilon, or in the last many.
_RANKS = (64, 256)
_ERROR = 0.05


@dataclasses.dataclass(frozen=True)
class Lift:
    """From cells of one population to features; costs follow from the features of both (:class:`Between`).

    Attributes
    ----------
    anchored
        Costs from cells to the anchors, the cells that the problem was solved over.
    scale
        What these costs are divided by.
    map
        From costs to the anchors to the features of the bilinear term.
    mass
        Weight of each anchor in the square term, times its factor; ``None`` without such a term.
    offset
        Constant that is added to the square term.
    one_first
        Whether the constant feature comes before the square term (target) or after it (source).
    weight
        Square root of the weight of the cost between shared features; ``None`` without them.
    profile
        Features by what is known of pairs, which serve as shared features; ``None`` where the user gives these.
    """

    anchored: Anchored
    scale: float
    map: Float[Array, "k r"]
    mass: Float[Array, " k"] | None = None
    offset: float = 0.0
    one_first: bool = False
    weight: float | None = None
    profile: PairProfile | None = None

    def __call__(
        self,
        cells: Float[Array | np.ndarray, "n d"],
        shared: Float[Array | np.ndarray, "n s"] | None = None,
    ) -> Float[Array, "n f"]:
        """Return the features of cells, block by block."""
        blocks = []
        for start in range(0, len(cells), _BLOCK):
            block = cells[start : start + _BLOCK]
            parts = _bilinear(jnp.asarray(self.anchored(block)) / self.scale, self.map, self.mass, self.offset)
            if self.mass is not None and self.one_first:
                parts = parts[:, np.r_[: self.map.shape[1], self.map.shape[1] + 1, self.map.shape[1]]]
            if self.weight is not None:
                own = self.shared_features(block, None if shared is None else shared[start : start + _BLOCK])
                parts = jnp.concatenate([parts, jnp.full((len(own), 1), self.weight), own], axis=1)
            blocks.append(parts)
        return jnp.concatenate(blocks)

    def swapped(self) -> Lift:
        """Return the same lift: it does not depend on which side is the source."""
        return self

    def shared_features(self, cells, shared) -> Float[Array, "n s"]:
        """Return the shared features: the user's, or those by what is known of pairs."""
        return jnp.asarray(shared, jnp.float32) if self.profile is None else self.profile(cells)


@dataclasses.dataclass(frozen=True)
class NoLift:
    """In place of a lift where costs of new cells do not follow from what is known: says so."""

    name: str

    def swapped(self) -> NoLift:
        """Return the same."""
        return self

    def __call__(self, cells: Float[Array | np.ndarray, "n d"], shared: None = None) -> Float[Array, "n f"]:
        raise ValueError(
            f"`cost`={self.name!r} is not symmetric, so that costs from the coupled cells to new ones do not follow from what is "
            "known of these. Couple all cells at once, or make it symmetric."
        )


@jax.jit
def _bilinear(costs, map_, mass, offset):
    features = costs @ map_
    if mass is None:
        return features
    square = jnp.square(costs) @ mass + offset
    return jnp.concatenate([features, square[:, None], jnp.ones_like(square)[:, None]], axis=1)


@dataclasses.dataclass(frozen=True)
class Between:
    """Costs between lifted cells: an inner product, plus a weighted cost of the features from `split` on.

    Attributes
    ----------
    split
        Where the inner product ends and the weight and the shared features begin; ``None`` without these.
    cost
        Cost between shared features.
    """

    split: int | None = None
    cost: Cost | None = None

    def __call__(self, x: Float[Array, "n f"], y: Float[Array, "m f"]) -> Float[Array, "n m"]:
        if self.split is None:
            return x @ y.T
        end = self.split
        shared = self.cost(x[:, end + 1 :], y[:, end + 1 :])
        return x[:, :end] @ y[:, :end].T + x[:, end][:, None] * y[:, end][None, :] * shared


def lifted_cost(split: int | None = None, cost: Cost | None = None) -> Cost:
    """Return the cost between lifted cells."""
    return Cost("linearised", Between(split, cost), symmetric=cost is None or cost.symmetric)


def lifts(
    anchored: tuple[Anchored, Anchored],
    within: tuple[Float[Array, "n n"], Float[Array, "m m"]],
    scales: tuple[float, float],
    plan: Float[Array, "n m"],
    alpha: float,
    offset: float,
    epsilon: float,
) -> tuple[Lift, Lift]:
    """Return the lifts of both populations for a solved plan of mass 1.

    The bilinear term is kept in its leading directions only: costs within a population have few (d + 2 for squared
    Euclidean ones).
    """
    plan, costs_x, costs_y = (np.asarray(array, np.float32) for array in (plan, *within))
    from_target = plan @ costs_y * (-4.0 * alpha)
    bilinear = costs_x @ from_target
    left, values, right = _truncated(bilinear, _ERROR * epsilon)
    map_x = from_target @ right
    map_y = (-4.0 * alpha) * (plan.T @ (costs_x @ left)) / values
    balance = np.sqrt(np.maximum(values, 1e-30))
    square = partial(jnp.asarray, dtype=jnp.float32)
    return (
        Lift(anchored[0], scales[0], square(map_x / balance), square(2.0 * alpha * plan.sum(axis=1)), offset),
        Lift(anchored[1], scales[1], square(map_y * balance), square(2.0 * alpha * plan.sum(axis=0)), 0.0, True),
    )


def _truncated(matrix: Float[np.ndarray, "n m"], error: float):
    """Return leading singular vectors and values, so many that no entry is off by more than `error`."""
    from sklearn.utils.extmath import randomized_svd

    for rank in _RANKS:
        if rank >= min(matrix.shape):
            left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
        else:
            left, values, right = randomized_svd(matrix, rank, n_iter=3, random_state=0)
        keep = values > 1e-6 * max(values[0], 1e-30)
        left, values, right = left[:, keep], values[keep], right[keep]
        if rank >= min(matrix.shape) or np.abs(matrix - (left * values) @ right).max() <= error:
            break
    if not len(values):
        return np.zeros((matrix.shape[0], 1)), np.ones(1), np.zeros((matrix.shape[1], 1))
    return left, values, right.T


def anchor_lifts(
    anchored: Anchored, within: Float[np.ndarray, "k k"], scale: float, epsilon: float
) -> tuple[Lift, Lift]:
    """Return lifts for costs over one joint population, exact wherever one of the two cells is an anchor.

    Between two other cells the cost is that of the Nystroem approximation: ``c(x, .) W^-1 c(., y)``, W among anchors.
    """
    left, values, right = _truncated(within / scale, _ERROR * epsilon)
    balance = np.sqrt(values)
    to_source, to_target = (jnp.asarray(side / balance, jnp.float32) for side in (right, left))
    return Lift(anchored, scale, to_source), Lift(anchored, scale, to_target)
