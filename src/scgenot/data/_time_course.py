"""A time course: which column tells the time, which times there are, in which direction they are followed."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Int

from scgenot._messages import did_you_mean, listed

Time: TypeAlias = str | int | float
# What tables of steps call them, and the context that a model of a time course sees.
STEP = "step"
# They say where two populations lie, which the times do, or tie two of them in a way that the middle of a course does not have.
_NOT_WITH = (
    "population_key",
    "source",
    "target",
    "target_rep",
    "shared_rep",
    "pairs_key",
    "source_distances",
    "target_distances",
    "condition_keys",
    "condition_reps",
    "context_keys",
    "match_keys",
)


@dataclasses.dataclass(frozen=True)
class TimeCourse:
    """Times that are followed step by step.

    Attributes
    ----------
    key
        Column of ``obs`` that tells the time.
    times
        The times as they pass: numbers that increase, or names.
    backwards
        Whether they are followed from the last to the first.
    """

    key: str
    times: tuple[Time, ...]
    backwards: bool = False

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> TimeCourse | None:
        """Read the arguments of setup, as they were given or saved; ``None`` where they have no times."""
        if arguments.get("time_key") is None:
            return None
        return cls(arguments["time_key"], tuple(arguments["times"]), bool(arguments.get("backwards")))

    @property
    def followed(self) -> tuple[Time, ...]:
        """The times in the order in which they are followed."""
        return self.times[::-1] if self.backwards else self.times

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.times) - 1

    def plan_of(self, departure: Any) -> Any:
        """Return the number of the plan of the step that departs from a place among the followed times.

        Plans are numbered as time passes, whichever way it is followed.
        """
        return self.steps - 1 - departure if self.backwards else departure

    def places(self, column: pd.Series) -> Int[np.ndarray, " n"]:
        """Return the place of each value among the followed times, -1 for none of them."""
        codes, values = pd.factorize(column)
        known = np.array([_find(value, self.followed) for value in values] + [-1], int)
        return known[codes]

    def place_of(self, time: Any, argument: str) -> int:
        """Return the place of one time among the followed ones; raise a ``ValueError`` if it is none of them."""
        place = _find(time, self.followed)
        if place < 0:
            place = next((k for k, one in enumerate(self.followed) if str(one) == str(time)), -1)
        if place < 0:
            raise ValueError(
                f"`{argument}` must be one of the times of this model, got {time!r}.{did_you_mean(time, self.followed)} There "
                f"are: {listed(self.followed)}."
            )
        return place

    def table(self) -> pd.DataFrame:
        """Return one row a step, in the order of plans: its name, and the times from which and to which it leads."""
        pairs = list(zip(self.times[:-1], self.times[1:], strict=True))
        pairs = [pair[::-1] for pair in pairs] if self.backwards else pairs
        names = [f"{text_of_time(a)} to {text_of_time(b)}" for a, b in pairs]
        table = pd.DataFrame({STEP: names, "from": [a for a, _ in pairs], "to": [b for _, b in pairs]})
        table.index = pd.Index(names, name="name")
        return table


def check_time_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise unless the arguments of setup say one thing: a time course, or two populations.

    Raises
    ------
    TypeError
        If times are of another kind than numbers or texts.
    ValueError
        If there are fewer than two, one comes twice, numbers do not increase, or arguments of two populations are given too.
    """
    key, times, backwards = (arguments.get(name) for name in ("time_key", "times", "backwards"))
    if key is None:
        for name, value in (("times", times), ("backwards", backwards or None)):
            if value is not None:
                raise ValueError(
                    f"`{name}`={value!r} belongs to a time course. Give `time_key`, the column of the times."
                )
        return
    if not isinstance(backwards, bool | np.bool_ | None):
        raise TypeError(f"`backwards` must be True or False, got {backwards!r}.")
    for name in _NOT_WITH:
        value = arguments.get(name)
        if value is not None and value != () and value != []:
            raise ValueError(
                f"`time_key`={key!r} does not go together with `{name}`={value!r}: the cells of each time are the source of one "
                f"step and the target of another, in one representation. Leave `{name}` out, or map two times with "
                f"population_key={key!r}, source=..., target=..."
            )
    if times is None:
        return
    if isinstance(times, str) or not isinstance(times, Sequence | np.ndarray | pd.Index):
        raise TypeError(f"`times` must be a sequence of times, got {times!r}. For example (2, 4, 6).")
    for one in times:
        number = isinstance(one, numbers.Real) and not isinstance(one, bool | np.bool_) and np.isfinite(one)
        if not number and not isinstance(one, str):
            raise TypeError(f"`times` must hold numbers or texts, got {one!r}.")
    plain = [getattr(one, "item", lambda one=one: one)() for one in times]
    repeated = [one for one in plain if plain.count(one) > 1]
    if len(plain) < 2 or repeated:
        raise ValueError(f"`times` must name at least two times, each once, got {plain!r}.")
    kinds = {isinstance(one, str) for one in plain}
    if len(kinds) > 1 or (kinds == {False} and plain != sorted(plain)):
        raise ValueError(
            f"`times` must be numbers that increase, or texts in their order, got {plain!r}. To follow them from the last to "
            "the first, give backwards=True."
        )


def times_in(column: pd.Series, key: str, where: str) -> list[Time]:
    """Return the times of a column in their order.

    Raises
    ------
    TypeError
        If the column has no order: neither numbers nor ordered categories.
    ValueError
        If it has fewer than two times, or one that is not finite.
    """
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    values = column.cat.categories if categorical else column
    numeric = pd.api.types.is_any_real_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    present = column.dropna().unique()
    if categorical and column.cat.ordered:
        found = [one for one in column.cat.categories if one in set(present)]
    elif numeric:
        found = sorted(present)
    else:
        raise TypeError(
            f"`time_key`={key!r} must name a column of numbers or of ordered categories, got {column.dtype} in {where}, whose "
            f"order is not known. Give `times` in their order, or write adata.obs[{key!r}] = pd.Categorical(adata.obs[{key!r}], "
            "categories=[...], ordered=True)."
        )
    plain = [getattr(one, "item", lambda one=one: one)() for one in found]
    if any(isinstance(one, float) and not np.isfinite(one) for one in plain):
        raise ValueError(f"`time_key`={key!r} must hold finite times in {where}; a missing value is no time.")
    if len(plain) < 2:
        raise ValueError(f"`time_key`={key!r} must have at least two times in {where}, got {plain!r}.")
    if not all(isinstance(one, str | int | float) for one in plain):
        raise TypeError(f"`time_key`={key!r} must hold numbers or texts in {where}, got {type(plain[0]).__name__}.")
    return plain


def _find(value: Any, times: Sequence[Time]) -> int:
    for place, time in enumerate(times):
        try:
            if bool(value == time):
                return place
        except (TypeError, ValueError):
            continue
    return -1


def text_of_time(time: Time) -> str:
    """Return what a time is called: numbers without a trailing ``.0``."""
    return f"{time:g}" if isinstance(time, float) else str(time)
