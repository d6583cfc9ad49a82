"""Costs that were computed elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Float, Int

from scgenot.costs._anchored import Anchored, AnchoredCost, check_anchors, check_cells, check_square
from scgenot.costs._registry import register_cost


@register_cost("precomputed")
@dataclasses.dataclass(frozen=True)
class Precomputed(AnchoredCost):
    """Costs that were computed elsewhere: a cell *is* its row of costs to all cells of the population.

    As ``metric="precomputed"`` of scikit-learn. The population is then a square matrix; a new cell is a row as wide. Costs
    may differ by direction in linear problems, which take those from source to target cells; quadratic ones refuse them.
    """

    name = "precomputed"

    def fit(self, cells: Float[Array | np.ndarray, "N d"], anchors: Int[np.ndarray, " k"]) -> Anchored:
        """Return the columns `anchors` of any rows of costs as wide as `cells`, which must be square and finite.

        Raises
        ------
        ValueError
            If `cells` is not square, not finite, or `anchors` are no rows of it.
        """
        check_square(cells.shape)
        check_cells(cells)
        return _Columns(len(cells), check_anchors(anchors, len(cells)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Columns(Anchored):
    """Some columns of rows of costs."""

    width: int
    anchors: Int[np.ndarray, " k"]

    def __call__(self, cells: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        return check_cells(cells, self.width)[:, self.anchors]
