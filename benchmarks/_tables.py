"""What a benchmark returns: tables of rows, each beside the floor of its metric and a trivial baseline.

A figure alone says little: an energy distance of 0.3 is good or bad by what the truth itself scores at the same sample size, and by
what doing nothing scores. So a table without a row of each kind is refused. Where there is none by nature (steps a second have no
floor), the table says so in words, and the words are printed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._common import peak_memory_gib

# floor: the best that the metric can show, as the truth drawn anew at the same sizes. baseline: what takes no learning. reference: an
# answer that knows what solvers do not, or another machine's figure.
ROLES = ("floor", "baseline", "solver", "reference")
Value = float | str | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes
    ----------
    labels
        What the row is about, as ``{"D": 16, "solver": "GENOT"}``.
    values
        Its figures.
    role
        One of `ROLES`.
    seconds, peak_gib
        What it took: wall time, and the largest resident memory of the process meanwhile. ``None``: not measured for itself (the
        table's are).
    """

    labels: dict[str, Any]
    values: dict[str, Value]
    role: str = "solver"
    seconds: float | None = None
    peak_gib: float | None = None

    def __post_init__(self) -> None:
        """Check the role and bring numbers into a form that JSON holds."""
        if self.role not in ROLES:
            raise ValueError(f"`role` must be one of {', '.join(ROLES)}, got {self.role!r}.")
        if not self.labels:
            raise ValueError("`labels` is empty: say what the row is about.")
        object.__setattr__(self, "labels", {str(name): _plain(one) for name, one in self.labels.items()})
        object.__setattr__(self, "values", {str(name): _plain(one) for name, one in self.values.items()})
        for name in ("seconds", "peak_gib"):
            object.__setattr__(self, name, _plain(getattr(self, name)))


@dataclasses.dataclass(frozen=True)
class Plot:
    """A picture of a table: one line or dot a row, a colour for each value of the label `by`, a panel for each value of `panels`.

    Attributes
    ----------
    x, y
        Names of a label or a value, or ``"seconds"``. Floors and baselines are drawn as horizontal lines.
    by, panels
        Names of labels.
    """

    x: str
    y: str
    by: str
    panels: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows with one title.

    Attributes
    ----------
    title
        The same for all seeds: rows of several seeds are put together by the title and their labels.
    rows
        Of which at least one is a floor and one a baseline.
    no_floor, no_baseline
        Why there is no such row, where there is none.
    note
        A sentence under the table.
    plot
        A picture of it.
    seconds, peak_gib
        What the table took as a whole.
    """

    title: str
    rows: Sequence[Row]
    no_floor: str | None = None
    no_baseline: str | None = None
    note: str = ""
    plot: Plot | None = None
    seconds: float | None = None
    peak_gib: float | None = None

    def __post_init__(self) -> None:
        """Refuse a table that does not say what its figures are to be held against."""
        object.__setattr__(self, "rows", tuple(self.rows))
        if not self.rows:
            raise ValueError(f"the table {self.title!r} has no rows.")
        for role, excuse in (("floor", self.no_floor), ("baseline", self.no_baseline)):
            here = [row for row in self.rows if row.role == role]
            if not here and not (excuse or "").strip():
                raise ValueError(
                    f"the table {self.title!r} has no row whose role is {role!r}. Add one, or say in `no_{role}` why there is none."
                )
            if here and excuse:
                raise ValueError(
                    f"the table {self.title!r} has a row of role {role!r}, and `no_{role}` says that it has none."
                )
        seen = [tuple(row.labels.items()) for row in self.rows]
        if len(set(seen)) < len(seen):
            twice = next(one for one in seen if seen.count(one) > 1)
            raise ValueError(
                f"the table {self.title!r} has two rows with the labels {dict(twice)}. Add a label that tells them apart."
            )

    @classmethod
    def from_dict(cls, saved: dict) -> Table:
        """Return the table that ``dataclasses.asdict`` wrote; raise if it is not a valid one."""
        rows = [Row(**row) for row in saved["rows"]]
        plot = Plot(**saved["plot"]) if saved.get("plot") else None
        return cls(**(saved | {"rows": rows, "plot": plot}))


def from_frame(
    frame: pd.DataFrame,
    title: str,
    *,
    floor: str | None = None,
    baseline: str | None = None,
    reference: str | None = None,
    no_floor: str | None = None,
    no_baseline: str | None = None,
    ends: dict[str, tuple[Value, Value]] | None = None,
    note: str = "",
) -> Table:
    """Return a table of a data frame; rows take their role from their labels.

    Parameters
    ----------
    frame
        Index levels become labels, columns become values.
    floor, baseline, reference
        Patterns (`re.search`) of the labels, joined by a space, of rows of that role.
    ends
        Of scores whose floor and whose chance level are known numbers, as FOSCTTM's 0 and 0.5: both by the name of the column. They
        become rows.
    """
    names = [str(name) if name is not None else "what" for name in frame.index.names]
    patterns = {"floor": floor, "baseline": baseline, "reference": reference}
    rows = []
    for index, values in zip(frame.index, frame.to_dict("records"), strict=True):
        labels = dict(zip(names, index if isinstance(index, tuple) else (index,), strict=True))
        text = " ".join(str(one) for one in labels.values())
        role = next((role for role, one in patterns.items() if one and re.search(one, text)), "solver")
        rows.append(Row(labels, values, role))
    return Table(title, [*rows, *_ends(names, ends)], no_floor=no_floor, no_baseline=no_baseline, note=note)


def from_columns(
    frame: pd.DataFrame,
    title: str,
    measure: str,
    roles: dict[str, str],
    *,
    seconds: dict[str, str] | None = None,
    no_floor: str | None = None,
    no_baseline: str | None = None,
    note: str = "",
) -> Table:
    """Return a table of a data frame whose columns are solvers, with one measure.

    Parameters
    ----------
    frame
        Index levels become labels.
    measure
        What the numbers are.
    roles
        The columns that are taken, and the role of each.
    seconds
        Columns with the seconds of others, by the names of these.
    """
    names = [str(name) if name is not None else "what" for name in frame.index.names]
    rows = []
    for index, values in zip(frame.index, frame.to_dict("records"), strict=True):
        labels = dict(zip(names, index if isinstance(index, tuple) else (index,), strict=True))
        for name, role in roles.items():
            took = values.get((seconds or {}).get(name))
            rows.append(Row(labels | {"prediction": name}, {measure: values[name]}, role, seconds=took))
    return Table(title, rows, no_floor=no_floor, no_baseline=no_baseline, note=note)


def from_names(
    scores: dict[str, float],
    title: str,
    measures: Sequence[str],
    roles: dict[str, str],
    *,
    separator: str = ", ",
    ends: dict[str, tuple[Value, Value]] | None = None,
    no_floor: str | None = None,
    no_baseline: str | None = None,
    note: str = "",
) -> Table:
    """Return a table of scores that are named ``"MEASURE, PREDICTION"``; `roles` says which predictions are no solvers'.

    Scores whose measure is not among `measures` are left out.
    """
    rows: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        measure = next((one for one in measures if name.startswith(one + separator)), None)
        if measure is not None:
            rows.setdefault(name.removeprefix(measure + separator), {})[measure] = value
    found = [Row({"prediction": name}, values, roles.get(name, "solver")) for name, values in rows.items()]
    return Table(title, [*found, *_ends(["prediction"], ends)], no_floor=no_floor, no_baseline=no_baseline, note=note)


def _ends(names: Sequence[str], ends: dict[str, tuple[Value, Value]] | None) -> list[Row]:
    """Return the rows of a known floor and a known chance level."""
    if not ends:
        return []
    told = ("floor", "best possible"), ("baseline", "chance")
    blank = dict.fromkeys(names[1:], "")
    return [
        Row({names[0]: name} | blank, {column: both[number] for column, both in ends.items()}, role)
        for number, (role, name) in enumerate(told)
    ]


def _plain(value: Any) -> Value:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating) or np.ndim(value) == 0 and hasattr(value, "__float__"):
        # JSON has no numbers that are none.
        return float(value) if math.isfinite(float(value)) else None
    return str(value)


@dataclasses.dataclass
class Meter:
    """What a ``with measured():`` block took: wall time, time of all cores, memory.

    On a machine that others use wall time says little; the time of cores, summed over them, is hardly touched.
    """

    seconds: float = math.nan
    core_seconds: float = math.nan
    peak_gib: float = math.nan


@contextlib.contextmanager
def measured() -> Iterator[Meter]:
    """Measure wall time and the largest resident memory of a block.

    On Linux the process's high-water mark is set back at the start, so that a block does not inherit the memory of those before. Where
    that cannot be done the peak is that of the process so far. Not to be nested: the inner block would set back the outer one's mark.
    """
    _reset_peak()
    meter, started, cores = Meter(), time.perf_counter(), time.process_time()
    try:
        yield meter
    finally:
        meter.seconds, meter.core_seconds = time.perf_counter() - started, time.process_time() - cores
        meter.peak_gib = peak_memory_gib()


def _reset_peak() -> None:
    # Elsewhere the mark stays: there is no such file, or it may not be written.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
