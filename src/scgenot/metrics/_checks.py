"""Checks that every metric makes on its point clouds before it computes anything."""

from __future__ import annotations

import numpy as np
from jax import Array
from jaxtyping import Float, Real
from numpy.typing import ArrayLike

from scgenot._blocks import not_finite


def as_points(name: str, value: Real[Array | np.ndarray, "n d"], min_rows: int = 1) -> Float[np.ndarray, "n d"]:
    """Return ``value`` as a finite float64 matrix, one point a row.

    Parameters
    ----------
    name
        Name of the argument, for the message.
    value
        The points, shape (n, d).
    min_rows
        Fewest rows that the metric is defined for.

    Raises
    ------
    ValueError
        If the array is not two-dimensional, has too few rows or no columns, or holds NaN or inf.
    """
    points = np.asarray(value, dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(
            f"`{name}` must be two-dimensional, one point a row, got shape {points.shape}. "
            "A single feature needs shape (n, 1): use `.reshape(-1, 1)`."
        )
    if points.shape[0] < min_rows or points.shape[1] < 1:
        raise ValueError(
            f"`{name}` must have at least {min_rows} row(s) and 1 column, got shape {points.shape}. Pass more points."
        )
    check_finite(name, points)
    return points


def as_point_pair(
    x: Real[Array | np.ndarray, "n d"],
    y: Real[Array | np.ndarray, "m d"],
    min_rows: int = 1,
    names: tuple[str, str] = ("x", "y"),
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Return two point clouds of one width as finite float64 matrices.

    Raises
    ------
    ValueError
        If either fails :func:`as_points` or the widths differ.
    """
    first, second = as_points(names[0], x, min_rows), as_points(names[1], y, min_rows)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must live in one space, got {first.shape[1]} and {second.shape[1]} "
            "columns. Transport one of them into the space of the other first."
        )
    return first, second


def as_weights(name: str, value: ArrayLike | None, n: int) -> Float[np.ndarray, " n"]:
    """Return one weight for each point, summing to 1; uniform ones if `value` is ``None``.

    Raises
    ------
    ValueError
        If there is not one weight for each point, one is negative or not finite, or all are zero.
    """
    if value is None:
        return np.full(n, 1.0 / n)
    weights = np.asarray(value, dtype=np.float64)
    if weights.shape != (n,):
        raise ValueError(f"`{name}` must hold one weight for each of the {n} points, got shape {weights.shape}.")
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError(
            f"`{name}` must be finite, not negative and not all zero, got values from {weights.min():g} to "
            f"{weights.max():g}. Leave it out for uniform weights."
        )
    return weights / weights.sum()


def check_finite(name: str, value: np.ndarray) -> None:
    """Raise a ``ValueError`` that counts and locates the rows of ``value`` with NaN or inf."""
    if wrong := not_finite(value):
        raise ValueError(
            f"`{name}` must be finite, got NaN or inf in {wrong[0]} of {len(np.atleast_1d(value))} row(s), the first being "
            f"[{wrong[1]}]. Remove or impute them."
        )
