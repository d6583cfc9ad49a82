"""How far conditions move cells: predicted and observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from scgenot._rng import RNG
from scgenot.data import (
    ConditionSpec,
    Data,
    condition_columns,
    perturbations,
    read_representation,
    select_rows,
    text_of,
)
from scgenot.model._cells import cells_of, check_is_trained, some_data
from scgenot.model._conditions import cells_in, named_condition

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


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
    spec = _checked(model)
    data = some_data(model, adata)
    observed_means = _observed_means(model, data)
    rows = []
    for name, row in model._conditions.table.iterrows():
        one = named_condition(model, name)
        cells = cells_in(model, one, data, None)
        centre = cells.values.mean(axis=0)
        mean = model.get_transported_mean(data, indices=cells.rows, conditions=one, n_samples=n_samples, rng=rng)
        observed = observed_means.get((row[spec.name_column], *(text_of(row[key]) for key in spec.context_keys)))
        observed = np.nan if observed is None else np.linalg.norm(observed - centre)
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


def _checked(model: TransportModel) -> ConditionSpec:
    spec = model._spec.conditions
    lacks = spec is None or not spec.has_vector or spec.course is not None
    if lacks or not model._spec.one_space or spec.reversed:
        raise ValueError("effects of conditions are measured in a model of conditions within one representation.")
    check_is_trained(model)
    return spec


def _observed_means(model: TransportModel, data: Data) -> dict[tuple[str, ...], Float[np.ndarray, " d"]]:
    """Return the mean of the cells of each condition, by the perturbation's name and its contexts as text."""
    spec, place = model._spec.conditions, model._spec.target
    target = select_rows(data, place, None)
    told = condition_columns(data, place, spec.columns, target)
    keys = perturbations(told, spec, model._conditions.encoding.doses, "adata.obs", may_be_empty=True)[
        [spec.name_column]
    ]
    for key in spec.context_keys:
        keys[key] = told[key].map(text_of).astype(str).to_numpy()
    cells = read_representation(place.cells(data), place.rep, target, "target_rep", place)
    groups = keys.groupby([*keys], sort=False).indices
    return {name if isinstance(name, tuple) else (name,): cells[rows].mean(axis=0) for name, rows in groups.items()}


def dose_effects(
    model: TransportModel,
    adata: Data | None = None,
    *,
    doses: Sequence[float] | None = None,
    n_samples: int = 10,
    rng: RNG = 0,
) -> pd.DataFrame:
    """Return how far each perturbation that stands alone moves controls on average, as a function of its dose.

    Parameters
    ----------
    model
        A trained model of conditions with doses, in one space.
    adata
        Controls, and cells of the conditions where these are to be compared with; the model's own by default.
    doses
        Doses to ask for, in addition to those that were measured; by default eight steps from 0 to the largest one.
    n_samples
        Samples a control.
    rng
        Seed or generator.

    Returns
    -------
    One row a perturbation, context and dose, in this order: ``perturbation``, ``context``, ``dose``, ``predicted`` and
    ``observed`` as in :func:`condition_effects`; ``observed`` is NaN at doses that no cell got.

    Raises
    ------
    ValueError
        If the model has no conditions, no doses, no perturbation that stands alone, or maps between two spaces; or a dose is
        below 0 or not finite.
    """
    spec, data = _checked(model), some_data(model, adata)
    table, dosed = model._conditions.table, model._conditions.encoding.doses
    first = [columns[0] for columns in spec.covariates.values()]
    column = [name for name in first if name in dosed]
    if len(column) != 1:
        raise ValueError(
            f"dose curves need one covariate of numbers, `condition_keys` of this model has {len(column)}. Name a column of doses "
            "in setup, as in condition_keys={'drug': ('drug',), 'dose': ('dose',)}."
        )
    if doses is not None and not (np.isfinite(np.asarray(doses, float)).all() and np.min(doses) >= 0):
        raise ValueError(f"`doses` must be finite and not below 0, got {list(doses)!r}.")
    alone: dict[tuple[Any, ...], set[float]] = {}
    for _, row in table.iterrows():
        slots = [[row[columns[slot]] for columns in spec.covariates.values()] for slot in range(spec.slots)]
        place = [name in dosed for name in first].index(True)
        full = [one for one in slots if one[place] > 0]
        if len(full) == 1:
            dose = full[0].pop(place)
            alone.setdefault(tuple(full[0]), set()).add(float(dose))
    if not alone:
        raise ValueError("dose curves show perturbations that stand alone, and this model saw combinations only.")
    observed = _observed_means(model, data)
    categories = [name for name in first if name not in dosed]
    rows = []
    for kind, measured in alone.items():
        grid = np.linspace(0.0, max(measured), 9) if doses is None else np.asarray(doses, float)
        asked = pd.DataFrame({column[0]: sorted({*map(float, grid), *measured})})
        for name, value in zip(categories, kind, strict=True):
            asked[name] = value
        cells = cells_of(model, "source", data, None)
        means = model.get_transported_mean(data, indices=cells.rows, conditions=asked, n_samples=n_samples, rng=rng)
        contexts = condition_columns(data, model._spec.source, spec.context_keys, cells.rows)
        groups = (
            contexts.groupby(list(spec.context_keys), observed=True).indices if spec.context_keys else {(): slice(None)}
        )
        for context, own in groups.items():
            context = context if isinstance(context, tuple) else (context,)
            centre = cells.values[own].mean(axis=0)
            for dose, (name, mean) in zip(asked[column[0]], means.items(), strict=True):
                seen = observed.get((name, *map(text_of, context)))
                rows.append(
                    {
                        "perturbation": ", ".join(map(text_of, kind)) or spec.name_column,
                        "context": ", ".join(map(text_of, context)),
                        "dose": dose,
                        "predicted": np.linalg.norm(mean[own].mean(axis=0) - centre),
                        "observed": np.nan if seen is None else np.linalg.norm(seen - centre),
                    }
                )
    return pd.DataFrame(rows)
