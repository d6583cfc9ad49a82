"""Giving a model other data: its setup is transferred to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mudata import MuData

from scgenot.data import (
    Data,
    Place,
    PopulationSpec,
    check_names,
    has_column,
    obs_column,
    population_rows,
    representation_width,
)
from scgenot.model._cells import cells_of
from scgenot.model._scvi import manager_for, register
from scgenot.model._setup import refuse_views

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def attach(model: TransportModel, data: Any, *, for_new_models: bool = False) -> None:
    """Give a model other data: its setup is transferred to them, and what refers to cells of the earlier data is dropped.

    What the model has learned stays. Without target cells, the data are source cells to map.

    Parameters
    ----------
    model
        A model, trained or not.
    data
        AnnData or MuData with both populations, or with source cells only.
    for_new_models
        Whether models that are made on these data later get this setup, too.

    Raises
    ------
    TypeError, KeyError, ValueError
        If the data do not fit the model: model and data stay as they were.
    """
    if not isinstance(data, Data):
        got = "None" if data is None else type(data).__name__
        raise TypeError(f"`adata` must be an AnnData or a MuData, got {got}. Read the file first.")
    if data is model.adata:
        return
    spec = model._spec
    if not has_both(data, spec):
        spec.source.cells(data)
        if model.is_trained_:
            cells_of(model, "source", data, None)
        model._replace_data(data, None)
        return
    refuse_views(data, spec)
    _check_widths(data, spec, model.summary_stats)
    for place in spec.places:
        if model.is_trained_ and (place.rep == "X" or place.rep in place.cells(data).obsm):
            check_names(place.cells(data), place, model._feature_names[place.side])
    names = ("model_name", "setup_method_name", "setup_args")
    manager = manager_for(spec, {name: model.registry_[name] for name in names})
    register(model, manager, data, for_new_models=for_new_models)
    model._replace_data(data, manager)


def has_both(data: Data, spec: PopulationSpec) -> bool:
    """Whether `data` may hold both populations. What is wrong with them shows when they are read."""
    # A MuData for a model of an AnnData, or the other way round, is at most a place of source cells.
    if isinstance(data, MuData) != (spec.target.modality is not None):
        return False
    if spec.conditions is not None and spec.conditions.course is not None:
        # Cells of some times are cells to map.
        course = spec.conditions.course
        if not has_column(data, spec.source, course.key):
            return False
        there = course.places(obs_column(data, spec.source, course.key, "time_key"))
        return set(range(course.steps + 1)) <= set(there.tolist())
    return _has(data, spec.target)


def _has(data: Data, place: Place) -> bool:
    if place.modality is not None and place.modality not in data.mod:
        return False
    if place.population_key is None:
        return True
    if not has_column(data, place, place.population_key):
        return False
    try:
        return len(population_rows(data, place)) > 0
    except ValueError:
        return False


def _check_widths(data: Data, spec: PopulationSpec, stats: dict[str, int]) -> None:
    for place in spec.places:
        adata, rep = place.cells(data), place.rep
        if (rep == "X" and adata.X is not None) or rep in adata.obsm:
            _check_width(rep, place.side, representation_width(adata, rep), stats[f"n_{place.side}_features"])
        if place.shared_rep in adata.obsm and "n_shared_features" in stats:
            _check_width(
                place.shared_rep, "shared", representation_width(adata, place.shared_rep), stats["n_shared_features"]
            )


def _check_width(rep: str, which: str, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(
            f"the model was trained with {expected} {which} features, adata has {got} in {rep!r}. Compute the "
            "representation as for the training data."
        )
