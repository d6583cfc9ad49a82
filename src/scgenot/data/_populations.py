"""Reading a population: which cells, which numbers, and what is wrong with them. Never writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from jaxtyping import Bool, Float, Int
from mudata import MuData

from scgenot._messages import did_you_mean
from scgenot.data._places import Data, Place

_FEWEST_CELLS = 2
_SHOWN_NAMES = 3


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
    shared
        Their features in the space that both populations share, or ``None``.
    pair_names
        What names their known partners, missing for most, or ``None``.
    """

    rows: Int[np.ndarray, " n"]
    cells: Float[np.ndarray, "n d"]
    weights: Float[np.ndarray, " n"] | None = None
    shared: Float[np.ndarray, "n s"] | None = None
    pair_names: pd.Series | None = None


def read_population(data: Data, place: Place) -> Population:
    """Read the population of a place.

    Raises
    ------
    KeyError
        If a key is missing; the message names the closest that exists.
    ValueError
        If the category is absent or has fewer than two cells, or values are not finite.
    """
    adata = place.cells(data)
    rows = population_rows(data, place)
    cells = read_representation(adata, place.rep, rows, f"{place.side}_rep", place)
    shared = None
    if place.shared_rep is not None:
        shared = read_representation(adata, place.shared_rep, rows, "shared_rep", place)
    weights = None if place.weights_key is None else _weights(data, place, rows)
    names = None
    if place.pairs_key is not None:
        names = obs_column(data, place, place.pairs_key, "pairs_key").iloc[rows].reset_index(drop=True)
    return Population(rows, cells, weights, shared, names)


def population_rows(data: Data, place: Place) -> Int[np.ndarray, " n"]:
    """Return the rows of a population, at least two."""
    n_obs = place.cells(data).n_obs
    if place.population_key is not None:
        return category_rows(data, place)
    if n_obs < _FEWEST_CELLS:
        raise ValueError(
            f"`{place.side}_modality`={place.modality!r} has only {n_obs} cell; at least {_FEWEST_CELLS} are needed."
        )
    return np.arange(n_obs)


def category_rows(data: Data, place: Place) -> Int[np.ndarray, " n"]:
    """Return the rows of a category of an ``obs`` column, at least two."""
    key, category, where = place.population_key, place.category, place.name_of("obs")
    column = obs_column(data, place, key, "population_key")
    rows = np.flatnonzero(np.asarray(column == category))
    if len(rows) == 0:
        present = sorted(
            (getattr(value, "item", lambda value=value: value)() for value in column.dropna().unique()), key=str
        )
        shown = ", ".join(repr(value) for value in present[:20])
        same = [value for value in present if str(value) == str(category)]
        hint = f" Did you mean {same[0]!r}, as {type(same[0]).__name__}?" if same else did_you_mean(category, present)
        raise ValueError(f"`{place.side}`={category!r} is no category of {where}[{key!r}], which has {shown}.{hint}")
    if len(rows) < _FEWEST_CELLS:
        raise ValueError(
            f"`{place.side}`={category!r} has only {len(rows)} cell in {where}[{key!r}]; "
            f"at least {_FEWEST_CELLS} are needed."
        )
    return rows


def has_column(data: Data, place: Place, key: Hashable) -> bool:
    """Whether the cells of a place have an ``obs`` column, of their own or of the whole MuData."""
    return key in place.cells(data).obs or (isinstance(data, MuData) and key in data.obs)


def obs_column(data: Data, place: Place, key: str, argument: str) -> pd.Series:
    """Return a column of ``obs`` for the cells of a place, of their own or of the whole MuData."""
    adata = place.cells(data)
    if key in adata.obs:
        return adata.obs[key]
    if isinstance(data, MuData) and key in data.obs:
        return data.obs[key].reindex(adata.obs_names)
    there = list(adata.obs.columns) + (list(data.obs.columns) if isinstance(data, MuData) else [])
    raise KeyError(
        f"`{argument}`={key!r} is no column of {place.name_of('obs')}.{did_you_mean(key, there)} "
        f"There are: {listed(there)}."
    )


def read_representation(
    adata: AnnData,
    rep: str,
    rows: Int[np.ndarray, " n"] | None = None,
    argument: str = "source_rep",
    place: Place | None = None,
) -> Float[np.ndarray, "n d"]:
    """Return some rows of a representation as a dense float32 array, checked to be finite."""
    where = "adata." if place is None else place.name_of("")
    if rep == "X":
        if adata.X is None:
            raise KeyError(f"`{argument}`='X', but {where}X is None. Use a key of {where}obsm: {listed(adata.obsm)}.")
        stored = adata.X
    elif rep in adata.obsm:
        stored = adata.obsm[rep]
    else:
        raise KeyError(
            f"`{argument}`={rep!r} is neither 'X' nor a key of {where}obsm.{did_you_mean(rep, adata.obsm)} "
            f"There are: {listed(adata.obsm)}."
        )
    rows = np.arange(adata.n_obs) if rows is None else rows
    values = dense_rows(stored, rows)
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


def representation_names(adata: AnnData, rep: str) -> list[str] | None:
    """Return the names of the features of a representation, where it has any."""
    if rep == "X":
        return list(adata.var_names)
    stored = adata.obsm[rep]
    return [str(name) for name in stored.columns] if isinstance(stored, pd.DataFrame) else None


def select_rows(
    data: Data, place: Place, indices: Sequence[int] | Bool[np.ndarray, " n"] | None
) -> Int[np.ndarray, " n"]:
    """Return the rows that are meant: `indices`, or this population, or all cells where no column tells them apart."""
    adata = place.cells(data)
    if indices is None:
        if place.population_key is None or not has_column(data, place, place.population_key):
            return np.arange(adata.n_obs)
        column = obs_column(data, place, place.population_key, "population_key")
        return np.flatnonzero(np.asarray(column == place.category))
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


def dense_rows(stored: Any, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n d"]:
    """Return some rows of a matrix of any kind as dense float32."""
    if isinstance(stored, pd.DataFrame):
        stored = stored.to_numpy()
    # Files are read in ascending order of rows only, and without repeats.
    unique, back = np.unique(rows, return_inverse=True)
    values = stored[unique]
    values = values.toarray() if sp.issparse(values) else np.asarray(values)
    return np.asarray(values, dtype=np.float32)[back]


def _weights(data: Data, place: Place, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    column = obs_column(data, place, place.weights_key, "weights_key")
    weights = pd.to_numeric(column.iloc[rows], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError(
            f"`weights_key`={place.weights_key!r} must hold finite numbers, none below 0 and not all 0, in the "
            f"{place.side} cells; {int((~np.isfinite(weights) | (weights < 0)).sum())} of {len(rows)} are not."
        )
    return weights


def listed(keys: Any) -> str:
    """Return keys as an enumeration for messages."""
    return ", ".join(repr(str(key)) for key in keys) or "none"
