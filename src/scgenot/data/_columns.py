"""Columns of ``obs``: which cells have a category, also where values are missing or numbers are written otherwise."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from mudata import MuData

from scgenot._messages import did_you_mean, listed
from scgenot.data._places import Data, Place

_FEWEST_CELLS = 2
_SHOWN_CATEGORIES = 20
_DATES = (datetime.date, datetime.timedelta, np.datetime64, np.timedelta64)


def check_category(argument: str, value: Any) -> None:
    """Raise unless `value` is one category that a column may hold and a saved model can write down.

    Raises
    ------
    TypeError
        If it is several, or of a kind that is not saved, such as an interval.
    ValueError
        If it is missing: missing values are no category.
    """
    if isinstance(value, (str, numbers.Real, np.bool_, *_DATES)) and not pd.isna(value):
        return
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        raise ValueError(f"`{argument}` must be one category, got {value!r}, which stands for a missing value.")
    if not pd.api.types.is_scalar(value):
        raise TypeError(
            f"`{argument}` must be one category, got {value!r}. Make one model for each, or join them to one category "
            "in a new column of obs."
        )
    raise TypeError(
        f"`{argument}` must be text, a number, a truth value or a date, got {type(value).__name__} {value!r}. Write the "
        "column as text: adata.obs[key].astype(str)."
    )


def category_rows(data: Data, place: Place) -> Int[np.ndarray, " n"]:
    """Return the rows of the category of a place in its ``obs`` column, at least two."""
    key, category, where = place.population_key, place.category, place.name_of("obs")
    column = obs_column(data, place, key, "population_key")
    rows = np.flatnonzero(_mask_where(column, lambda value: _belongs(value, place)))
    if place.others_than is not None and len(rows) < _FEWEST_CELLS:
        raise ValueError(
            f"`{place.side}` is None, which takes all cells of {where}[{key!r}] that are not {place.others_than!r}: there are "
            f"{len(rows)}, and at least {_FEWEST_CELLS} are needed."
        )
    if place.among is not None and len(rows) < _FEWEST_CELLS:
        raise ValueError(
            f"`time_key`={key!r}: {where} has {len(rows)} cells at the times {listed(place.among)}, and at least {_FEWEST_CELLS} "
            "are needed."
        )
    if len(rows) == 0:
        raise ValueError(
            f"`{place.side}`={category!r} is no category of {where}[{key!r}], {_present(column, category)}"
        )
    if len(rows) < _FEWEST_CELLS:
        raise ValueError(
            f"`{place.side}`={category!r} has only {len(rows)} cell in {where}[{key!r}]; "
            f"at least {_FEWEST_CELLS} are needed."
        )
    return rows


def rows_of_category(data: Data, place: Place) -> Int[np.ndarray, " n"]:
    """Return the rows of the category of a place in its ``obs`` column, none if there are none."""
    column = obs_column(data, place, place.population_key, "population_key")
    return np.flatnonzero(_mask_where(column, lambda value: _belongs(value, place)))


def category_mask(column: pd.Series, stored: str) -> Bool[np.ndarray, " n"]:
    """Return which values are the category that a result stored as text.

    The value whose text it is; otherwise the number that it is: ``"4"`` finds 4.0, and ``"4.0"`` finds 4.
    """
    for same in (_equal, lambda value, text: str(value) == str(text), _same_number):
        mask = _mask_where(column, lambda value, same=same: same(value, stored))
        if mask.any():
            return mask
    return np.zeros(len(column), bool)


def in_memory(frame: Any) -> pd.DataFrame:
    """Return a data frame as it is, or read one that :func:`anndata.experimental.read_lazy` left in a file."""
    return frame if isinstance(frame, pd.DataFrame) else frame.to_memory()


def obs_column(data: Data, place: Place, key: str, argument: str) -> pd.Series:
    """Return a column of ``obs`` for the cells of a place, of their own or of the whole MuData."""
    adata = place.cells(data)
    if _is_key(key):
        if key in adata.obs:
            columns = in_memory(adata.obs[[key]])
            if columns.shape[1] > 1:
                raise ValueError(
                    f"`{argument}`={key!r} names {columns.shape[1]} columns of {place.name_of('obs')}. Rename them."
                )
            return columns.iloc[:, 0]
        if isinstance(data, MuData) and key in data.obs:
            return data.obs[key].reindex(adata.obs_names)
    there = list(adata.obs.columns) + (list(data.obs.columns) if isinstance(data, MuData) else [])
    raise KeyError(
        f"`{argument}`={key!r} is no column of {place.name_of('obs')}.{did_you_mean(key, there)} "
        f"There are: {listed(there)}."
    )


def has_column(data: Data, place: Place, key: Hashable) -> bool:
    """Whether the cells of a place have an ``obs`` column, of their own or of the whole MuData."""
    return key in place.cells(data).obs or (isinstance(data, MuData) and key in data.obs)


def weights_of(data: Data, place: Place, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return prior weights of some rows.

    Raises
    ------
    ValueError
        If one is missing, not finite or below 0, or all are 0.
    """
    column = obs_column(data, place, place.weights_key, "weights_key")
    weights = pd.to_numeric(column.iloc[rows], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any() or weights.sum() <= 0:
        raise ValueError(
            f"`weights_key`={place.weights_key!r} must hold finite numbers, none below 0 and not all 0, in the "
            f"{place.side} cells; {int(wrong.sum())} of {len(rows)} are not."
        )
    return weights


def _mask_where(column: pd.Series, is_meant: Callable[[Any], bool]) -> Bool[np.ndarray, " n"]:
    # Asked once for each distinct value; missing ones have code -1 and are never meant.
    codes, values = pd.factorize(column)
    return np.isin(codes, [code for code, value in enumerate(values) if is_meant(value)])


def _belongs(value: Any, place: Place) -> bool:
    """Whether a value that is not missing is that of the cells of a place."""
    if place.among is not None:
        return any(_equal(value, one) for one in place.among)
    return _equal(value, place.category) if place.others_than is None else not _equal(value, place.others_than)


def _equal(value: Any, category: Any) -> bool:
    try:
        return bool(value == category)
    except (TypeError, ValueError):
        return False


def _same_number(value: Any, stored: str) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    try:
        return float(str(value)) == float(str(stored))
    except ValueError:
        return False


def _present(column: pd.Series, category: Any) -> str:
    """Say which categories there are: the closest first, as many as can be read, and how many more."""
    present = sorted(
        (getattr(value, "item", lambda value=value: value)() for value in column.dropna().unique()), key=str
    )
    same = [value for value in present if str(value) == str(category)]
    hint = f" Did you mean {same[0]!r}, as {type(same[0]).__name__}?" if same else did_you_mean(category, present)
    first = [value for value in present if f"Did you mean {str(value)!r}?" in hint or value in same[:1]]
    ordered = first[:1] + [value for value in present if value not in first[:1]]
    shown = ", ".join(repr(value) for value in ordered[:_SHOWN_CATEGORIES]) or "no value"
    more = f", and {len(ordered) - _SHOWN_CATEGORIES} more" if len(ordered) > _SHOWN_CATEGORIES else ""
    return f"which has {shown}{more}.{hint}"


def _is_key(key: Any) -> bool:
    return isinstance(key, Hashable) and not isinstance(key, slice)
