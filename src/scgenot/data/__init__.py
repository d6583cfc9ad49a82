"""AnnData and MuData in, one value out: where two populations live, their numbers, what ties them, who is held out."""

from scgenot.data._columns import category_mask, check_category, has_column, in_memory, obs_column
from scgenot.data._condition_spec import ConditionSpec, check_condition_arguments
from scgenot.data._conditions import (
    Conditions,
    condition_columns,
    condition_name,
    matched_cells,
    perturbations,
    read_conditions,
    text_of,
)
from scgenot.data._encoding import ConditionEncoding, settle_encoding
from scgenot.data._links import check_distances, check_shared, count_pairs, known_pairs
from scgenot.data._places import POPULATIONS, Data, Place, PopulationSpec, check_copyable, swapped_arguments
from scgenot.data._populations import Population, check_population, population_rows, read_population, select_rows
from scgenot.data._representation import (
    check_names,
    dense_rows,
    read_representation,
    representation_names,
    representation_width,
)
from scgenot.data._split import Split, split_cells
from scgenot.data._steps import read_steps
from scgenot.data._time_course import TimeCourse, check_time_arguments, text_of_time, times_in
from scgenot.data._transport import (
    CostArrays,
    TransportData,
    blocks_among,
    cost_arrays,
    digest_of,
    fingerprint,
    hold_out,
    joined_rows,
    names_digest,
    read_transport,
    rows_of,
    swapped,
    training_pairs,
    weights_among,
)

__all__ = [
    "POPULATIONS",
    "ConditionEncoding",
    "ConditionSpec",
    "Conditions",
    "CostArrays",
    "Data",
    "Place",
    "Population",
    "PopulationSpec",
    "Split",
    "TimeCourse",
    "TransportData",
    "blocks_among",
    "category_mask",
    "check_category",
    "check_condition_arguments",
    "check_copyable",
    "check_distances",
    "check_names",
    "check_population",
    "check_shared",
    "check_time_arguments",
    "condition_columns",
    "condition_name",
    "cost_arrays",
    "count_pairs",
    "dense_rows",
    "digest_of",
    "fingerprint",
    "has_column",
    "hold_out",
    "in_memory",
    "joined_rows",
    "known_pairs",
    "matched_cells",
    "names_digest",
    "perturbations",
    "read_conditions",
    "read_steps",
    "settle_encoding",
    "text_of",
    "text_of_time",
    "times_in",
    "obs_column",
    "population_rows",
    "read_population",
    "read_representation",
    "read_transport",
    "representation_names",
    "representation_width",
    "rows_of",
    "select_rows",
    "split_cells",
    "swapped",
    "swapped_arguments",
    "training_pairs",
    "weights_among",
]
