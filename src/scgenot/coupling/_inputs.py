"""Checks of arrays on their way into a coupling."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from scgenot._blocks import not_finite


def checked_cells(name: str, cells: Any) -> Float[Array, "n d"]:
    """Return cells as a float32 array.

    Raises
    ------
    ValueError
        If they are no cells x features array, or some value is not finite.
    """
    array = np.asarray(cells)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"`{name}` must be a cells x features array with at least one of each, got shape {array.shape}."
        )
    if found := not_finite(array):
        raise ValueError(
            f"`{name}` has NaN or inf in {found[0]} of {len(array)} rows (rows {found[1]}). Drop these cells first."
        )
    return jax.device_put(np.asarray(array, np.float32))


def checked_marginal(name: str, weights: Any, n: int) -> Float[Array, " n"]:
    """Return weights that sum to 1; equal ones for ``None``.

    Raises
    ------
    ValueError
        If there is not one for each cell, or they are negative, not finite or all zero.
    """
    if weights is None:
        return jax.device_put(np.full(n, 1.0 / n, np.float32))
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"`{name}` must hold one weight for each of the {n} cells, got shape {array.shape}.")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"`{name}` must be finite and not negative, got values down to {np.nanmin(array):g}.")
    if array.sum() <= 0:
        raise ValueError(f"`{name}` must not all be zero: no cell would be used.")
    return jax.device_put(np.asarray(array / array.sum(), np.float32))
