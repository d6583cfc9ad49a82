"""Draws of targets from rows of a plan."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._blocks import ENTRIES, rows_per_block, traced
from scgenot._devices import gathered
from scgenot._random import Words, random_bits, uniform
from scgenot._sizes import pad_with
from scgenot.sinkhorn._geometry import BLOCK, Geometry, over_rows

# Running sums have two levels, bins and cells within a bin: one over 100,000 weights would lose digits in single precision.
_BIN = 128
# Quantiles of one row that are looked up at once: each holds a bin of weights, so 64 of 1024 rows are 32 MiB.
_DRAWS_AT_ONCE = 64


def draw_rows(
    geometry: Geometry, h: Float[Array, " m"], key: jax.Array | Words, row_ids: Int[Array, " n"], n_draws: int
) -> Int[Array, "n n_draws"]:
    """Draw column indices for each row from ``softmax_j(h_j - C_ij / epsilon)``, in one pass.

    Every row has random numbers of its own, a function of `key` and its id. The draws of one row are systematic: one uniform
    number, `n_draws` evenly spaced quantiles, in random order, so that few draws already look like the row. Memory: one block
    of costs, and 64 draws of a row at a time. Outside of compiled code, cells are padded to a few sizes.
    """
    if traced(geometry.x, geometry.y, geometry.matrix, h, key, row_ids):
        return _draw_rows(geometry, h, key, row_ids, n_draws)
    padded = geometry.padded(shared=True)
    n, m = padded.shape
    found = _draw_rows(padded, pad_with(h, m, -np.inf), key, pad_with(row_ids, n, 0), n_draws)
    return jax.device_put(np.asarray(found)[: geometry.shape[0]])


@partial(jax.jit, static_argnames="n_draws")
def _draw_rows(geometry: Geometry, h, key: jax.Array | Words, row_ids, n_draws: int) -> Int[Array, "n n_draws"]:
    return gathered(geometry.devices, over_rows(geometry, partial(_drawn, n_draws), (h, key), (row_ids,)))


def _drawn(n_draws: int, geometry: Geometry, h, key: jax.Array | Words, row_ids) -> Int[Array, "n n_draws"]:
    n, m = geometry.shape
    rows = min(rows_per_block(m, ENTRIES), BLOCK, n)
    bins = -(-m // _BIN)
    y = jnp.pad(geometry.y, ((0, bins * _BIN - m), (0, 0)), mode="edge")
    h = jnp.pad(h, (0, bins * _BIN - m), constant_values=-jnp.inf)
    blocks = -(-n // rows)
    pad = blocks * rows - n
    x = jnp.pad(geometry.x, ((0, pad), (0, 0))).reshape(blocks, rows, -1)
    ids = jnp.pad(row_ids, (0, pad)).reshape(blocks, rows)
    matrix = geometry.matrix
    if matrix is not None:
        matrix = jnp.pad(matrix, ((0, pad), (0, bins * _BIN - m))).reshape(blocks, rows, -1)

    def draw_block(block):
        costs = geometry.cost(block["x"], y) if matrix is None else block["matrix"]
        logits = h[None, :] - geometry.inverse * costs
        weights = jnp.exp(logits - logits.max(axis=1, keepdims=True)).reshape(rows, bins, _BIN)
        bin_sums = jnp.cumsum(weights.sum(axis=2), axis=1)
        quantiles = _systematic(key, block["ids"], n_draws) * bin_sums[:, -1:]
        at_once = min(n_draws, _DRAWS_AT_ONCE)
        parts = jnp.pad(quantiles, ((0, 0), (0, -n_draws % at_once))).reshape(rows, -1, at_once)
        found = jax.lax.map(partial(looked_up, weights, bin_sums), jnp.moveaxis(parts, 1, 0))
        return jnp.moveaxis(found, 0, 1).reshape(rows, -1)[:, :n_draws]

    def looked_up(weights, bin_sums, quantiles):
        # From the left would be wrong at a bin without mass: its running sum equals its neighbour's. Comparing with all bins
        # compiles in a fifth of the time that bisection does, and is as fast while there are few.
        method = "compare_all" if bins <= _BIN else "scan"
        # Rounding may carry the last quantile to the very end, beyond the last bin that has mass: one row of a million.
        quantiles = jnp.minimum(quantiles, bin_sums[:, -1:] * (1 - 1e-6))
        chosen = jax.vmap(partial(jnp.searchsorted, side="right", method=method))(bin_sums, quantiles)
        chosen = jnp.minimum(chosen, bins - 1)
        below = jnp.take_along_axis(jnp.pad(bin_sums, ((0, 0), (1, 0))), chosen, axis=1)
        inside = jnp.cumsum(jnp.take_along_axis(weights, chosen[:, :, None], axis=1), axis=2)
        # Rounding may leave the quantile just above the bin's own sum; the last cell with mass takes it then.
        rest = jnp.minimum(quantiles - below, inside[:, :, -1] * (1 - 1e-6))
        within = (inside <= rest[:, :, None]).sum(axis=2)
        return jnp.minimum(chosen * _BIN + within, m - 1).astype(jnp.int32)

    blocks_of = {"x": x, "ids": ids} | ({} if matrix is None else {"matrix": matrix})
    return jax.lax.map(draw_block, blocks_of).reshape(blocks * rows, n_draws)[:n]


def _systematic(key: jax.Array | Words, row_ids: Int[Array, " rows"], n_draws: int) -> Float[Array, "rows n_draws"]:
    """Return evenly spaced quantiles for each row, shifted by a number of its own, in an order of its own."""
    numbers = jnp.arange(n_draws, dtype=jnp.uint32)
    shifts, order = random_bits(key, row_ids[:, None], numbers[None, :])
    quantiles = (numbers + uniform(shifts[:, :1])) / n_draws
    return jax.lax.sort((order, quantiles), num_keys=1)[1]
