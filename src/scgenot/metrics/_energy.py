"""Energy distance between two samples."""

from __future__ import annotations

import numpy as np
from jax import Array
from jaxtyping import Real
from numpy.typing import ArrayLike

from scgenot.metrics._blocks import distance_blocks
from scgenot.metrics._checks import as_point_pair, as_weights


def energy_distance(
    x: Real[Array | np.ndarray, "n d"],
    y: Real[Array | np.ndarray, "m d"],
    *,
    unbiased: bool = False,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
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
        Samples, shapes (n, d) and (m, d). Distances are computed in blocks of rows.
    unbiased
        Leave out the pairs of a point with itself (U-statistic). The expectation is then that of the two laws, 0 for two
        samples of one law, and single values may be negative. Needs at least two points in each sample.
    x_weights, y_weights
        Non-negative weights of the points, n and m of them; uniform if left out. They are normalised.

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

    Examples
    --------
    >>> import numpy as np
    >>> scgenot.metrics.energy_distance(np.zeros((3, 2)), np.tile([3.0, 4.0], (3, 1)))
    10.0
    """
    x, y = as_point_pair(x, y)
    a, b = as_weights("x_weights", x_weights, len(x)), as_weights("y_weights", y_weights, len(y))
    across = 2.0 * _mean_distance(x, y, a, b)
    if not unbiased:
        return max(across - _mean_distance(x, x, a, a) - _mean_distance(y, y, b, b), 0.0)  # rounding
    if min(np.count_nonzero(a), np.count_nonzero(b)) < 2:
        raise ValueError(
            f"`unbiased=True` needs at least two points in `x` and in `y`, got {np.count_nonzero(a)} and "
            f"{np.count_nonzero(b)}. Leave it False."
        )
    # Pairs of a point with itself have distance 0 and this share of the weight.
    return across - sum(_mean_distance(z, z, w, w) / (1.0 - w @ w) for z, w in ((x, a), (y, b)))


def _mean_distance(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(a[rows] @ block @ b for rows, block in distance_blocks(x, y)))
