"""Saving and loading a model. `save_model` is the method `save`, `load_model` the class method `load`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import read_h5ad
from mudata import MuData, read_h5mu

from scgenot._messages import one_of
from scgenot._version import __version__
from scgenot.costs import resolve_cost_pair
from scgenot.coupling import KINDS, OPTIONS
from scgenot.data import (
    POPULATIONS,
    ConditionEncoding,
    Data,
    PopulationSpec,
    check_category,
    check_condition_arguments,
    check_time_arguments,
)
from scgenot.flow import Stopped
from scgenot.model._conditions import KnownConditions
from scgenot.model._other_data import attach
from scgenot.model._problem import coupling_options
from scgenot.model._setup import SETUP_METHODS, check_keys
from scgenot.model._trained_on import TrainedOn
from scgenot.model.saving._costs import plain_cost, saved_cost
from scgenot.model.saving._files import (
    ADATA,
    MUDATA,
    checked_prefix,
    flatten_arrays,
    json_path,
    read_content,
    read_model,
    reading,
    unflatten_arrays,
    write_model,
)
from scgenot.model.saving._plain import plain_table, table_from

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

# Arrays beside the weights, whose names start with a dot or a bracket.
_REFERENCE, _SOURCE_REFERENCE = "target_reference", "source_reference"
_ROWS = "rows"
_CONDITIONS = "conditions"
_MOST_FEATURES = 2**31


@dataclasses.dataclass(frozen=True)
class State:
    """What a directory says about a model, read and checked.

    Attributes
    ----------
    setup_method, setup_args
        How data are set up.
    stats
        Numbers of cells and features.
    options
        Arguments of the constructor.
    method
        State of the method, as :meth:`scgenot.methods.Method.state_config` gives it.
    feature_names
        Names of the features of both spaces, where they have any.
    trained, steps, stopped, history, coupling
        What training left.
    cells
        Hashes of the cells that were trained on; ``None`` in the first format.
    conditions
        How conditions become numbers, and the table of them; ``None`` without.
    """

    setup_method: str
    setup_args: dict[str, Any]
    stats: dict[str, int]
    options: dict[str, Any]
    method: Mapping[str, Any]
    feature_names: dict[str, list[str] | None]
    trained: bool
    steps: int
    stopped: Stopped | None
    history: dict[str, pd.DataFrame] | None
    coupling: list[dict[str, Any]]
    cells: Mapping[str, Any] | None
    conditions: Mapping[str, Any] | None


def save_model(
    model: TransportModel,
    dir_path: str | Path,
    prefix: str | None = None,
    overwrite: bool = False,
    save_anndata: bool = False,
    **anndata_write_kwargs: Any,
) -> None:
    """Write the model to a directory: a JSON file, weights as safetensors, and the data if wanted.

    Parameters
    ----------
    dir_path
        Directory to create.
    prefix
        Put before the names of the files.
    overwrite
        Whether a directory that exists may be written to.
    save_anndata
        Whether to write the AnnData or MuData, too.
    anndata_write_kwargs
        Passed to :meth:`anndata.AnnData.write_h5ad` or :meth:`mudata.MuData.write_h5mu`.

    Raises
    ------
    FileExistsError
        If the directory exists and `overwrite` is false.
    ValueError
        If `prefix` names another directory, or the model has no data to save along.

    Examples
    --------
    >>> model.save("model", overwrite=True)  # doctest: +SKIP
    """
    history = {} if model.history_ is None else {k: v.reset_index().to_dict("list") for k, v in model.history_.items()}
    config = model._coupling_config
    options = coupling_options(config)
    options |= {"cost": plain_cost(config.cost), "shared_cost": plain_cost(config.shared_cost)}
    content = {
        "version": __version__,
        "model": type(model).__name__,
        "setup_method_name": model.registry_["setup_method_name"],
        "setup_args": dict(model.registry_["setup_args"]),
        "summary_stats": dict(model.summary_stats),
        "init": options | {"problem": model._problem, "coupling": model._coupling_kind},
        "method": model._method.state_config(),
        "feature_names": model._feature_names,
        "trained": model.is_trained_,
        "steps": model.steps_,
        "stopped": None if model.stopped_ is None else str(model.stopped_),
        "history": history,
        "coupling": model._coupling_diagnostics,
    }
    arrays = {} if model._method.weights is None else flatten_arrays(model._method.weights)
    if model._reference is not None:
        arrays[_REFERENCE] = model._reference
    if model._source_reference is not None:
        arrays[_SOURCE_REFERENCE] = model._source_reference
    if model._conditions is not None:
        plain, vectors = model._conditions.encoding.to_plain()
        content["conditions"] = {"encoding": plain, "table": plain_table(model._conditions.table)}
        arrays |= {f"{_CONDITIONS}/{name}": one for name, one in vectors.items()}
    if (known := model._training) is not None:
        content["cells"] = {"digests": known.digests, "names": known.names}
        for kind, rows in (("train", known.train_rows), ("held", known.held_rows)):
            arrays |= {
                _rows_name(kind, side): some.astype(np.int64) for side, some in zip(POPULATIONS, rows, strict=True)
            }
    written = {}
    if save_anndata:
        if model.adata is None:
            raise ValueError("`save_anndata` is True, but this model has no data. Leave it False.")
        write = model.adata.write_h5mu if isinstance(model.adata, MuData) else model.adata.write_h5ad
        written = {
            "write_adata": partial(write, **anndata_write_kwargs),
            "adata_name": MUDATA if isinstance(model.adata, MuData) else ADATA,
        }
    write_model(dir_path, content, arrays, prefix=prefix, overwrite=overwrite, **written)


def load_model(
    cls: type[TransportModel],
    dir_path: str | Path,
    adata: Data | Literal[False] | None = None,
    *,
    prefix: str | None = None,
    cost: Callable[..., Any] | tuple[Any, Any] | None = None,
) -> TransportModel:
    """Read a model from a directory. Nothing in it is executed.

    Parameters
    ----------
    dir_path
        What was given to :meth:`save`.
    adata
        AnnData or MuData to attach: both populations, or source cells only. ``None`` takes what was saved along, if
        anything; ``False`` attaches none. Without data the model maps any cells that it is given.
    prefix
        As given to :meth:`save`.
    cost
        The cost or pair of costs, where one was a function or an OTT ``CostFn``; needed only to train again.

    Raises
    ------
    FileNotFoundError
        If there is no model in the directory.
    ValueError
        If `adata` does not fit the model, or a file is damaged or makes no sense.

    Examples
    --------
    >>> model = scgenot.GENOT.load("model", adata=adata)  # doctest: +SKIP
    """
    saved = read_model(dir_path, prefix=prefix)
    content = saved.content
    if content.get("model") != cls.__name__:
        raise ValueError(f"{str(dir_path)!r} holds a {content.get('model')}, not a {cls.__name__}.")
    if cost is not None:
        # Here, so that what is wrong with it is not taken for a fault of the file.
        resolve_cost_pair(cost)
    if not isinstance(adata, Data) and adata is not None and adata is not False:
        raise TypeError(
            f"`adata` must be an AnnData, a MuData, None or False, got {type(adata).__name__}. Read the file first."
        )
    with reading(saved.path):
        state = _read_state(cls, content)
        model = _without_data(cls, state, cost)
        _restore(model, state, dict(saved.arrays))
    if adata is None and saved.adata_path is not None:
        adata = _read_data(saved.adata_path)
    if isinstance(adata, Data):
        trained_on = model._training
        attach(model, adata, for_new_models=True)
        if trained_on is not None and model.adata_manager is not None and trained_on.are_cells_of(adata, model._spec):
            model._remember(trained_on)
    return model


def load_registry(dir_path: str | Path, prefix: str | None = None) -> dict[str, Any]:
    """Return the registry of a saved model: the arguments of its setup, and numbers of cells and features.

    Raises
    ------
    FileNotFoundError, ValueError
        As :meth:`load`.

    Examples
    --------
    >>> scgenot.GENOT.load_registry("model")["setup_args"]  # doctest: +SKIP
    """
    path = json_path(dir_path, checked_prefix(prefix))
    content = read_content(path)
    with reading(path):
        return _registry(
            content["model"], content["setup_method_name"], content["setup_args"], content["summary_stats"]
        )


def _read_state(cls: type[TransportModel], content: dict[str, Any]) -> State:
    method = content.get("setup_method_name", "setup_anndata")
    if method not in SETUP_METHODS:
        raise ValueError(one_of("setup_method_name", method, SETUP_METHODS))
    arguments = dict(content["setup_args"])
    if unknown := set(arguments) - set(inspect.signature(getattr(cls, method)).parameters):
        raise ValueError(f"`setup_args` has {sorted(unknown)[0]!r}, which is no argument of {method}")
    check_keys(arguments)
    arguments = check_condition_arguments(arguments)
    check_time_arguments(arguments)
    for side in POPULATIONS:
        # Where one is left out, all other categories are.
        missing = arguments.get("source") is None and arguments.get("target") is None
        if arguments.get("population_key") is not None and (arguments[side] is not None or missing):
            check_category(side, arguments[side])
    stats = {str(name): value for name, value in content["summary_stats"].items()}
    if missing := [
        f"n_{side}_{what}" for side in POPULATIONS for what in ("cells", "features") if f"n_{side}_{what}" not in stats
    ]:
        raise ValueError(f"`summary_stats` lacks {missing[0]!r}")
    if any(not isinstance(value, int) or not 0 <= value < _MOST_FEATURES for value in stats.values()):
        raise ValueError(f"`summary_stats` must hold numbers of cells and features, got {stats}")
    options = dict(content["init"])
    options |= {"cost": saved_cost(options["cost"]), "shared_cost": saved_cost(options["shared_cost"])}
    if "method" in content:
        state = dict(content["method"])
        if state["method"] != cls.method_class.name:
            raise ValueError(one_of("method", state["method"], [cls.method_class.name]))
    else:
        # Of before growth was learned: where a marginal was relaxed, its growth is not known.
        guess = ["kept" if options[f"tau_{side}"] == 1.0 else "unknown" for side in POPULATIONS]
        # These held every option of every kind.
        options = {name: value for name, value in options.items() if name not in OPTIONS} | _chosen(options)
        state = {"config": content["flow"], "marginal_kinds": content.get("marginal_kinds", guess)}
        state |= {f"{side}_dim": stats[f"n_{side}_features"] for side in POPULATIONS}
    if any(state[f"{side}_dim"] != stats[f"n_{side}_features"] for side in POPULATIONS):
        raise ValueError("`summary_stats` and `method` disagree about the number of features")
    kinds = list(state.get("marginal_kinds", ()))
    if len(kinds) != len(POPULATIONS) or not set(kinds) <= {"kept", "relaxed", "unknown"}:
        raise ValueError(f"`marginal_kinds` must be two of 'kept', 'relaxed', 'unknown', got {kinds}")
    history = {name: pd.DataFrame(columns).set_index("step") for name, columns in content["history"].items()}
    if not isinstance(content["steps"], int) or not isinstance(content["trained"], bool):
        raise ValueError(f"`steps` must be a number and `trained` true or false, got {content['steps']!r}")
    return State(
        setup_method=method,
        setup_args=arguments,
        stats=stats,
        options=options,
        method=state,
        feature_names={side: _names(content["feature_names"][side]) for side in POPULATIONS},
        trained=content["trained"],
        steps=content["steps"],
        stopped=None if content["stopped"] is None else Stopped(content["stopped"]),
        history=history or None,
        coupling=[dict(row) for row in content["coupling"]],
        cells=content.get("cells"),
        conditions=content.get("conditions"),
    )


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a kind of coupling that differ from their defaults."""
    fields = dataclasses.fields(KINDS[options["coupling"]])
    return {one.name: options[one.name] for one in fields if options.get(one.name, one.default) != one.default}


def _names(saved: Any) -> list[str] | None:
    return None if saved is None else [str(name) for name in saved]


def _without_data(cls: type[TransportModel], state: State, cost: Any) -> TransportModel:
    options = dict(state.options)
    if cost is not None:
        options["cost"] = cost
    registry = _registry(cls.__name__, state.setup_method, state.setup_args, state.stats)
    config = cls.method_class.config_from(state.method["config"])
    PopulationSpec.from_arguments(state.setup_args)
    return cls(None, registry=registry, **{cls._config_argument: config}, **options)


def _restore(model: TransportModel, state: State, arrays: dict[str, np.ndarray]) -> None:
    model._feature_names = state.feature_names
    model.history_ = state.history
    model._coupling_diagnostics = state.coupling
    model.is_trained_, model.steps_, model.stopped_ = state.trained, state.steps, state.stopped
    # All are missing in models of before.
    model._reference = arrays.pop(_REFERENCE, None)
    model._source_reference = arrays.pop(_SOURCE_REFERENCE, None)
    names = {(kind, side): _rows_name(kind, side) for kind in ("train", "held") for side in POPULATIONS}
    rows = {key: arrays.pop(name, None) for key, name in names.items()}
    if state.cells is not None and all(some is not None for some in rows.values()):
        train, kept_out = (tuple(rows[kind, side] for side in POPULATIONS) for kind in ("train", "held"))
        source_digest, target_digest = state.cells["digests"]
        model._remember(TrainedOn(train, kept_out, (str(source_digest), str(target_digest)), str(state.cells["names"])))
    held = {name: arrays.pop(name) for name in list(arrays) if name.startswith(f"{_CONDITIONS}/")}
    if state.conditions is not None:
        vectors = {name.partition("/")[2]: one for name, one in held.items()}
        encoding = ConditionEncoding.from_plain(model._spec.conditions, state.conditions["encoding"], vectors)
        table = table_from(state.conditions["table"])
        # Raises unless each condition of the table can be encoded, with as many numbers as the method has learned.
        wanted = (encoding.rows(table).shape[1], encoding.layout.width) if encoding.spec.has_vector else (0, 0)
        if set(wanted) != {int(state.method.get("condition_dim", 0))}:
            raise ValueError("`conditions` and `method` disagree about the length of a condition")
        model._conditions = KnownConditions(encoding, table)
    if state.trained != bool(arrays):
        raise ValueError("it says that the model is trained, and there are no weights, or the other way round")
    if arrays:
        blank = model.method_class.from_state(state.method)
        weights = unflatten_arrays(blank.weights_template(), arrays)
        model._method = dataclasses.replace(blank, weights=weights)


def _read_data(path: Path) -> Data:
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(path.parent)!r} says that the data were saved along, but there is no {path.name}. Pass the data as "
            "`adata`, or adata=False."
        )
    return read_h5mu(path) if path.name.endswith(MUDATA) else read_h5ad(path)


def _rows_name(kind: str, side: str) -> str:
    return f"{_ROWS}/{kind}/{side}"


def _registry(name: str, method: str, arguments: dict[str, Any], stats: dict[str, int]) -> dict[str, Any]:
    """Return as much of scvi-tools' registry as a model without data needs."""
    fields = {"saved": {"data_registry": {}, "state_registry": {}, "summary_stats": dict(stats)}}
    return {"model_name": name, "setup_method_name": method, "setup_args": dict(arguments), "field_registries": fields}
