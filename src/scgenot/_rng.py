"""From what users pass as `rng` to a JAX key."""

from __future__ import annotations

from typing import TypeAlias

import jax
import numpy as np

RNG: TypeAlias = int | np.integer | np.random.Generator | jax.Array | None


def as_key(rng: RNG) -> jax.Array:
    """Turn `rng` into a typed JAX key.

    Parameters
    ----------
    rng
        A whole number (same number, same key), a NumPy generator (which advances), ``None`` (a fresh key from the
        operating system's entropy), or a key, which is returned as it is.

    Raises
    ------
    TypeError
        If `rng` is anything else.
    """
    if isinstance(rng, jax.Array) and jax.dtypes.issubdtype(rng.dtype, jax.dtypes.prng_key):
        return rng
    if rng is None:
        rng = np.random.default_rng()
    if isinstance(rng, np.random.Generator):
        return jax.random.key(int(rng.integers(2**32)))
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        return jax.random.key(int(rng) % 2**32)
    raise TypeError(f"`rng` must be an int, a numpy.random.Generator or None, got {type(rng).__name__}.")


def keys(key: jax.Array, n: int) -> tuple[jax.Array, ...]:
    """Split a key into up to five, in a program that all callers share."""
    return _five_keys(key)[:n]


@jax.jit
def _five_keys(key: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jax.random.split(key, 5))
