"""Maximum mean discrepancy with Gaussian kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import Array
from jaxtyping import Real
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist

from scgenot.metrics._blocks import distance_blocks
from scgenot.metrics._checks import as_point_pair, as_weights

_HEURISTIC_FACTORS = (0.5, 1.0, 2.0)
_HEURISTIC_ROWS = 2048


def mmd_rbf(
    x: Real[Array | np.ndarray, "n d"],
    y: Real[Array | np.ndarray, "m d"],
    bandwidths: float | Sequence[float] | None = None,
    *,
    unbiased: bool = False,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
) -> float:
    r"""Squared maximum mean discrepancy with an average of Gaussian kernels.

    The kernel is the mean over h of :math:`\exp(-|x - y|^2 / (2 h^2))`, so that the value lies in [0, 2] (biased form).

    Parameters
    ----------
    x, y
        Samples, shapes (n, d) and (m, d). Kernels are computed in blocks of rows.
    bandwidths
        One h or several, in units of the data. By default the median heuristic: the median Euclidean distance between
        distinct rows of the pooled samples (of 2048 of them drawn with a fixed seed, if there are more), times 0.5, 1
        and 2. The default therefore depends on the data: pass bandwidths where values are compared across methods.
    unbiased
        Leave out the pairs of a point with itself (U-statistic). The value can then be negative.
    x_weights, y_weights
        Non-negative weights of the points, n and m of them; uniform if left out. They are normalised. The median heuristic
        takes all points alike.

    Returns
    -------
    The squared discrepancy, without units.

    Raises
    ------
    ValueError
        If a sample is not a finite matrix, the widths differ, a bandwidth is not positive, the heuristic finds a median
        distance of 0, or ``unbiased`` is asked for with a single point.

    References
    ----------
    Gretton et al. (2012), "A kernel two-sample test", JMLR 13, equations 3 (unbiased) and 5 (biased).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> scgenot.metrics.mmd_rbf(x, x + 5.0, 1.0) > 0.5
    True
    """
    x, y = as_point_pair(x, y, min_rows=2 if unbiased else 1)
    widths = _median_bandwidths(x, y) if bandwidths is None else np.atleast_1d(np.asarray(bandwidths, dtype=np.float64))
    if widths.ndim != 1 or widths.size == 0 or not np.all(np.isfinite(widths) & (widths > 0)):
        raise ValueError(
            f"`bandwidths` must be one or more positive numbers, got {bandwidths!r}. "
            "Leave it out for the median heuristic."
        )
    a, b = as_weights("x_weights", x_weights, len(x)), as_weights("y_weights", y_weights, len(y))
    within_x, within_y = _mean_kernel(x, x, a, a, widths), _mean_kernel(y, y, b, b, widths)
    cross = 2.0 * _mean_kernel(x, y, a, b, widths)
    if unbiased:  # each point with itself has kernel 1 and its squared weight
        if max(a.max(), b.max()) == 1.0:
            raise ValueError("`unbiased=True` needs at least two points with weight in `x` and in `y`. Leave it False.")
        return (within_x - a @ a) / (1.0 - a @ a) + (within_y - b @ b) / (1.0 - b @ b) - cross
    return max(within_x + within_y - cross, 0.0)  # rounding


def _mean_kernel(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, widths: np.ndarray) -> float:
    total = 0.0
    for rows, squared in distance_blocks(x, y, "sqeuclidean"):
        total += sum(a[rows] @ np.exp(squared / (-2.0 * h**2)) @ b for h in widths)
    return float(total) / len(widths)


def _median_bandwidths(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    pooled = np.concatenate([x, y])
    if len(pooled) > _HEURISTIC_ROWS:
        pooled = pooled[np.random.default_rng(0).choice(len(pooled), _HEURISTIC_ROWS, replace=False)]
    median = float(np.median(pdist(pooled)))
    if median == 0.0:
        raise ValueError(
            "`bandwidths` must be given here, got None: the median heuristic finds a median distance of 0 "
            "(most points coincide). Pass a length that matters in this space."
        )
    return median * np.array(_HEURISTIC_FACTORS)
