"""Ground costs between cells, by name, and the one scale convention.

A :class:`Cost` is a name and a function of two blocks of cells, ``(n, d), (m, d) -> (n, m)``. Everything above this
floor evaluates costs in blocks, so a cost never has to hold more than one block. To add a cost, write its function and
decorate it with :func:`register_cost`.

An :class:`AnchoredCost` needs the whole population first: distances along its neighbour graph (:class:`Geodesic`), or
costs that were computed elsewhere (:class:`Precomputed`). Both kinds have ``fit(cells, anchors)``, which gives costs
from any cells to chosen cells of that population.
"""

from scgenot.costs._anchored import (
    Anchored,
    AnchoredCost,
    check_cells,
    check_square,
    check_symmetric,
    is_symmetric,
)
from scgenot.costs._cost import Block, Cost, CostLike, Pairwise, Source, Target, block
from scgenot.costs._displaced import displaced_cost, settled
from scgenot.costs._geodesic import Geodesic
from scgenot.costs._named import _sqeuclidean as _sqeuclidean
from scgenot.costs._precomputed import Precomputed
from scgenot.costs._registry import _COSTS, available_costs, register_cost, resolve_cost, resolve_cost_pair
from scgenot.costs._scale import ScaleCost, check_scale_cost, cost_scale, matrix_scale

__all__ = [
    "Anchored",
    "AnchoredCost",
    "Block",
    "Cost",
    "CostLike",
    "Geodesic",
    "Pairwise",
    "Precomputed",
    "ScaleCost",
    "Source",
    "Target",
    "available_costs",
    "block",
    "check_cells",
    "check_scale_cost",
    "check_square",
    "check_symmetric",
    "cost_scale",
    "displaced_cost",
    "is_symmetric",
    "matrix_scale",
    "register_cost",
    "resolve_cost",
    "resolve_cost_pair",
    "settled",
]
