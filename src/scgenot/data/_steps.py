"""The steps of a time course as blocks of a coupling, and which of its cells are held out: on both sides, or on none."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Int

from scgenot.data._columns import obs_column
from scgenot.data._condition_spec import ConditionSpec
from scgenot.data._conditions import Block, Conditions
from scgenot.data._places import Data, Place
from scgenot.data._split import Split, held_count

_FEWEST_CELLS = 2
Rows = Int[np.ndarray, " k"]


def read_steps(data: Data, spec: ConditionSpec, places: tuple[Place, Place], rows: tuple[Rows, Rows]) -> Conditions:
    """Read which cells each step leads from and to; raise a ``ValueError`` if a time has fewer than two cells."""
    course = spec.course
    at = [
        course.places(obs_column(data, place, course.key, "time_key").iloc[some])
        for place, some in zip(places, rows, strict=True)
    ]
    for number, time in enumerate(course.followed):
        found = int((at[0] == number).sum() if number < course.steps else (at[1] == number).sum())
        if found < _FEWEST_CELLS:
            raise ValueError(
                f"`time_key`={course.key!r}: the time {time!r} has {found} cells in {places[0].name_of('obs')}; at least "
                f"{_FEWEST_CELLS} are needed. Name the times that are to be followed with `times`."
            )
    departures = sorted(range(course.steps), key=course.plan_of)
    blocks = tuple(
        Block(int(course.plan_of(k)), np.flatnonzero(at[0] == k), np.flatnonzero(at[1] == k + 1)) for k in departures
    )
    return Conditions(spec, course.table(), blocks, ())


def split_times(rng: np.random.Generator, conditions: Conditions, rows: tuple[Rows, Rows], share: float) -> Split:
    """Hold out a share of the cells of each time, of a cell that is source and target on both sides.

    Validation needs a step with held-out cells at both of its ends: where there is none, nothing is held out, and a warning
    says so.
    """
    by_time: dict[int, np.ndarray] = {}
    for block in conditions.blocks:
        ends = rows[0][block.source], rows[1][block.target]
        early, late = ends[::-1] if conditions.spec.reversed else ends
        by_time[block.condition], by_time[block.condition + 1] = np.sort(early), np.sort(late)
    counts = {time: held_count(len(some), share) for time, some in by_time.items()}
    if not any(counts[time] and counts.get(time + 1, 0) for time in counts):
        if any(counts.values()):
            warnings.warn(
                f"`validation_size`={share:g} holds out cells of some times, but of no two that follow each other, so nothing is "
                "held out: training sees all cells and is not validated. Use a larger share.",
                UserWarning,
                stacklevel=4,
            )
        counts = dict.fromkeys(counts, 0)
    held = np.concatenate([rng.permutation(by_time[time])[: counts[time]] for time in sorted(by_time)])
    out = [np.isin(some, held) for some in rows]
    return Split(*map(np.flatnonzero, (~out[0], out[0], ~out[1], out[1])))
