"""A solved quadratic problem as a linear one: features in which the linearised cost is an inner product.

At the solved plan the linearised cost is ``2 alpha (sum_k cX(x, x_k)^2 p_k + sum_l cY(y, y_l)^2 q_l - 2 cX(x, .) P cY(., y))``
up to a constant, plus the cost between shared features in fused problems. So it is defined for any pair of cells, also ones
that were not solved over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot._blocks import matmul
from scgenot._sizes import pad_with, padded_size
from scgenot.costs import Anchored, Cost
from scgenot.coupling.quadratic._pairs import PairProfile

_BLOCK = 4096
# Use the first rank (doubled from this one) whose largest entrywise error is at most `_ERROR * epsilon`; the full rank is exact.
# Measured for Euclidean costs, 500 cells, epsilon .002: 128 directions for d = 3, all for d = 30 between the anchors, whose
# distance 0 to themselves is a kink; 256 between other cells, where rank 256 errs by .003 epsilon.
_FIRST_RANK = 64
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
        cells, blocks = np.asarray(cells), []
        # Cells and anchors are padded outside of JAX, so that another number of either compiles nothing.
        anchors = padded_size(self.map.shape[0])
        map_ = pad_with(self.map, anchors, 0.0)
        mass = None if self.mass is None else pad_with(self.mass, anchors, 0.0)
        for start in range(0, len(cells), _BLOCK):
            block = cells[start : start + _BLOCK]
            costs = self.anchored(block) / np.float32(self.scale)
            costs = np.pad(costs, ((0, padded_size(len(block)) - len(block)), (0, anchors - costs.shape[1])))
            parts = np.asarray(_bilinear(costs, map_, mass, self.offset))[: len(block)]
            if self.mass is not None and self.one_first:
                parts = parts[:, np.r_[: self.map.shape[1], self.map.shape[1] + 1, self.map.shape[1]]]
            if self.weight is not None:
                own = self.shared_features(block, None if shared is None else shared[start : start + _BLOCK])
                weight = np.full((len(own), 1), self.weight, np.float32)
                parts = np.concatenate([parts, weight, np.asarray(own)], axis=1)
            blocks.append(parts)
        return jax.device_put(np.concatenate(blocks))

    def swapped(self) -> Lift:
        """Return the same lift: it does not depend on which side is the source."""
        return self

    def shared_features(self, cells, shared) -> Float[Array, "n s"]:
        """Return the shared features: the user's, or those by what is known of pairs."""
        return jax.device_put(np.asarray(shared, np.float32)) if self.profile is None else self.profile(cells)


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
    features = matmul(costs, map_)
    if mass is None:
        return features
    square = matmul(jnp.square(costs), mass) + offset
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
            return matmul(x, y.T)
        end = self.split
        shared = self.cost(x[:, end + 1 :], y[:, end + 1 :])
        return matmul(x[:, :end], y[:, :end].T) + x[:, end][:, None] * y[:, end][None, :] * shared


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
    probes: tuple[Float[Array | np.ndarray, "p dx"], Float[Array | np.ndarray, "q dy"]] | None = None,
) -> tuple[Lift, Lift]:
    """Return the lifts of both populations for a solved plan of mass 1.

    The bilinear term is kept in so many of its leading directions that no cost is off by more than .05 epsilon: between the
    anchors, or between `probes`, cells of both populations. Between anchors this takes more directions, for their distances
    to themselves; where other cells are to be coupled, some of these are what should be right.
    """
    plan, costs_x, costs_y = (np.asarray(array, np.float64) for array in (plan, *within))
    from_target = plan @ costs_y * (-4.0 * alpha)
    from_source = (-4.0 * alpha) * (plan.T @ costs_x)
    seen_x, seen_y = costs_x, costs_y
    if probes is not None:
        seen_x, seen_y = (
            np.asarray(side(cells), np.float64) / scale
            for side, cells, scale in zip(anchored, probes, scales, strict=True)
        )
    wanted = seen_x @ ((-4.0 * alpha) * plan) @ seen_y.T

    def maps(left, values, right):
        balance = np.sqrt(values)
        return from_target @ right / balance, from_source @ left / balance

    def error(found):
        map_x, map_y = maps(*found)
        return np.abs((seen_x @ map_x) @ (seen_y @ map_y).T - wanted).max()

    found = _truncated(costs_x @ from_target, _ERROR * epsilon, error)
    map_x, map_y = (jax.device_put(np.asarray(one, np.float32)) for one in maps(*found))
    mass_x, mass_y = (jax.device_put(np.asarray(2.0 * alpha * plan.sum(axis=axis), np.float32)) for axis in (1, 0))
    return (
        Lift(anchored[0], scales[0], map_x, mass_x, offset),
        Lift(anchored[1], scales[1], map_y, mass_y, 0.0, True),
    )


Factors: TypeAlias = tuple[Float[np.ndarray, "n r"], Float[np.ndarray, " r"], Float[np.ndarray, "m r"]]


def _truncated(
    matrix: Float[np.ndarray, "n m"], most: float, error: Callable[[Factors], float] | None = None
) -> Factors:
    """Return leading singular vectors and values, so many that the error (of entries, unless told) is at most `most`."""
    from sklearn.utils.extmath import randomized_svd

    rank, full = _FIRST_RANK, min(matrix.shape)
    matrix = np.asarray(matrix, np.float64)
    while True:
        if 2 * rank > full:
            left, values, right = np.linalg.svd(matrix, full_matrices=False)
        else:
            left, values, right = randomized_svd(matrix, rank, n_iter=3, random_state=0)
        # Costs are known in single precision: below this is rounding, which would be divided by.
        keep = values > 1e-9 * max(values[0], 1e-30)
        found = left[:, keep], values[keep], right[keep].T
        if not keep.any():
            return np.zeros((matrix.shape[0], 1)), np.ones(1), np.zeros((matrix.shape[1], 1))
        off = error(found) if error else np.abs((found[0] * found[1]) @ found[2].T - matrix).max()
        if 2 * rank > full or off <= most:
            return found
        rank *= 2


def anchor_lifts(
    anchored: Anchored, within: Float[np.ndarray, "k k"], scale: float, epsilon: float
) -> tuple[Lift, Lift]:
    """Return lifts for costs over one joint population, exact wherever one of the two cells is an anchor.

    Between two other cells the cost is that of the Nystroem approximation: ``c(x, .) W^-1 c(., y)``, W among anchors.
    """
    left, values, right = _truncated(within / scale, _ERROR * epsilon)
    to_source, to_target = (jax.device_put(np.asarray(side / np.sqrt(values), np.float32)) for side in (right, left))
    return Lift(anchored, scale, to_source), Lift(anchored, scale, to_target)
