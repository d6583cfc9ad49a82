"""Draws on the host, in float64: subsets with weights, and rows in proportion to weights."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

_FULL = 2.0**32
# Cells that tell the widest direction of many, and powers of their covariance that find it.
_TOLD_BY, _POWERS = 2048, 4
# Cutting further takes longer than it helps: a part gives several cells then, as the last cuts left them.
_MOST_PARTS = 512


def host_rng(key: jax.Array, *numbers: int) -> np.random.Generator:
    """Return a NumPy generator that is a function of a JAX key, and of numbers that are folded in."""
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)), *numbers])


def weighted_subset(
    rng: np.random.Generator,
    weights: Float[Array | np.ndarray, " n"],
    size: int,
    order: Int[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Choose cells that stand for all, with the weights that make them stand for the weights of all.

    Parameters
    ----------
    rng
        Decides which.
    weights
        Not negative; they need not sum to 1.
    size
        How many to choose; all cells that have weight, if these are fewer.
    order
        All cells in an order in which neighbours are alike (:func:`alike`): each stretch of it then has its share of the chosen cells,
        not only on average, and so has each kind of cells. At random unless told.

    Returns
    -------
    Rows in ascending order, and their weights in float64, which sum to 1.

    Notes
    -----
    Systematic sampling without replacement: a cell is chosen with probability ``min(1, c weight)`` and then has its weight
    divided by that probability (Horvitz and Thompson, 1952), so that the weight of any group of cells is right on average.
    Cells of more than their share of the weight are always chosen and keep their weight; the others have equal ones. Along an
    order of alike cells this is stratified sampling with as many strata as cells are chosen.
    """
    p = np.asarray(weights, np.float64)
    p = p / p.sum()
    rest = np.flatnonzero(p > 0)
    if size >= len(rest):
        return rest, p[rest]
    sure = np.zeros(0, int)
    while True:
        share = p[rest].sum() / (size - len(sure))
        large = p[rest] >= share * (1 - 1e-9)
        if not large.any():
            break
        sure, rest = np.concatenate([sure, rest[large]]), rest[~large]
        if len(sure) == size or not len(rest):
            break
    chosen, own = sure, p[sure]
    if len(sure) < size and len(rest):
        if order is None:
            # In random order: neighbours in the data must not shut each other out.
            order = rng.permutation(rest)
        else:
            left = np.zeros(len(p), bool)
            left[rest] = True
            order = order[left[order]]
        points = (np.arange(size - len(sure)) + rng.random()) * share
        places = np.minimum(np.searchsorted(np.cumsum(p[order]), points, side="right"), len(order) - 1)
        places, counts = np.unique(places, return_counts=True)
        chosen, own = np.concatenate([sure, order[places]]), np.concatenate([own, counts * share])
    order = np.argsort(chosen)
    return chosen[order], own[order] / own.sum()


def further_subset(
    rng: np.random.Generator,
    weights: Float[Array | np.ndarray, " n"],
    seen: Int[np.ndarray, " k"],
    size: int,
    order: Int[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Choose as :func:`weighted_subset` does, among equal cells such as were not `seen` before, where these are enough."""
    weights = np.array(weights, np.float64)
    left = weights.copy()
    left[seen] = 0.0
    used = weights[weights > 0]
    equal = used.max() <= used.min() * (1 + 1e-3)
    return weighted_subset(rng, left if equal and np.count_nonzero(left) >= size else weights, size, order)


def alike(points: Float[Array | np.ndarray, "n d"], parts: int) -> Int[np.ndarray, " n"]:
    """Return all cells in an order in which neighbours are alike: halved along their widest direction until there are `parts` parts.

    Within a part cells stand as the last cut found them. It does not depend on a random number.
    """
    cells = np.asarray(points, np.float32)
    order, sections = np.arange(len(cells)), [slice(0, len(cells))]
    smallest = max(len(cells) / min(max(parts, 1), _MOST_PARTS), 1.0)
    while sections:
        part = sections.pop()
        rows = order[part]
        if len(rows) <= smallest:
            continue
        own = cells[rows]
        # Some of them tell the direction.
        axis = _widest(own[:: -(-len(rows) // _TOLD_BY)])
        half = len(rows) // 2
        order[part] = rows[np.argpartition(own @ axis, half)]
        sections += [slice(part.start, part.start + half), slice(part.start + half, part.stop)]
    return order


def _widest(cells: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """Return about the direction of the largest variance; of no variance there is none."""
    own = cells - cells.mean(axis=0)
    # Squares stay within single precision, whatever the unit.
    own /= np.abs(own).max() or np.float32(1.0)
    # A few powers from the outermost cell.
    axis = own[np.argmax(np.square(own).sum(axis=1))]
    for _ in range(_POWERS):
        axis = (own @ axis) @ own
        axis /= np.linalg.norm(axis) or np.float32(1.0)
    return axis


def cumulative_table(weights: Float[Array | np.ndarray, " n"]) -> UInt32[np.ndarray, " n"]:
    """Return the running sum of the weights as whole numbers below 2^32, for :func:`choose` and :func:`independent`.

    A running sum in float32 is off by 7 % a cell among a million cells; this one by less than .1 %.
    """
    cumulative = np.cumsum(np.asarray(weights, np.float64))
    return np.minimum(np.round(cumulative / cumulative[-1] * _FULL), _FULL - 1).astype(np.uint32)


def choose(bits: UInt32[Array, "..."], table: UInt32[Array, " n"]) -> Int[Array, "..."]:
    """Turn bits into indices in proportion to the weights of a :func:`cumulative_table`, within compiled code."""
    # The very last number stands for no cell of its own: it belongs to the last one that has weight.
    return jax.numpy.searchsorted(table, jax.numpy.minimum(bits, table[-1] - 1), side="right").astype("int32")


def independent(
    rng: np.random.Generator, table: UInt32[np.ndarray, " n"], shape: tuple[int, ...]
) -> Int[np.ndarray, "..."]:
    """Draw indices in proportion to the weights of a :func:`cumulative_table`."""
    return np.searchsorted(table, rng.integers(int(table[-1]), size=shape, dtype=np.uint32), side="right").astype(
        np.int32
    )


def systematic(
    rng: np.random.Generator, weights: Float[Array | np.ndarray, " n"], shape: tuple[int, ...]
) -> Int[np.ndarray, "..."]:
    """Draw indices in proportion to `weights`, one from each of equal parts of the mass along the last axis of `shape`."""
    cumulative = np.cumsum(np.asarray(weights, np.float64))
    quantiles = (np.arange(shape[-1]) + rng.random((*shape[:-1], 1))) / shape[-1] * cumulative[-1]
    drawn = np.searchsorted(cumulative, quantiles, side="right")
    # Rounding may carry a quantile to the very end, beyond the last cell that has mass.
    return np.minimum(drawn, np.searchsorted(cumulative, cumulative[-1])).astype(np.int32)


def stratified(
    rng: np.random.Generator, weights: Float[Array | np.ndarray, " n"], shape: tuple[int, ...]
) -> Int[np.ndarray, "..."]:
    """Draw indices in proportion to `weights`, each from one of equal parts of the mass along the last axis of `shape`.

    As :func:`systematic`, with an offset of its own in each part. Weights whose sum is not above zero count as equal.
    """
    cumulative = np.cumsum(np.asarray(weights, np.float64))
    if not (np.isfinite(cumulative[-1]) and cumulative[-1] > 0):
        cumulative = np.arange(1.0, len(cumulative) + 1)
    quantiles = (np.arange(shape[-1]) + rng.random(shape)) / shape[-1] * cumulative[-1]
    drawn = np.searchsorted(cumulative, quantiles, side="right")
    return np.minimum(drawn, np.searchsorted(cumulative, cumulative[-1])).astype(np.int32)
