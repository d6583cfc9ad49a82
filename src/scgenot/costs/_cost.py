"""A cost that is a function of two blocks of cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._blocks import rows_per_block
from scgenot._sizes import pad_edge, padded_size
from scgenot.costs._anchored import Anchored, AnchoredCost, check_anchors

Block: TypeAlias = Float[Array, "n m"]
Source: TypeAlias = Float[Array, "n d"]
Target: TypeAlias = Float[Array, "m d"]
Pairwise: TypeAlias = Callable[[Source, Target], Block]


@dataclasses.dataclass(frozen=True)
class Cost:
    """A named ground cost.

    Attributes
    ----------
    name
        What the user calls it.
    pairwise
        Function of two blocks of cells that returns the block of costs between them. It is traced by JAX.
    symmetric
        Whether the cost from x to y is always the cost from y to x.
    """

    name: str
    pairwise: Pairwise
    symmetric: bool = False

    def __call__(self, x: Float[Array, "n dx"], y: Float[Array, "m dy"]) -> Float[Array, "n m"]:
        """Return the costs between all rows of `x` and all rows of `y`; most costs need rows of one width."""
        return self.pairwise(x, y)

    def swapped(self) -> Cost:
        """Return the cost with its two arguments exchanged."""
        if self.symmetric:
            return self
        if isinstance(self.pairwise, _Swapped):
            return dataclasses.replace(self, pairwise=self.pairwise.pairwise)
        return dataclasses.replace(self, pairwise=_Swapped(self.pairwise))

    def fit(self, cells: Float[Array | np.ndarray, "N d"], anchors: Int[np.ndarray, " k"]) -> Anchored:
        """Return the costs from any cells to the rows `anchors` of `cells`; of the others, nothing is kept."""
        return _ToPoints(self, np.asarray(cells, np.float32)[check_anchors(anchors, len(cells))])


CostLike: TypeAlias = str | Cost | AnchoredCost | Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class _Swapped:
    """A pairwise function with its two arguments exchanged."""

    pairwise: Pairwise

    def __call__(self, x: Float[Array, "n dx"], y: Float[Array, "m dy"]) -> Block:
        return self.pairwise(y, x).T


@dataclasses.dataclass(frozen=True)
class AllPairs:
    """A function of two cells as a function of two blocks; equal functions compare equal, so nothing recompiles."""

    function: Callable[..., Any]

    def __call__(self, x: Source, y: Target) -> Block:
        return jax.vmap(lambda one: jax.vmap(lambda other: self.function(one, other))(y))(x)


@dataclasses.dataclass(frozen=True, eq=False)
class _ToPoints(Anchored):
    """A cost with its second argument given."""

    cost: Cost
    points: Float[np.ndarray, "k d"]

    def __call__(self, cells: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        cells = np.asarray(cells, np.float32)
        if cells.shape[1] != self.points.shape[1]:
            raise ValueError(
                f"`cells` must have the {self.points.shape[1]} columns that the cost was fitted with, "
                f"got {cells.shape[1]}. Give the same representation."
            )
        k = len(self.points)
        # Both sides are filled up with copies of their last cell: another shape would be compiled again.
        points = pad_edge(self.points, padded_size(k))
        rows = min(rows_per_block(len(points)), padded_size(len(cells)))
        found = np.empty((len(cells), k), np.float32)
        for i in range(0, len(cells), rows):
            some = cells[i : i + rows]
            found[i : i + rows] = np.asarray(block(self.cost, pad_edge(some, rows), points))[: len(some), :k]
        return found


@partial(jax.jit, static_argnames="cost")
def block(cost: Cost, x: Float[Array | np.ndarray, "n dx"], y: Float[Array | np.ndarray, "m dy"]) -> Block:
    """Return the costs between two blocks, compiled once for equal costs and shapes."""
    return cost(jnp.asarray(x), jnp.asarray(y))
