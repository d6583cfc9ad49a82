"""Where two populations live: in one AnnData, or in the modalities of a MuData."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any, TypeAlias

from anndata import AnnData
from mudata import MuData

from scgenot._messages import did_you_mean, listed
from scgenot.data._condition_spec import ConditionSpec
from scgenot.data._time_course import Time, TimeCourse, text_of_time

Data: TypeAlias = AnnData | MuData
POPULATIONS = ("source", "target")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one population lives.

    Attributes
    ----------
    side
        ``"source"`` or ``"target"``.
    rep
        Key of ``obsm``, or ``"X"``.
    modality
        Modality of a MuData, or ``None`` for an AnnData.
    population_key, category
        Column of ``obs`` and its category that tell these cells from others; ``None`` if all cells belong.
    others_than
        Instead of a category: these cells have any other one than this.
    among
        Instead of a category: these cells have any of these times.
    distances
        Key of ``obsp`` with precomputed costs, or ``None``.
    shared_rep
        Key of ``obsm`` with features that both populations have, or ``None``.
    weights_key, pairs_key
        Columns of ``obs``, or ``None``.
    layer
        Key of ``layers`` that is read where `rep` is ``"X"``, or ``None``.
    """

    side: str
    rep: str
    modality: str | None = None
    population_key: str | None = None
    category: Hashable | None = None
    others_than: Hashable | None = None
    among: tuple[Time, ...] | None = None
    distances: str | None = None
    shared_rep: str | None = None
    weights_key: str | None = None
    pairs_key: str | None = None
    layer: str | None = None

    @property
    def label(self) -> str:
        """What messages and results call the population."""
        other = None if self.others_than is None else f"all but {self.others_than}"
        times = None if self.among is None else ", ".join(map(text_of_time, self.among))
        named = [str(part) for part in (self.modality, self.category, other, times) if part is not None]
        return " ".join(named) or self.side

    def cells(self, data: Data) -> AnnData:
        """Return the AnnData that holds this population: `data`, or its modality.

        Raises
        ------
        TypeError
            If a MuData was given to a model of an AnnData, or `data` is neither.
        KeyError
            If the modality is absent; the message names the closest.
        """
        if isinstance(data, AnnData):
            return data
        if not isinstance(data, MuData):
            raise TypeError(f"`adata` must be an AnnData or a MuData, got {type(data).__name__}. Read the file first.")
        if self.modality is None:
            raise TypeError(
                f"this model was set up with an AnnData, got a MuData as `adata`. Pass one of its modalities: "
                f"{listed(data.mod)}."
            )
        if self.modality not in data.mod:
            raise KeyError(
                f"`{self.side}_modality`={self.modality!r} is no modality of mdata."
                f"{did_you_mean(self.modality, data.mod)} There are: {listed(data.mod)}."
            )
        return data.mod[self.modality]

    def name_of(self, slot: str) -> str:
        """Return what the user calls a slot of the AnnData that holds this population."""
        return f"adata.{slot}" if self.modality is None else f"mdata[{self.modality!r}].{slot}"


@dataclasses.dataclass(frozen=True)
class PopulationSpec:
    """Where both populations live, and what was done to the cells of the target."""

    source: Place
    target: Place
    conditions: ConditionSpec | None = None

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> PopulationSpec:
        """Read the arguments of ``setup_anndata`` or ``setup_mudata``, as they were given or saved."""
        if (course := TimeCourse.from_arguments(arguments)) is not None:
            return cls._of_course(arguments, course)
        in_one_space = "source_modality" not in arguments
        places = []
        for side in POPULATIONS:
            rep = arguments[f"{side}_rep"]
            # Without a category of its own, a population is all cells that the other one has not.
            other = arguments.get("target" if side == "source" else "source")
            whole = in_one_space and arguments.get(side) is None
            places.append(
                Place(
                    side,
                    arguments["source_rep"] if rep is None and in_one_space else rep,
                    modality=arguments.get(f"{side}_modality"),
                    population_key=arguments.get("population_key"),
                    category=arguments.get(side),
                    others_than=other if whole else None,
                    distances=arguments.get(f"{side}_distances"),
                    shared_rep=arguments.get("shared_rep"),
                    weights_key=arguments.get("weights_key"),
                    pairs_key=arguments.get("pairs_key"),
                    layer=arguments.get("layer"),
                )
            )
        return cls(*places, ConditionSpec.from_arguments(arguments))

    @classmethod
    def _of_course(cls, arguments: dict[str, Any], course: TimeCourse) -> PopulationSpec:
        """Cells of all times but the last one that is followed are the source, of all but the first the target."""
        # Weights are growth until the next time: they weigh cells as parents, not as descendants.
        weights = [arguments.get("weights_key"), None]
        places = [
            Place(
                side,
                arguments["source_rep"],
                population_key=course.key,
                among=among,
                weights_key=own,
                layer=arguments.get("layer"),
            )
            for side, among, own in zip(
                POPULATIONS,
                (course.followed[:-1], course.followed[1:]),
                weights[::-1] if course.backwards else weights,
                strict=True,
            )
        ]
        return cls(*places, ConditionSpec.from_arguments(arguments))

    @property
    def places(self) -> tuple[Place, Place]:
        """Source and target."""
        return self.source, self.target

    @property
    def one_space(self) -> bool:
        """Whether both populations have the same representation of the same features."""
        return (self.source.modality, self.source.rep) == (self.target.modality, self.target.rep)


def swapped_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of setup with source and target exchanged, or with times followed the other way."""
    if TimeCourse.from_arguments(arguments) is not None:
        return dict(arguments) | {"backwards": not arguments.get("backwards")}
    spec = PopulationSpec.from_arguments(arguments)
    whole = dict(arguments) | {"source_rep": spec.source.rep, "target_rep": spec.target.rep}
    other = {"source": "target", "target": "source"}

    def partner(name: str) -> str:
        side, _, rest = name.partition("_")
        return f"{other[side]}_{rest}".rstrip("_") if side in other else name

    return {name: whole.get(partner(name)) for name in whole}


def check_copyable(data: Data) -> None:
    """Raise a ``ValueError`` if `data` cannot be copied in memory: ask before the work whose result goes into the copy."""
    parts = data.mod.values() if isinstance(data, MuData) else [data]
    if any(getattr(part, "isbacked", False) for part in parts):
        raise ValueError(
            "`copy=True` needs data in memory, got an object that is backed by a file. Pass `adata.to_memory()`, or "
            "leave `copy` False and write the results into this object."
        )
