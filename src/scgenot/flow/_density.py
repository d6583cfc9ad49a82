"""Densities: solve the flow's equation backwards along with the divergence of the velocity, one compilation for all sizes.

Along the flow, d/dt log p_t(z_t) = -div v(t, z_t | x) (Chen et al. 2018, "Neural Ordinary Differential Equations", theorem 1).
So log pi(y | x) is the log-density of where y comes from, less the integral of the divergence on the way.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt
from scipy.special import logsumexp

from scgenot._random import random_bits
from scgenot.flow._config import DivergenceConfig, ODEConfig
from scgenot.flow._sampler import FlowWeights, default_rows, solve
from scgenot.flow._velocity import member_of

# Of the rows that are sampled at once, the share that is solved at once, with up to so many derivatives each. Larger blocks are no
# faster on two cores (2 ms a row at 8 features, hidden layers of 256), and waste more where few rows are asked for.
_SHARE, _DERIVATIVES = 4, 8
_LOG_2PI = math.log(2 * math.pi)


def log_density(
    graphdef: nnx.GraphDef,
    weights: FlowWeights,
    points: Float[np.ndarray, "m dy"],
    cells: Float[np.ndarray, "k dx"],
    point_ids: Int[np.ndarray, " n"],
    cell_ids: Int[np.ndarray, " n"],
    ode: ODEConfig,
    *,
    divergence: DivergenceConfig | None = None,
    key: jax.Array | None = None,
    rows: int | None = None,
    conditions: Float[np.ndarray, "k dc"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Return log pi(y | x) of pairs of a point and a source cell.

    Parameters
    ----------
    graphdef, weights
        The trained flow.
    points, cells
        Points of the target space and source cells, in the user's units.
    point_ids, cell_ids
        Which point and which cell each pair has.
    ode
        How the equation is solved.
    divergence
        How the divergence is computed; exactly up to 100 features by default.
    key
        JAX key of the probes; needed if there are any.
    rows
        Pairs solved at once; memory is in proportion to it. The last block is padded, so one shape is compiled.
    conditions
        The condition of each cell, in the user's units.

    Returns
    -------
    Natural logarithms of densities, with respect to volume in the user's units.

    Raises
    ------
    ValueError
        If the divergence has probes and there is no key.
    """
    divergence = divergence or DivergenceConfig()
    n_probes = divergence.probes(points.shape[1])
    if n_probes and key is None:
        raise ValueError(
            "`key` is needed: the divergence is estimated by random probes. Pass a key, or ask for method='exact'."
        )
    key = jax.random.key(0) if key is None else key
    rows = rows or _rows_at_once(n_probes or points.shape[1])
    ode = ode.for_density
    weights = weights.for_flow(ode)
    conditions = np.zeros((len(cells), 0), np.float32) if conditions is None else conditions
    points, cells, conditions = (np.asarray(one, np.float32) for one in (points, cells, conditions))
    parts = []
    for first in range(0, len(point_ids), rows):
        y, x = (np.asarray(ids[first : first + rows]) for ids in (point_ids, cell_ids))
        size = len(y)
        # Padding rows are copies of the first one, as in sampling.
        y, x = (np.concatenate([ids, ids[:1].repeat(rows - size)]) for ids in (y, x))
        # Probes are told apart by the place of the pair.
        numbers = np.arange(first, first + rows, dtype=np.uint32)
        given = {"points": points[y], "cells": cells[x], "conditions": conditions[x], "numbers": numbers}
        how = {"ode": ode, "n_probes": n_probes}
        members = [_log_rows(graphdef, weights, key, np.int32(one), **given, **how) for one in range(weights.n_models)]
        parts.append((members, size))
    # The law of an ensemble is the mean of its members' laws.
    found = [
        logsumexp([np.asarray(one)[:size] for one in members], axis=0, b=1 / weights.n_models).astype(np.float32)
        for members, size in parts
    ]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _rows_at_once(derivatives: int) -> int:
    """Return a power of two: fewer rows where each has many derivatives."""
    return max(64, 2 ** int(math.log2(default_rows() / _SHARE * _DERIVATIVES / max(derivatives, _DERIVATIVES))))


@partial(jax.jit, static_argnames=("graphdef", "ode", "n_probes"))
def _log_rows(
    graphdef: nnx.GraphDef,
    weights: FlowWeights,
    key: jax.Array,
    member: Int[Array, ""],
    *,
    points: Float[Array, "rows dy"],
    cells: Float[Array, "rows dx"],
    conditions: Float[Array, "rows dc"],
    numbers: UInt[Array, " rows"],
    ode: ODEConfig,
    n_probes: int,
) -> Float[Array, " rows"]:
    model = nnx.merge(graphdef, member_of(weights.params, member) if weights.n_models > 1 else weights.params)
    x = weights.source_units.forward(cells)
    c = conditions if weights.condition_units is None else weights.condition_units.forward(conditions)
    y, c, seen = weights.target_units.forward(points), model.encode(c), weights.path.seen(x)
    d = y.shape[1]
    if n_probes:
        count = jnp.arange(n_probes * d, dtype=jnp.uint32)
        bits = random_bits(key, numbers[:, None], count[None, :])[0]
        probes = jnp.where(bits >> np.uint32(31), 1.0, -1.0).astype(jnp.float32).reshape(len(numbers), n_probes, d)
        probes = jnp.swapaxes(probes, 0, 1)
    else:
        probes = jnp.broadcast_to(jnp.eye(d, dtype=jnp.float32)[:, None, :], (d, *y.shape))

    def along(start, seen, c, probes):
        """Return where rows come from and the integral of the divergence, negative."""

        def step(t, state, args):
            flow = lambda z: model(jnp.full(z.shape[0], t, jnp.float32), z, seen, c)
            velocity, derivative = jax.linearize(flow, state[0])
            traces = jnp.sum(jax.vmap(derivative)(probes) * probes, axis=2)
            return velocity, traces.mean(axis=0) if n_probes else traces.sum(axis=0)

        return solve(step, (start, jnp.zeros(start.shape[0], jnp.float32)), ode, backwards=True)

    if ode.solver == "tsit5":
        # Steps of its own for each row: the answer does not depend on what else is asked for.
        one = lambda y, seen, c, probes: along(y[None], seen[None], c[None], probes[:, None])
        start, change = (leaf[:, 0] for leaf in jax.vmap(one, in_axes=(0, 0, 0, 1))(y, seen, c, probes))
    else:
        start, change = along(y, seen, c, probes)
    noise = weights.path.noise(start, x)
    base = -0.5 * jnp.sum(jnp.square(noise), axis=1) - 0.5 * d * _LOG_2PI
    return base + change - weights.path.log_volume() - jnp.sum(jnp.log(weights.target_units.scale))
