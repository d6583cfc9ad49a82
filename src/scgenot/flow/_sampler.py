"""Sampling: solve the flow's equation for many cells and samples at once, one compilation for all sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt

from scgenot.flow._config import ODEConfig
from scgenot.flow._result import Params
from scgenot.flow._scaling import Standardizer

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
    """

    params: Params
    source_units: Standardizer
    target_units: Standardizer
    rescaling: dict[str, Params] = dataclasses.field(default_factory=dict)


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
) -> Iterator[tuple[slice, Float[np.ndarray, "k s dy"]]]:
    """Yield samples of the target for runs of consecutive source cells.

    Parameters
    ----------
    graphdef, weights
        The trained flow.
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
        Rows solved at once; memory is in proportion to it. The last block is padded, so one shape is compiled.

    Yields
    ------
    The place of the cells, and their samples in the user's units.
    """
    rows = rows or default_rows()
    cells_a_block = max(1, rows // n_samples)
    for start in range(0, len(cells), cells_a_block):
        place = slice(start, min(start + cells_a_block, len(cells)))
        block_ids = np.repeat(np.asarray(cell_ids[place], np.uint32), n_samples)
        block_cells = np.repeat(np.asarray(cells[place], np.float32), n_samples, axis=0)
        sample_ids = np.tile(np.arange(n_samples, dtype=np.uint32), place.stop - place.start)
        parts = []
        for first in range(0, len(block_ids), rows):
            some = slice(first, first + rows)
            parts.append(
                _padded(graphdef, weights, key, block_cells[some], block_ids[some], sample_ids[some], ode, rows)
            )
        # One host copy a block; the loop above only queues work.
        samples = np.concatenate([np.asarray(part)[:size] for part, size in parts])
        yield place, samples.reshape(place.stop - place.start, n_samples, -1)


def _padded(graphdef, weights, key, cells, cell_ids, sample_ids, ode, rows):
    size = len(cell_ids)
    fill = rows - size
    cells = np.pad(cells, ((0, fill), (0, 0)))
    cell_ids, sample_ids = np.pad(cell_ids, (0, fill)), np.pad(sample_ids, (0, fill))
    # Padding rows are copies of the first one: with zeros, an adaptive solver could take other steps.
    if fill:
        cells[size:] = cells[0]
    return _solve_rows(graphdef, weights, key, cells, cell_ids, sample_ids, ode), size


@partial(jax.jit, static_argnames=("graphdef", "ode"))
def _solve_rows(
    graphdef: nnx.GraphDef,
    weights: FlowWeights,
    key: jax.Array,
    cells: Float[Array, "rows dx"],
    cell_ids: UInt[Array, " rows"],
    sample_ids: UInt[Array, " rows"],
    ode: ODEConfig,
) -> Float[Array, "rows dy"]:
    target_dim = weights.target_units.mean.shape[0]
    model = nnx.merge(graphdef, weights.params)
    x = weights.source_units.forward(cells)

    def noise_of(cell_id, sample_id):
        own = jax.random.fold_in(jax.random.fold_in(key, cell_id), sample_id)
        return jax.random.normal(own, (target_dim,))

    def velocity(t, z, args):
        return model(jnp.full(z.shape[0], t), z, x)

    noise = jax.vmap(noise_of)(cell_ids, sample_ids)
    adaptive = ode.solver == "tsit5"
    controller = diffrax.PIDController(rtol=ode.rtol, atol=ode.atol) if adaptive else diffrax.ConstantStepSize()
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        _SOLVERS[ode.solver](),
        t0=0.0,
        t1=1.0,
        dt0=None if adaptive else 1.0 / ode.n_steps,
        y0=noise,
        stepsize_controller=controller,
        saveat=diffrax.SaveAt(t1=True),
        max_steps=_MAX_ADAPTIVE_STEPS if adaptive else ode.n_steps + 1,
        adjoint=diffrax.ForwardMode(),
    )
    return weights.target_units.backward(solution.ys[0])
