"""Sizes that arrays are padded to, so that another number of cells compiles nothing."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Float, Int

_SMALLEST = 1024
_COARSE_UP_TO = 65536


def padded_size(n: int) -> int:
    """Return the smallest size on the ladder that holds `n`: 1024, 4096, 16384, 65536, and doubling from there.

    Steps of four: a data set of another size lands on the same rung more often than not, and 65,536 cells of 50
    features are 13 MB. Doubling above, where padding begins to cost memory.
    """
    size = _SMALLEST
    while size < n:
        size *= 4 if size < _COARSE_UP_TO else 2
    return size


def padded(cells: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "size ..."]:
    """Return cells with rows of zeros behind, as many as the ladder asks for. Indices into them never reach these."""
    return np.pad(cells, ((0, padded_size(len(cells)) - len(cells)), *((0, 0),) * (cells.ndim - 1)))


def host_rng(key: jax.Array) -> np.random.Generator:
    """Return a NumPy generator that is a function of a JAX key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def systematic(
    rng: np.random.Generator, weights: Float[Array | np.ndarray, " n"], shape: tuple[int, ...]
) -> Int[np.ndarray, "..."]:
    """Draw indices in proportion to `weights`, one from each of equal parts of the mass along the last axis of `shape`.

    On the host and in float64: a running sum in float32 is off by 7 % a cell among a million cells. Weights whose sum is
    not above zero count as equal.
    """
    weights = np.asarray(weights, np.float64)
    cumulative = np.cumsum(weights)
    if not (np.isfinite(cumulative[-1]) and cumulative[-1] > 0):
        cumulative = np.arange(1.0, len(weights) + 1)
    quantiles = (np.arange(shape[-1]) + rng.random(shape)) / shape[-1] * cumulative[-1]
    drawn = np.searchsorted(cumulative, quantiles, side="right")
    # Rounding may carry a quantile to the very end, beyond the last cell that has mass.
    last = np.searchsorted(cumulative, cumulative[-1])
    return np.minimum(drawn, last).astype(np.int32)
