"""Costs between two populations, seen through passes over blocks: n x m in memory only where they are stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._blocks import traced
from scgenot._devices import Devices, by_rows, gathered, put_rows, put_whole
from scgenot._sizes import pad_edge, pad_with, padded_size
from scgenot.costs import Cost

# A block of 1024 x 1024 float32 stays in a CPU's cache, where a pass runs twice as fast as from memory.
BLOCK = 1024


@partial(jax.tree_util.register_dataclass, data_fields=("x", "y", "inverse", "matrix"), meta_fields=("cost", "devices"))
@dataclasses.dataclass(frozen=True)
class Geometry:
    """Costs over epsilon between the rows of `x` and of `y`.

    Attributes
    ----------
    x, y
        The two populations.
    inverse
        One over (scale of the cost times epsilon): multiplies the raw cost.
    cost
        The raw cost.
    matrix
        The raw costs, if they are stored.
    devices
        Devices that share the rows of each pass; ``None``: one.
    """

    x: Float[Array | np.ndarray, "n dx"]
    y: Float[Array | np.ndarray, "m dy"]
    inverse: Float[Array, ""] | float
    cost: Cost
    matrix: Float[Array, "n m"] | None = None
    devices: Devices | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells on both sides."""
        return self.x.shape[0], self.y.shape[0]

    @property
    def T(self) -> Geometry:
        """The same costs seen from the other side."""
        matrix = self.matrix
        if matrix is not None:
            matrix = matrix.T if traced(matrix) else jax.device_put(np.asarray(matrix).T)
        return Geometry(self.y, self.x, self.inverse, self.cost.swapped(), matrix, self.devices)

    def stored(self) -> Geometry:
        """The same costs with the matrix computed once and kept."""
        if self.matrix is not None:
            return self
        if traced(self.x, self.y):
            return dataclasses.replace(self, matrix=self.cost(self.x, self.y))
        n, m = self.shape
        x, y = pad_edge(self.x, padded_size(n)), pad_edge(self.y, padded_size(m))
        return dataclasses.replace(self, matrix=jax.device_put(np.asarray(_matrix(self.cost, x, y))[:n, :m]))

    def padded(self, *, shared: bool = False) -> Geometry:
        """The same costs with the last cell of either side repeated, up to one of a few sizes.

        With `shared`, for programs that see no cell of `x` but by its row, each device gets its share of these only.
        """
        put = put_rows if shared else put_whole
        sizes = [padded_size(size) for size in self.shape]
        matrix = self.matrix
        if matrix is not None and tuple(sizes) != self.shape:
            matrix = pad_edge(pad_edge(matrix, sizes[0]), sizes[1], axis=1)
        x, y = (pad_edge(side, size) for side, size in zip((self.x, self.y), sizes, strict=True))
        matrix = None if matrix is None else put(self.devices, matrix)
        x, y = put(self.devices, x), put_whole(self.devices, y)
        return Geometry(x, y, float(self.inverse), self.cost, matrix, self.devices)

    def shared_by(self, devices: Devices | None) -> Geometry:
        """The same costs, of whose passes each device does its share of the rows; cells stay on the host, and go there for each."""
        if devices is None:
            return self
        return dataclasses.replace(self, x=np.asarray(self.x), y=np.asarray(self.y), devices=devices)

    def at_epsilon(self, factor: float) -> Geometry:
        """The same costs with epsilon multiplied by `factor`."""
        return dataclasses.replace(self, inverse=self.inverse / factor)

    def rows(self, source: Int[Array | np.ndarray, " k"], target: Int[Array | np.ndarray, " l"]) -> Geometry:
        """The costs between some of the cells."""
        # Not by JAX, which would compile for each number of cells.
        source, target = np.asarray(source), np.asarray(target)
        matrix = None if self.matrix is None else jax.device_put(np.asarray(self.matrix)[np.ix_(source, target)])
        x, y = (np.asarray(side)[some] for side, some in ((self.x, source), (self.y, target)))
        if self.devices is None:
            x, y = jax.device_put((x, y))
        return Geometry(x, y, self.inverse, self.cost, matrix, self.devices)


def over_rows(
    geometry: Geometry, function: Callable[..., Any], whole: tuple[Any, ...] = (), rows: tuple[Any, ...] = ()
) -> Any:
    """Return ``function(geometry, *whole, *rows)`` in compiled code, each device computing it for its share of the rows.

    What it returns has a row for each row of costs, as have `rows`; `whole` is what all devices see.
    """

    def of_some(some, seen):
        (x, matrix, *more), (y, inverse, *others) = some, seen
        alone = dataclasses.replace(geometry, x=x, y=y, inverse=inverse, matrix=matrix, devices=None)
        return function(alone, *others, *more)

    return by_rows(
        geometry.devices, of_some, (geometry.x, geometry.matrix, *rows), (geometry.y, geometry.inverse, *whole)
    )


@partial(jax.jit, static_argnames="cost")
def _matrix(cost: Cost, x, y) -> Float[Array, "n m"]:
    return cost(x, y)


def soft_min_rows(geometry: Geometry, h: Float[Array | np.ndarray, " m"]) -> Float[Array, " n"]:
    """Return ``log sum_j exp(h_j - C_ij / epsilon)`` for every row i, in one pass over blocks.

    Outside of compiled code, cells are padded to a few sizes.
    """
    if traced(geometry.x, geometry.y, geometry.matrix, h):
        return _soft_min_rows(geometry, h)
    padded = geometry.padded(shared=True)
    found = _soft_min_rows(padded, pad_with(h, padded.shape[1], -np.inf))
    return jax.device_put(np.asarray(found)[: geometry.shape[0]])


@jax.jit
def _soft_min_rows(geometry: Geometry, h: Float[Array | np.ndarray, " m"]) -> Float[Array, " n"]:
    return gathered(geometry.devices, over_rows(geometry, _soft_min, (h,)))


def _soft_min(geometry: Geometry, h: Float[Array | np.ndarray, " m"]) -> Float[Array, " n"]:
    if geometry.matrix is not None:
        return jax.nn.logsumexp(h[None, :] - geometry.inverse * geometry.matrix, axis=1)
    n, m = geometry.shape
    x, y = _pad(geometry.x, n), _pad(geometry.y, m)
    h = jnp.pad(h, (0, y.shape[0] * y.shape[1] - m), constant_values=-jnp.inf).reshape(y.shape[:2])

    def row_block(block: Float[Array, "r dx"]) -> Float[Array, " r"]:
        def column_block(carry, columns):
            top, total = carry
            y_block, h_block = columns
            logits = h_block[None, :] - geometry.inverse * geometry.cost(block, y_block)
            new_top = jnp.maximum(top, logits.max(axis=1))
            # A block without any mass has top -inf; subtracting it from itself would give NaN.
            shift = jnp.where(jnp.isfinite(new_top), new_top, 0.0)
            total = total * jnp.exp(top - shift) + jnp.exp(logits - shift[:, None]).sum(axis=1)
            return (new_top, total), None

        start = (jnp.full(block.shape[0], -jnp.inf), jnp.zeros(block.shape[0]))
        (top, total), _ = jax.lax.scan(column_block, start, (y, h))
        return jnp.where(jnp.isfinite(top), top + jnp.log(total), -jnp.inf)

    return jax.lax.map(row_block, x).reshape(-1)[:n]


@partial(jax.jit, static_argnames="width")
def soft_min_groups(geometry: Geometry, h: Float[Array | np.ndarray, " m"], width: int) -> Float[Array, "n groups"]:
    """Return ``log sum_j exp(h_j - C_ij / epsilon)`` over each `width` consecutive columns j, for every row i.

    `width` divides the block, or is a multiple of it. Rows stay on the devices that they were made on.
    """
    return over_rows(geometry, partial(_soft_min_of_groups, width=width), (h,))


def _soft_min_of_groups(geometry: Geometry, h: Float[Array | np.ndarray, " m"], width: int) -> Float[Array, "n groups"]:
    n, m = geometry.shape
    if geometry.matrix is not None:
        logits = h[None, :] - geometry.inverse * geometry.matrix
        padded = jnp.pad(logits, ((0, 0), (0, -m % width)), constant_values=-jnp.inf)
        return jax.nn.logsumexp(padded.reshape(n, -1, width), axis=2)
    x, block = _pad(geometry.x, n), BLOCK
    y = jnp.pad(geometry.y, ((0, -m % block), (0, 0)), mode="edge").reshape(-1, block, geometry.y.shape[1])
    h = jnp.pad(h, (0, -m % block), constant_values=-jnp.inf).reshape(-1, block)
    groups = -(-m // width)

    def row_block(rows: Float[Array, "r dx"]) -> Float[Array, "r groups"]:
        def column_block(columns):
            y_block, h_block = columns
            logits = h_block[None, :] - geometry.inverse * geometry.cost(rows, y_block)
            return jax.nn.logsumexp(logits.reshape(len(rows), -1, min(width, block)), axis=2)

        sums = jnp.moveaxis(jax.lax.map(column_block, (y, h)), 0, 1).reshape(len(rows), -1)
        merged = max(width // block, 1)
        sums = jnp.pad(sums, ((0, 0), (0, -sums.shape[1] % merged)), constant_values=-jnp.inf)
        return jax.nn.logsumexp(sums.reshape(len(rows), -1, merged), axis=2)[:, :groups]

    return jax.lax.map(row_block, x).reshape(-1, groups)[:n]


def pair_costs(geometry: Geometry, source: Int[Array, "k r"], target: Int[Array, "k r"]) -> Float[Array, "k r"]:
    """Return costs over epsilon of single pairs, stored ones where they are: features may only come close to these."""
    if geometry.matrix is not None and not traced(geometry.matrix, source):
        return jax.device_put(
            np.float32(geometry.inverse) * np.asarray(geometry.matrix)[np.asarray(source), np.asarray(target)]
        )
    if traced(geometry.x, geometry.y, source, target):
        return _pair_costs(geometry, source, target)
    k = len(source)
    source, target = (pad_edge(one, padded_size(k)) for one in (source, target))
    return jax.device_put(np.asarray(_pair_costs(geometry.padded(), source, target))[:k])


@jax.jit
def _pair_costs(geometry: Geometry, source, target) -> Float[Array, "k r"]:
    if geometry.matrix is not None:
        return geometry.inverse * geometry.matrix[source, target]
    one = jax.vmap(lambda i, j: geometry.cost(geometry.x[i][None], geometry.y[j][None])[0, 0])
    return geometry.inverse * jax.vmap(one)(source, target)


def _pad(points: Float[Array, "n d"], n: int) -> Float[Array, "blocks block d"]:
    block = min(BLOCK, n)
    blocks = -(-n // block)
    # Copies of the last cell: zeros would pull the centre of the last block away from data that lie far from zero.
    return jnp.pad(points, ((0, blocks * block - n), (0, 0)), mode="edge").reshape(blocks, block, -1)
