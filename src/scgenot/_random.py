"""Random bits in compiled code: all that a program needs, from one call.

Each use of `jax.random` compiles a generator of its own, some .4 s on a CPU, and `split`, `fold_in` and `permutation` are such
uses. Here, numbers are told apart by counts, and one call makes them all.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Float, Integer, UInt32

Words: TypeAlias = tuple[UInt32[Array, ""], UInt32[Array, ""]]


def words(key: jax.Array) -> Words:
    """Return the two words of a JAX key (the outer ones, of a kind of key that has more)."""
    data = jax.random.key_data(key)
    return data[0], data[-1]


def related(key: jax.Array | Words, number: int) -> Words:
    """Return words that differ from those of a key: under them the same counts give other, independent bits."""
    one, two = words(key) if isinstance(key, jax.Array) else key
    return one ^ np.uint32(number * 0x9E3779B9 % 2**32), two


def random_bits(
    key: jax.Array | Words, first: Integer[Array, "..."] | int, second: Integer[Array, "..."] | int
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Return two independent arrays of random bits: a function of the key and of two counts, element by element.

    Threefry-2x32 (Salmon et al. 2011), the cipher behind JAX's own keys, whose keys may be as related as its counts. Counts are
    broadcast against each other.
    """
    first, second = jnp.broadcast_arrays(jnp.asarray(first, jnp.uint32), jnp.asarray(second, jnp.uint32))
    pair = jnp.stack(words(key) if isinstance(key, jax.Array) else key)
    bits = threefry_2x32(pair, jnp.concatenate([first.ravel(), second.ravel()]))
    return bits[: first.size].reshape(first.shape), bits[first.size :].reshape(first.shape)


def uniform(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Turn bits into uniform numbers from 0 to below 1."""
    return (bits >> np.uint32(8)).astype(jnp.float32) * np.float32(2.0**-24)


def normal(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Turn bits into standard normal numbers, of at most 5.2 either way."""
    # The middle of one of 2^23 equal parts of (-1, 1), which single precision holds exactly.
    middle = ((bits >> np.uint32(9)).astype(jnp.float32) + np.float32(0.5)) * np.float32(2.0**-22) - np.float32(1.0)
    return np.float32(np.sqrt(2.0)) * jax.lax.erf_inv(middle)
