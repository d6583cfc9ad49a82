"""Values as JSON, strictly: what JSON has no word for is spelt out, and comes back as it was."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pandas as pd

# Each has one entry, whose name no argument or column of ours has.
_WORDS = {
    "$float": float,
    "$timestamp": pd.Timestamp,
    "$timedelta": pd.Timedelta,
    "$date": datetime.date.fromisoformat,
}


def to_plain(value: Any) -> Any:
    """Return a value as JSON holds it.

    Raises
    ------
    TypeError
        If it is of a kind that is not saved.
    """
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    elif isinstance(value, np.timedelta64):
        value = pd.Timedelta(value)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, datetime.datetime):
        return {"$timestamp": pd.Timestamp(value).isoformat()}
    if isinstance(value, datetime.timedelta):
        return {"$timedelta": pd.Timedelta(value).isoformat()}
    if isinstance(value, datetime.date):
        return {"$date": value.isoformat()}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): to_plain(one) for name, one in value.items()}
    raise TypeError(f"cannot save a {type(value).__name__} as JSON.")


def from_plain(entry: dict[str, Any]) -> Any:
    """Return what an object of JSON stands for; to be called for each, the inner ones first."""
    if len(entry) == 1:
        ((word, text),) = entry.items()
        if word in _WORDS and isinstance(text, str):
            return _WORDS[word](text)
    return entry


def plain_table(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table as JSON holds it; :func:`table_from` reads it."""
    return {"index": list(table.index), "columns": {str(name): list(table[name]) for name in table}}


def table_from(plain: dict[str, Any]) -> pd.DataFrame:
    """Return the table that :func:`plain_table` wrote."""
    return pd.DataFrame(plain["columns"], index=pd.Index(plain["index"], name="name"))
