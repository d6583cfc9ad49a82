"""Costs that need the whole population: seen from any cells, but only to chosen cells of that population, the anchors."""

from __future__ import annotations

import abc

import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._blocks import not_finite


class Anchored(abc.ABC):
    """Unscaled costs from any cells to anchors: some cells of the population that a cost was fitted on."""

    @abc.abstractmethod
    def __call__(self, cells: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Return the costs from `cells` to the k anchors, in the order in which these were given.

        Raises
        ------
        ValueError
            If the cells have another width than those that the cost was fitted on, or values that are not finite.
        """


class AnchoredCost(abc.ABC):
    """A ground cost that is known only once the whole population is: distances along a graph, or precomputed ones.

    :class:`~scgenot.costs.Cost` has the same ``fit``, so that both can be treated alike.

    Attributes
    ----------
    name
        What the user calls it.
    """

    name: str

    @abc.abstractmethod
    def fit(self, cells: Float[np.ndarray, "N d"], anchors: Int[np.ndarray, " k"]) -> Anchored:
        """Return the costs from any cells to the rows `anchors` of `cells`.

        Raises
        ------
        ValueError
            If the cost is not defined on these cells.
        """


def check_anchors(anchors: Int[np.ndarray, " k"], n: int) -> Int[np.ndarray, " k"]:
    """Return `anchors` as an array of row numbers, none of them outside of the population."""
    anchors = np.asarray(anchors, np.int64)
    if len(anchors) == 0 or anchors.min() < 0 or anchors.max() >= n:
        got = f"{anchors.min()} to {anchors.max()}" if len(anchors) else "none"
        raise ValueError(f"`anchors` must be numbers of rows, 0 to {n - 1}, at least one; got {got}.")
    return anchors


def check_cells(cells: Float[Array | np.ndarray, "n d"], width: int | None = None) -> Float[np.ndarray, "n d"]:
    """Return `cells` in single precision, as everything above this floor has them, or say what is wrong with them."""
    cells = np.ascontiguousarray(cells, dtype=np.float32)
    if width is not None and cells.shape[1] != width:
        raise ValueError(
            f"`cells` must have the {width} columns that the cost was fitted with, got {cells.shape[1]}. "
            "Give the same representation."
        )
    if wrong := not_finite(cells):
        raise ValueError(
            f"`cells` must be finite, got NaN or inf in {wrong[0]} rows (first rows: {wrong[1]}). Remove these cells."
        )
    return cells


def check_square(shape: tuple[int, ...]) -> None:
    """Raise a ``ValueError`` unless there is one given cost for each pair of cells."""
    if shape[0] != shape[1]:
        raise ValueError(
            f"with the cost 'precomputed', `cells` must be square: costs between all cells, got shape {shape}. "
            "Give the matrix of all pairwise costs, or name a cost that is computed from features."
        )


def is_symmetric(costs: Float[np.ndarray, "k k"]) -> bool:
    """Return whether costs are the same in both directions, but for rounding."""
    # 1e-4 of the largest: distances as roots of squares that cancel are off by 3e-4 of it only where they should be 0.
    return bool(np.abs(costs - costs.T).max() <= 1e-4 * max(float(np.abs(costs).max()), 1e-30))


def check_symmetric(name: str, costs: Float[np.ndarray, "k k"]) -> None:
    """Raise a ``ValueError`` where costs within a population differ by direction: quadratic problems have no direction."""
    if not is_symmetric(costs):
        raise ValueError(
            f"quadratic problems need symmetric costs within a population, got {name!r} with costs that differ by up to "
            f"{float(np.abs(costs - costs.T).max()):.3g} between the two directions. Give the average of both: "
            "`(costs + costs.T) / 2`, or `lambda x, y: (cost(x, y) + cost(y, x)) / 2`."
        )
