"""What tools share: how much mass cells stand for, names that files take, and writing results all at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from mudata import MuData

from scgenot._messages import did_you_mean
from scgenot.data import in_memory

if TYPE_CHECKING:
    from scgenot.model import GENOT


@dataclasses.dataclass(frozen=True)
class Results:
    """What a tool found about some cells of the source AnnData.

    Attributes
    ----------
    rows
        Rows of these cells (n,).
    obs
        From the name of a column to its values: an array (n,), or a :class:`pandas.Categorical` of the n cells.
    obsm
        From a key to an array (n, ...) or a data frame of n rows.
    uns
        What goes into ``uns`` under the tool's key.
    """

    rows: Int[np.ndarray, " n"]
    obs: Mapping[str, np.ndarray | pd.Categorical] = dataclasses.field(default_factory=dict)
    obsm: Mapping[str, np.ndarray | pd.DataFrame] = dataclasses.field(default_factory=dict)
    uns: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def check_writable(adata: AnnData | MuData, key_added: str, copy: bool) -> None:
    """Refuse, before the work, what could not be written after it.

    Raises
    ------
    ValueError
        If a copy of an object in a file is wanted, which AnnData cannot make in memory, or files would refuse `key_added`.
    """
    parts = list(adata.mod.values()) if isinstance(adata, MuData) else [adata]
    if copy and any(getattr(part, "isbacked", False) for part in parts):
        raise ValueError(
            "`copy=True` needs data in memory, got an object that is backed by a file. Pass `adata.to_memory()`, or "
            "leave `copy` False and write the results into this object."
        )
    if not isinstance(key_added, str) or not key_added or "/" in key_added:
        raise ValueError(
            f"`key_added` must be a name without '/', got {key_added!r}. Files take a slash for a folder; use '_'."
        )


def write(
    adata: AnnData | MuData,
    model: GENOT,
    key: str,
    results: Results,
    *,
    owned: Iterable[str] = (),
    copy: bool = False,
) -> AnnData | MuData | None:
    """Write results into the AnnData with the source cells, missing for other cells, and return the copy if `copy`.

    Columns and keys that the tool owns are removed first, so that nothing of an earlier call stands beside the new one.
    Nothing here fails half-way: whatever can fail has been computed before.

    Parameters
    ----------
    adata, model
        Which data, and which model says where source cells are in it.
    key
        The key in ``uns``.
    results
        What to write.
    owned
        Names of columns of ``obs`` and keys of ``obsm`` that any call of this tool writes under this key.
    copy
        Whether to write into a copy.
    """
    whole = adata.copy() if copy else adata
    changed = model.source_adata(whole)
    n_obs = changed.n_obs
    # Aligned before anything is removed.
    obs = {name: _column(values, results.rows, n_obs) for name, values in results.obs.items()}
    obsm = {name: _matrix(values, results.rows, changed) for name, values in results.obsm.items()}
    for name in owned:
        if name in changed.obs and name not in obs:
            del changed.obs[name]
        if name in changed.obsm and name not in obsm:
            del changed.obsm[name]
    for name, matrix in obsm.items():
        changed.obsm[name] = matrix
    for name, column in obs.items():
        changed.obs[name] = column
    changed.uns[key] = dict(results.uns)
    return whole if copy else None


def spread(values: np.ndarray, rows: np.ndarray, n_obs: int) -> np.ndarray:
    """Return an array over all cells with `values` at `rows` and NaN elsewhere."""
    everywhere = np.full((n_obs, *values.shape[1:]), np.nan, dtype=np.float32)
    everywhere[rows] = values
    return everywhere


def _column(values: np.ndarray | pd.Categorical, rows: np.ndarray, n_obs: int) -> np.ndarray | pd.Categorical:
    if not isinstance(values, pd.Categorical):
        return spread(values, rows, n_obs)
    codes = np.full(n_obs, -1)
    codes[rows] = values.codes
    return pd.Categorical.from_codes(codes, dtype=values.dtype)


def _matrix(values: np.ndarray | pd.DataFrame, rows: np.ndarray, adata: AnnData) -> np.ndarray | pd.DataFrame:
    if not isinstance(values, pd.DataFrame):
        return spread(values, rows, adata.n_obs)
    return pd.DataFrame(
        spread(values.to_numpy(), rows, adata.n_obs), index=adata.obs_names, columns=list(values.columns)
    )


def safe_columns(labels: Iterable[Any]) -> list[str]:
    """Return names of columns that files take: labels as text, ``"|"`` for ``"/"``, a number appended where two would agree.

    HDF5 takes a slash for a folder, and AnnData is about to refuse it in names of columns.
    """
    columns: list[str] = []
    for label in labels:
        name = wanted = str(label).replace("/", "|")
        number = 1
        while name in columns:
            number += 1
            name = f"{wanted} ({number})"
        columns.append(name)
    return columns


def prior_mass(model: GENOT, adata: AnnData | MuData, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return the share of the prior mass that each cell stands for, of the cells in `rows`.

    Without `weights_key` in setup all cells stand for the same.

    Raises
    ------
    KeyError
        If the model has a `weights_key` and `adata` no such column.
    ValueError
        If its values are not finite, below 0, or all 0.
    """
    key = model.describe().get("weights_key")
    if key is None:
        return np.full(len(rows), 1.0 / max(len(rows), 1))
    source = model.source_adata(adata)
    if key in source.obs:
        column = in_memory(source.obs)[key]
    elif isinstance(adata, MuData) and key in adata.obs:
        column = adata.obs[key].reindex(source.obs_names)
    else:
        raise KeyError(
            f"`weights_key`={key!r}, from which the model has its prior weights, is no column of obs of the source "
            f"cells.{did_you_mean(key, source.obs.columns)} Add it, or pass `weight_by_growth=False` to count each cell "
            "once."
        )
    weights = pd.to_numeric(column.iloc[rows], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any() or weights.sum() <= 0:
        raise ValueError(
            f"`weights_key`={key!r} must hold finite numbers, none below 0 and not all 0, in the source cells; "
            f"{int(wrong.sum())} of {len(rows)} are not. Mend the column, or pass `weight_by_growth=False`."
        )
    return weights / weights.sum()


def sent_mass(
    model: GENOT,
    adata: AnnData | MuData,
    rows: Int[np.ndarray, " n"],
    growth: bool = True,
    conditions: str | None = None,
    until: Hashable | None = None,
) -> Float[np.ndarray, " n"]:
    """Return the mass that each cell sends: its prior share times its growth, where that is known and wanted.

    In a time course, priors share out the cells of one time; times count by their cells.
    """
    if model.times is None:
        mass = prior_mass(model, adata, rows)
    else:
        mass, leaving = np.empty(len(rows)), model.get_times(adata, indices=rows, until=until)["from"].to_numpy()
        for time in pd.unique(leaving):
            here = np.flatnonzero(leaving == time)
            mass[here] = prior_mass(model, adata, rows[here]) * len(here) / len(rows)
    if not growth:
        return mass
    return mass * model.get_growth(adata, indices=rows, conditions=conditions, until=until).astype(np.float64)


def check_one_condition(conditions: object) -> None:
    """Raise a ``TypeError`` unless at most one condition is named."""
    if not isinstance(conditions, str | None):
        raise TypeError(
            f"`conditions` must be the name of one condition here, got {type(conditions).__name__}. Call once for each."
        )
