"""Draws: cells in proportion to their weights, and targets from rows of a plan."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._blocks import ENTRIES, pad_with, rows_per_block, traced
from scgenot.sinkhorn._geometry import BLOCK, Geometry

# Running sums have two levels, bins and cells within a bin: one over 100,000 weights would lose digits in single precision.
_BIN = 128
# Quantiles of one row that are looked up at once: each holds a bin of weights, so 64 of 1024 rows are 32 MiB.
_DRAWS_AT_ONCE = 64


def choose(key: jax.Array, weights: Float[Array, " n"], shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Draw indices in proportion to `weights`, of which at least one is above zero.

    By two running sums, of bins and within one bin, so that a cell's frequency is right to a thousandth of itself among a
    million cells; one running sum in single precision (as in ``jax.random.choice``) is off by 7 % there.
    """
    bin_key, cell_key = jax.random.split(key)
    # As many bins as cells in a bin: both sums are as short as can be.
    width = max(_BIN, math.isqrt(len(weights)))
    bins = jnp.pad(weights, (0, -len(weights) % width)).reshape(-1, width)
    sums = jnp.cumsum(bins.sum(axis=1))
    chosen = _first_above(sums[None, :], jnp.zeros(shape, jnp.int32), jax.random.uniform(bin_key, shape))
    # A number of its own for the place within the bin: what is left of the first one has lost its leading digits.
    within = _first_above(jnp.cumsum(bins, axis=1), chosen, jax.random.uniform(cell_key, shape))
    return (chosen * width + within).astype(jnp.int32)


def _first_above(
    sums: Float[Array, "rows n"], row: Int[Array, "..."], quantiles: Float[Array, "..."]
) -> Int[Array, "..."]:
    """Return where quantiles in [0, 1) lie in running sums, each in a row of its own: at places with mass only."""
    total = sums[row, -1]

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        here = sums[row, middle]
        # Rounding may leave a quantile at the total: the first place that reaches it is the last one with mass.
        reached = (here > quantiles * total) | (here >= total)
        return jnp.where(reached, low, middle + 1), jnp.where(reached, middle, high)

    ends = jnp.zeros_like(row), jnp.full_like(row, sums.shape[1] - 1)
    return jax.lax.fori_loop(0, sums.shape[1].bit_length(), halve, ends)[1]


def draw_rows(
    geometry: Geometry, h: Float[Array, " m"], key: jax.Array, row_ids: Int[Array, " n"], n_draws: int
) -> Int[Array, "n n_draws"]:
    """Draw column indices for each row from ``softmax_j(h_j - C_ij / epsilon)``, in one pass.

    Every row has a key of its own (`key` folded with its id). The draws of one row are systematic: one uniform
    number, `n_draws` evenly spaced quantiles, in random order, so that few draws already look like the row. Memory: one block
    of costs, and 64 draws of a row at a time. Outside of compiled code, cells are padded to a few sizes.
    """
    if traced(geometry.x, geometry.y, geometry.matrix, h, key, row_ids):
        return _draw_rows(geometry, h, key, row_ids, n_draws)
    padded = geometry.padded()
    n, m = padded.shape
    found = _draw_rows(padded, pad_with(h, m, -np.inf), key, pad_with(row_ids, n, 0), n_draws)
    return jax.device_put(np.asarray(found)[: geometry.shape[0]])


@partial(jax.jit, static_argnames="n_draws")
def _draw_rows(geometry: Geometry, h, key: jax.Array, row_ids, n_draws: int) -> Int[Array, "n n_draws"]:
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
        keys = jax.vmap(partial(jax.random.fold_in, key))(block["ids"])
        quantiles = jax.vmap(partial(_systematic, n_draws=n_draws))(keys) * bin_sums[:, -1:]
        at_once = min(n_draws, _DRAWS_AT_ONCE)
        parts = jnp.pad(quantiles, ((0, 0), (0, -n_draws % at_once))).reshape(rows, -1, at_once)
        found = jax.lax.map(partial(looked_up, weights, bin_sums), jnp.moveaxis(parts, 1, 0))
        return jnp.moveaxis(found, 0, 1).reshape(rows, -1)[:, :n_draws]

    def looked_up(weights, bin_sums, quantiles):
        # `<=` would be wrong at a bin without mass: its running sum equals its neighbour's.
        chosen = jax.vmap(partial(jnp.searchsorted, side="right"))(bin_sums, quantiles)
        chosen = jnp.minimum(chosen, bins - 1)
        below = jnp.take_along_axis(jnp.pad(bin_sums, ((0, 0), (1, 0))), chosen, axis=1)
        inside = jnp.cumsum(jnp.take_along_axis(weights, chosen[:, :, None], axis=1), axis=2)
        # Rounding may leave the quantile just above the bin's own sum; the last cell with mass takes it then.
        rest = jnp.minimum(quantiles - below, inside[:, :, -1] * (1 - 1e-6))
        within = (inside <= rest[:, :, None]).sum(axis=2)
        return jnp.minimum(chosen * _BIN + within, m - 1).astype(jnp.int32)

    blocks_of = {"x": x, "ids": ids} | ({} if matrix is None else {"matrix": matrix})
    return jax.lax.map(draw_block, blocks_of).reshape(blocks * rows, n_draws)[:n]


def _systematic(key: jax.Array, n_draws: int) -> Float[Array, " n_draws"]:
    offset_key, order_key = jax.random.split(key)
    quantiles = (jnp.arange(n_draws) + jax.random.uniform(offset_key)) / n_draws
    return jax.random.permutation(order_key, quantiles)
