"""Conditions of a model: which it knows, which cells of the data each has, and what is asked of it for one or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from scgenot._messages import did_you_mean, listed
from scgenot.coupling import BlockCoupling
from scgenot.data import (
    ConditionEncoding,
    Data,
    TransportData,
    blocks_among,
    condition_columns,
    condition_name,
    matched_cells,
    perturbations,
    read_transport,
    select_rows,
    settle_encoding,
    text_of,
)
from scgenot.model._cells import Cells, cells_of, check_is_trained, some_data
from scgenot.model._times import cells_on_the_way, check_until

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class KnownConditions:
    """What training leaves about conditions.

    Attributes
    ----------
    encoding
        How they become numbers.
    table
        What :attr:`TransportModel.conditions` shows.
    """

    encoding: ConditionEncoding
    table: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class Asked:
    """One condition that a question is about.

    Attributes
    ----------
    name
        What it is called in the answer.
    perturbation_name
        What the perturbation alone is called.
    perturbation
        Its slots, one row.
    context
        Contexts that take the place of the cells' own, by column.
    """

    name: str
    perturbation_name: str
    perturbation: pd.DataFrame
    context: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def columns(self) -> dict[str, Any]:
        """What cells of this condition have in ``obs``: its name, its slots, and the contexts that it sets."""
        slots = {column: self.perturbation[column].iloc[0] for column in self.perturbation}
        return {"condition": self.name} | slots | self.context


def conditions(model: TransportModel) -> pd.DataFrame | None:
    """One row a condition (a perturbation in a context): what it is, its cells and controls, and how its plan came out.

    Columns: ``condition``, the name of the perturbation (``perturbation`` where a slot is called ``condition``); slots and contexts; ``cells`` and ``controls``; ``trained``, whether
    training saw it; after training also ``converged``, ``mass`` and ``effective_targets`` of its plan, of its worst or by its
    mean where there are several strata, and between spaces ``agreement`` with the reference plan that gives all conditions one
    orientation. In a time course one row a step: ``step``, its name; ``from`` and ``to``; ``sources`` and ``targets``, the
    numbers of its cells; and its plan. ``None`` for a model of a plain pair of populations.

    Examples
    --------
    >>> model.conditions[["condition", "cells", "converged"]]  # doctest: +SKIP
    """
    if model._spec.conditions is None:
        return None
    if model._conditions is not None:
        return model._conditions.table.copy()
    if model.adata is None or model.adata_manager is None:
        return None
    return _described(read_transport(model.adata, model._spec, model._problem))


def settle(found: TransportData) -> ConditionEncoding:
    """Return how the conditions that are trained on become numbers; raise if an unseen one could not."""
    told = found.conditions
    seen = [number for number in range(len(told.table)) if number not in found.unseen]
    encoding = settle_encoding(found.data, told, seen)
    encoding.rows(told.table)
    return encoding


def known(found: TransportData, encoding: ConditionEncoding, coupling: BlockCoupling | None) -> KnownConditions:
    """Return what training on some data leaves about conditions."""
    table = _described(found)
    if coupling is not None:
        trained = [number for number, *_ in blocks_among(found, found.training)]
        plans = pd.DataFrame(
            {
                "condition": trained,
                "converged": [one.converged for one in coupling.block_diagnostics],
                "mass": [one.mass for one in coupling.block_diagnostics],
                "effective_targets": [one.effective_targets for one in coupling.block_diagnostics],
                "agreement": [np.nan if part.agreement is None else part.agreement for part in coupling.parts],
            }
        ).groupby("condition")
        told = plans.agg({"converged": "all", "mass": "mean", "effective_targets": "mean", "agreement": "min"})
        if told["agreement"].isna().all():
            del told["agreement"]
        for column in told:
            table[column] = told[column].reindex(range(len(table))).to_numpy()
    return KnownConditions(encoding, table)


def unseen_conditions(found: TransportData, asked: Any, rng: np.random.Generator) -> list[int]:
    """Return the numbers of the conditions that are to be held out: names, a data frame, or a share of them at random.

    Raises
    ------
    ValueError
        If there are no conditions, one is not among them, or none is left to train on.
    TypeError
        If `asked` is of another kind.
    """
    if asked is None:
        return []
    if found.conditions is not None and found.conditions.spec.course is not None:
        raise ValueError(
            "`validation_conditions` was given, but the steps of a time course are known by name alone: none can be left out and "
            "predicted. Hold out cells with `validation_size`, or set up the data with other `times`."
        )
    if found.conditions is None or not found.conditions.spec.has_vector:
        raise ValueError("`validation_conditions` was given, but setup has no conditions. Leave it out.")
    table = found.conditions.table
    if isinstance(asked, float | int) and not isinstance(asked, bool):
        if not 0 < asked < 1:
            raise ValueError(
                f"`validation_conditions` as a share must lie in (0, 1), got {asked!r}. 0.1 holds out a tenth."
            )
        numbers = np.sort(rng.permutation(len(table))[: max(1, round(asked * len(table)))]).tolist()
    elif isinstance(asked, pd.DataFrame):
        keys = [column for column in asked if column in table]
        if not keys or len(asked) == 0:
            raise ValueError(f"`validation_conditions` must have rows and some of the columns {listed(table)}.")
        wanted = {tuple(map(text_of, row)) for row in asked[keys].itertuples(index=False, name=None)}
        rows = [tuple(map(text_of, row)) for row in table[keys].itertuples(index=False, name=None)]
        if lost := wanted - set(rows):
            raise ValueError(f"`validation_conditions` has {sorted(lost)[0]}, which is no condition of adata.")
        numbers = [number for number, row in enumerate(rows) if row in wanted]
    elif isinstance(asked, str | Sequence) and all(isinstance(one, str) for one in asked):
        numbers = []
        for name in [asked] if isinstance(asked, str) else asked:
            here = np.flatnonzero((table[found.conditions.spec.name_column] == name) | (table.index == name)).tolist()
            if not here:
                raise ValueError(_unknown("validation_conditions", name, table[found.conditions.spec.name_column]))
            numbers += here
    else:
        raise TypeError(
            f"`validation_conditions` must be names, a data frame or a share, got {type(asked).__name__}. For example "
            f"{[str(table.index[0])]!r}, or 0.1."
        )
    numbers = sorted(set(numbers))
    if len(numbers) == len(table):
        raise ValueError(f"`validation_conditions` holds out all {len(table)} conditions. Leave some to train on.")
    return numbers


def answer(
    model: TransportModel,
    ask: Callable[[Cells], Any],
    adata: Data | None,
    indices: Any,
    asked: Any,
    side: str = "source",
    until: Any = None,
) -> Any:
    """Return what `ask` says of the cells that a question is about, in one condition, or in several as a dict by name.

    Parameters
    ----------
    ask
        A function of cells that know their condition.
    adata, indices
        Which cells.
    asked
        Which conditions: a name, several, or a data frame; ``None`` where there is only one.
    side
        Whose cells they are. Treated ones are in conditions of their own unless others are asked for.
    until
        The time that cells are taken to, in a time course; their next one if ``None``.
    """
    check_is_trained(model)
    spec = model._spec.conditions
    check_until(model, until)
    if spec is not None and spec.course is not None:
        if asked is not None:
            raise ValueError(
                f"`conditions`={asked!r} was given to a model of a time course. Say with `until` how far cells go."
            )
        return ask(cells_on_the_way(model, adata, indices, side, until))
    if spec is None or not spec.has_vector:
        if asked is not None:
            raise ValueError("`conditions` was given, but this model was set up without any. Leave it out.")
        return ask(cells_of(model, side, adata, indices))
    if asked is None and side == spec.treated:
        return ask(_in_own_conditions(model, adata, indices, side))
    wanted, single = asked_conditions(model, asked)
    found = {one.name: ask(cells_in(model, one, adata, indices, side)) for one in wanted}
    return found[wanted[0].name] if single else found


def asked_conditions(model: TransportModel, asked: Any) -> tuple[list[Asked], bool]:
    """Return the conditions that are meant, and whether it is one by its name.

    Raises
    ------
    ValueError
        If one is not known, or none is named where there are several.
    TypeError
        If `asked` is of another kind.
    """
    if isinstance(asked, Asked):
        return [asked], True
    table = model._conditions.table
    if asked is None:
        names = table[model._spec.conditions.name_column].unique()
        if len(names) > 1:
            raise ValueError(
                f"`conditions` is needed: the model knows {len(names)}. Name some, as {str(names[0])!r}, or give a data frame "
                f"with the columns {listed(_slots(model))}. There are: {listed(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}."
            )
        asked = names[0]
    if isinstance(asked, str):
        return [named_condition(model, asked)], True
    if isinstance(asked, pd.DataFrame):
        return _described_by(model, asked), False
    if not isinstance(asked, Sequence | np.ndarray | pd.Index) or not all(isinstance(one, str) for one in asked):
        raise TypeError(
            f"`conditions` must be a name, several, or a data frame with slots, got {type(asked).__name__}. For example "
            f"{str(table[model._spec.conditions.name_column].iloc[0])!r}."
        )
    if len(asked) == 0:
        raise ValueError("`conditions` names none. Leave it out, or name one.")
    return [named_condition(model, one) for one in dict.fromkeys(asked)], False


def cells_in(model: TransportModel, one: Asked, adata: Data | None, indices: Any, side: str = "source") -> Cells:
    """Return cells that know their condition: the perturbation that is asked for, in its context or in their own."""
    spec, place = model._spec.conditions, getattr(model._spec, side)
    data = some_data(model, adata)
    if indices is None and one.context:
        rows = select_rows(data, place, None)
        own = matched_cells(data, place, rows, {k: v for k, v in one.context.items() if k in spec.match_keys})
        if len(own) == 0:
            raise ValueError(
                f"`conditions`: no {side} cell is in the context of {one.name!r}. Name the cells with `indices`."
            )
        indices = own
    cells = cells_of(model, side, adata, indices)
    frame = pd.DataFrame(index=range(len(cells.rows)))
    for column in one.perturbation:
        frame[column] = [one.perturbation[column].iloc[0]] * len(frame)
    own = [key for key in spec.context_keys if key not in one.context]
    contexts = condition_columns(data, place, own, cells.rows)
    for key in spec.context_keys:
        frame[key] = [one.context[key]] * len(frame) if key in one.context else contexts[key].to_numpy(object)
    return dataclasses.replace(cells, condition=_rows(model, frame))


def _in_own_conditions(model: TransportModel, adata: Data | None, indices: Any, side: str) -> Cells:
    spec, place = model._spec.conditions, getattr(model._spec, side)
    cells = cells_of(model, side, adata, indices)
    data = some_data(model, adata)
    frame = condition_columns(data, place, spec.columns, cells.rows)
    found = perturbations(frame, spec, model._conditions.encoding.doses, place.name_of("obs"), may_be_empty=True)
    for key in spec.context_keys:
        found[key] = frame[key].to_numpy(object)
    return dataclasses.replace(cells, condition=_rows(model, found))


def _rows(model: TransportModel, frame: pd.DataFrame) -> Float[np.ndarray, "n c"]:
    """Return the numbers of each row's condition; each distinct one is encoded once."""
    columns = [column for column in model._spec.conditions.columns if column in frame]
    keys = list(map(tuple, frame[columns].astype(object).to_numpy())) if columns else [()] * len(frame)
    first: dict[tuple, int] = {}
    numbers: Int[np.ndarray, " n"] = np.array(
        [first.setdefault(tuple(map(str, key)), row) for row, key in enumerate(keys)], int
    )
    distinct, back = np.unique(numbers, return_inverse=True)
    return model._conditions.encoding.rows(frame.iloc[distinct])[back]


def named_condition(model: TransportModel, name: str) -> Asked:
    """Return the condition of a name, of a perturbation or of a row of the table; raise a ``ValueError`` if there is none."""
    table, spec = model._conditions.table, model._spec.conditions
    here = table[table[spec.name_column] == name]
    if len(here):
        return Asked(name, name, here.iloc[:1][_slots(model)])
    if name in table.index:
        row = table.loc[[name]]
        return Asked(
            name,
            row[spec.name_column].iloc[0],
            row[_slots(model)],
            {key: row[key].iloc[0] for key in spec.context_keys},
        )
    raise ValueError(_unknown("conditions", name, table[spec.name_column]))


def _described_by(model: TransportModel, frame: pd.DataFrame) -> list[Asked]:
    """Return the conditions that a data frame describes, called by its index where that has names."""
    spec, slots = model._spec.conditions, _slots(model)
    known = [*slots, *spec.context_keys]
    if len(frame) == 0:
        raise ValueError("`conditions` has no rows. Give one for each condition.")
    for column in frame:
        if column not in known and column != spec.name_column:
            raise ValueError(
                f"`conditions` has a column {column!r}, which is no slot and no context.{did_you_mean(column, known)} There "
                f"are: {listed(known)}."
            )
    whole = frame.reset_index(drop=True)
    if slots and not any(slot in frame for slot in slots):
        raise ValueError(f"`conditions` must have at least one of the slots {listed(slots)}, got {listed(frame)}.")
    for position in range(spec.slots):
        linked = [columns[position] for columns in spec.covariates.values()]
        missing = [column for column in linked if column not in frame]
        if missing and len(missing) < len(linked):
            raise ValueError(
                f"`conditions` lacks {missing[0]!r}, which belongs to {[c for c in linked if c in frame][0]!r} in the same slot."
            )
        for column in missing:
            whole[column] = 0.0 if column in model._conditions.encoding.doses else None
    found = perturbations(whole, spec, model._conditions.encoding.doses, "`conditions`", may_be_empty=True)
    contexts = [key for key in spec.context_keys if key in frame]
    names = frame.index.map(str) if not isinstance(frame.index, pd.RangeIndex) else None
    asked = []
    for row in range(len(found)):
        context = {key: whole[key].iloc[row] for key in contexts}
        name = condition_name(found[spec.name_column].iloc[row], context.values()) if names is None else names[row]
        asked.append(Asked(name, found[spec.name_column].iloc[row], found.iloc[[row]][slots], context))
    if len({one.name for one in asked}) < len(asked):
        raise ValueError("`conditions` has a condition twice. Give each once, or an index that tells them apart.")
    # What is not known is said before the work.
    for one in asked:
        plain = one.perturbation.assign(**{key: model._conditions.table[key].iloc[0] for key in spec.context_keys})
        model._conditions.encoding.rows(plain.assign(**one.context))
    return asked


def _slots(model: TransportModel) -> list[str]:
    return [column for columns in model._spec.conditions.covariates.values() for column in columns]


def _described(found: TransportData) -> pd.DataFrame:
    told = found.conditions
    table = told.table.copy()
    cells, controls = (np.zeros(len(table), int) for _ in range(2))
    for block in told.blocks:
        treated, untreated = (block.source, block.target) if told.spec.reversed else (block.target, block.source)
        cells[block.condition] += len(treated)
        controls[block.condition] += len(untreated)
    if told.spec.course is not None:
        sides = (cells, controls) if told.spec.reversed else (controls, cells)
        return table.assign(sources=sides[0], targets=sides[1])
    return table.assign(cells=cells, controls=controls, trained=[n not in found.unseen for n in range(len(table))])


def _unknown(argument: str, name: str, perturbations: pd.Series) -> str:
    names = list(dict.fromkeys([*perturbations, *perturbations.index]))
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"`{argument}` has {name!r}, which is no condition of this model.{did_you_mean(name, names)} There are: "
        f"{listed(names[:_SHOWN])}{more}. An unseen one is described by a data frame with its slots."
    )
