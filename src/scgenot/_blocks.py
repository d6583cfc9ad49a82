"""What all floors share about arrays: how much is held at once, few shapes, full precision, which rows are not finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Numbers of one block, 16 MiB in single precision: large enough that a block takes longer than its overhead, and a few of
# them fit beside the data on any machine.
ENTRIES = 2**22
_SMALLEST, _FINE_ABOVE = 32, 2048


def rows_per_block(row_entries: int, entries: int = ENTRIES) -> int:
    """Return how many rows of `row_entries` numbers make one block, at least one."""
    return max(1, entries // max(1, row_entries))


def padded_size(n: int) -> int:
    """Return the next of a few sizes, so that programs are compiled for these only.

    Up to 2048 two sizes an octave (at most half as many cells again), above it eight (at most an eighth).
    """
    if n <= _SMALLEST:
        return _SMALLEST
    octave = (n - 1).bit_length()
    step = 2 ** (octave - (2 if n <= _FINE_ABOVE else 4))
    return -(-n // step) * step


def pad_edge(array: np.ndarray | Array, size: int, axis: int = 0) -> np.ndarray:
    """Return `array` with its last entry repeated up to `size`: copies of a cell are cells, and leave no cost undefined."""
    array = np.asarray(array)
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths, mode="edge") if size > array.shape[axis] else array


def pad_with(array: np.ndarray | Array, size: int, value: float) -> np.ndarray:
    """Return a vector, filled up with `value`."""
    array = np.asarray(array)
    return np.pad(array, (0, size - len(array)), constant_values=value)


def traced(*arrays: object) -> bool:
    """Return whether one of these is known inside compiled code only, where shapes are given."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def matmul(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the product in full single precision.

    Unless told, recent GPUs multiply with 10 bits of mantissa (TF32) and TPUs with 7. Costs over epsilon are then off by up to
    4 and 24 (emulated on lifted features), where .05 matters.
    """
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def not_finite(array: np.ndarray) -> tuple[int, str] | None:
    """Return in how many rows there is NaN or inf, and the first of these as text; ``None`` where there is none."""
    array = np.atleast_1d(np.asarray(array))
    finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    if finite.all():
        return None
    rows = np.flatnonzero(~finite)
    return len(rows), ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
