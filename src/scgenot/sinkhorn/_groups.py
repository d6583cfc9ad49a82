"""Sinkhorn iterations that also fit the masses of groups of cells, so that few of them are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._devices import gathered
from scgenot._progress import SILENT, Progress
from scgenot._sizes import pad_with, padded_size
from scgenot.sinkhorn._geometry import Geometry, soft_min_groups

_GROUPS = 256
_SMALLEST_GROUP = 32
_CLUSTERS, _CLUSTERED_CELLS, _CELLS_A_CLUSTER = 64, 8192, 8
# Balancing groups may take about a tenth of the time of a pass.
_FEWEST_BALANCINGS, _BALANCING_SHARE, _BALANCING_TOLERANCE = 40, 0.25, 0.05
_ENTRIES_A_CALL = 2e9
# Beyond this, exponentials would leave single precision.
_LOG_LARGE = 50.0
# Up to so many cells are clustered in one thread. Where other processes use the cores, threads wait for each other many times as
# long as one takes (two busy cores, 6 problems of 1000 x 1000 cells: 53 s with threads, 14 s with one).
_ONE_THREAD = 4096
# Up to so many cells, passes over the costs take less time than clustering (some 15 ms a population), which 32 blocks of 100 and 70
# cells spend more on than on all of their iterations: halves along the widest direction take less than one, and group as well there.
_HALVED, _POWERS = 512, 8


@dataclasses.dataclass(frozen=True)
class Groups:
    """Cells in an order in which neighbours are alike: a group is `width` consecutive ones."""

    order: Int[np.ndarray, " n"]
    width: int

    @classmethod
    def of(cls, points: Float[Array | np.ndarray, "n d"]) -> Groups:
        """Order cells by the leaves of a tree of clusters; few cells by halving them along the direction of their largest variance."""
        from sklearn.cluster import BisectingKMeans
        from threadpoolctl import threadpool_limits

        n = len(points)
        width = max(_SMALLEST_GROUP, 2 ** int(np.ceil(np.log2(padded_size(n) / _GROUPS))))
        if n <= width:
            return cls(np.arange(n), width)
        cells = np.asarray(points)
        if n <= _HALVED:
            return cls(np.concatenate(_halves(cells.astype(np.float64), np.arange(n), width)), width)
        some = cells[np.linspace(0, n - 1, min(n, _CLUSTERED_CELLS)).astype(int)]
        clusters = min(_CLUSTERS, len(some) // _CELLS_A_CLUSTER)
        # By size: by inertia it tries to split single cells, whose inertia rounding leaves above zero.
        with threadpool_limits(1 if n <= _ONE_THREAD else None, user_api="openmp"):
            found = BisectingKMeans(clusters, random_state=0, bisecting_strategy="largest_cluster").fit(some)
        return cls(np.argsort(found.predict(cells), kind="stable"), width)


def _halves(cells: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " k"], width: int) -> list[Int[np.ndarray, " _"]]:
    """Return rows in parts of at most `width`, all full but the last."""
    if len(rows) <= width:
        return [rows]
    own = cells[rows] - cells[rows].mean(axis=0)
    # A few powers from the outermost cell: about the widest direction will do, and of no variance there is none.
    axis = own[np.argmax(np.square(own).sum(axis=1))]
    for _ in range(_POWERS):
        axis = (own @ axis) @ own
        axis /= np.linalg.norm(axis) or 1.0
    rows = rows[np.argsort(own @ axis, kind="stable")]
    # A whole number of groups goes to the left, so that no group has cells of two parts.
    cut = -(-len(rows) // (2 * width)) * width
    return _halves(cells, rows[:cut], width) + _halves(cells, rows[cut:], width)


class Stage(NamedTuple):
    """Iterate at `factor` times epsilon until the marginals are off by `tolerance`, or so often."""

    factor: float
    tolerance: float
    max_iterations: int


def grouped_potentials(
    geometry: Geometry,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    v: Float[Array | np.ndarray, " m"],
    taus: tuple[float, float],
    stages: Sequence[Stage],
    progress: Progress | None = None,
) -> tuple[Float[Array, " n"], Float[Array, " m"], float, int]:
    """Go through `stages`, from `v`; return both potentials, how far marginals are off, and the iterations of the last.

    A pass over the costs gives what each row gets from each group of columns. Balancing these few numbers a row is cheap:
    the row potentials and one shift of the column potentials for each group are then optimal together (block coordinate
    ascent of the dual over more than the row potentials). Mass that must go from one group to another, which plain
    iterations move a little at a time, is where it belongs after a few passes.

    Parameters
    ----------
    geometry
        Costs over epsilon.
    a, b
        Marginals, each summing to 1; zeros are allowed.
    v
        Column potentials to start from, over the epsilon of the first stage.
    taus
        How strictly rows and columns are kept, in (0, 1].
    stages
        At least one; the last one is what is returned.
    progress
        Is told of each stage and each call of iterations.
    """
    rows, columns = Groups.of(geometry.x), Groups.of(geometry.y)
    # Cells are put in order and padded outside of JAX, so that nothing is compiled for a number of cells that is not one of a
    # few. Copies of the last cell weigh nothing.
    geometry = geometry.rows(rows.order, columns.order).padded()
    n, m = geometry.shape
    with np.errstate(divide="ignore"):
        log_a, log_b = (
            pad_with(np.log(np.asarray(weights, np.float32)[order]), size, -np.inf)
            for weights, order, size in ((a, rows.order, n), (b, columns.order, m))
        )
    v = pad_with(np.asarray(v, np.float32)[columns.order], m, 0.0)
    before = stages[0].factor
    progress = progress or SILENT
    for number, stage in enumerate(stages):
        progress.stage(
            f"{len(rows.order)} x {len(columns.order)} cells, epsilon {number + 1} of {len(stages)}",
            stage.max_iterations,
        )
        # Potentials are over epsilon, so they grow when it shrinks.
        v = np.asarray(v) * np.float32(before / stage.factor)
        at_factor = dataclasses.replace(geometry, inverse=float(geometry.inverse) / stage.factor)
        u, v, violation, done = _iterate(at_factor, log_a, log_b, v, taus, (rows.width, columns.width), stage, progress)
        before = stage.factor
    u, v = (jax.device_put(np.asarray(one)[np.argsort(some.order)]) for one, some in ((u, rows), (v, columns)))
    return u, v, violation, done


def _iterate(geometry: Geometry, log_a, log_b, v, taus, widths: tuple[int, int], stage: Stage, progress: Progress):
    n, m = geometry.shape
    per_call, done, violation = max(int(_ENTRIES_A_CALL / (n * m)), 1), 0, float("inf")
    u = None
    while done < stage.max_iterations and violation > stage.tolerance:
        most = min(per_call, stage.max_iterations - done)
        first = u is None
        u = np.zeros(n, np.float32) if first else u
        u, v, seen, steps = _steps(geometry, log_a, log_b, u, v, taus, widths, most, stage.tolerance, first)
        done, violation = done + int(steps), float(seen)
        progress.advance(int(steps), violation=violation)
        if not np.isfinite(violation):
            break
    return u, v, violation, done


@partial(jax.jit, static_argnames="widths")
def _steps(geometry: Geometry, log_a, log_b, u, v, taus, widths: tuple[int, int], n_steps, tolerance, first):
    """Iterate; at `first`, when there is no row potential yet, from half an iteration that finds one."""
    turned = geometry.T

    def columns_half(state):
        u, v, _, done = state
        v, u, columns = _half(turned, log_b, log_a, v, u, taus[::-1], widths[0])
        return u, v, columns, done

    def step(state):
        # In the loop, and not before it: it would be compiled once more.
        u, v, columns, done = jax.lax.cond(state[3] < 0, lambda state: state, columns_half, state)
        u, v, rows = _half(geometry, log_a, log_b, u, v, taus, widths[1])
        return u, v, jnp.maximum(rows, columns), done + 1

    unfinished = lambda state: (state[3] < n_steps) & (state[2] > tolerance)
    start = (u, v, jnp.asarray(jnp.inf, jnp.float32), -jnp.asarray(first, jnp.int32))
    return gathered(geometry.devices, jax.lax.while_loop(unfinished, step, start))


def _half(geometry: Geometry, log_a, log_b, u, v, taus, width: int):
    """Make rows exact together with the masses of groups of columns."""
    sums = soft_min_groups(geometry, v + log_b, width)
    plain = -taus[0] * jax.nn.logsumexp(sums, axis=1)
    violation = mass_difference(log_a, u - plain)
    # A marginal that is free to vary wants a group's mass to be the sum of b exp(-v (1 - tau) / tau).
    wanted = _group_sums(log_b - v * (1.0 - taus[1]) / taus[1], width)

    def balance(state):
        k, shift, _ = state
        u = -taus[0] * jax.nn.logsumexp(sums + shift, axis=1)
        mass = jax.nn.logsumexp((log_a + u)[:, None] + sums, axis=0)
        # Groups without weight, or whose cells nothing reaches in single precision, stay where they are.
        new = jnp.where(jnp.isfinite(mass) & jnp.isfinite(wanted), taus[1] * (wanted - mass), shift)
        return k + 1, new, mass_difference(jnp.where(jnp.isfinite(mass), wanted, -jnp.inf), shift - new)

    most = max(_FEWEST_BALANCINGS, int(_BALANCING_SHARE * len(v) / sums.shape[1]))
    unfinished = lambda state: (state[0] < most) & (state[2] > _BALANCING_TOLERANCE * jnp.minimum(violation, 1.0))
    start = (0, jnp.zeros(sums.shape[1], sums.dtype), jnp.asarray(jnp.inf, sums.dtype))
    _, shift, _ = jax.lax.while_loop(unfinished, balance, start)
    u = -taus[0] * jax.nn.logsumexp(sums + shift, axis=1)
    return gathered(geometry.devices, (u, v + jnp.repeat(shift, width)[: len(v)], violation))


def _group_sums(log_weights: Float[Array | np.ndarray, " m"], width: int) -> Float[Array, " groups"]:
    groups = -(-len(log_weights) // width)
    padded = jnp.pad(log_weights, (0, groups * width - len(log_weights)), constant_values=-jnp.inf)
    return jax.nn.logsumexp(padded.reshape(groups, width), axis=1)


def mass_difference(log_weights: Float[Array | np.ndarray, " n"], log_ratio: Float[Array, " n"]) -> Float[Array, ""]:
    """Return the L1 distance between masses ``weights exp(log_ratio)`` and `weights`; finite, however far these are apart."""
    return jnp.sum(jnp.exp(log_weights) * jnp.abs(jnp.expm1(jnp.clip(log_ratio, -_LOG_LARGE, _LOG_LARGE))))
