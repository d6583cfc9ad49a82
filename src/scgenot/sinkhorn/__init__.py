"""Entropic transport on the ground floor: passes over costs, draws from rows of a plan, and two Sinkhorn solvers.

:func:`dense_sinkhorn` repeats on one small matrix of costs, inside compiled code; :func:`solve_potentials` goes from coarse to
fine over costs that need not fit in memory.
"""

from scgenot.sinkhorn._blocked import (
    LANDMARK_TOLERANCE,
    Potentials,
    SinkhornConfig,
    extend_rows,
    refine_potentials,
    solve_potentials,
)
from scgenot.sinkhorn._dense import ITERATIONS_PER_ROUND, dense_rounds, dense_sinkhorn
from scgenot.sinkhorn._draws import draw_rows
from scgenot.sinkhorn._extended import Anchors, Extension, extended_potentials
from scgenot.sinkhorn._geometry import Geometry, over_rows, pair_costs, soft_min_groups, soft_min_rows
from scgenot.sinkhorn._groups import Groups, Stage, grouped_potentials, mass_difference

__all__ = [
    "ITERATIONS_PER_ROUND",
    "LANDMARK_TOLERANCE",
    "Anchors",
    "Extension",
    "Geometry",
    "Groups",
    "Potentials",
    "SinkhornConfig",
    "Stage",
    "dense_rounds",
    "dense_sinkhorn",
    "draw_rows",
    "extend_rows",
    "extended_potentials",
    "grouped_potentials",
    "mass_difference",
    "over_rows",
    "pair_costs",
    "refine_potentials",
    "soft_min_groups",
    "soft_min_rows",
    "solve_potentials",
]
