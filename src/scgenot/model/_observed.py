"""Which target cells some data have, of one condition where there are several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from scgenot.data import Data, condition_columns, has_column, obs_column, perturbations, select_rows, text_of
from scgenot.model._conditions import Asked

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def observed_rows(
    model: TransportModel, data: Data, condition: Asked | None = None, time: Any = None
) -> Int[np.ndarray, " m"]:
    """Return the rows of target cells, of a condition or a time where there are several; none where no column tells cells apart."""
    place, spec = model._spec.target, model._spec.conditions
    if place.population_key is not None and not has_column(data, place, place.population_key):
        return np.zeros(0, int)
    rows = select_rows(data, place, None)
    if spec is not None and spec.course is not None:
        times = spec.course.places(obs_column(data, place, spec.course.key, "time_key").iloc[rows])
        return rows[times == spec.course.place_of(time, "until")]
    if condition is None or spec is None or not spec.has_vector or spec.reversed:
        return rows
    told = condition_columns(data, place, spec.columns, rows)
    doses = model._conditions.encoding.doses
    own = perturbations(told, spec, doses, "adata.obs", may_be_empty=True)[spec.name_column]
    here = own.to_numpy() == condition.perturbation_name
    for key, value in condition.context.items():
        here &= told[key].map(text_of).astype(str).to_numpy() == text_of(value)
    return rows[here]
