"""Energy distance between two samples."""

from __future__ import annotations

import numpy as np
from jax import Array
from jaxtyping import Real

from scgenot.metrics._blocks import distance_blocks
from scgenot.metrics._checks import as_point_pair


def energy_distance(
    x: Real[Array | np.ndarray, "n d"], y: Real[Array | np.ndarray, "m d"], *, unbiased: bool = False
) -> float:
    r"""Energy distance between two samples.

    .. math:: 2\, E|X - Y| - E|X - X'| - E|Y - Y'|

    with Euclidean norms, **not** the square root of this (which ``scipy.stats.energy_distance`` returns in one
    dimension) and without squared norms (as some single-cell packages have it). The expectations are over all pairs, a
    point with itself included (V-statistic): the value is never negative and is 0 exactly when the samples are equal as
    weighted sets, but its expectation is positive for two finite samples of one law.

    Parameters
    ----------
    x, y
        Samples with uniform weights, shapes (n, d) and (m, d). Distances are computed in blocks of rows.
    unbiased
        Leave out the pairs of a point with itself (U-statistic). The expectation is then that of the two laws, 0 for two
        samples of one law, and single values may be negative. Needs at least two points in each sample.

    Returns
    -------
    The distance, in units of the data.

    Raises
    ------
    ValueError
        If a sample is not a finite matrix, the widths differ, or there are too few points for `unbiased`.

    References
    ----------
    Székely & Rizzo (2013), "Energy statistics: a class of statistics based on distances", J. Stat. Plan. Inference 143.
    """
    x, y = as_point_pair(x, y)
    if not unbiased:
        value = 2.0 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)
        return max(value, 0.0)  # rounding
    if min(len(x), len(y)) < 2:
        raise ValueError(
            f"`unbiased=True` needs at least two points in `x` and in `y`, got {len(x)} and {len(y)}. Leave it False."
        )
    within = sum(_mean_distance(z, z) * len(z) / (len(z) - 1) for z in (x, y))
    return 2.0 * _mean_distance(x, y) - within


def _mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    total = sum(block.sum() for _, block in distance_blocks(x, y))
    return float(total) / (len(x) * len(y))
