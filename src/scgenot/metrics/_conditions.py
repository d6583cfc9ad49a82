"""Scores of predicted effects of many conditions: can they be told apart, and do they point where the observed ones do."""

from __future__ import annotations

import numpy as np
from jax import Array
from jaxtyping import Float, Real

from scgenot.metrics._blocks import distance_blocks
from scgenot.metrics._checks import as_point_pair


def discrimination_score(
    predicted: Real[Array | np.ndarray, "n d"], observed: Real[Array | np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    r"""For each condition, the share of the *other* conditions' observed effects that are farther than its own.

    .. math:: s_i = 1 - \frac{\#\{j \ne i : r_{ij} < r_{ii}\} + \tfrac12 \#\{j \ne i : r_{ij} = r_{ii}\}}{n - 1},
        \quad r_{ij} = |p_i - o_j|

    1: the prediction is closest to what it predicts; 0.5: chance. Ties count one half, so that conditions with one and the
    same observed effect gain nothing from their order. A predictor that says the same of all conditions has the mean 0.5
    exactly, which is why this stands beside distances: those reward predicting the average effect.

    Parameters
    ----------
    predicted, observed
        One row a condition, shape (n, d), n >= 2: mean cells less the mean of the *controls of the same context*. Of plain
        mean cells, the score would tell contexts apart, which controls do as well.

    Raises
    ------
    ValueError
        If an array is not a finite matrix with at least two rows, or the shapes differ.

    References
    ----------
    Wu et al. (2024), "PerturBench: benchmarking machine learning models for cellular perturbation analysis", arXiv
    2408.10609, for ranks of predicted effects; here with the other conditions only, and ties averaged.

    Examples
    --------
    >>> import numpy as np
    >>> observed = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    >>> scgenot.metrics.discrimination_score(0.9 * observed, observed)
    array([1., 1., 1.])
    """
    predicted, observed = _pair(predicted, observed)
    n = len(predicted)
    scores = np.empty(n)
    for rows, distances in distance_blocks(predicted, observed):
        # From the same block, so that equal effects tie and are not told apart by rounding.
        own = distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)][:, None]
        ahead = (distances < own).sum(axis=1) + 0.5 * ((distances == own).sum(axis=1) - 1)
        scores[rows] = 1.0 - ahead / (n - 1)
    return scores


def effect_correlation(predicted: Real[Array | np.ndarray, "n d"], observed: Real[Array | np.ndarray, "n d"]) -> float:
    r"""Pearson correlation over features of predicted with observed effects, as a ratio of sums over conditions.

    .. math:: \frac{\sum_i \tilde p_i^\top \tilde o_i}{(\sum_i |\tilde p_i|^2 \sum_i |\tilde o_i|^2)^{1/2}}

    where a tilde takes each condition's mean over features away. For one condition this is the usual correlation; of
    several, those with large effects count most, and one that hardly responds cannot spoil an average with its noise.

    Against controls, all treated cells differ in one direction mostly, and predicting their mean scores high. So compute it
    twice: of mean cells less the mean of the controls, and less the *mean treated cell*.

    Parameters
    ----------
    predicted, observed
        One row a condition, shape (n, d).

    Returns
    -------
    In [-1, 1]; 0 if either side has no effect at all.

    Raises
    ------
    ValueError
        If an array is not a finite matrix, or the shapes differ.

    References
    ----------
    Viñas Torné et al. (2025), "Systema: a framework for evaluating genetic perturbation response prediction beyond
    systematic variation", Nat. Biotechnol., for the second reference.

    Examples
    --------
    >>> import numpy as np
    >>> observed = np.array([[1.0, 2.0, 4.0], [0.0, 3.0, 1.0]])
    >>> round(scgenot.metrics.effect_correlation(0.5 * observed, observed), 3)
    1.0
    """
    predicted, observed = _pair(predicted, observed, min_rows=1)
    predicted = predicted - predicted.mean(axis=1, keepdims=True)
    observed = observed - observed.mean(axis=1, keepdims=True)
    sizes = np.linalg.norm(predicted) * np.linalg.norm(observed)
    return float(np.sum(predicted * observed) / sizes) if sizes > 0 else 0.0


def _pair(
    predicted: Real[Array | np.ndarray, "n d"], observed: Real[Array | np.ndarray, "n d"], min_rows: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    found = as_point_pair(predicted, observed, min_rows=min_rows, names=("predicted", "observed"))
    if len(found[0]) != len(found[1]):
        raise ValueError(
            f"`predicted` and `observed` must be matched row by row, got {len(found[0])} and {len(found[1])} rows. "
            "Pass one row a condition, both in one order."
        )
    return found
