"""Reading a population: which cells, which numbers, and what is wrong with them. Never writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from scgenot.data._columns import category_rows, has_column, obs_column, rows_of_category, weights_of
from scgenot.data._places import Data, Place
from scgenot.data._representation import check_representation, read_representation

_FEWEST_CELLS = 2


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
    weights = None if place.weights_key is None else weights_of(data, place, rows)
    names = None
    if place.pairs_key is not None:
        names = obs_column(data, place, place.pairs_key, "pairs_key").iloc[rows].reset_index(drop=True)
    return Population(rows, cells, weights, shared, names)


def check_population(data: Data, place: Place) -> tuple[Int[np.ndarray, " n"], int]:
    """Return rows and number of features of a population; raise as :func:`read_population` does, reading block by block."""
    rows = population_rows(data, place)
    width = check_representation(place.cells(data), place.rep, rows, f"{place.side}_rep", place)
    if place.weights_key is not None:
        weights_of(data, place, rows)
    return rows, width


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


def select_rows(
    data: Data, place: Place, indices: Sequence[int] | Bool[np.ndarray, " n"] | None
) -> Int[np.ndarray, " n"]:
    """Return the rows that are meant: `indices`, or this population, or all cells where no column tells them apart."""
    adata = place.cells(data)
    if indices is None:
        if place.population_key is None or not has_column(data, place, place.population_key):
            return np.arange(adata.n_obs)
        return rows_of_category(data, place)
    try:
        chosen = np.asarray(indices)
    except ValueError as error:
        raise TypeError(
            f"`indices` must be row numbers or a boolean mask, got rows of uneven length ({error})."
        ) from None
    if chosen.dtype == bool:
        if chosen.shape != (adata.n_obs,):
            raise ValueError(
                f"`indices` as a mask must have one entry for each of the {adata.n_obs} cells, got shape "
                f"{chosen.shape}."
            )
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
        raise TypeError(f"`indices` must be row numbers or a boolean mask, got {chosen.dtype} of shape {chosen.shape}.")
    outside = (chosen < -adata.n_obs) | (chosen >= adata.n_obs) if adata.n_obs else np.ones(chosen.shape, bool)
    if outside.any():
        raise IndexError(f"`indices` holds {chosen[outside][0]}, but adata has {adata.n_obs} cells.")
    return chosen.astype(np.int64) % max(adata.n_obs, 1)
