"""Which source cells lie outside of what the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors

from scgenot._messages import check_count
from scgenot.data import Data, read_representation
from scgenot.model._cells import cells_of, check_is_trained

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

# Source cells that stand for all: what is saved of a million.
MOST_SOURCE_CELLS = 2000


def get_outlier_score(
    model: TransportModel,
    adata: Data | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    n_neighbors: int = 5,
) -> pd.DataFrame:
    """Return how far source cells lie from those that the model was trained on: for them, its answers are extrapolated.

    Parameters
    ----------
    adata, indices
        As in :meth:`sample`.
    n_neighbors
        The distance is that to so many-th nearest training cell (of at most 2000 that stand for all), in the source representation.

    Returns
    -------
    One row a cell, named as in ``obs_names``: ``distance``, and ``p_value``, the share of training cells that lie as far from the other ones
    or farther, with one added to both: near 1 / (cells + 1) for a cell farther out than all of them. A training cell
    is at distance 0 of itself, and looks closer than it is: ask of new cells.

    Raises
    ------
    RuntimeError
        If the model is not trained, or was saved by an earlier version and has no data.
    KeyError, ValueError
        As :meth:`sample`; also if there are no more than `n_neighbors` training cells.

    Notes
    -----
    Kang's controls, one type left out of training, its cells against held-out ones of other types, AUROC over 3 splits: fifth neighbour
    .786 on the four types that it was chosen on (B, CD14+ monocytes, CD4 T, NK) and .728 on the other three (first neighbour .766 and .723,
    fifteenth .784 and .717, local outlier factor .723 and .733, Mahalanobis distance .824 and .706; .5 is chance). The density of a flow of the
    source in whitened units, one split, has .836 and .728, in the model's own units .805 and .708: not worth a second network. A type that
    lies between others (CD4 T, .60) is hardly found by any.

    Examples
    --------
    >>> model.get_outlier_score(new_cells)["p_value"] < 0.01  # doctest: +SKIP
    """
    check_is_trained(model)
    check_count("n_neighbors", n_neighbors)
    reference = source_reference(model)
    if n_neighbors >= len(reference):
        raise ValueError(f"`n_neighbors` must be below {len(reference)}, the training cells, got {n_neighbors}.")
    cells = cells_of(model, "source", adata, indices)
    search = NearestNeighbors(n_neighbors=int(n_neighbors)).fit(reference)
    distances = search.kneighbors(cells.values)[0][:, -1]
    # Without a query, a cell is no neighbour of its own.
    own = np.sort(search.kneighbors()[0][:, -1])
    farther = len(own) - np.searchsorted(own, distances, side="left")
    columns = {"distance": distances, "p_value": (1 + farther) / (1 + len(own))}
    return pd.DataFrame(columns, index=cells.names)


def source_reference(model: TransportModel) -> Float[np.ndarray, "k d"]:
    """Return the source cells that stand for those of training."""
    if model._source_reference is None and model.adata is not None and model._training is not None:
        # Of a model of before they were saved, with its data.
        place = model._spec.source
        rows = model._training.train_rows[0]
        values = read_representation(place.cells(model.adata), place.rep, rows, "source_rep", place)
        model._source_reference = reference_cells(values)
    if model._source_reference is None:
        raise RuntimeError(
            "this model was saved before its source cells were kept. Load it with `adata`, or train it again."
        )
    return model._source_reference


def reference_cells(cells: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "k d"]:
    """Return up to 2000 cells that stand for all."""
    rows = np.sort(np.random.default_rng(0).permutation(len(cells))[:MOST_SOURCE_CELLS])
    return np.asarray(cells[rows], np.float32)
