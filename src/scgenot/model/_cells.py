"""Which cells a question to a model is about, and what the model is about."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from jaxtyping import Int

from scgenot.data import Data, PopulationSpec, read_representation, select_rows
from scgenot.methods import GENOTSolver
from scgenot.model._problem import cost_name


class CellsMixin:
    """Where the cells of a model are."""

    _solver: GENOTSolver
    _spec: PopulationSpec

    def describe(self) -> dict[str, str | float | int]:
        """Return what the model maps and how, in plain values that an AnnData can store."""
        source, target, config = self._spec.source, self._spec.target, self._coupling_config.resolved(self._problem)
        known = {
            "population_key": source.population_key,
            "source": str(source.modality if source.category is None else source.category),
            "target": str(target.modality if target.category is None else target.category),
            "source_modality": source.modality,
            "target_modality": target.modality,
            "source_rep": source.rep,
            "target_rep": target.rep,
            "weights_key": source.weights_key,
            "shared_rep": source.shared_rep if self._problem == "fused" else None,
            "pairs_key": source.pairs_key if self._problem == "fused" else None,
            "problem": self._problem,
            "coupling": self._coupling_kind,
            "cost": cost_name(config.cost),
            "alpha": float(config.alpha) if self._problem == "fused" else None,
            "epsilon": float(config.epsilon),
            "tau_source": float(config.tau_source),
            "tau_target": float(config.tau_target),
        }
        return {name: value for name, value in known.items() if value is not None}

    def population_of(self, side: Literal["source", "target"]) -> tuple[Hashable | None, Hashable | None]:
        """Return the column of ``obs`` and its category that tell a population from other cells; ``None`` if all belong."""
        place = getattr(self._spec, side)
        return place.population_key, place.category

    def source_adata(self, adata: Data | None = None) -> AnnData:
        """Return the AnnData that source cells are read from: `adata` (by default the model's data), or its modality."""
        return self._spec.source.cells(self._some_data(adata))

    def source_rows(
        self, adata: Data | None = None, *, indices: Sequence[int] | np.ndarray | None = None
    ) -> Int[np.ndarray, " n"]:
        """Return the rows of :meth:`source_adata` that results of :meth:`sample` belong to, in their order."""
        return select_rows(self._some_data(adata), self._spec.source, indices)

    def _some_data(self, adata: Data | None) -> Data:
        if adata is None:
            adata = self.adata
        if adata is None:
            raise ValueError("this model was loaded without data. Pass `adata` with the cells that you want to map.")
        return adata

    def _source_cells(self, adata: Data | None, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and representation of the source cells that are asked for."""
        return self._cells_of("source", adata, indices)

    def _cells_of(self, population: str, adata: Data | None, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and representation of the cells that are asked for, seen as cells of a population."""
        self._check_if_trained(
            warn=False, message="this model is not trained: it has nothing to sample from. Call `model.train()` first."
        )
        data, place = self._some_data(adata), getattr(self._spec, population)
        width = getattr(self._solver, f"{population}_dim")
        adata = place.cells(data)
        rows = select_rows(data, place, indices)
        if len(rows) == 0:
            raise ValueError(
                f"no cells to map: {place.name_of('obs')}[{place.population_key!r}] has no cell {place.category!r}. "
                "Name the cells with `indices`."
            )
        cells = read_representation(adata, place.rep, rows, f"{population}_rep", place)
        if cells.shape[1] != width:
            raise ValueError(
                f"the model was trained with {width} features in {place.rep!r}, this adata has "
                f"{cells.shape[1]}. Compute the representation as for the training data, on the same features."
            )
        if place.rep == "X" and population == "source":
            self._check_var_names(adata)
        return rows, cells

    def _check_var_names(self, adata: AnnData) -> None:
        expected = self.var_names
        if expected is not None and list(adata.var_names) != expected:
            missing = [name for name in expected if name not in adata.var_names]
            raise ValueError(
                f"adata.var_names are not those of training, in order ({len(missing)} are missing). "
                "Use `adata[:, model.var_names].copy()`."
            )
