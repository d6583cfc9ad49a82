"""AnnData and MuData in, arrays out: where two populations live, which cells they are, what ties them, who is held out."""

from scgenot.data._cost_arrays import CostArrays, cost_arrays
from scgenot.data._links import check_distances, check_shared, count_pairs, known_pairs
from scgenot.data._places import Data, Place, PopulationSpec, swapped_arguments
from scgenot.data._populations import (
    Population,
    has_column,
    obs_column,
    population_rows,
    read_population,
    read_representation,
    representation_names,
    representation_width,
    select_rows,
)
from scgenot.data._split import Split, split_cells

__all__ = [
    "CostArrays",
    "Data",
    "Place",
    "Population",
    "PopulationSpec",
    "Split",
    "check_distances",
    "check_shared",
    "cost_arrays",
    "count_pairs",
    "has_column",
    "known_pairs",
    "obs_column",
    "population_rows",
    "read_population",
    "read_representation",
    "representation_names",
    "representation_width",
    "select_rows",
    "split_cells",
    "swapped_arguments",
]
