"""Sums over the rows of a plan that is never stored: one pass over blocks of costs, as attention is computed.

Everywhere a row of the plan is ``exp(r_i + h_j - C_ij / epsilon)``: `h` are the column weights ``v + log b``, and `r` is
``u + log a``. The other way round (``geometry.T``) the same functions sum over columns.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse import csr_array

from scgenot._blocks import matmul
from scgenot._devices import gathered
from scgenot._messages import check_count
from scgenot._sizes import pad_with
from scgenot.sinkhorn import Geometry, over_rows

_ROWS, _COLUMNS = 1024, 4096


def means(
    geometry: Geometry, h: Float[Array, " m"], values: Float[Array | np.ndarray, "m ..."]
) -> Float[Array, "n ..."]:
    """Return the mean of `values` over each row of the plan."""
    flat = _flat(values, geometry.shape[1])
    found = _row_sums(geometry, h, flat)[1]
    return found.reshape(-1, *np.shape(values)[1:])


def sums(
    geometry: Geometry, h: Float[Array, " m"], r: Float[Array, " n"], values: Float[Array | np.ndarray, "m ..."]
) -> Float[Array, "n ..."]:
    """Return the sum of `values` over each row of the plan, weighted by its masses."""
    flat = _flat(values, geometry.shape[1])
    log_total, found, _ = _row_sums(geometry, h, flat)
    log_mass = r + log_total
    mass = jnp.where(jnp.isfinite(log_mass), jnp.exp(log_mass), 0.0)
    return (mass[:, None] * found).reshape(-1, *np.shape(values)[1:])


def row_statistics(
    geometry: Geometry,
    h: Float[Array, " m"],
    r: Float[Array, " n"],
    values: Float[Array, " m"],
    other: Geometry | None = None,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the mass of each row of the plan, the mean of `values` over it, and its mean cost over epsilon.

    The cost is that of `other`, between the same cells, where it is given.
    """
    n, padded = geometry.shape[0], geometry.padded(shared=True)
    m = padded.shape[1]
    other = None if other is None else other.padded(shared=True)
    found = _row_sums(padded, pad_with(h, m, -np.inf), pad_with(np.asarray(values)[:, None], m, 0.0), other)
    log_total, mean, cost = (np.asarray(one, np.float64)[:n] for one in found)
    mass = np.exp(np.asarray(r, np.float64) + log_total)
    return np.where(np.isfinite(mass), mass, 0.0), mean[:, 0], cost


def top_k(geometry: Geometry, h: Float[Array, " m"], r: Float[Array, " n"], k: int) -> csr_array:
    """Return the `k` largest entries of each row of the plan, n x m; all of them where `k` is m or more."""
    check_count("k", k)
    n, m = geometry.shape
    k = min(int(k), m)
    logits, columns = (np.asarray(one) for one in _largest(geometry, h, k))
    values = np.exp(np.asarray(r, np.float64)[:, None] + logits)
    order = np.argsort(columns, axis=1)
    columns, values = (np.take_along_axis(one, order, axis=1) for one in (columns, values))
    found = csr_array((values.ravel(), columns.ravel(), np.arange(n + 1) * k), shape=(n, m))
    found.eliminate_zeros()
    return found


def _flat(values, m: int) -> Float[Array, "m f"]:
    values = np.asarray(values, np.float32)
    if values.ndim < 1 or len(values) != m:
        raise ValueError(f"`values` must hold one row for each of the {m} cells, got shape {values.shape}.")
    return jax.device_put(values.reshape(m, -1))


def _blocked(geometry: Geometry, h: Float[Array, " m"], visit, start, other: Geometry | None = None):
    """Carry `start` through the blocks of columns, for each block of rows: ``visit(carry, logits, costs, columns)``.

    Costs are those of `other` where it is given.
    """
    n, m = geometry.shape
    height, width = min(_ROWS, n), min(_COLUMNS, m)
    rows, columns = -(-n // height), -(-m // width)
    more_x, more_y = rows * height - n, columns * width - m

    def blocks_of(one):
        x = jnp.pad(one.x, ((0, more_x), (0, 0)), mode="edge").reshape(rows, height, -1)
        return x, jnp.pad(one.y, ((0, more_y), (0, 0)), mode="edge").reshape(columns, width, -1)

    x, y = blocks_of(geometry)
    other_x, other_y = (x, y) if other is None else blocks_of(other)
    h = jnp.pad(h, (0, more_y), constant_values=-jnp.inf).reshape(columns, width)
    matrix = geometry.matrix
    if matrix is not None:
        matrix = jnp.pad(matrix, ((0, more_x), (0, more_y))).reshape(rows, height, columns, width)

    def row_block(i):
        def column_block(carry, j):
            costs = geometry.cost(x[i], y[j]) if matrix is None else matrix[i, :, j]
            costs = geometry.inverse * costs
            logits = h[j][None, :] - costs
            if other is not None:
                costs = other.inverse * other.cost(other_x[i], other_y[j])
            return visit(carry, logits, costs, j * width + jnp.arange(width)), None

        return jax.lax.scan(column_block, start(height), jnp.arange(columns))[0]

    found = jax.lax.map(row_block, jnp.arange(rows))
    return jax.tree.map(lambda one: one.reshape(rows * height, *one.shape[2:])[:n], found)


@jax.jit
def _row_sums(
    geometry: Geometry,
    h: Float[Array | np.ndarray, " m"],
    values: Float[Array | np.ndarray, "m f"],
    other: Geometry | None = None,
) -> tuple[Float[Array, " n"], Float[Array, "n f"], Float[Array, " n"]]:
    """Return the logarithm of each row's sum, the mean of `values` over it, and its mean cost over epsilon."""
    if other is None:
        return gathered(geometry.devices, over_rows(geometry, _sums_of_rows, (h, values)))

    def with_other(geometry, h, values, y, x):
        return _sums_of_rows(geometry, h, values, dataclasses.replace(other, x=x, y=y, devices=None))

    return gathered(geometry.devices, over_rows(geometry, with_other, (h, values, other.y), (other.x,)))


def _sums_of_rows(geometry: Geometry, h, values, other: Geometry | None = None):
    m, width = len(values), min(_COLUMNS, len(values))
    padded = jnp.pad(values, ((0, -m % width), (0, 0)))

    def visit(carry, logits, costs, columns):
        top, total, sums, cost = carry
        new_top = jnp.maximum(top, logits.max(axis=1))
        # A block without any mass has top -inf; subtracting it from itself would give NaN.
        shift = jnp.where(jnp.isfinite(new_top), new_top, 0.0)
        kept, weights = jnp.exp(top - shift), jnp.exp(logits - shift[:, None])
        sums = sums * kept[:, None] + matmul(weights, padded[columns])
        return new_top, total * kept + weights.sum(axis=1), sums, cost * kept + (weights * costs).sum(axis=1)

    def start(height):
        zeros = jnp.zeros(height)
        return jnp.full(height, -jnp.inf), zeros, jnp.zeros((height, values.shape[1])), zeros

    top, total, sums, cost = _blocked(geometry, h, visit, start, other)
    total = jnp.where(total > 0, total, 1.0)
    return top + jnp.log(total), sums / total[:, None], cost / total


@partial(jax.jit, static_argnames="k")
def _largest(geometry: Geometry, h: Float[Array, " m"], k: int):
    """Return the `k` largest logits of each row, and their columns."""

    def visit(carry, logits, costs, columns):
        candidates = jnp.concatenate([carry[0], logits], axis=1)
        names = jnp.concatenate([carry[1], jnp.broadcast_to(columns, logits.shape)], axis=1)
        best, places = jax.lax.top_k(candidates, k)
        return best, jnp.take_along_axis(names, places, axis=1)

    start = lambda height: (jnp.full((height, k), -jnp.inf), jnp.zeros((height, k), jnp.int32))
    found = over_rows(geometry, lambda some, h: _blocked(some, h, visit, start), (h,))
    return gathered(geometry.devices, found)
