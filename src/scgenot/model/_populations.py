"""Reading two populations out of an AnnData: which cells, which numbers, and what is wrong with them. Never writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from jaxtyping import Bool, Float, Int

from scgenot._messages import did_you_mean

_FEWEST_CELLS = 2
_SHOWN_NAMES = 3


@dataclasses.dataclass(frozen=True)
class PopulationSpec:
    """Where two populations lie in an AnnData.

    Attributes
    ----------
    population_key
        Column of ``obs`` that tells populations apart.
    source, target
        Its two categories.
    source_rep, target_rep
        Keys of ``obsm``, or ``"X"``.
    weights_key
        Column of ``obs`` with prior weights, or ``None``.
    """

    population_key: str
    source: Hashable
    target: Hashable
    source_rep: str
    target_rep: str
    weights_key: str | None = None


@dataclasses.dataclass(frozen=True)
class Population:
    """Cells of one population.

    Attributes
    ----------
    rows
        Their rows in the AnnData, ascending.
    cells
        Their representation.
    weights
        Their prior weights, or ``None``.
    """

    rows: Int[np.ndarray, " n"]
    cells: Float[np.ndarray, "n d"]
    weights: Float[np.ndarray, " n"] | None


def read_population(adata: AnnData, spec: PopulationSpec, side: str) -> Population:
    """Read the ``"source"`` or the ``"target"`` population.

    Raises
    ------
    KeyError
        If a key is missing; the message names the closest that exists.
    ValueError
        If the category is absent or has fewer than two cells, or values are not finite.
    """
    rows = category_rows(adata, spec.population_key, getattr(spec, side), side)
    cells = read_representation(adata, getattr(spec, f"{side}_rep"), rows, f"{side}_rep")
    weights = None if spec.weights_key is None else _weights(adata, spec.weights_key, rows, side)
    return Population(rows, cells, weights)


def category_rows(adata: AnnData, population_key: str, category: Hashable, argument: str) -> Int[np.ndarray, " n"]:
    """Return the rows of a category of an ``obs`` column, at least two."""
    column = obs_column(adata, population_key, "population_key")
    rows = np.flatnonzero(np.asarray(column == category))
    if len(rows) == 0:
        present = sorted(
            (getattr(value, "item", lambda value=value: value)() for value in column.dropna().unique()), key=str
        )
        shown = ", ".join(repr(value) for value in present[:20])
        same = [value for value in present if str(value) == str(category)]
        hint = f" Did you mean {same[0]!r}, as {type(same[0]).__name__}?" if same else did_you_mean(category, present)
        raise ValueError(
            f"`{argument}`={category!r} is no category of adata.obs[{population_key!r}], which has {shown}.{hint}"
        )
    if len(rows) < _FEWEST_CELLS:
        raise ValueError(
            f"`{argument}`={category!r} has only {len(rows)} cell in adata.obs[{population_key!r}]; "
            f"at least {_FEWEST_CELLS} are needed."
        )
    return rows


def obs_column(adata: AnnData, key: str, argument: str) -> pd.Series:
    """Return a column of ``obs``."""
    if key not in adata.obs:
        raise KeyError(
            f"`{argument}`={key!r} is no column of adata.obs.{did_you_mean(key, adata.obs.columns)} "
            f"There are: {_listed(adata.obs.columns)}."
        )
    return adata.obs[key]


def read_representation(
    adata: AnnData, rep: str, rows: Int[np.ndarray, " n"] | None = None, argument: str = "source_rep"
) -> Float[np.ndarray, "n d"]:
    """Return some rows of a representation as a dense float32 array, checked to be finite."""
    if rep == "X":
        if adata.X is None:
            raise KeyError(f"`{argument}`='X', but adata.X is None. Use a key of adata.obsm: {_listed(adata.obsm)}.")
        stored = adata.X
    elif rep in adata.obsm:
        stored = adata.obsm[rep]
    else:
        raise KeyError(
            f"`{argument}`={rep!r} is neither 'X' nor a key of adata.obsm.{did_you_mean(rep, adata.obsm)} "
            f"There are: {_listed(adata.obsm)}."
        )
    rows = np.arange(adata.n_obs) if rows is None else rows
    values = _dense(stored, rows)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"`{argument}`={rep!r} must be cells x features, got shape {values.shape}.")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        names = adata.obs_names[rows[~finite]][:_SHOWN_NAMES]
        raise ValueError(
            f"`{argument}`={rep!r} has NaN or inf in {int((~finite).sum())} of the {len(rows)} cells that would be "
            f"used (first: {', '.join(names)}). Drop these cells, or compute the representation for them."
        )
    return values


def representation_width(adata: AnnData, rep: str) -> int:
    """Return the number of features of a representation that is known to exist."""
    stored = adata.X if rep == "X" else adata.obsm[rep]
    return int(stored.shape[1])


def select_source_rows(
    adata: AnnData, spec: PopulationSpec, indices: Sequence[int] | Bool[np.ndarray, " n"] | None
) -> Int[np.ndarray, " n"]:
    """Return the rows that are meant: `indices`, or the source cells, or all cells where no column tells them apart."""
    if indices is None:
        if spec.population_key not in adata.obs:
            return np.arange(adata.n_obs)
        return np.flatnonzero(np.asarray(obs_column(adata, spec.population_key, "population_key") == spec.source))
    chosen = np.asarray(indices)
    if chosen.dtype == bool:
        if chosen.shape != (adata.n_obs,):
            raise ValueError(
                f"`indices` as a mask must have one entry for each of the {adata.n_obs} cells, got shape "
                f"{chosen.shape}."
            )
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
        raise TypeError(f"`indices` must be row numbers or a boolean mask, got {chosen.dtype} of shape {chosen.shape}.")
    outside = (chosen < -adata.n_obs) | (chosen >= adata.n_obs)
    if outside.any():
        raise IndexError(f"`indices` holds {chosen[outside][0]}, but adata has {adata.n_obs} cells.")
    return chosen.astype(np.int64) % max(adata.n_obs, 1)


def _dense(stored: Any, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n d"]:
    if isinstance(stored, pd.DataFrame):
        stored = stored.to_numpy()
    # Files are read in ascending order of rows only, and without repeats.
    unique, back = np.unique(rows, return_inverse=True)
    values = stored[unique]
    values = values.toarray() if sp.issparse(values) else np.asarray(values)
    return np.asarray(values, dtype=np.float32)[back]


def _weights(adata: AnnData, key: str, rows: Int[np.ndarray, " n"], side: str) -> Float[np.ndarray, " n"]:
    column = obs_column(adata, key, "weights_key")
    weights = pd.to_numeric(column.iloc[rows], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError(
            f"`weights_key`={key!r} must hold finite numbers, none below 0 and not all 0, in the {side} cells; "
            f"{int((~np.isfinite(weights) | (weights < 0)).sum())} of {len(rows)} are not."
        )
    return weights


def _listed(keys: Any) -> str:
    return ", ".join(repr(str(key)) for key in keys) or "none"
