"""Time courses: which cells a question is about, and from when to when they are taken."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from scgenot._messages import listed
from scgenot.data import Data, TimeCourse, has_column, obs_column, select_rows
from scgenot.model._cells import Cells, cells_of, check_is_trained, some_data
from scgenot.model._way import Way

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def course_of(model: TransportModel) -> TimeCourse | None:
    """Return the time course of a model; ``None`` if it has none."""
    spec = model._spec.conditions
    return None if spec is None else spec.course


def check_until(model: TransportModel, until: Any) -> None:
    """Raise a ``ValueError`` if a time is given to a model that has none."""
    if until is not None and course_of(model) is None:
        raise ValueError(
            f"`until`={until!r} was given, but this model maps one population to another. Leave it out, or set the data up with "
            "`time_key`."
        )


def times(model: TransportModel) -> tuple[Any, ...] | None:
    """The times that the model follows, in this order; ``None`` for a model of two populations.

    Examples
    --------
    >>> model.times  # doctest: +SKIP
    (2.0, 4.0, 6.0)
    """
    course = course_of(model)
    return None if course is None else course.followed


def goes_back(model: TransportModel) -> bool:
    """Whether the model follows a time course from the last time to the first.

    Examples
    --------
    >>> model.goes_back, model.reverse().goes_back  # doctest: +SKIP
    (False, True)
    """
    course = course_of(model)
    return course is not None and course.backwards


def get_times(
    model: TransportModel, adata: Data | None = None, *, indices: Any = None, until: Any = None
) -> pd.DataFrame:
    """Return from when to when each cell is taken, in a model of a time course.

    Parameters
    ----------
    adata, indices, until
        As in :meth:`sample`.

    Returns
    -------
    One row a cell of the answers of :meth:`sample`, named as in ``obs_names``, with the columns ``from`` and ``to``.

    Raises
    ------
    ValueError
        If the model has no times, or a cell is not taken to this one; as :meth:`sample`.

    Examples
    --------
    >>> model.get_times(adata, until=6)  # doctest: +SKIP
    """
    course = course_of(model)
    if course is None:
        raise ValueError("this model maps one population to another: it has no times. Set up data with `time_key`.")
    rows, start, end = departures(model, adata, indices, until)
    followed = np.array(course.followed, object)
    names = model._spec.source.cells(some_data(model, adata)).obs_names[rows]
    return pd.DataFrame({"from": followed[start], "to": followed[end]}, index=names).infer_objects()


def departures(
    model: TransportModel, adata: Data | None, indices: Any, until: Any
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return rows of the cells that are asked for, and the places of their departure and arrival among the followed times.

    Raises
    ------
    KeyError
        If no column says at which time cells are.
    ValueError
        If `until` is no time, or not a later one for a cell, or a cell is at none of the times.
    """
    course, place, data = course_of(model), model._spec.source, some_data(model, adata)
    end = None if until is None else course.place_of(until, "until")
    way = "earlier" if course.backwards else "later"
    if end == 0:
        raise ValueError(
            f"`until` must be one of {listed(course.followed[1:])}, got {until!r}: no cell of this model is at an "
            f"{'later' if course.backwards else 'earlier'} time than that."
        )
    rows = select_rows(data, place, indices)
    if has_column(data, place, course.key):
        column = obs_column(data, place, course.key, "time_key").iloc[rows]
        start = course.places(column)
    elif course.steps == 1:
        start = np.zeros(len(rows), int)
    else:
        # Says which column is missing.
        obs_column(data, place, course.key, "time_key")
    if indices is None and end is not None:
        rows, start = rows[start < end], start[start < end]
    if len(rows) == 0:
        before = course.followed[: course.steps if end is None else end]
        raise ValueError(
            f"no cells to map: {place.name_of('obs')}[{course.key!r}] has no cell at {listed(before)}. Name the cells with "
            "`indices`."
        )
    last = course.steps if end is None else end
    wrong = (start < 0) | (start >= last)
    if wrong.any():
        first = column.iloc[int(np.flatnonzero(wrong)[0])] if has_column(data, place, course.key) else None
        raise ValueError(
            f"{int(wrong.sum())} of {len(rows)} cells cannot be taken to {_shown(course, end)}: the first is at {first!r} in "
            f"{place.name_of('obs')}[{course.key!r}]. `until` must be a {way} time than theirs, of {listed(course.followed)}. "
            "Leave these cells out of `indices`."
        )
    return rows, start, start + 1 if end is None else np.full(len(rows), end)


def cells_on_the_way(model: TransportModel, adata: Data | None, indices: Any, side: str, until: Any) -> Cells:
    """Return cells that know their step, and how far they are to go."""
    check_is_trained(model)
    course = course_of(model)
    numbers = course.plan_of(np.arange(course.steps))
    encoded = model._conditions.encoding.rows(model._conditions.table)[numbers]
    if side == "source":
        rows, start, end = departures(model, adata, indices, until)
        cells = cells_of(model, side, adata, rows)
        return dataclasses.replace(cells, condition=encoded[start], way=Way(encoded, start, end))
    if until is not None:
        raise ValueError(
            f"`until`={until!r} is for source cells: target cells are asked about the step that leads to them."
        )
    cells = cells_of(model, side, adata, indices)
    data, place = some_data(model, adata), model._spec.target
    arrival = course.places(obs_column(data, place, course.key, "time_key").iloc[cells.rows])
    if (arrival < 1).any():
        raise ValueError(
            f"{int((arrival < 1).sum())} of {len(arrival)} cells are at none of the times {listed(course.followed[1:])}, which "
            "steps of this model lead to. Leave them out of `indices`."
        )
    return dataclasses.replace(cells, condition=encoded[arrival - 1])


def _shown(course: TimeCourse, end: int | None) -> str:
    return "a next time" if end is None else f"{course.followed[end]!r}"
