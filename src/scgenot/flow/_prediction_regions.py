"""Regions that a target is predicted to lie in: the most probable part of a law, and how much of it holds what it says.

A *score* says how far out a point lies, from 0 at the mode of its law: the share of the law that is more probable. The region of
level a is where the score is below a. If the law is right, it holds the target with probability a.

It seldom is. Scores of targets that are known then say which score a share a of targets stays below: split conformal prediction
(Vovk et al. 2005; Lei et al. 2018), with conformal regions of density as in Izbicki et al. 2022, "CD-split and HPD-split".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def rank_scores(points: Float[np.ndarray, "n k"], samples: Float[np.ndarray, "n s"]) -> Float[np.ndarray, "n k"]:
    """Return how far out points lie, from their log-densities and those of samples of the same law.

    Parameters
    ----------
    points
        Log-density of the points of each law.
    samples
        Log-density of independent samples of each law.

    Returns
    -------
    The number of samples that are more probable, over one more than all of them: below a with probability a, up to one sample, if
    the point is of the law as well. A point less probable than all samples has in addition by how many nats it is: such points
    are still told apart.
    """
    ordered = np.sort(np.asarray(samples, np.float64), axis=1)
    points = np.asarray(points, np.float64)
    more = np.stack(
        [ordered.shape[1] - np.searchsorted(row, own, side="right") for row, own in zip(ordered, points, strict=True)]
    )
    return more / (ordered.shape[1] + 1) + np.maximum(0.0, ordered[:, :1] - points)


def label_scores(probabilities: Float[np.ndarray, "n l"]) -> Float[np.ndarray, "n l"]:
    """Return how far out each label lies: the probability of all labels that are more probable; of the first one 0."""
    p = np.asarray(probabilities, np.float64)
    return np.sum(np.where(p[:, None, :] > p[:, :, None], p[:, None, :], 0.0), axis=2)


def conformal_levels(known: Float[np.ndarray, " n"], scores: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return levels for scores: those below a hold a share of at least a of targets that are exchangeable with known ones.

    Parameters
    ----------
    known
        Scores of targets that are known.
    scores
        Scores of any points.

    Returns
    -------
    The number of known scores below each one, over one more than all of them: from 0 to below 1.
    """
    return np.searchsorted(np.sort(known), scores, side="left") / (len(known) + 1)


def conformal_thresholds(known: Float[np.ndarray, " n"], levels: Float[np.ndarray, " l"]) -> Float[np.ndarray, " l"]:
    """Return the largest score that is in the region of each level; infinite where known targets are too few for it."""
    ordered = np.append(np.sort(known), np.inf)
    # Rounded first: .9 times 10 is 9, and not a little more.
    rank = np.ceil(np.round((len(known) + 1) * np.asarray(levels, np.float64), 9)).astype(int)
    return ordered[np.clip(rank, 1, len(known) + 1) - 1]


def cross_levels(known: Float[np.ndarray, " n"], folds: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return the level of each known score among those of the other folds."""
    found = np.empty(len(known))
    for fold in np.unique(folds):
        here = folds == fold
        found[here] = conformal_levels(known[~here], known[here])
    return found


def coverage(levels: Float[np.ndarray, " n"], nominal: Float[np.ndarray, " l"]) -> Float[np.ndarray, " l"]:
    """Return the share of targets that regions of each nominal level hold."""
    return (np.asarray(levels)[:, None] < np.round(np.asarray(nominal, np.float64), 9)).mean(axis=0)
