"""Saving and loading a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad

from scgenot._version import __version__
from scgenot.flow import FlowConfig
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
            "var_names": self._var_names,
            "trained": self.is_trained_,
            "steps": self.steps_,
            "stopped": self.stopped_,
            "history": history,
            "coupling": self._coupling_diagnostics,
        }
        arrays = {} if weights is None else flatten_arrays(weights)
        path = write_model(dir_path, content, arrays, prefix=prefix or "", overwrite=overwrite)
        if save_anndata:
            self._some_adata(None).write_h5ad(path, **anndata_write_kwargs)

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
        data = adata if isinstance(adata, AnnData) else None
        stats, arguments = content["summary_stats"], content["setup_args"]
        both = data is not None and _has_both(data, arguments)
        if both:
            cls.setup_anndata(data, **arguments)
        init = dict(content["init"])
        init["cost"] = cost if cost is not None else init["cost"]
        registry = None if both else _registry(cls.__name__, arguments, stats)
        model = cls(data if both else None, registry=registry, flow_config=FlowConfig(**content["flow"]), **init)
        for side in ("source", "target"):
            expected, got = stats[f"n_{side}_features"], getattr(model._solver, f"{side}_dim")
            if expected != got:
                raise ValueError(
                    f"the model was trained with {expected} {side} features, adata has {got} in "
                    f"{getattr(model._spec, f'{side}_rep')!r}. Compute the representation as for the training data."
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
            weights = unflatten_arrays(self._solver.weights_template(), arrays)
            self._solver = dataclasses.replace(self._solver, weights=weights)


def cost_name(cost: Any) -> str:
    """Return what a cost is called."""
    return cost if isinstance(cost, str) else getattr(cost, "name", None) or type(cost).__name__


def _has_both(adata: AnnData, arguments: dict[str, Any]) -> bool:
    key = arguments["population_key"]
    return key in adata.obs and bool((adata.obs[key] == arguments["target"]).any())


def _registry(name: str, arguments: dict[str, Any], stats: dict[str, int]) -> dict[str, Any]:
    """Return as much of scvi-tools' registry as a model without data needs."""
    fields = {"saved": {"data_registry": {}, "state_registry": {}, "summary_stats": stats}}
    return {"model_name": name, "setup_args": arguments, "field_registries": fields}
