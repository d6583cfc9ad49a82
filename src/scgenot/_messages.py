"""Wording of errors, in one place: what was wrong, what it got, what is allowed, what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

import numpy as np


def one_of(argument: str, got: object, allowed: Iterable[object]) -> str:
    """Say that `argument` must be one of `allowed`, and name the closest of them."""
    options = [str(option) for option in allowed]
    listed = ", ".join(repr(option) for option in options) or "none at all"
    return f"`{argument}` must be one of {listed}, got {got!r}.{did_you_mean(got, options)}"


def did_you_mean(got: object, options: Iterable[object]) -> str:
    """Return ``" Did you mean 'x'?"`` for the option closest to `got`, or an empty string."""
    close = difflib.get_close_matches(str(got), [str(option) for option in options], n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(keys: Iterable[object]) -> str:
    """Return keys as an enumeration for messages."""
    return ", ".join(repr(str(key)) for key in keys) or "none"


def check_positive(argument: str, value: float, *, remedy: str = "") -> None:
    """Raise a ``ValueError`` unless `value` is a finite number above zero."""
    if not is_number(value) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"`{argument}` must be a finite number above 0, got {value!r}.{_sentence(remedy)}")


def check_unit(argument: str, value: float, *, remedy: str = "") -> None:
    """Raise a ``ValueError`` unless 0 < `value` <= 1."""
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"`{argument}` must lie in (0, 1], got {value!r}.{_sentence(remedy)}")


def check_count(argument: str, value: int, *, minimum: int = 1, remedy: str = "") -> None:
    """Raise a ``ValueError`` unless `value` is a whole number of at least `minimum`: an int, ``2.0`` is none."""
    if not is_number(value, "iu") or value < minimum:
        raise ValueError(
            f"`{argument}` must be a whole number of at least {minimum}, got {value!r}.{_sentence(remedy)}"
        )


def is_number(value: object, kinds: str = "iuf") -> bool:
    """Tell whether `value` is one real number of Python, NumPy or JAX; texts such as ``"0.1"`` and booleans are not."""
    if isinstance(value, int | float):
        return not isinstance(value, bool) and ("f" in kinds or isinstance(value, int))
    dtype = getattr(value, "dtype", None)
    return np.ndim(value) == 0 and getattr(dtype, "kind", "") in tuple(kinds)


def _sentence(remedy: str) -> str:
    return f" {remedy}" if remedy else ""
