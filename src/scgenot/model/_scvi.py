"""All that this package takes from scvi-tools: fields that register without writing, and the base class."""

from __future__ import annotations

from typing import Any

import rich.pretty
import rich.table
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.data._utils import _assign_adata_uuid
from scvi.data.fields import BaseAnnDataField
from scvi.model.base import BaseModelClass

from scgenot.data import (
    Data,
    PopulationSpec,
    check_distances,
    check_population,
    check_shared,
    count_pairs,
    population_rows,
    read_conditions,
    read_population,
    read_steps,
    settle_encoding,
)

__all__ = ["AnnDataManager", "BaseModelClass", "make_current", "manager_for", "register", "show_setup_arguments"]


def manager_for(spec: PopulationSpec, arguments: dict[str, Any]) -> AnnDataManager:
    """Return a manager whose fields read and check both populations."""
    fields = [PopulationField(spec), RepresentationField(spec, "source"), RepresentationField(spec, "target")]
    if spec.conditions is not None:
        fields.append(ConditionField(spec))
    if spec.source.shared_rep is not None or spec.source.pairs_key is not None:
        fields.append(LinkField(spec))
    # Modalities need not hold the same cells.
    checks = AnnDataManagerValidationCheck(check_fully_paired_mudata=False)
    return AnnDataManager(fields=fields, setup_method_args=arguments, validation_checks=checks)


def make_current(model: BaseModelClass) -> None:
    """Make a model's own setup the one that new models on its data get."""
    type(model).register_manager(model.adata_manager)
    model.adata_manager._assign_most_recent_manager_uuid()


def register(model: BaseModelClass, manager: AnnDataManager, data: Data, *, for_new_models: bool) -> None:
    """Register a manager with data, and with a model; and with its class, if new models on the data are to get it."""
    known = type(model)._setup_adata_manager_store.get(data.uns.get("_scvi_uuid"))
    manager.register_fields(data)
    if known is not None and known.adata is not data:
        # A copy has the number of its original, which another manager goes by.
        _assign_adata_uuid(data, overwrite=True)
        manager._registry["_scvi_uuid"] = data.uns["_scvi_uuid"]
    model._register_manager_for_instance(manager)
    if for_new_models:
        type(model).register_manager(manager)


def show_setup_arguments(registry: dict[str, Any]) -> None:
    """Print the arguments of setup that a registry holds."""
    AnnDataManager.view_setup_method_args(registry)


class _ReadOnlyField(BaseAnnDataField):
    """A field that reads and checks, and leaves the data as they were."""

    is_empty = False

    def __init__(
        self, registry_key: str, attr_name: str, attr_key: str | None, spec: PopulationSpec, mod_key: str | None = None
    ) -> None:
        super().__init__()
        self._registry_key, self._attr_name, self._attr_key, self.spec = registry_key, attr_name, attr_key, spec
        self._mod_key = mod_key

    @property
    def registry_key(self) -> str:
        return self._registry_key

    @property
    def attr_name(self) -> str:
        return self._attr_name

    @property
    def attr_key(self) -> str | None:
        return self._attr_key

    @property
    def mod_key(self) -> str | None:
        return self._mod_key

    def state(self, adata: Data) -> dict[str, Any]:
        """Return what the registry keeps of this field."""
        raise NotImplementedError

    def validate_field(self, adata: Data) -> None:
        self.state(adata)

    def register_field(self, adata: Data) -> dict[str, Any]:
        return self.state(adata)

    def transfer_field(self, state_registry: dict, adata_target: Data, **kwargs) -> dict[str, Any]:
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
    """Which cells the two populations are."""

    def __init__(self, spec: PopulationSpec) -> None:
        super().__init__("population", "obs", spec.source.population_key, spec, spec.source.modality)

    def state(self, adata: Data) -> dict[str, Any]:
        spec = self.spec
        labels = {
            place.side: place.category if place.modality is None and place.among is None else place.label
            for place in spec.places
        }
        return labels | {f"n_{place.side}_cells": len(population_rows(adata, place)) for place in spec.places}


class RepresentationField(_ReadOnlyField):
    """The representation of one population, with its weights and its precomputed costs."""

    def __init__(self, spec: PopulationSpec, side: str) -> None:
        self.place = getattr(spec, side)
        attr_name, attr_key = ("X", None) if self.place.rep == "X" else ("obsm", self.place.rep)
        super().__init__(f"{side}_representation", attr_name, attr_key, spec, self.place.modality)

    def state(self, adata: Data) -> dict[str, Any]:
        place = self.place
        rows, width = check_population(adata, place)
        if place.distances is not None:
            check_distances(adata, place, rows)
        return {"representation": place.rep, f"n_{place.side}_features": width}


class ConditionField(_ReadOnlyField):
    """What was done to target cells, and which controls belong to them."""

    def __init__(self, spec: PopulationSpec) -> None:
        # The step of a cell is no column of its own: it is read off the times.
        told = [] if spec.conditions.course is not None else [*spec.conditions.columns, *spec.conditions.match_keys]
        key = next(iter(told), spec.source.population_key)
        super().__init__("conditions", "obs", key, spec, spec.target.modality)

    def state(self, adata: Data) -> dict[str, Any]:
        places = self.spec.places
        rows = tuple(population_rows(adata, place) for place in places)
        read = read_conditions if self.spec.conditions.course is None else read_steps
        found = read(adata, self.spec.conditions, places, rows)
        settle_encoding(adata, found)
        return {"n_conditions": len(found.table), "n_plans": len(found.blocks)}


class LinkField(_ReadOnlyField):
    """What ties the two populations together: shared features, or known pairs."""

    def __init__(self, spec: PopulationSpec) -> None:
        shared, pairs = spec.source.shared_rep, spec.source.pairs_key
        slot = ("obs", pairs) if shared is None else ("obsm", shared)
        super().__init__("link", *slot, spec, spec.source.modality)

    def state(self, adata: Data) -> dict[str, Any]:
        spec = self.spec
        source, target = (read_population(adata, place) for place in spec.places)
        if spec.source.shared_rep is not None:
            return {"shared representation": self.attr_key, "n_shared_features": check_shared(source, target, spec)}
        return {"pairs": self.attr_key, "n_known_pairs": count_pairs(source, target, spec)}
