"""Costs between populations that lie apart: the source is moved first."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot.costs._anchored import AnchoredCost
from scgenot.costs._cost import Cost, CostLike
from scgenot.costs._registry import resolve_cost


@dataclasses.dataclass(frozen=True)
class Displaced:
    """A cost whose first argument is moved by `shift`. Equal ones compare equal, so nothing recompiles."""

    cost: Cost
    shift: tuple[float, ...]

    def __call__(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """Return the costs between the moved rows of `x` and the rows of `y`."""
        return self.cost(x + jnp.asarray(self.shift, x.dtype), y)


def displaced_cost(cost: CostLike, shift: Float[Array | np.ndarray, " d"]) -> Cost:
    """Return a cost between source cells moved by `shift`, and target cells.

    A perturbation moves all cells. What remains after the common part of it has been taken off says which cell
    belongs to which: with the difference of the two means as `shift`, a cell whose type is missing in the target
    stands out, where otherwise cells that respond strongly do.

    Parameters
    ----------
    cost
        The cost to measure with afterwards.
    shift
        What is added to each source cell, for example ``target.mean(axis=0) - source.mean(axis=0)``.

    Returns
    -------
    A cost for linear problems.

    Raises
    ------
    ValueError
        If `shift` is not one finite number for each feature, or the cost is not known or needs the whole population.
    """
    base = resolve_cost(cost)
    if isinstance(base, AnchoredCost):
        raise ValueError(
            f"`cost`={base.name!r} is a cost over the whole population, which cannot be moved. Choose one between features, such "
            "as 'sqeuclidean'."
        )
    values = np.asarray(shift, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            f"`shift` must hold one finite number for each feature, got shape {values.shape}. "
            "Try `target.mean(axis=0) - source.mean(axis=0)`."
        )
    return Cost(f"{base.name}, displaced", Displaced(base, tuple(values.tolist())))


def settled(source: Float[np.ndarray, "n d"], cost: Cost) -> tuple[Float[np.ndarray, "n d"], Cost]:
    """Return source cells moved for good and the plain cost, which gives the same costs to all target cells."""
    if not isinstance(cost.pairwise, Displaced):
        return source, cost
    width, length = source.shape[1], len(cost.pairwise.shift)
    if width != length:
        raise ValueError(
            f"the cost displaces cells of {length} features, got {width}. Compute `shift` from these cells."
        )
    moved = source + np.asarray(cost.pairwise.shift, source.dtype)
    return moved, cost.pairwise.cost
