"""How far out points lie in the law of a source cell, and which labels it may have: regions, raw or calibrated."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.spatial.distance import cdist

from scgenot._messages import check_count, one_of
from scgenot._rng import RNG
from scgenot.data import Data
from scgenot.flow import DivergenceConfig, ODEConfig, conformal_levels, label_scores, rank_scores
from scgenot.model._cells import Cells, Sampling, check_is_trained, sample_blocks
from scgenot.model._conditions import answer
from scgenot.model._density import checked_points, density_options, log_prob_of, some_cells
from scgenot.model._labels import label_shares

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

# With 49, .5, .8 and .9 are whole numbers of the 50 ranks that a point may have among the samples.
N_SAMPLES = 49
KINDS = ("points", "labels")
SCORES = ("density", "neighbours")
# SNARE-seq, seed 0: regions of 90 % hold 26.3 % of the target cells ranked by density, 26.7 % by the fifth nearest sample, 25.8 % by
# Mahalanobis distance to the samples (which knows one mode); one set of residuals for all cells (`ott.tools.conformal.OTCP`) 62 %.
_NEIGHBOUR = 5
_TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class RegionOptions:
    """How scores of points are computed: alike for known partners and for points that are asked for later."""

    sampling: Sampling
    density: dict[str, Any]
    score: str = "density"


def get_region_levels(
    model: TransportModel,
    target_points: Float[np.ndarray, "..."],
    adata: Data | None = None,
    *,
    calibration: Mapping[str, Any] | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    score: Literal["density", "neighbours"] | None = None,
    n_samples: int | None = None,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    divergence: DivergenceConfig | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
) -> Float[np.ndarray, "n k"] | dict[str, Float[np.ndarray, "n k"]]:
    """Return which regions points lie in: those of every level *above* the number that is returned.

    The region of level a of a cell is the most probable part of its law that has probability a: it may be in several pieces. A
    point is in the 90 % region where the number is below .9. Without `calibration`, a region has the probability that the *learned
    law* gives it, which need not be what it holds: a plan may be wrong, and nothing but known partners or labels tells. With what
    :func:`scgenot.tl.calibrate` wrote, the 90 % region holds the true target of at least 90 % of cells like those that it was
    calibrated on, on average over such cells (not of each cell or type).

    Parameters
    ----------
    target_points
        As in :meth:`get_log_prob`: (points, features) or (cells, k, features).
    adata, indices, batch_size, rng, ode, conditions
        As in :meth:`sample`.
    calibration
        ``adata.uns["genot_calibration"]``, of points. ``None``: not calibrated, with a warning.
    score
        What tells how probable a point is: ``"density"``, the model's (:meth:`get_log_prob`), or ``"neighbours"``, the distance to the
        fifth nearest sample, quick with many features and near as sharp. That of the calibration, or density.
    n_samples
        Samples of each law that points are ranked among; those of the calibration, or 49.
    divergence
        As in :meth:`get_log_prob`.

    Returns
    -------
    Array (cells, points) or (cells, k) of numbers from 0, the most probable point; without calibration 1 for points less probable than
    all samples; a dict of them by name for several conditions.

    Raises
    ------
    RuntimeError, NotImplementedError, KeyError, ValueError
        As :meth:`get_log_prob`; also if `calibration` is not one of points, or of another number of samples.

    Examples
    --------
    >>> scgenot.tl.calibrate(adata, model, pairs_key="pair")  # doctest: +SKIP
    >>> levels = model.get_region_levels(points, adata, calibration=adata.uns["genot_calibration"])  # doctest: +SKIP
    >>> inside = levels < 0.9  # doctest: +SKIP
    """
    check_is_trained(model)
    known = known_scores(calibration, "points", "get_region_levels")
    n_samples = _samples_of(calibration, n_samples, N_SAMPLES)
    if calibration is not None:
        used = str(calibration["params"]["score"])
        if score not in (None, used):
            raise ValueError(f"`score`={score!r}: the calibration was made with {used!r}. Leave it out.")
        score = used
    points = checked_points(model, target_points)
    options = region_options(score or "density", n_samples, batch_size, rng, ode, divergence)

    def levels(cells: Cells) -> Float[np.ndarray, "n k"]:
        scores = region_scores(model, cells, points, options)
        return np.minimum(scores, 1.0) if known is None else conformal_levels(known, scores)

    return answer(model, levels, adata, indices, conditions)


def get_label_sets(
    model: TransportModel,
    adata: Data | None = None,
    *,
    label_key: str,
    level: float = 0.9,
    calibration: Mapping[str, Any] | None = None,
    target: Data | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int | None = None,
    n_neighbors: int = 5,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
) -> pd.DataFrame | dict[str, pd.DataFrame]:
    """Return which labels each source cell may have: a set that holds the true one with probability `level`.

    Without `calibration`, the fewest labels whose probabilities (:meth:`get_label_probabilities`) sum to `level`. With what
    :func:`scgenot.tl.calibrate` wrote, a set holds the true label of at least that share of cells like those that it was
    calibrated on, on average over such cells.

    Parameters
    ----------
    adata, indices, batch_size, rng, ode, conditions
        As in :meth:`sample`.
    label_key, target, n_neighbors
        As in :meth:`get_label_probabilities`.
    level
        Above 0, below 1.
    calibration
        ``adata.uns["genot_calibration"]``, of labels. ``None``: not calibrated, with a warning.
    n_samples
        Samples a cell; those of the calibration, or 30.

    Returns
    -------
    True where a label is in the set of a cell: one row a cell, one column a label. The most probable label always is.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`get_label_probabilities`; also if `level` is not below 1 or `calibration` is not one of these labels.

    Examples
    --------
    >>> scgenot.tl.calibrate(adata, model, label_key="cell_type")  # doctest: +SKIP
    >>> known = adata.uns["genot_calibration"]  # doctest: +SKIP
    >>> model.get_label_sets(adata, label_key="cell_type", level=0.9, calibration=known)  # doctest: +SKIP
    """
    check_is_trained(model)
    check_level(level)
    known = known_scores(calibration, "labels", "get_label_sets")
    if calibration is not None and calibration["params"]["label_key"] != label_key:
        raise ValueError(
            f"`calibration` is one of the labels {calibration['params']['label_key']!r}, not of {label_key!r}. Calibrate these."
        )
    sampling = Sampling(_samples_of(calibration, n_samples, 30), batch_size, rng, ode)

    def sets(cells: Cells) -> pd.DataFrame:
        probabilities = label_shares(model, cells, sampling, label_key, adata, target, n_neighbors)
        scores = label_scores(probabilities.to_numpy())
        levels = scores if known is None else conformal_levels(known, scores)
        inside = (levels < round(level, 9)) | (scores == 0)
        return pd.DataFrame(inside, index=probabilities.index, columns=probabilities.columns)

    return answer(model, sets, adata, indices, conditions)


def region_options(
    score: str,
    n_samples: int,
    batch_size: int | None,
    rng: RNG,
    ode: ODEConfig | None,
    divergence: DivergenceConfig | None,
) -> RegionOptions:
    """Return how scores are computed; raise if a value is not allowed."""
    if score not in SCORES:
        raise ValueError(one_of("score", score, SCORES))
    sampling = Sampling(n_samples, batch_size, rng, ode)
    if score == "neighbours":
        check_count("n_samples", n_samples, minimum=_NEIGHBOUR + 1)
    return RegionOptions(sampling, density_options(None, sampling.rng, ode, divergence), score)


def region_scores(
    model: TransportModel, cells: Cells, points: Float[np.ndarray, "..."], options: RegionOptions
) -> Float[np.ndarray, "n k"]:
    """Return how far out points lie in the law of each cell; see :func:`scgenot.flow.rank_scores`."""
    found = []
    for place, samples in sample_blocks(model, cells, options.sampling):
        some = points if points.ndim == 2 else points[place]
        if options.score == "neighbours":
            each = np.broadcast_to(some, (len(samples), *some.shape)) if some.ndim == 2 else some
            sides = [_nearness(own, own_points) for own, own_points in zip(samples, each, strict=True)]
            asked, drawn = (np.stack(side) for side in zip(*sides, strict=True))
        else:
            own = some_cells(cells, place)
            asked, drawn = (log_prob_of(model, own, one, options.density) for one in (some, samples))
        found.append(rank_scores(asked, drawn))
    return np.concatenate(found)


def _nearness(
    samples: Float[np.ndarray, "s d"], points: Float[np.ndarray, "k d"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " s"]]:
    """Return the logarithm of one over the distance to the fifth nearest sample, of points and of the samples (to others)."""
    logs = []
    for one, nearest in ((points, _NEIGHBOUR - 1), (samples, _NEIGHBOUR)):
        distances = cdist(one, samples)
        logs.append(-np.log(np.maximum(np.partition(distances, nearest, axis=1)[:, nearest], _TINY)))
    return logs[0], logs[1]


def known_scores(calibration: Mapping[str, Any] | None, kind: str, asked_by: str) -> Float[np.ndarray, " n"] | None:
    """Return the scores that a calibration holds; warn where there is none.

    Raises
    ------
    ValueError
        If it is no calibration, or one of another kind.
    """
    if calibration is None:
        warnings.warn(
            f"`{asked_by}` without `calibration`: a region has the probability that the learned law gives it, and nothing says that "
            "it holds the truth as often. Calibrate with known partners or labels (`scgenot.tl.calibrate`) where there are some.",
            UserWarning,
            stacklevel=3,
        )
        return None
    if not isinstance(calibration, Mapping) or "scores" not in calibration or calibration.get("kind") not in KINDS:
        raise ValueError(
            "`calibration` must be what `scgenot.tl.calibrate` wrote, adata.uns['genot_calibration'], got "
            f"{type(calibration).__name__}."
        )
    if calibration["kind"] != kind:
        raise ValueError(
            f"`calibration` is one of {calibration['kind']}, and {kind} are asked for. Call `scgenot.tl.calibrate` with "
            f"{'pairs_key' if kind == 'points' else 'label_key'!r}."
        )
    return np.asarray(calibration["scores"], np.float64)


def check_level(level: float) -> None:
    """Raise a ``ValueError`` unless 0 < `level` < 1."""
    if not isinstance(level, float | np.floating) or not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, got {level!r}. For example 0.9.")


def _samples_of(calibration: Mapping[str, Any] | None, n_samples: int | None, default: int) -> int:
    if calibration is None:
        return default if n_samples is None else n_samples
    used = int(calibration["params"]["n_samples"])
    if n_samples is not None and n_samples != used:
        raise ValueError(
            f"`n_samples`={n_samples!r}: the calibration was made with {used}, and ranks among other numbers differ. Leave it out."
        )
    return used
