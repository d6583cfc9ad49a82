"""What all floors share about arrays: how much is held at once, full precision, which rows are not finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Numbers of one block, 16 MiB in single precision: large enough that a block takes longer than its overhead, and a few of
# them fit beside the data on any machine.
ENTRIES = 2**22


def rows_per_block(row_entries: int, entries: int = ENTRIES) -> int:
    """Return how many rows of `row_entries` numbers make one block, at least one."""
    return max(1, entries // max(1, row_entries))


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
