"""Sizes that arrays are padded to, so that another number of cells compiles nothing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array

# Compiling what one size needs takes some 5 s on two cores, a pass over costs between 512 or 2048 cells a side 1 or 20 ms: up
# to there two sizes do. Above, what is computed for cells that are not there would take longer than compiling.
_FEW = (512, 2048)
_FINE_ABOVE = 16384
_COARSE_ABOVE = 65536


def padded_size(n: int) -> int:
    """Return the smallest size on the ladder that holds `n`, for costs between cells.

    512, 2048, from there four sizes per octave (at most a quarter is thrown away), and above 16,384 eight.
    """
    for size in _FEW:
        if n <= size:
            return size
    step = 2 ** ((n - 1).bit_length() - (3 if n <= _FINE_ABOVE else 4))
    return -(-n // step) * step


def padded_cells(n: int) -> int:
    """Return the smallest size on a coarser ladder, for arrays of which only single rows are read.

    1024, 4096, 16384, 65536, and doubling from there: 65,536 cells of 50 features are 13 MB.
    """
    size = 1024
    while size < n:
        size *= 4 if size < _COARSE_ABOVE else 2
    return size


def pad_edge(array: np.ndarray | Array, size: int, axis: int = 0) -> np.ndarray:
    """Return `array` with its last entry repeated up to `size`: copies of a cell are cells, and leave no cost undefined."""
    array = np.asarray(array)
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths, mode="edge") if size > array.shape[axis] else array


def pad_with(array: np.ndarray | Array, size: int, value: float) -> np.ndarray:
    """Return an array, filled up with rows of `value`."""
    array = np.asarray(array)
    return np.pad(array, ((0, size - len(array)), *((0, 0),) * (array.ndim - 1)), constant_values=value)
