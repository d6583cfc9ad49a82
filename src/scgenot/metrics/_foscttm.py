"""Fraction of samples closer than the true match."""

from __future__ import annotations

import numpy as np
from jax import Array
from jaxtyping import Real

from scgenot.metrics._blocks import distance_blocks
from scgenot.metrics._checks import as_point_pair


def foscttm(x: Real[Array | np.ndarray, "n d"], y: Real[Array | np.ndarray, "n d"]) -> float:
    r"""Fraction of samples closer than the true match, averaged over both directions.

    For each cell the share of the *other* cells' matches that lie strictly nearer than its own: :math:`\#\{j \ne i :
    |x_i - y_j| < |x_i - y_i|\} / (n - 1)`, averaged over i, and the same from each :math:`y_i` to all x; then the mean
    of the two. 0 is perfect, 0.5 is chance for continuous data.

    Ties do not count as closer. So an x that has collapsed onto one point scores about 0.25, not 0.5: from y's side all
    x are tied. Look at the variance of x before believing a low score.

    Parameters
    ----------
    x
        Transported (predicted) cells, shape (n, d).
    y
        The measured counterparts, shape (n, d): row i belongs to row i of ``x``. Distances are computed in blocks of
        rows.

    Raises
    ------
    ValueError
        If an array is not a finite matrix with at least two rows, or the shapes differ.

    References
    ----------
    Liu et al. (2019), "Jointly embedding multiple single-cell omics measurements", WABI.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(10.0)[:, None]
    >>> scgenot.metrics.foscttm(x, x)
    0.0
    """
    x, y = as_point_pair(x, y, min_rows=2)
    n = len(x)
    if len(y) != n:
        raise ValueError(
            f"`x` and `y` must be matched row by row, got {n} and {len(y)} rows. "
            "Subset both to the cells measured in both and put them in one order."
        )
    matched = np.empty(n)
    closer = 0
    for rows, distances in distance_blocks(x, y):
        # From the same block, so that duplicates tie and are not told apart by rounding.
        matched[rows] = distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)]
        closer += int((distances < matched[rows, None]).sum())
    for rows, distances in distance_blocks(y, x):
        closer += int((distances < matched[rows, None]).sum())
    return closer / (2 * n * (n - 1))
