"""Conditions: which perturbation acts on which cells, in which context, and which controls belong to it. Never writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from scgenot.data._columns import obs_column
from scgenot.data._condition_spec import ConditionSpec
from scgenot.data._places import Data, Place

_FEWEST_CONTROLS = 2
Rows = Int[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True)
class Block:
    """Cells that are coupled with each other.

    Attributes
    ----------
    condition
        Number of the condition.
    source, target
        Places of its controls and of its cells in their populations.
    """

    condition: int
    source: Rows
    target: Rows


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What was done to the target cells.

    Attributes
    ----------
    spec
        Where it says so.
    table
        One row a condition, a perturbation in a context: the perturbation's name, then slots and contexts. Its
        index names each row.
    blocks
        One a condition and stratum.
    doses
        Columns of slots that hold doses.
    """

    spec: ConditionSpec
    table: pd.DataFrame
    blocks: tuple[Block, ...]
    doses: tuple[str, ...]

    def swapped(self, spec: ConditionSpec) -> Conditions:
        """Return the conditions as a model of the opposite direction has them, by what it was set up with."""
        blocks = tuple(Block(block.condition, block.target, block.source) for block in self.blocks)
        table = self.table if spec.course is None else spec.course.table()
        return Conditions(spec, table, blocks, self.doses)

    def restricted(self, source: Rows, target: Rows, leave_out: Sequence[int] = ()) -> tuple[Block, ...]:
        """Return the blocks among some cells, their places numbered among these; conditions in `leave_out` have none."""
        places = []
        for kept in (source, target):
            new = np.full(max([len(kept), *(kept + 1)], default=0), -1)
            new[kept] = np.arange(len(kept))
            places.append(new)
        blocks = []
        for block in self.blocks:
            if block.condition not in leave_out:
                some = (_among(new, own) for new, own in zip(places, (block.source, block.target), strict=True))
                blocks.append(Block(block.condition, *some))
        return tuple(blocks)


def _among(new: Rows, own: Rows) -> Rows:
    found = new[own[own < len(new)]]
    return found[found >= 0]


def read_conditions(
    data: Data, spec: ConditionSpec, places: tuple[Place, Place], rows: tuple[Rows, Rows]
) -> Conditions:
    """Read what was done to the target cells, and which source cells are their controls.

    Parameters
    ----------
    data
        The data.
    spec
        Which columns say so.
    places
        Source and target.
    rows
        Rows of both populations in their AnnData.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a dose is negative or not finite, a value of a context is missing, a cell of the target
        has no perturbation, or a stratum has fewer than two controls; the message names which.
    """
    frames = [_columns(data, place, spec, some) for place, some in zip(places, rows, strict=True)]
    side = 0 if spec.reversed else 1
    treated = frames[side]
    slots = [column for columns in spec.covariates.values() for column in columns]
    doses = tuple(column for column in slots if _is_dose(treated[column], column, spec))
    perturbed = perturbations(treated, spec, doses, places[side].name_of("obs"))
    described = pd.concat([perturbed, treated[list(spec.context_keys)].reset_index(drop=True)], axis=1)
    keys = [spec.name_column, *spec.context_keys]
    numbers, table = _distinct(described, keys)
    table.index = pd.Index(
        [condition_name(one[spec.name_column], one[list(spec.context_keys)]) for _, one in table.iterrows()],
        name="name",
    )
    return Conditions(spec, table, tuple(_blocks(spec, frames, numbers, table)), doses)


def perturbations(
    frame: pd.DataFrame, spec: ConditionSpec, doses: Sequence[str], where: str, *, may_be_empty: bool = False
) -> pd.DataFrame:
    """Return the perturbation of each row: its name in the spec's ``name_column``, and its slots, ``None`` or NaN where they are empty.

    A slot is empty where any of its covariates has the source's category, no value, or a dose of 0. Rows with the same slots in another order are the
    same perturbation.

    Raises
    ------
    ValueError
        If a dose is negative or not finite, or a row has no slot filled (unless `may_be_empty`).
    """
    n = len(frame)
    filled = np.ones((n, spec.slots), bool)
    values: dict[str, np.ndarray] = {}
    for columns in spec.covariates.values():
        for slot, column in enumerate(columns):
            series = frame[column].reset_index(drop=True)
            if column in doses:
                dose = _doses(series, column, where)
                values[column] = dose
                filled[:, slot] &= dose > 0
            else:
                known = pd.Series([not pd.isna(value) and not _is(value, spec.source) for value in series], dtype=bool)
                values[column] = series.astype(object).where(known, None).to_numpy(object)
                filled[:, slot] &= known.to_numpy()
    kept = {}
    for columns in spec.covariates.values():
        for slot, column in enumerate(columns):
            empty = 0.0 if column in doses else None
            kept[column] = np.where(filled[:, slot], values[column], empty)
    nothing = ~filled.any(axis=1) if spec.covariates else np.zeros(n, bool)
    if nothing.any() and not may_be_empty:
        raise ValueError(
            f"{int(nothing.sum())} target cells have no perturbation: all their slots in {where} are empty"
            + ("" if spec.source is None else f", hold the source's category {spec.source!r},")
            + f" or have a dose of 0 (the first is row {int(np.flatnonzero(nothing)[0])} of these "
            "cells). Give them the source's category in `population_key`, or fill the slots."
        )
    frame = pd.DataFrame(kept, index=range(n))
    names = _names(frame, spec, filled)
    frame.insert(0, spec.name_column, names)
    # The first row with a name says in which order its slots stand.
    first = frame.groupby(spec.name_column, sort=False).head(1).set_index(spec.name_column)
    for column in kept:
        frame[column] = frame[spec.name_column].map(first[column]).to_numpy()
    return frame


def condition_columns(data: Data, place: Place, columns: Sequence[str], rows: Rows) -> pd.DataFrame:
    """Return columns of ``obs`` for some cells; raise a ``KeyError`` if one is missing."""
    return pd.DataFrame(
        {key: obs_column(data, place, key, "context_keys").iloc[rows].reset_index(drop=True) for key in columns},
        index=range(len(rows)),
    )


def matched_cells(data: Data, place: Place, rows: Rows, values: Mapping[str, Any]) -> Rows:
    """Return those of some rows whose columns have given values."""
    frame = condition_columns(data, place, list(values), rows)
    same = np.ones(len(rows), bool)
    for key, value in values.items():
        same &= frame[key].map(text_of).astype(str).to_numpy(object) == text_of(value)
    return rows[same]


def _columns(data: Data, place: Place, spec: ConditionSpec, rows: Rows) -> pd.DataFrame:
    """Return what is needed of a population: slots of the target, contexts and matched columns of both."""
    treated = place.side == spec.treated
    slots = spec.covariates if treated else {}
    wanted = [(column, "condition_keys") for columns in slots.values() for column in columns]
    contexts = spec.context_keys if treated else [c for c in spec.context_keys if c in spec.match_keys]
    wanted += [(column, "context_keys") for column in contexts]
    wanted += [(column, "match_keys") for column in spec.match_keys]
    found = {}
    for column, argument in wanted:
        if column in found:
            continue
        values = obs_column(data, place, column, argument).iloc[rows].reset_index(drop=True)
        if argument != "condition_keys" and values.isna().any():
            raise ValueError(
                f"`{argument}`: {int(values.isna().sum())} {place.side} cells have no value in "
                f"{place.name_of('obs')}[{column!r}]. Fill it, or leave these cells out."
            )
        found[column] = values
    return pd.DataFrame(found, index=range(len(rows)))


def _is_dose(series: pd.Series, column: str, spec: ConditionSpec) -> bool:
    """Whether a slot's column holds numbers: these are doses, other values are categories."""
    numbers = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    # Days or clusters may tell the populations apart by number; a dose is one whose untreated cells have none.
    return numbers and (column != spec.population_key or _is(0, spec.source))


def _doses(series: pd.Series, column: str, where: str) -> np.ndarray:
    # No value is an empty slot, which is what a dose of 0 is.
    doses = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    doses = np.where(np.isnan(doses) & series.notna().to_numpy(), -np.inf, doses)
    missing = np.isnan(doses)
    wrong = ~missing & (~np.isfinite(doses) | (doses < 0))
    if wrong.any():
        raise ValueError(
            f"{where}[{column!r}] must hold finite doses, none below 0; {int(wrong.sum())} are not, such as "
            f"{doses[wrong][0]:g}. A dose of 0 or no value is an empty slot."
        )
    return np.where(missing, 0.0, doses)


def _names(frame: pd.DataFrame, spec: ConditionSpec, filled: np.ndarray) -> list[str]:
    columns = list(spec.covariates.values())
    values = frame.to_numpy(object)
    place = {column: number for number, column in enumerate(frame.columns)}
    names = []
    for row, full in zip(values, filled, strict=True):
        slots = [
            " ".join(text_of(row[place[own[slot]]]) for own in columns) for slot in range(spec.slots) if full[slot]
        ]
        names.append(" + ".join(sorted(slots)) or str(spec.source if spec.covariates else spec.target))
    return names


def text_of(value: Any) -> str:
    """Return what a value is called: numbers without a trailing ``.0``."""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def _is(value: Any, category: Hashable) -> bool:
    try:
        return bool(value == category)
    except (TypeError, ValueError):
        return False


def condition_name(perturbation: str, context: Iterable[Any]) -> str:
    """Return what a perturbation in a context is called."""
    return " | ".join([perturbation, *map(text_of, context)])


def _distinct(frame: pd.DataFrame, keys: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the number of each row's condition, and the distinct ones in the order of their names."""
    plain = frame.astype(dict.fromkeys(keys, object))
    first = plain.drop_duplicates(keys).sort_values(keys, key=lambda column: column.astype(str))
    table = first.reset_index(drop=True)
    where = {tuple(row): number for number, row in enumerate(table[keys].itertuples(index=False, name=None))}
    numbers = np.array([where[row] for row in plain[keys].itertuples(index=False, name=None)], int)
    return numbers, table


def _blocks(
    spec: ConditionSpec, frames: list[pd.DataFrame], numbers: np.ndarray, table: pd.DataFrame
) -> Iterator[Block]:
    sides = frames[::-1] if spec.reversed else frames
    controls, treated = (_places_by(frame[list(spec.match_keys)]) for frame in sides)
    found = []
    for stratum, places in treated.items():
        own = controls.get(stratum, np.zeros(0, np.int64))
        for number in np.unique(numbers[places]):
            found.append((int(number), stratum, own, places[numbers[places] == number]))
    for number, stratum, own, places in sorted(found, key=lambda one: one[:2]):
        if len(own) < _FEWEST_CONTROLS:
            called = ", ".join(f"{key}={value!r}" for key, value in zip(spec.match_keys, stratum, strict=True))
            raise ValueError(
                f"the stratum {called} of {table.index[number]!r} has {len(places)} treated cells and {len(own)} controls; at "
                f"least {_FEWEST_CONTROLS} are needed. Add controls, leave these cells out, or pool controls with fewer "
                "`match_keys` (`match_keys=()` pools all)."
            )
        yield Block(number, places, own) if spec.reversed else Block(number, own, places)


def _places_by(frame: pd.DataFrame) -> dict[tuple[str, ...], Rows]:
    """Return the places of the cells of each stratum, ascending."""
    strata: dict[tuple[str, ...], list[int]] = {}
    for place, values in enumerate(
        zip(*(map(text_of, frame[key]) for key in frame), strict=True) if len(frame.columns) else [()] * len(frame)
    ):
        strata.setdefault(tuple(values), []).append(place)
    return {stratum: np.asarray(places, np.int64) for stratum, places in strata.items()}
