"""Sampling: solve the flow's equation for many cells and samples at once, one compilation for all sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt

from scgenot._devices import Devices, by_rows, gathered, put_whole
from scgenot._random import normal, random_bits
from scgenot.flow._config import ODEConfig
from scgenot.flow._path import NoiseToTarget, Path
from scgenot.flow._result import Params
from scgenot.flow._scaling import Standardizer
from scgenot.flow._velocity import member_of

_SOLVERS = {
    "midpoint": diffrax.Midpoint,
    "heun": diffrax.Heun,
    "euler": diffrax.Euler,
    "tsit5": diffrax.Tsit5,
}
_MAX_ADAPTIVE_STEPS = 4096


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FlowWeights:
    """All numbers that a trained solver needs.

    Attributes
    ----------
    params
        Weights of the velocity field.
    source_units, target_units
        Units of both spaces.
    rescaling
        Weights of the networks for growth by population, ``"source"`` or ``"target"``; only those that were learned.
    plan_growth
        The plan's own growth of the training cells, by population; where there is a network.
    condition_units
        Units of conditions; ``None`` without.
    distilled
        Weights of the field for few large steps; ``None`` without one.
    path
        Where the flow starts.
    n_models
        Members of the ensemble; above 1, `params` and `distilled` have them as their first axis.
    """

    params: Params
    source_units: Standardizer
    target_units: Standardizer
    rescaling: dict[str, Params] = dataclasses.field(default_factory=dict)
    plan_growth: dict[str, Float[Array, " k"]] = dataclasses.field(default_factory=dict)
    condition_units: Standardizer | None = None
    n_models: int = dataclasses.field(default=1, metadata={"static": True})
    distilled: Params | None = None
    path: Path = dataclasses.field(default_factory=NoiseToTarget)

    def for_flow(self, ode: ODEConfig) -> FlowWeights:
        """Return what solving takes, with the distilled field's weights as `params` where `ode` asks for it.

        What growth needs stays behind: it has the training cells' number among its shapes.
        """
        params = self.distilled if ode.solver == "distilled" else self.params
        return dataclasses.replace(self, params=params, rescaling={}, plan_growth={}, distilled=None)


def default_rows() -> int:
    """Return how many (cell, sample) rows are solved at once: what fits a CPU's cache, more elsewhere."""
    return 2048 if jax.default_backend() == "cpu" else 65536


def sample_blocks(
    graphdef: nnx.GraphDef,
    weights: FlowWeights,
    key: jax.Array,
    cells: Float[np.ndarray, "n dx"],
    cell_ids: Int[np.ndarray, " n"],
    n_samples: int,
    ode: ODEConfig,
    *,
    rows: int | None = None,
    conditions: Float[np.ndarray, "n dc"] | None = None,
    devices: Devices | None = None,
) -> Iterator[tuple[slice, Float[np.ndarray, "k s dy"]]]:
    """Yield samples of the target for runs of consecutive source cells.

    Parameters
    ----------
    graphdef, weights
        The trained flow. For distilled steps, `graphdef` is that of the distilled field.
    key
        JAX key.
    cells
        Source cells in the user's units.
    cell_ids
        A number for each cell. The samples of a cell depend on the key, its id and its features alone, not on which
        other cells are asked for.
    n_samples
        Samples a cell.
    ode
        How the equation is solved.
    rows
        Rows solved at once; memory is in proportion to it. The last block is padded, so one shape is compiled. By default some for
        each device.
    conditions
        The condition of each cell, in the user's units.
    devices
        Devices that share the rows; ``None``: one.

    Yields
    ------
    The place of the cells, and their samples in the user's units. In an ensemble sample k is drawn by member k modulo their number.
    """
    rows = rows or default_rows() * (1 if devices is None else devices.count)
    ode, weights = ode.for_samples, weights.for_flow(ode)
    if devices is not None:
        weights = put_whole(devices, weights)
    conditions = np.zeros((len(cells), 0), np.float32) if conditions is None else conditions
    members = min(weights.n_models, n_samples)
    cells_a_block = max(1, rows * members // n_samples)
    for start in range(0, len(cells), cells_a_block):
        place = slice(start, min(start + cells_a_block, len(cells)))
        block = {
            "cells": np.repeat(np.asarray(cells[place], np.float32), n_samples, axis=0),
            "conditions": np.repeat(np.asarray(conditions[place], np.float32), n_samples, axis=0),
            "cell_ids": np.repeat(np.asarray(cell_ids[place], np.uint32), n_samples),
            "sample_ids": np.tile(np.arange(n_samples, dtype=np.uint32), place.stop - place.start),
        }
        parts = []
        for member in range(members):
            mine = np.flatnonzero(block["sample_ids"] % weights.n_models == member)
            for first in range(0, len(mine), rows):
                places = mine[first : first + rows]
                # Padding rows are copies of the first one: zeros may lie where the velocity was never trained, and would keep
                # an adaptive solver busy.
                padded = np.concatenate([places, places[:1].repeat(rows - len(places))])
                some = {name: array[padded] for name, array in block.items()}
                part = _solve_rows(graphdef, weights, key, np.int32(member), **some, ode=ode, devices=devices)
                parts.append((part, places))
        samples = np.empty((len(block["sample_ids"]), weights.target_units.mean.shape[0]), np.float32)
        # One host copy a block; the loop above only queues work.
        for part, places in parts:
            samples[places] = np.asarray(part)[: len(places)]
        yield place, samples.reshape(place.stop - place.start, n_samples, -1)


@partial(jax.jit, static_argnames=("graphdef", "ode", "devices"))
def _solve_rows(
    graphdef: nnx.GraphDef,
    weights: FlowWeights,
    key: jax.Array,
    member: Int[Array, ""],
    *,
    cells: Float[Array, "rows dx"],
    conditions: Float[Array, "rows dc"],
    cell_ids: UInt[Array, " rows"],
    sample_ids: UInt[Array, " rows"],
    ode: ODEConfig,
    devices: Devices | None = None,
) -> Float[Array, "rows dy"]:
    def of_some(rows, whole):
        return _solve(graphdef, *whole, *rows, ode)

    rows, whole = (cells, conditions, cell_ids, sample_ids), (weights, key, member)
    return gathered(devices, by_rows(devices, of_some, rows, whole))


def _solve(graphdef, weights: FlowWeights, key, member, cells, conditions, cell_ids, sample_ids, ode: ODEConfig):
    target_dim = weights.target_units.mean.shape[0]
    model = nnx.merge(graphdef, member_of(weights.params, member) if weights.n_models > 1 else weights.params)
    x = weights.source_units.forward(cells)
    c = conditions if weights.condition_units is None else weights.condition_units.forward(conditions)
    c = model.encode(c)

    # Two words of bits for each sample and each pair of features.
    pairs = -(-target_dim // 2)
    numbers = sample_ids[:, None] * np.uint32(pairs) + jnp.arange(pairs, dtype=jnp.uint32)[None, :]
    noise = normal(jnp.concatenate(random_bits(key, cell_ids[:, None], numbers), axis=1)[:, :target_dim])
    start = weights.path.start(noise, x)
    if ode.solver == "distilled":
        ends = large_steps(model, ode.n_steps, start, weights.path.seen(x), c)
    elif ode.solver == "tsit5":
        ends = jax.vmap(partial(_adaptive, model, ode))(start, weights.path.seen(x), c)
    else:
        ends = _fixed_steps(model, ode, start, weights.path.seen(x), c)
    return weights.target_units.backward(ends)


def large_steps(
    model: nnx.Module,
    n_steps: int,
    start: Float[Array, "rows dy"],
    x: Float[Array, "rows seen"],
    c: Float[Array, "rows dc"],
) -> Float[Array, "rows dy"]:
    """Return where so many steps of a distilled field lead, within compiled code."""
    z = start
    for step in range(n_steps):
        begin, end = (jnp.full(len(z), number / n_steps, jnp.float32) for number in (step, step + 1))
        z = z + model(begin, z, x, c, end) / n_steps
    return z


def _fixed_steps(
    model: nnx.Module,
    ode: ODEConfig,
    start: Float[Array, "rows dy"],
    x: Float[Array, "rows seen"],
    c: Float[Array, "rows dc"],
) -> Float[Array, "rows dy"]:
    def velocity(t, z, args):
        return model(jnp.full(z.shape[0], t, jnp.float32), z, x, c)

    return solve(velocity, start, ode)


def _adaptive(
    model: nnx.Module,
    ode: ODEConfig,
    start: Float[Array, " dy"],
    x: Float[Array, " seen"],
    c: Float[Array, " dc"],
) -> Float[Array, " dy"]:
    """Solve for one row with steps of its own: steps in common would let samples depend on what else is asked for."""

    def velocity(t, z, args):
        return model(jnp.full(1, t, jnp.float32), z[None], x[None], c[None])[0]

    return solve(velocity, start, ode)


def solve(velocity: Callable[..., Any], start: Any, ode: ODEConfig, *, backwards: bool = False) -> Any:
    """Return where `start`, an array or a tree of them, is carried from time 0 to 1, or backwards, within compiled code.

    An adaptive solver takes the same steps for all that is in `start`.
    """
    if ode.solver == "tsit5":
        controller, dt0, most = diffrax.PIDController(rtol=ode.rtol, atol=ode.atol), None, _MAX_ADAPTIVE_STEPS
    else:
        controller, dt0, most = diffrax.ConstantStepSize(), 1.0 / ode.n_steps, ode.n_steps + 1
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        _SOLVERS[ode.solver](),
        t0=1.0 if backwards else 0.0,
        t1=0.0 if backwards else 1.0,
        dt0=-dt0 if backwards and dt0 is not None else dt0,
        y0=start,
        stepsize_controller=controller,
        saveat=diffrax.SaveAt(t1=True),
        max_steps=most,
        adjoint=diffrax.ForwardMode(),
    )
    return jax.tree.map(lambda leaf: leaf[0], solution.ys)
