"""Labels of target cells, carried to source cells through their samples."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors

from scgenot._messages import check_count
from scgenot._rng import RNG
from scgenot.data import Data, check_names, obs_column, population_rows, read_representation, select_rows
from scgenot.flow import ODEConfig
from scgenot.flow._summaries import entropy, shares
from scgenot.model._cells import Cells, Sampling, check_is_trained, sample_blocks
from scgenot.model._conditions import answer
from scgenot.model._times import check_until, course_of

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

label_entropy = entropy


def get_label_probabilities(
    model: TransportModel,
    adata: Data | None = None,
    label_key: str | None = None,
    *,
    target: Data | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    n_neighbors: int = 5,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
    until: Hashable | None = None,
) -> pd.DataFrame | dict[str, pd.DataFrame]:
    """Return how probable each label of the target cells is for each source cell.

    Each sample of a source cell asks its nearest target cells, in the target representation; their shares of the
    labels are averaged over the samples. Samples are drawn and asked block by block.

    Parameters
    ----------
    adata
        As in :meth:`sample`.
    label_key
        Column of ``obs`` with labels of the target cells; give it as a keyword. Target cells without one are not asked.
        (Before `adata`, as it stood in version 0.1, it is still taken, with a warning.)
    target
        Where labelled target cells are: an AnnData or MuData with the target representation. By default the model's
        own data, or `adata` if it has none.
    indices, n_samples, batch_size, rng, ode, conditions, until
        As in :meth:`sample`. In a time course, samples ask cells of the time at which they arrive.
    n_neighbors
        Target cells that each sample asks.

    Returns
    -------
    One row a source cell, named as in ``obs_names``; one column a label that occurs, in the order of its categories.
    Rows sum to 1.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`sample`; also if no target cell has a label, or fewer than `n_neighbors` have.

    Examples
    --------
    >>> model.get_label_probabilities(adata, "cell_type").idxmax(axis=1)  # doctest: +SKIP
    """
    adata, label_key = _in_order(adata, label_key)
    check_is_trained(model)
    sampling = Sampling(n_samples, batch_size, rng, ode)

    def probabilities(cells: Cells) -> pd.DataFrame:
        return label_shares(model, cells, sampling, label_key, adata, target, n_neighbors)

    return answer(model, probabilities, adata, indices, conditions, until=until)


def label_frequencies(
    model: TransportModel,
    adata: Data | None = None,
    label_key: str | None = None,
    *,
    target: Data | None = None,
    until: Hashable | None = None,
) -> Float[np.ndarray, " l"]:
    """Return the share of each label among labelled target cells, as columns of :meth:`get_label_probabilities`.

    In a time course, among cells of the time `until`, or of all times but the first.

    Examples
    --------
    >>> model.label_frequencies(adata, "cell_type")  # doctest: +SKIP
    """
    adata, label_key = _in_order(adata, label_key)
    check_until(model, until)
    course = course_of(model)
    arrivals = None
    if course is not None:
        arrivals = np.arange(1, course.steps + 1) if until is None else np.array([course.place_of(until, "until")])
    _, codes, labels, _ = _labelled_targets(model, label_key, adata, target, arrivals)
    return np.bincount(codes, minlength=len(labels)) / len(codes)


def label_shares(
    model: TransportModel,
    cells: Cells,
    sampling: Sampling,
    label_key: str,
    adata: Data | None = None,
    target: Data | None = None,
    n_neighbors: int = 5,
) -> pd.DataFrame:
    """Return what :meth:`get_label_probabilities` does, of cells that were read already."""
    check_count("n_neighbors", n_neighbors)
    # In a time course, samples ask cells of the time at which they arrive; elsewhere all are at one.
    arrivals = np.zeros(len(cells.rows), int) if cells.way is None else cells.way.end
    ends = np.unique(arrivals)
    points, codes, labels, times = _labelled_targets(
        model, label_key, adata, target, None if cells.way is None else ends
    )
    found = np.empty((len(cells.rows), len(labels)), np.float32)
    for end in ends:
        own, there = np.flatnonzero(arrivals == end), times == end
        if n_neighbors > there.sum():
            raise ValueError(
                f"`n_neighbors` must be at most {there.sum()}, the labelled target cells, got {n_neighbors}."
            )
        search = NearestNeighbors(n_neighbors=int(n_neighbors)).fit(points[there])
        for place, block in sample_blocks(model, cells.some(own), sampling):
            nearest = search.kneighbors(block.reshape(-1, block.shape[-1]), return_distance=False)
            found[own[place]] = shares(codes[there][nearest].reshape(len(block), -1), len(labels))
    return pd.DataFrame(found, index=cells.names, columns=labels)


def _in_order(adata: Any, label_key: Any) -> tuple[Data | None, str]:
    if isinstance(adata, str) and (label_key is None or isinstance(label_key, Data)):
        warnings.warn(
            "Give data first and `label_key` as a keyword, as in all other getters: "
            f"get_label_probabilities(adata, label_key={adata!r}).",
            FutureWarning,
            stacklevel=3,
        )
        return label_key, adata
    if not isinstance(label_key, str):
        raise TypeError(f"`label_key` must be a column of obs of the target cells, got {label_key!r}.")
    return adata, label_key


def _labelled_targets(
    model: TransportModel,
    label_key: str,
    adata: Data | None,
    target: Data | None,
    arrivals: Int[np.ndarray, " k"] | None = None,
) -> tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " m"], pd.Index, Int[np.ndarray, " m"]]:
    """Return target cells that have a label, the number of the label of each, the labels, and the place of their times.

    `arrivals` are the places of the times whose cells are wanted; ``None`` without times, and all places are 0 then.
    """
    place = model._spec.target
    if target is None:
        # A model with source cells only has no target cells, even if it has data.
        target = model.adata if model.adata_manager is not None else adata
        if model._spec.source.modality != place.modality and isinstance(target, AnnData):
            target = None
    if target is None:
        raise ValueError(
            "this model was loaded without target cells. Pass `target`, an AnnData or MuData with labelled target cells."
        )
    if target is model.adata or target is adata:
        rows = population_rows(target, place)
    else:
        rows = select_rows(target, place, None)
    times = np.zeros(len(rows), int)
    if arrivals is not None:
        course = course_of(model)
        times = course.places(obs_column(target, place, course.key, "time_key").iloc[rows])
        rows, times = rows[np.isin(times, arrivals)], times[np.isin(times, arrivals)]
    labels = obs_column(target, place, label_key, "label_key").iloc[rows]
    known = labels.notna().to_numpy()
    rows, times, labels = rows[known], times[known], labels[known].astype("category")
    if len(rows) == 0:
        raise ValueError(f"`label_key`={label_key!r} has no label for any of the target cells.")
    labels = labels.cat.remove_unused_categories()
    held_by = place.cells(target)
    points = read_representation(held_by, place.rep, rows, "target_rep", place)
    if points.shape[1] != model._method.target_dim:
        raise ValueError(
            f"the model maps to {model._method.target_dim} features, the target cells have {points.shape[1]} in "
            f"{place.rep!r}. Compute the representation as for the training data."
        )
    check_names(held_by, place, model._feature_names["target"])
    return points, labels.cat.codes.to_numpy(), labels.cat.categories, times
