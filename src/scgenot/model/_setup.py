"""Saying where the two populations lie: in an AnnData, or in the modalities of a MuData."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anndata import AnnData
from mudata import MuData

from scgenot._messages import did_you_mean, listed
from scgenot.data import (
    ConditionSpec,
    Data,
    Place,
    PopulationSpec,
    TimeCourse,
    check_category,
    check_condition_arguments,
    check_time_arguments,
    obs_column,
    times_in,
)
from scgenot.model._scvi import manager_for

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

# Arguments of setup that are no key of their own; those of conditions have a check that knows them.
_NOT_KEYS = (
    *("adata", "mdata", "source", "target", "condition_keys", "condition_reps", "context_keys", "match_keys"),
    *("times", "backwards"),
)
SETUP_METHODS = ("setup_anndata", "setup_mudata")


class _Required:
    """Stands for an argument that has to be given unless a time course is: ``None`` has a meaning of its own."""

    def __repr__(self) -> str:
        return "<required without time_key>"


_REQUIRED: Any = _Required()


def setup_anndata(
    cls: type[TransportModel],
    adata: AnnData,
    *,
    population_key: str | None = None,
    source: Hashable | None = _REQUIRED,
    target: Hashable | None = None,
    source_rep: str = "X_pca",
    target_rep: str | None = None,
    shared_rep: str | None = None,
    weights_key: str | None = None,
    pairs_key: str | None = None,
    source_distances: str | None = None,
    target_distances: str | None = None,
    layer: str | None = None,
    condition_keys: Mapping[str, Sequence[str] | str] | None = None,
    condition_reps: Mapping[str, str] | None = None,
    context_keys: Sequence[str] | str = (),
    match_keys: Sequence[str] | str | None = None,
    time_key: str | None = None,
    times: Sequence[Hashable] | None = None,
    backwards: bool = False,
    **kwargs: Any,
) -> None:
    """Say where the two populations lie in an AnnData. Only ``adata.uns`` gets two identifiers of scvi-tools.

    Each population is read in its own rows only: other rows of its representation may hold NaN.

    Parameters
    ----------
    adata
        Both populations. Not a view.
    population_key
        Column of ``adata.obs`` that tells populations apart.
    source, target
        Its two categories: from where and to where. Without `target`, all other categories are conditions of one model;
        with ``source=None``, all but `target` are, and are mapped back to it.
    source_rep
        Key of ``adata.obsm``, or ``"X"``: the representation of source cells.
    target_rep
        The same for target cells; ``None`` if both lie in one space.
    shared_rep
        Key of ``adata.obsm`` with features that both populations have: the problem is fused then.
    weights_key
        Column of ``adata.obs`` with prior weights of the cells (growth, sampling); uniform if ``None``.
    pairs_key
        Column of ``adata.obs`` that names known partners: a source and a target cell with the same value are one
        pair; a missing value says nothing. The problem is fused then. Instead of `shared_rep`.
    source_distances, target_distances
        Keys of ``adata.obsp`` with precomputed costs within the source and the target population, used in place of
        `cost` (which may differ from distances in the representations that are mapped). In a linear problem the
        one matrix of `source_distances` holds the costs between source and target cells.
    layer
        Key of ``adata.layers`` that is read in place of ``X`` where a representation is ``"X"``.
    condition_keys
        What was done to target cells: covariates, each with one column of ``adata.obs`` a slot, such as
        ``{"drug": ("drug1", "drug2"), "dose": ("dose1", "dose2")}``. Slots of different covariates belong together by position.
        Numbers are doses, other values are categories; `source`, no value, or a dose of 0 is an empty slot. ``None`` without
        `target`: `population_key` alone.
    condition_reps
        From a covariate, or a column of `context_keys`, to a key of ``adata.uns`` with a data frame of vectors that describe
        its categories, one row each (fingerprints, embeddings). Without one, categories are one-hot, and one that training did
        not see cannot be predicted.
    context_keys
        Columns of ``adata.obs`` that the model sees beside what was done: cell line, donor, day.
    match_keys
        Columns in which cells and their controls agree: controls come from the same stratum, each of which has a plan of its
        own. ``None``: `context_keys`. ``()`` pools all controls. Also for a plain pair of populations.
    time_key
        Column of ``adata.obs`` with the time of each cell, numbers or ordered categories, instead of `population_key`: cells of
        each time are mapped to the next one, with a plan a step, one scale of the cost for all, and one network that knows the
        step. Cells without a time, or at none of `times`, are left out. `weights_key` weighs cells as parents only: it is how
        much they grow until the next time (see :func:`scgenot.tl.growth_priors`).
    times
        The times that are followed, in their order; all of the column by default.
    backwards
        Follow the times from the last to the first, as :meth:`reverse` does.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If a stratum has fewer than two controls, slots of covariates are unequal in number, a dose is negative or not finite,
        a representation lacks a category, or conditions come with precomputed costs;
        if `adata` is a view, a category is absent or has fewer than two cells, values are not finite, weights
        are negative or all zero, no partners are found, or `shared_rep` and `pairs_key` are both given.
    TypeError
        If a category is several, or of a kind that cannot be saved; if times have no order.

    Examples
    --------
    Two populations of one object:

    >>> scgenot.GENOT.setup_anndata(
    ...     adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    ... )  # doctest: +SKIP

    All perturbations of a screen, and the days of a time course:

    >>> scgenot.GENOT.setup_anndata(
    ...     adata, population_key="drug", source="control", context_keys="donor"
    ... )  # doctest: +SKIP
    >>> scgenot.GENOT.setup_anndata(adata, time_key="day")  # doctest: +SKIP
    """
    arguments = dict(locals())
    del arguments["kwargs"], arguments["cls"]
    if not isinstance(adata, AnnData):
        raise TypeError(f"`adata` must be an AnnData, got {type(adata).__name__}. A MuData has `setup_mudata`.")
    if adata.is_view:
        raise ValueError("`adata` is a view of another AnnData. Call `adata = adata.copy()` first.")
    _refuse_unknown(cls, kwargs, "setup_anndata")
    if source is _REQUIRED:
        arguments["source"] = source = None
        if time_key is None:
            raise TypeError(
                "setup_anndata() needs `population_key` and `source` for two populations, or `time_key` for a time course."
            )
    if time_key is not None:
        _set_up_course(cls, adata, arguments, kwargs)
        return
    if population_key is None:
        raise TypeError("setup_anndata() needs `population_key`, the column of obs that tells populations apart.")
    check_time_arguments(arguments)
    if source is not None or target is None:
        check_category("source", source)
    if target is not None:
        check_category("target", target)
    if source == target:
        raise ValueError(f"`source` and `target` must be two categories, got {source!r} for both.")
    if layer is not None and "X" not in (source_rep, target_rep):
        raise ValueError(
            f"`layer`={layer!r} takes the place of X, which is no representation here, got `source_rep`={source_rep!r}. "
            "Give source_rep='X', or leave `layer` out."
        )
    arguments = check_condition_arguments(arguments)
    _refuse_costs_with_conditions(arguments)
    _set_up(cls, adata, arguments, kwargs, "setup_anndata")


def setup_mudata(
    cls: type[TransportModel],
    mdata: MuData,
    *,
    source_modality: str,
    target_modality: str,
    source_rep: str = "X_pca",
    target_rep: str = "X_pca",
    shared_rep: str | None = None,
    weights_key: str | None = None,
    pairs_key: str | None = None,
    source_distances: str | None = None,
    target_distances: str | None = None,
    population_key: str | None = None,
    source: Hashable | None = None,
    target: Hashable | None = None,
    condition_keys: Mapping[str, Sequence[str] | str] | None = None,
    condition_reps: Mapping[str, str] | None = None,
    context_keys: Sequence[str] | str = (),
    match_keys: Sequence[str] | str | None = None,
    **kwargs: Any,
) -> None:
    """Say which modalities of a MuData are mapped. Only ``mdata.uns`` gets two identifiers of scvi-tools.

    Cells are taken as unpaired, even where both modalities have them under one name; give `pairs_key` to say which
    pairs are known.

    Parameters
    ----------
    mdata
        Both modalities. Neither it nor they are views.
    source_modality, target_modality
        Keys of ``mdata.mod``: from where and to where.
    source_rep, target_rep
        Keys of ``obsm`` of these modalities, or ``"X"``. The same key in two modalities is not one space.
    shared_rep
        Key of ``obsm`` of both modalities with features that both have: the problem is fused then.
    weights_key
        Column of ``obs`` with prior weights of the cells; uniform if ``None``. Columns are looked for in the
        modality, then in ``mdata.obs``.
    pairs_key
        Column of ``obs`` that names known partners: a source and a target cell with the same value are one pair; a
        missing value says nothing. The problem is fused then. Instead of `shared_rep`.
    source_distances, target_distances
        Keys of ``obsp`` of the two modalities with precomputed costs within them, used in place of `cost`.
    population_key, source, target
        Column of ``obs``, and its categories, to take only some cells of each modality; all if ``None``.
    condition_keys, condition_reps, context_keys, match_keys
        As in :meth:`setup_anndata`, in ``obs`` of the modality or of `mdata`: what was done to the target modality's cells, and in which
        columns both agree. With ``match_keys="donor"``, cells of one donor are matched with cells of the same donor, by one plan
        a donor. Numbers are doses; of categories only a missing value is an empty slot, unless `source` is given.

    Raises
    ------
    KeyError
        If a modality or a key is missing; the message names the closest.
    ValueError, TypeError
        As :meth:`setup_anndata`.

    Examples
    --------
    >>> scgenot.GENOT.setup_mudata(
    ...     mdata, source_modality="atac", target_modality="rna", source_rep="X_lsi", target_rep="X_pca"
    ... )  # doctest: +SKIP
    """
    arguments = dict(locals())
    del arguments["kwargs"], arguments["cls"]
    if not isinstance(mdata, MuData):
        raise TypeError(f"`mdata` must be a MuData, got {type(mdata).__name__}. An AnnData has `setup_anndata`.")
    if (population_key is None) != (source is None) or (source is None) != (target is None):
        raise ValueError(
            "`population_key`, `source` and `target` go together, got "
            f"{population_key!r}, {source!r} and {target!r}. Give all three, or none to take all cells."
        )
    if population_key is not None:
        check_category("source", source)
        check_category("target", target)
    if (source_modality, source) == (target_modality, target):
        raise ValueError(
            f"`source_modality` and `target_modality` must be two modalities, got {source_modality!r} for both. "
            "Within one modality, tell populations apart with `population_key`, `source` and `target`."
        )
    arguments = check_condition_arguments(arguments)
    _refuse_costs_with_conditions(arguments)
    refuse_views(mdata, PopulationSpec.from_arguments(arguments))
    _set_up(cls, mdata, arguments, kwargs, "setup_mudata")


def _set_up_course(
    cls: type[TransportModel], adata: AnnData, arguments: dict[str, Any], kwargs: dict[str, Any]
) -> None:
    """Set up a time course; which times there are is settled here, so that other data are read by the same."""
    check_keys(arguments)
    check_time_arguments(arguments)
    key, times = arguments["time_key"], arguments["times"]
    column = obs_column(adata, Place("source", arguments["source_rep"]), key, "time_key")
    if times is None:
        arguments["times"] = times_in(column, key, "adata.obs")
    else:
        arguments["times"] = [getattr(one, "item", lambda one=one: one)() for one in times]
        missing = set(range(len(times))) - set(TimeCourse(key, tuple(arguments["times"])).places(column).tolist())
        if missing:
            lost = arguments["times"][min(missing)]
            there = list(map(str, column.dropna().unique()))
            raise ValueError(
                f"`times` has {lost!r}, which no cell of adata.obs[{key!r}] has.{did_you_mean(lost, there)} There are: "
                f"{listed(there[:20])}."
            )
    if arguments["layer"] is not None and arguments["source_rep"] != "X":
        raise ValueError(
            f"`layer`={arguments['layer']!r} takes the place of X, which is no representation here, got "
            f"`source_rep`={arguments['source_rep']!r}. Give source_rep='X', or leave `layer` out."
        )
    arguments |= {"backwards": bool(arguments["backwards"]), "context_keys": []}
    _set_up(cls, adata, arguments, kwargs, "setup_anndata")


def _set_up(
    cls: type[TransportModel], data: Data, arguments: dict[str, Any], kwargs: dict[str, Any], method: str
) -> None:
    _refuse_unknown(cls, kwargs, method)
    source_registry = kwargs.get("source_registry")
    if arguments["shared_rep"] is not None and arguments["pairs_key"] is not None:
        raise ValueError(
            f"give `shared_rep` or `pairs_key`, not both (got {arguments['shared_rep']!r} and "
            f"{arguments['pairs_key']!r})."
        )
    check_keys(arguments)
    registry_arguments = cls._get_setup_method_args(cls=cls, **arguments)
    manager = manager_for(PopulationSpec.from_arguments(arguments), registry_arguments)
    manager.register_fields(data, source_registry)
    cls.register_manager(manager)


def _refuse_costs_with_conditions(arguments: Mapping[str, Any]) -> None:
    given = next((name for name in ("source_distances", "target_distances") if arguments[name] is not None), None)
    if given is not None and ConditionSpec.from_arguments(arguments) is not None:
        raise ValueError(
            f"`{given}`={arguments[given]!r}: precomputed costs do not go together with conditions or `match_keys`. Leave the "
            "costs out, and give a `cost` to the model."
        )


def _refuse_unknown(cls: type[TransportModel], kwargs: dict[str, Any], method: str) -> None:
    for name in kwargs:
        if name != "source_registry":
            known = inspect.signature(getattr(cls, method)).parameters
            raise TypeError(f"{method}() has no argument {name!r}.{did_you_mean(name, known)}")


def check_keys(arguments: dict[str, Any]) -> None:
    """Raise a ``TypeError`` if an argument of setup that is a key is no text."""
    for name, value in arguments.items():
        if name not in _NOT_KEYS and not isinstance(value, str | None):
            raise TypeError(f"`{name}` must be a key, which is text, or None, got {value!r}.")


def refuse_views(data: Data, spec: PopulationSpec) -> None:
    """Raise a ``ValueError`` if `data`, or a modality that is mapped, is a view of something else."""
    kind = type(data).__name__
    if data.is_view:
        name = "adata" if isinstance(data, AnnData) else "mdata"
        raise ValueError(f"`{name}` is a view of another {kind}. Call `{name} = {name}.copy()` first.")
    for place in spec.places:
        if place.cells(data).is_view:
            name = place.modality
            raise ValueError(
                f"the modality {name!r} is a view of another AnnData. Build the MuData from copies: "
                f"MuData({{{name!r}: adata.copy(), ...}})."
            )
