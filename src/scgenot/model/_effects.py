"""How far conditions move cells: predicted and observed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from scgenot._rng import RNG
from scgenot.data import Data, condition_columns, has_column, perturbations, read_representation, select_rows, text_of
from scgenot.model._cells import check_is_trained, some_data
from scgenot.model._conditions import Asked, cells_in, named_condition

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


@dataclasses.dataclass(frozen=True)
class _Treated:
    """Treated cells of some data: their rows, the perturbation of each, and its contexts."""

    rows: Int[np.ndarray, " n"]
    perturbation: pd.Series
    contexts: pd.DataFrame

    @classmethod
    def of(cls, model: TransportModel, data: Data) -> _Treated:
        spec, place = model._spec.conditions, model._spec.target
        rows = select_rows(data, place, None)
        told = condition_columns(data, place, spec.columns, rows)
        doses = model._conditions.encoding.doses
        own = perturbations(told, spec, doses, "adata.obs", may_be_empty=True)[spec.name_column]
        return cls(rows, own, told)

    def in_condition(self, perturbation: str, context: Mapping[str, Any]) -> Bool[np.ndarray, " n"]:
        here = self.perturbation.to_numpy() == perturbation
        for key, value in context.items():
            here &= self.contexts[key].map(text_of).astype(str).to_numpy() == text_of(value)
        return here


def observed_rows(model: TransportModel, data: Data, condition: Asked | None = None) -> Int[np.ndarray, " m"]:
    """Return the rows of target cells that some data have, of a condition where there are several; none if not told apart."""
    place, spec = model._spec.target, model._spec.conditions
    if place.population_key is not None and not has_column(data, place, place.population_key):
        return np.zeros(0, int)
    if condition is None or spec is None or not spec.has_vector or spec.reversed:
        return select_rows(data, place, None)
    treated = _Treated.of(model, data)
    return treated.rows[treated.in_condition(condition.perturbation_name, condition.context)]


def condition_effects(
    model: TransportModel, adata: Data | None = None, *, n_samples: int = 10, rng: RNG = 0
) -> pd.DataFrame:
    """Return how far each condition of a model moves its controls on average, as predicted and as observed.

    Parameters
    ----------
    model
        A trained model of conditions in one space.
    adata
        Controls, and cells of the conditions where these are to be compared with; the model's own by default.
    n_samples
        Samples a control.
    rng
        Seed or generator.

    Returns
    -------
    One row a condition of :attr:`TransportModel.conditions`: ``condition``, ``context``, ``trained``, and ``predicted`` and
    ``observed``, the distances between the mean of its cells and that of its controls, in units of the representation;
    ``observed`` is NaN where there are no cells.

    Raises
    ------
    ValueError
        If the model has no conditions, or maps between two spaces.
    """
    spec = model._spec.conditions
    if spec is None or not spec.has_vector or not model._spec.one_space or spec.reversed:
        raise ValueError("effects of conditions are measured in a model of conditions within one representation.")
    data = some_data(model, adata)
    check_is_trained(model)
    rows = []
    treated = _Treated.of(model, data)
    places = read_representation(
        model._spec.target.cells(data), model._spec.target.rep, treated.rows, "target_rep", model._spec.target
    )
    for name, row in model._conditions.table.iterrows():
        one = named_condition(model, name)
        cells = cells_in(model, one, data, None)
        centre = cells.values.mean(axis=0)
        mean = model.get_transported_mean(data, indices=cells.rows, conditions=one, n_samples=n_samples, rng=rng)
        here = treated.in_condition(row[spec.name_column], {key: row[key] for key in spec.context_keys})
        observed = np.linalg.norm(places[here].mean(axis=0) - centre) if here.any() else np.nan
        context = ", ".join(text_of(row[key]) for key in spec.context_keys)
        effect = np.linalg.norm(mean.mean(axis=0) - centre)
        rows.append(
            {
                "condition": row[spec.name_column],
                "context": context,
                "trained": bool(row["trained"]),
                "predicted": effect,
                "observed": observed,
            }
        )
    return pd.DataFrame(rows, index=model._conditions.table.index)
