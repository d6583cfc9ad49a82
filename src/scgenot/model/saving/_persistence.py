"""Saving and loading a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
from anndata import read_h5ad
from mudata import MuData, read_h5mu

from scgenot._version import __version__
from scgenot.data import Data, Place, PopulationSpec, has_column, obs_column, representation_width
from scgenot.flow import FlowConfig
from scgenot.model.saving._costs import plain_cost, saved_cost
from scgenot.model.saving._files import ADATA, MUDATA, flatten_arrays, read_model, unflatten_arrays, write_model

_REFERENCE = "target_reference"


class PersistenceMixin:
    """``save`` and ``load``."""

    def save(
        self,
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
        """
        weights = self._solver.weights
        history = (
            {} if self.history_ is None else {k: v.reset_index().to_dict("list") for k, v in self.history_.items()}
        )
        config = self._coupling_config
        options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        options |= {"cost": plain_cost(config.cost), "shared_cost": plain_cost(config.shared_cost)}
        content = {
            "version": __version__,
            "model": type(self).__name__,
            "setup_method_name": self.registry_["setup_method_name"],
            "setup_args": self.registry_["setup_args"],
            "summary_stats": dict(self.summary_stats),
            "init": options | {"problem": self._problem, "coupling": self._coupling_kind},
            "flow": dataclasses.asdict(self._solver.config),
            "marginal_kinds": self._solver.marginal_kinds,
            "feature_names": self._feature_names,
            "trained": self.is_trained_,
            "steps": self.steps_,
            "stopped": self.stopped_,
            "history": history,
            "coupling": self._coupling_diagnostics,
        }
        arrays = {} if weights is None else flatten_arrays(weights)
        if weights is not None and self._reference is not None:
            arrays[_REFERENCE] = self._reference
        data = self._some_data(None) if save_anndata else None
        written = {}
        if data is not None:
            write = data.write_h5mu if isinstance(data, MuData) else data.write_h5ad
            written = {
                "write_adata": partial(write, **anndata_write_kwargs),
                "adata_name": MUDATA if isinstance(data, MuData) else ADATA,
            }
        write_model(dir_path, content, arrays, prefix=prefix or "", overwrite=overwrite, **written)

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: Data | Literal[False] | None = None,
        *,
        prefix: str | None = None,
        cost: Callable[..., Any] | tuple[Any, Any] | None = None,
    ) -> Self:
        """Read a model from a directory.

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
            If `adata` does not fit the model.
        """
        saved = read_model(dir_path, prefix=prefix or "")
        content = saved.content
        if content["model"] != cls.__name__:
            raise ValueError(f"{str(dir_path)!r} holds a {content['model']}, not a {cls.__name__}.")
        if adata is None and saved.adata_path is not None:
            read = read_h5mu if saved.adata_path.suffix == ".h5mu" else read_h5ad
            adata = read(saved.adata_path)
        if not isinstance(adata, Data) and adata not in (None, False):
            raise TypeError(
                f"`adata` must be an AnnData, a MuData, None or False, got {type(adata).__name__}. Read the file first."
            )
        data = adata if isinstance(adata, Data) else None
        stats, arguments = content["summary_stats"], content["setup_args"]
        method = content.get("setup_method_name", "setup_anndata")
        spec = PopulationSpec.from_arguments(arguments)
        both = data is not None and _has_both(data, spec)
        if both:
            # Before setup, so that data that do not fit are left without a mark.
            _check_widths(data, spec, stats)
            getattr(cls, method)(data, **arguments)
        init = dict(content["init"])
        init["cost"] = cost if cost is not None else saved_cost(init["cost"])
        init["shared_cost"] = saved_cost(init["shared_cost"])
        registry = None if both else _registry(cls.__name__, method, arguments, stats)
        model = cls(
            data if both else None, registry=registry, flow_config=FlowConfig.from_dict(content["flow"]), **init
        )
        model._restore(content, saved.arrays)
        if data is not None and not both:
            # Source cells only: enough to map, not to train.
            spec.source.cells(data)
            model._adata = data
            model._source_cells(data, None) if model.is_trained_ else None
        return model

    def _restore(self, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self._feature_names = content["feature_names"]
        self.history_ = {
            name: pd.DataFrame(columns).set_index("step") for name, columns in content["history"].items()
        } or None
        self._coupling_diagnostics = content["coupling"]
        self.is_trained_, self.steps_, self.stopped_ = content["trained"], content["steps"], content["stopped"]
        # Missing in models of before.
        self._reference = arrays.pop(_REFERENCE, None)
        if arrays:
            # Models from before growth was learned do not say: where a marginal was relaxed, its growth is not known.
            taus = self._coupling_config.tau_source, self._coupling_config.tau_target
            guess = ["kept" if tau == 1.0 else "unknown" for tau in taus]
            kinds = tuple(content.get("marginal_kinds", guess))
            self._solver = dataclasses.replace(self._solver, marginal_kinds=kinds)
            weights = unflatten_arrays(self._solver.weights_template(), arrays)
            self._solver = dataclasses.replace(self._solver, weights=weights)


def _check_widths(data: Data, spec: PopulationSpec, stats: dict[str, int]) -> None:
    for place in (spec.source, spec.target):
        adata, rep = place.cells(data), place.rep
        if rep == "X" or rep in adata.obsm:
            _check_width(rep, place.side, representation_width(adata, rep), stats[f"n_{place.side}_features"])
        if place.shared_rep in adata.obsm:
            _check_width(
                place.shared_rep, "shared", representation_width(adata, place.shared_rep), stats["n_shared_features"]
            )


def _check_width(rep: str, which: str, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(
            f"the model was trained with {expected} {which} features, adata has {got} in {rep!r}. Compute the "
            "representation as for the training data."
        )


def _has_both(data: Data, spec: PopulationSpec) -> bool:
    # A MuData for a model of an AnnData, or the other way round, is at most a place of source cells.
    if isinstance(data, MuData) != (spec.target.modality is not None):
        return False
    return _has(data, spec.target)


def _has(data: Data, place: Place) -> bool:
    """Whether there is a population that may be that of a place."""
    if place.modality is not None and place.modality not in data.mod:
        return False
    if place.population_key is None:
        return True
    if not has_column(data, place, place.population_key):
        return False
    return bool((obs_column(data, place, place.population_key, "population_key") == place.category).any())


def _registry(name: str, method: str, arguments: dict[str, Any], stats: dict[str, int]) -> dict[str, Any]:
    """Return as much of scvi-tools' registry as a model without data needs."""
    fields = {"saved": {"data_registry": {}, "state_registry": {}, "summary_stats": stats}}
    return {"model_name": name, "setup_method_name": method, "setup_args": arguments, "field_registries": fields}
