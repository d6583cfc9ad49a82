"""Saving and loading a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad

from scgenot._version import __version__
from scgenot.costs import Cost, available_costs
from scgenot.flow import FlowConfig
from scgenot.model._populations import representation_width
from scgenot.model._saving import flatten_arrays, read_model, unflatten_arrays, write_model


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
        """Write the model to a directory: a JSON file, weights as safetensors, and the AnnData if wanted.

        Parameters
        ----------
        dir_path
            Directory to create.
        prefix
            Put before the names of the files.
        overwrite
            Whether a directory that exists may be written to.
        save_anndata
            Whether to write the AnnData, too.
        anndata_write_kwargs
            Passed to :meth:`anndata.AnnData.write_h5ad`.

        Raises
        ------
        FileExistsError
            If the directory exists and `overwrite` is false.
        """
        weights = self._solver.weights
        history = (
            {} if self.history_ is None else {k: v.reset_index().to_dict("list") for k, v in self.history_.items()}
        )
        content = {
            "version": __version__,
            "model": type(self).__name__,
            "setup_args": self.registry_["setup_args"],
            "summary_stats": dict(self.summary_stats),
            "init": dataclasses.asdict(self._coupling_config)
            | {"cost": cost_name(self._coupling_config.cost), "problem": self._problem, "alpha": self._alpha}
            | {"coupling": self._coupling_kind},
            "flow": dataclasses.asdict(self._solver.config),
            "marginal_kinds": self._solver.marginal_kinds,
            "var_names": self._var_names,
            "trained": self.is_trained_,
            "steps": self.steps_,
            "stopped": self.stopped_,
            "history": history,
            "coupling": self._coupling_diagnostics,
        }
        arrays = {} if weights is None else flatten_arrays(weights)
        write_adata = partial(self._some_adata(None).write_h5ad, **anndata_write_kwargs) if save_anndata else None
        write_model(dir_path, content, arrays, prefix=prefix or "", overwrite=overwrite, write_adata=write_adata)

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | Literal[False] | None = None,
        *,
        prefix: str | None = None,
        cost: Callable[..., Any] | None = None,
    ) -> Self:
        """Read a model from a directory.

        Parameters
        ----------
        dir_path
            What was given to :meth:`save`.
        adata
            AnnData to attach: both populations, or source cells only. ``None`` takes the one that was saved along, if
            any; ``False`` attaches none. Without data the model maps any AnnData that it is given.
        prefix
            As given to :meth:`save`.
        cost
            The cost, where it was a function or an OTT ``CostFn``; needed only to train again.

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
            adata = read_h5ad(saved.adata_path)
        if not isinstance(adata, AnnData) and adata not in (None, False):
            raise TypeError(
                f"`adata` must be an AnnData, None or False, got {type(adata).__name__}. Read the file first."
            )
        data = adata if isinstance(adata, AnnData) else None
        stats, arguments = content["summary_stats"], content["setup_args"]
        both = data is not None and _has_both(data, arguments)
        if both:
            # Before setup, so that an AnnData that does not fit is left without a mark.
            _check_widths(data, arguments, stats)
            cls.setup_anndata(data, **arguments)
        init = dict(content["init"])
        init["cost"] = cost if cost is not None else _saved_cost(init["cost"])
        registry = None if both else _registry(cls.__name__, arguments, stats)
        model = cls(
            data if both else None, registry=registry, flow_config=FlowConfig.from_dict(content["flow"]), **init
        )
        model._restore(content, saved.arrays)
        if data is not None and not both:
            # Source cells only: enough to map, not to train.
            model._adata = data
            model._source_cells(data, None) if model.is_trained_ else None
        return model

    def _restore(self, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self._var_names = content["var_names"]
        self.history_ = {
            name: pd.DataFrame(columns).set_index("step") for name, columns in content["history"].items()
        } or None
        self._coupling_diagnostics = content["coupling"]
        self.is_trained_, self.steps_, self.stopped_ = content["trained"], content["steps"], content["stopped"]
        if arrays:
            # Models from before growth was learned do not say: where a marginal was relaxed, its growth is not known.
            taus = self._coupling_config.tau_source, self._coupling_config.tau_target
            guess = ["kept" if tau == 1.0 else "unknown" for tau in taus]
            kinds = tuple(content.get("marginal_kinds", guess))
            self._solver = dataclasses.replace(self._solver, marginal_kinds=kinds)
            weights = unflatten_arrays(self._solver.weights_template(), arrays)
            self._solver = dataclasses.replace(self._solver, weights=weights)


def cost_name(cost: Any) -> str:
    """Return what a cost is called."""
    if isinstance(cost, str):
        return cost
    return getattr(cost, "name", None) or getattr(cost, "__name__", None) or type(cost).__name__


def _saved_cost(name: str) -> str | Cost:
    """Return a cost by its name; one that was a function cannot come back from a name, but is needed only to train."""
    if name in available_costs():
        return name

    def gone(x: Any, y: Any) -> Any:
        raise ValueError(f"this model was trained with the cost {name!r}, a function; pass it to `load` as `cost`.")

    return Cost(name, gone)


def _check_widths(adata: AnnData, arguments: dict[str, Any], stats: dict[str, int]) -> None:
    for side in ("source", "target"):
        rep = arguments[f"{side}_rep"] or arguments["source_rep"]
        expected = stats[f"n_{side}_features"]
        if rep == "X" or rep in adata.obsm:
            got = representation_width(adata, rep)
            if got != expected:
                raise ValueError(
                    f"the model was trained with {expected} {side} features, adata has {got} in {rep!r}. Compute the "
                    "representation as for the training data."
                )


def _has_both(adata: AnnData, arguments: dict[str, Any]) -> bool:
    key = arguments["population_key"]
    return key in adata.obs and bool((adata.obs[key] == arguments["target"]).any())


def _registry(name: str, arguments: dict[str, Any], stats: dict[str, int]) -> dict[str, Any]:
    """Return as much of scvi-tools' registry as a model without data needs."""
    fields = {"saved": {"data_registry": {}, "state_registry": {}, "summary_stats": stats}}
    return {"model_name": name, "setup_args": arguments, "field_registries": fields}
