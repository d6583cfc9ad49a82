"""Walk through a distance matrix without ever holding all of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

MAX_ENTRIES = 2**21  # float64 entries of one block: 16 MiB


def row_blocks(n_rows: int, row_entries: int) -> Iterator[slice]:
    """Yield slices of rows such that a block of them has at most ``MAX_ENTRIES`` entries (at least one row).

    Parameters
    ----------
    n_rows
        How many rows there are in all.
    row_entries
        How many numbers one row of the matrix in question holds.
    """
    step = max(1, MAX_ENTRIES // max(1, row_entries))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def distance_blocks(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], metric: str = "euclidean"
) -> Iterator[tuple[slice, Float[np.ndarray, "block m"]]]:
    """Yield ``(rows, distances of x[rows] to all y)``.

    SciPy sums the squared differences of each pair by itself. That is slower than expanding the square and using a
    matrix product, but equal points get distance exactly 0, and equal pairs get equal distances.

    Parameters
    ----------
    x, y
        Points, shapes (n, d) and (m, d).
    metric
        ``"euclidean"`` or ``"sqeuclidean"``.
    """
    for rows in row_blocks(len(x), len(y)):
        yield rows, cdist(x[rows], y, metric)
