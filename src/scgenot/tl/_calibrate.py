"""Calibrate the regions of a model on partners or labels that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scgenot._messages import check_count
from scgenot._rng import RNG, as_key
from scgenot._sampling import host_rng
from scgenot.data import obs_column, read_representation, select_rows
from scgenot.flow import (
    DivergenceConfig,
    ODEConfig,
    conformal_thresholds,
    coverage,
    cross_levels,
    label_scores,
)
from scgenot.tl._writing import check_one_condition, check_writable

if TYPE_CHECKING:
    from scgenot.model import GENOT

# 5 % to 95 % in steps of 5 %.
LEVELS = np.round(np.arange(0.05, 0.96, 0.05), 2)
# Below ten, a level of .9 has no threshold.
_FEWEST = 10
_FOLDS = 5


def calibrate(
    adata: AnnData | MuData,
    model: GENOT,
    *,
    pairs_key: str | None = None,
    label_key: str | None = None,
    key_added: str = "genot_calibration",
    target: AnnData | MuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    score: Literal["density", "neighbours"] = "density",
    n_samples: int | None = None,
    n_neighbors: int = 5,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    divergence: DivergenceConfig | None = None,
    conditions: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Learn from known partners, or known labels, which regions hold what they say, and write it down.

    Of each cell whose partner is known, the score of the partner is computed: the share of the cell's law that is more probable.
    If laws are right, a share a of the scores is below a. Whatever they are, a share of at least a of *other* cells has scores
    below the threshold that is made of these (split conformal prediction), if those cells are like the ones with known partners:
    drawn at random from the same cells. Ask :meth:`scgenot.GENOT.get_region_levels` (points) or
    :meth:`scgenot.GENOT.get_label_sets` (labels) with the result.

    What it does not do: the guarantee is an average over cells, not for each cell or type, and there is none for cells of another
    kind, such as a type or batch without known partners. Where the model has learned from the same partners or labels, regions are too
    small. Without any truth nothing can be calibrated, and the raw regions are what the plan says.

    Parameters
    ----------
    adata
        Source cells and, unless `target` is given, target cells.
    model
        A trained model.
    pairs_key
        Column of ``obs``: a source and a target cell with the same value are partners, cells without a value have none that is
        known. Of several partners of a cell one is drawn.
    label_key
        Column of ``obs`` with labels of source cells (those to calibrate on; missing for others) and target cells. Give this or
        `pairs_key`.
    key_added
        Where the result goes.
    target
        Where target cells are: by default, partners in `adata`, labelled cells as in
        :meth:`scgenot.GENOT.get_label_probabilities`.
    indices
        Source cells to calibrate on, as rows or as a boolean mask; by default all that have a partner or label. Cells that were held
        out from training are like new cells; those of training are like each other.
    score
        For partners, what tells how probable a point is; see :meth:`scgenot.GENOT.get_region_levels`.
    n_samples
        Samples of each law; 49 for partners, 30 for labels.
    n_neighbors
        As in :meth:`scgenot.GENOT.get_label_probabilities`.
    rng
        Seed or generator.
    ode, divergence
        As in :meth:`scgenot.GENOT.get_log_prob`.
    conditions
        As in :meth:`scgenot.GENOT.sample`; one, by its name.
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. ``uns["genot_calibration"]`` (of a MuData, of the MuData itself) holds:

    ``"kind"``
        ``"points"`` or ``"labels"``.
    ``"scores"``
        Scores of the known targets, ascending.
    ``"table"``
        Columns as arrays: ``level``, nominal; ``threshold``, the largest score in the calibrated region; ``before``, the share of known
        targets that the raw region of the level holds; ``after``, the same calibrated, each fifth of the cells by the other four;
        ``low`` and ``high``, between which the share of *all* other cells lies in 90 % of cases, so few as the known ones are
        (Vovk 2012).
    ``"n_cells"``, ``"params"``
        How many cells, and what was done.

    Raises
    ------
    RuntimeError, NotImplementedError, KeyError
        As :meth:`scgenot.GENOT.get_log_prob`.
    ValueError
        If neither or both of `pairs_key` and `label_key` are given, fewer than 10 targets are known, or the model was trained with
        the same partners; `adata` is left as it was.

    Examples
    --------
    >>> scgenot.tl.calibrate(adata, model, pairs_key="pair")  # doctest: +SKIP
    >>> scgenot.pl.calibration(adata)  # doctest: +SKIP
    """
    check_writable(adata, key_added, copy)
    check_one_condition(conditions)
    if (pairs_key is None) == (label_key is None):
        raise ValueError(
            "give `pairs_key` (known partners) or `label_key` (known labels), one of the two. Without any truth to calibrate on, "
            "nothing says how often a region holds it: raw regions are what the learned plan says, right or wrong."
        )
    key = as_key(rng)
    options = {"target": target, "indices": indices, "conditions": conditions, "ode": ode, "key": key}
    if pairs_key is not None:
        # Ranks among 49 make .5, .8 and .9 whole numbers of 50.
        n_samples = 49 if n_samples is None else n_samples
        scores = _scores_of_partners(adata, model, pairs_key, score, n_samples, divergence, **options)
    else:
        n_samples = 30 if n_samples is None else n_samples
        scores = _scores_of_labels(adata, model, label_key, n_samples, n_neighbors, **options)
    params = model.describe() | {"n_samples": int(n_samples)}
    params |= {"pairs_key": pairs_key, "score": score} if pairs_key is not None else {"label_key": label_key}
    params |= {} if conditions is None else {"condition": conditions}
    folds = host_rng(key, 2).permutation(len(scores)) % _FOLDS
    table = _table(scores, folds)
    whole = adata.copy() if copy else adata
    whole.uns[key_added] = {
        "kind": "points" if pairs_key is not None else "labels",
        "scores": np.sort(scores),
        "table": table,
        "n_cells": len(scores),
        "params": params,
    }
    return whole if copy else None


def _table(scores: np.ndarray, folds: np.ndarray) -> dict[str, np.ndarray]:
    from scipy.stats import beta

    n = len(scores)
    rank = np.ceil(np.round((n + 1) * LEVELS, 9))
    # The share of all other cells that score no more than the known one of this rank; 1 where there is none.
    low, high = (
        np.where(rank > n, 1.0, beta.ppf(q, np.minimum(rank, n), n + 1 - np.minimum(rank, n))) for q in (0.05, 0.95)
    )
    return {
        "level": LEVELS.copy(),
        "threshold": conformal_thresholds(scores, LEVELS),
        "before": coverage(scores, LEVELS),
        "after": coverage(cross_levels(scores, folds), LEVELS),
        "low": low,
        "high": high,
    }


def _scores_of_partners(
    adata: Any,
    model: GENOT,
    pairs_key: str,
    score: str,
    n_samples: int,
    divergence: Any,
    *,
    target,
    indices,
    conditions,
    ode,
    key,
) -> np.ndarray:
    # The model's room loads scvi-tools, which takes many seconds: only when it is needed.
    from scgenot.model._conditions import answer
    from scgenot.model._regions import region_options, region_scores

    source_place, target_place = model._spec.places
    if model._problem == "fused" and source_place.pairs_key == pairs_key:
        raise ValueError(
            f"`pairs_key`={pairs_key!r}: the model was trained with these partners, which are closer to it than those of other cells. "
            "Keep some out of training, in a column of their own, and calibrate on them."
        )
    rows = select_rows(adata, source_place, indices)
    holder = adata if target is None else target
    other = select_rows(holder, target_place, None)
    names = _filled(obs_column(adata, source_place, pairs_key, "pairs_key").iloc[rows])
    there = _filled(obs_column(holder, target_place, pairs_key, "pairs_key").iloc[other])
    # In random order, the first one of a name is any of them.
    order = host_rng(key, 1).permutation(len(other))
    partner = pd.Series(other[order], index=there.to_numpy(object)[order])
    partner = partner[partner.index.notna() & ~partner.index.duplicated()]
    found = partner.reindex(names.to_numpy(object))
    known = found.notna().to_numpy() & names.notna().to_numpy()
    if known.sum() < _FEWEST:
        raise ValueError(
            f"`pairs_key`={pairs_key!r} names partners of {int(known.sum())} of {len(rows)} source cells, and at least {_FEWEST} are "
            "needed for a 90 % region. Give partners the same value, other cells none."
        )
    points = read_representation(
        target_place.cells(holder), target_place.rep, found[known].to_numpy(np.int64), "target_rep", target_place
    )
    options = region_options(score, n_samples, None, key, ode, divergence)
    points = np.asarray(points, np.float32)[:, None]
    return answer(model, lambda cells: region_scores(model, cells, points, options), adata, rows[known], conditions)[
        :, 0
    ]


def _scores_of_labels(
    adata: Any, model: GENOT, label_key: str, n_samples: int, n_neighbors: int, *, target, indices, conditions, ode, key
) -> np.ndarray:
    place = model._spec.source
    rows = select_rows(adata, place, indices)
    labels = _filled(obs_column(adata, place, label_key, "label_key").iloc[rows])
    rows, labels = rows[labels.notna().to_numpy()], labels[labels.notna()].astype(str).to_numpy()
    check_count("n_samples", n_samples)
    if len(rows) < _FEWEST:
        raise ValueError(
            f"`label_key`={label_key!r} has labels for {len(rows)} source cells, and at least {_FEWEST} are needed for a 90 % set."
        )
    probabilities = model.get_label_probabilities(
        adata,
        label_key=label_key,
        target=target,
        indices=rows,
        n_samples=n_samples,
        n_neighbors=n_neighbors,
        rng=key,
        ode=ode,
        conditions=conditions,
    )
    columns = pd.Index(probabilities.columns.astype(str))
    place_of = columns.get_indexer(labels)
    scores = label_scores(probabilities.to_numpy())
    # A label that no target cell has is in no set.
    return np.where(place_of >= 0, scores[np.arange(len(rows)), place_of], np.inf)


def _filled(column: pd.Series) -> pd.Series:
    """Return a column of names in which a text without characters is missing, too."""
    column = column.astype(object)
    return column.where(column.notna() & (column != ""), None)
