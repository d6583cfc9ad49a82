"""All that this package takes from scvi-tools: fields that register without writing, and the base class."""

from __future__ import annotations

from typing import Any

import rich.pretty
import rich.table
from anndata import AnnData
from scvi.data import AnnDataManager
from scvi.data.fields import BaseAnnDataField
from scvi.model.base import BaseModelClass

from scgenot.model._populations import (
    PopulationSpec,
    category_rows,
    read_population,
    representation_width,
)

__all__ = ["AnnDataManager", "BaseModelClass", "PopulationField", "RepresentationField"]


class _ReadOnlyField(BaseAnnDataField):
    """A field that reads and checks, and leaves the AnnData as it was."""

    is_empty = False

    def __init__(self, registry_key: str, attr_name: str, attr_key: str | None, spec: PopulationSpec) -> None:
        super().__init__()
        self._registry_key, self._attr_name, self._attr_key, self.spec = registry_key, attr_name, attr_key, spec

    @property
    def registry_key(self) -> str:
        return self._registry_key

    @property
    def attr_name(self) -> str:
        return self._attr_name

    @property
    def attr_key(self) -> str | None:
        return self._attr_key

    def state(self, adata: AnnData) -> dict[str, Any]:
        """Return what the registry keeps of this field."""
        raise NotImplementedError

    def validate_field(self, adata: AnnData) -> None:
        self.state(adata)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        return self.state(adata)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict[str, Any]:
        return self.state(adata_target)

    def get_summary_stats(self, state_registry: dict) -> dict[str, int]:
        return {key: value for key, value in state_registry.items() if key.startswith("n_")}

    def view_state_registry(self, state_registry: dict) -> rich.table.Table:
        table = rich.table.Table(title=f"{self.registry_key} state registry")
        for heading in ("Entry", "Value"):
            table.add_column(heading, justify="center", no_wrap=True)
        for key, value in state_registry.items():
            table.add_row(key, str(value))
        return table


class PopulationField(_ReadOnlyField):
    """The ``obs`` column that tells the two populations apart."""

    def __init__(self, spec: PopulationSpec) -> None:
        super().__init__("population", "obs", spec.population_key, spec)

    def state(self, adata: AnnData) -> dict[str, Any]:
        key = self.spec.population_key
        sizes = {
            f"n_{side}_cells": len(category_rows(adata, key, getattr(self.spec, side), side))
            for side in ("source", "target")
        }
        return {"source": self.spec.source, "target": self.spec.target} | sizes


class RepresentationField(_ReadOnlyField):
    """The representation of one population, with its weights."""

    def __init__(self, spec: PopulationSpec, side: str) -> None:
        rep = getattr(spec, f"{side}_rep")
        attr_name, attr_key = ("X", None) if rep == "X" else ("obsm", rep)
        super().__init__(f"{side}_representation", attr_name, attr_key, spec)
        self.side = side

    def state(self, adata: AnnData) -> dict[str, Any]:
        read_population(adata, self.spec, self.side)
        rep = getattr(self.spec, f"{self.side}_rep")
        return {"representation": rep, f"n_{self.side}_features": representation_width(adata, rep)}
