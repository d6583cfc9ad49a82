"""What ties two populations together or stands for their representation: known pairs, shared features, given costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float, Int

from scgenot._messages import did_you_mean, listed
from scgenot.data._places import Data, Place, PopulationSpec
from scgenot.data._populations import Population

_MOST_PAIRS = 10_000_000
_BLOCK = 2048


def known_pairs(
    source: Population, target: Population, source_some: Int[np.ndarray, " k"], target_some: Int[np.ndarray, " l"]
) -> Int[np.ndarray, "p 2"]:
    """Return the known pairs among some cells, as places in `source_some` and `target_some`.

    Cells with equal, non-missing names are partners. A name may stand for several cells, such as a clone: then each of
    its source cells is a partner of each of its target cells.

    Raises
    ------
    ValueError
        If there are more than ten million pairs, which is a shared label rather than known pairs.
    """
    sides = []
    for side, population, some in (("i", source, source_some), ("j", target, target_some)):
        names = population.pair_names.iloc[some].astype(object)
        sides.append(pd.DataFrame({"name": names.to_numpy(), side: np.arange(len(some))}).dropna(subset="name"))
    left, right = sides
    counts = left["name"].value_counts().mul(right["name"].value_counts()).dropna()
    if counts.sum() > _MOST_PAIRS:
        raise ValueError(
            f"`pairs_key` names {counts.sum():.3g} pairs: a name is shared by many cells (most by {counts.idxmax()!r}). "
            "Known pairs are few and precise. Give a label that both populations share as `shared_rep`, one-hot."
        )
    return left.merge(right, on="name")[["i", "j"]].to_numpy(np.int32)


def count_pairs(source: Population, target: Population, spec: PopulationSpec) -> int:
    """Return the number of known pairs, at least one."""
    every = (np.arange(len(population.rows)) for population in (source, target))
    found = len(known_pairs(source, target, *every))
    if found == 0:
        examples = [
            repr(names.iloc[0]) if len(names := population.pair_names.dropna()) else "no value"
            for population in (source, target)
        ]
        raise ValueError(
            f"`pairs_key`={spec.source.pairs_key!r} has no value that both populations share: the source cells have "
            f"{examples[0]} first, the target cells {examples[1]}. Give partners the same value, other cells none."
        )
    return found


def check_shared(source: Population, target: Population, spec: PopulationSpec) -> int:
    """Return the number of shared features, which both populations must agree on."""
    widths = source.shared.shape[1], target.shared.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(
            f"`shared_rep`={spec.source.shared_rep!r} must have the same features in both populations, got {widths[0]} "
            f"and {widths[1]}. Subset both to the features measured in both."
        )
    return widths[0]


def distances(
    data: Data, place: Place, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "n m"]:
    """Return precomputed costs between rows of an AnnData, dense.

    Raises
    ------
    KeyError
        If there is no such key in ``obsp``.
    ValueError
        If the matrix is sparse with entries missing, or has NaN or inf between these cells.
    """
    adata, key, argument = place.cells(data), place.distances, f"{place.side}_distances"
    where = place.name_of("obsp")
    if key not in adata.obsp:
        raise KeyError(
            f"`{argument}`={key!r} is no key of {where}.{did_you_mean(key, adata.obsp)} "
            f"There are: {listed(adata.obsp)}."
        )
    stored = adata.obsp[key]
    if stored.dtype.kind not in "biuf":
        raise TypeError(f"`{argument}`={key!r} must hold real numbers, got {stored.dtype}.")
    unique_rows, rows_back = np.unique(rows, return_inverse=True)
    values = stored[unique_rows]
    if sp.issparse(values):
        # All but the diagonal has to be there. In a graph of neighbours what is missing is far, not at distance 0.
        if values.nnz < values.shape[0] * (values.shape[1] - 1):
            raise ValueError(
                f"`{argument}`={key!r} has only {values.nnz} of {values.shape[0] * values.shape[1]} entries: a graph of "
                "neighbours is no matrix of costs. Store all distances, or use cost=scgenot.costs.Geodesic(...)."
            )
        values = values.toarray()
    values = np.asarray(values)[rows_back][:, columns].astype(np.float32)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        names = adata.obs_names[rows[~finite]][:3]
        raise ValueError(
            f"`{argument}`={key!r} has NaN or inf in the rows of {int((~finite).sum())} of {len(rows)} cells (first: "
            f"{', '.join(names)}). In a graph, parts that are not connected are infinitely far: give them a number."
        )
    return values


def check_distances(data: Data, place: Place, rows: Int[np.ndarray, " n"]) -> None:
    """Raise as :func:`distances` does, without holding more than a block."""
    for start in range(0, len(rows), _BLOCK):
        distances(data, place, rows[start : start + _BLOCK], rows)
