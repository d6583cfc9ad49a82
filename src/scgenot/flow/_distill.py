"""A field for one or a few large steps, learned from trajectories of the trained one.

The trained field is solved once for a pool of source cells and noise, and the states on the way are kept. A piece of a trajectory,
from z_i at time t_i to z_j at t_j, tells the mean velocity (z_j - z_i) / (t_j - t_i), which a second field u(z_i, t_i, t_j | x) is
regressed on. Its target is a function of what it sees, so that unlike in flow matching nothing is left of the loss where the
network can follow. One step is z + u(z, 0, 1 | x). (Boffi, Albergo & Vanden-Eijnden 2024, "Flow map matching", section 3, has this
loss among others, which do without trajectories; here these cost as little as training does.)
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt
from tqdm.auto import tqdm

from scgenot._random import normal, random_bits, related
from scgenot.flow._config import DistillConfig, TrainConfig
from scgenot.flow._path import Path
from scgenot.flow._result import Params
from scgenot.flow._trainer import TrainState, adam, initial_state, learning_rates
from scgenot.flow._velocity import member_of

_MAX_GRAD_NORM = 1.0
# Streams of random bits beside that of the steps.
_NOISE, _CELLS = 1, 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pool:
    """Trajectories of the trained field.

    Attributes
    ----------
    states
        Where they are at evenly spaced times from 0 to 1.
    x, c
        What the field sees of their source cells, and their conditions, not encoded.
    """

    states: Float[Array, "times pool dy"]
    x: Float[Array, "pool seen"]
    c: Float[Array, "pool dc"]


def start_from(params: Params, template: Params) -> Params:
    """Return the weights of a field with spans that gives the velocity of a trained one, whatever time a step ends at."""
    # The end of the step is what its first layer sees last; all other shapes are equal.
    pad = lambda one, like: np.pad(np.asarray(one), [(0, b - a) for a, b in zip(one.shape, like.shape, strict=True)])
    leaves = [pad(*pair) for pair in zip(jax.tree.leaves(params), jax.tree.leaves(template), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(template), [jax.device_put(one) for one in leaves])


def distill_members(
    key: jax.Array, graphdef: nnx.GraphDef, params: Params, n_models: int, *given: Any, progress_bar: bool = True
) -> tuple[Params, dict[str, tuple[list[int], list[float]]]]:
    """Learn a field for each member of an ensemble, one after another by one compiled program; see :func:`distill_velocity`.

    Returns
    -------
    The weights, of an ensemble with its members as their first axis, and the losses of the first member.
    """
    found, history = [], {}
    for member in range(n_models):
        own_params = params if n_models == 1 else member_of(params, member)
        own_key = jax.random.fold_in(key, member)
        own, losses = distill_velocity(own_key, graphdef, own_params, *given, progress_bar=progress_bar)
        found.append(own)
        history = history or losses
    return found[0] if n_models == 1 else jax.tree.map(lambda *ones: jnp.stack(ones), *found), history


def distill_velocity(
    key: jax.Array,
    graphdef: nnx.GraphDef,
    params: Params,
    large: tuple[nnx.GraphDef, Params],
    path: Path,
    x: Float[np.ndarray, "n dx"],
    c: Float[np.ndarray, "n dc"],
    target_dim: int,
    n_steps: int,
    config: DistillConfig,
    *,
    progress_bar: bool = True,
) -> tuple[Params, dict[str, tuple[list[int], list[float]]]]:
    """Learn a field for up to `n_steps` large steps.

    Parameters
    ----------
    key
        JAX key; the result is a function of it and of the data.
    graphdef, params
        The trained field.
    large
        Structure and shapes of the field to learn, see :func:`scgenot.flow._velocity.abstract_velocity`.
    path
        Where flows start.
    x, c
        Source cells and their conditions, in standardised units; of no columns without conditions.
    target_dim
        Features of the target space.
    n_steps
        The most steps that samples will be taken in, a power of two; 1, 2, ... up to it are learned.
    config
        Steps, pool, schedule.
    progress_bar
        Whether to show one.

    Returns
    -------
    The weights, and the mean loss of each check.

    Raises
    ------
    RuntimeError
        If the loss is not finite: nothing was learned.
    """
    state = initial_state(_MAX_GRAD_NORM, 1, start_from(params, large[1]))
    rates = learning_rates(TrainConfig(max_steps=config.max_steps, learning_rate=config.learning_rate))
    # On the host: rows of a few million cells would have no use on the device.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    times = config.teacher_steps + 1
    seen = jax.eval_shape(path.seen, x[:1]).shape[1]
    shapes = (times, config.pool_size, target_dim), (config.pool_size, seen), (config.pool_size, c.shape[1])
    pool = Pool(*(jax.device_put(np.zeros(shape, np.float32)) for shape in shapes))
    places = config.pool_size // config.fresh
    history: tuple[list[int], list[float]] = ([], [])

    def refreshed(pool: Pool, number: int) -> Pool:
        rows = rng.integers(len(x), size=config.fresh)
        return _refresh(graphdef, path, config.fresh, params, pool, (x[rows], c[rows]), key, number, number % places)

    for number in range(places):
        pool = refreshed(pool, number)
    run = partial(_run_steps, large[0], n_steps, config.whole, config.batch_size)
    done, number = 0, places
    with tqdm(total=config.max_steps, disable=not progress_bar, desc="Distilling", unit="step") as bar:
        while done < config.max_steps:
            count = min(config.check_every, config.max_steps - done)
            rate = np.zeros(config.check_every, np.float32)
            rate[:count] = rates[done : done + count]
            state, losses = run(state, pool, rate, key, done, count)
            loss = float(np.asarray(losses)[:count].mean())
            if not np.isfinite(loss):
                raise RuntimeError(
                    f"distilling diverged within {done + count} steps; the model is left as it was. Try a smaller `learning_rate`, "
                    f"got {config.learning_rate:g}."
                )
            done += count
            history[0].append(done)
            history[1].append(loss)
            bar.update(count)
            bar.set_postfix({"loss": f"{loss:.4g}"}, refresh=False)
            if done < config.max_steps:
                pool, number = refreshed(pool, number), number + 1
    return state.params, {"distillation_loss": history}


@partial(jax.jit, static_argnames=("graphdef", "fresh"), donate_argnames=("pool",))
def _refresh(
    graphdef: nnx.GraphDef,
    path: Path,
    fresh: int,
    params: Params,
    pool: Pool,
    cells: tuple[Float[Array, "fresh dx"], Float[Array, "fresh dc"]],
    key: jax.Array,
    number: int | Int[Array, ""],
    place: int | Int[Array, ""],
) -> Pool:
    """Solve the trained field for some cells by Heun's method; put the trajectories into a place of the pool."""
    model = nnx.merge(graphdef, params)
    (x, c), (times, _, target_dim) = cells, pool.states.shape
    rows, pairs = jnp.arange(fresh, dtype=jnp.uint32), -(-target_dim // 2)
    counts = rows[:, None] * np.uint32(pairs) + jnp.arange(pairs, dtype=jnp.uint32)[None, :]
    bits = random_bits(related(key, _NOISE), number, counts)
    start = path.start(normal(jnp.concatenate(bits, axis=1)[:, :target_dim]), x)
    seen, encoded, h = path.seen(x), model.encode(c), 1.0 / (times - 1)

    def step(z, k):
        now = jnp.full(fresh, k * h, jnp.float32)
        first = model(now, z, seen, encoded)
        second = model(now + h, z + h * first, seen, encoded)
        z = z + 0.5 * h * (first + second)
        return z, z

    states = jnp.concatenate([start[None], jax.lax.scan(step, start, jnp.arange(times - 1))[1]])
    at = place * fresh
    put = jax.lax.dynamic_update_slice
    return Pool(put(pool.states, states, (0, at, 0)), put(pool.x, seen, (at, 0)), put(pool.c, c, (at, 0)))


def _pieces(
    bits: tuple[UInt[Array, " batch"], UInt[Array, " batch"]], n_steps: int, intervals: int, whole: float
) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """Draw where pieces begin and end: for the first share `whole` of them steps as samples take them, then any two times."""
    one, two = (part >> np.uint32(8) for part in bits)
    batch = len(one)
    # Steps of each size are equally many, so that one step, which has the farthest to go, counts as much as all of two.
    size = intervals >> (one % np.uint32(n_steps.bit_length())).astype(jnp.int32)
    begin = (two % (intervals // size).astype(jnp.uint32)).astype(jnp.int32) * size
    first = (one % np.uint32(intervals + 1)).astype(jnp.int32)
    second = (first + 1 + (two % np.uint32(intervals)).astype(jnp.int32)) % (intervals + 1)
    as_sampled = jnp.arange(batch) < round(whole * batch)
    return (
        jnp.where(as_sampled, begin, jnp.minimum(first, second)),
        jnp.where(as_sampled, begin + size, jnp.maximum(first, second)),
    )


@partial(jax.jit, static_argnames=("graphdef", "n_steps", "whole", "batch"))
def _run_steps(
    graphdef: nnx.GraphDef,
    n_steps: int,
    whole: float,
    batch: int,
    state: TrainState,
    pool: Pool,
    rates: Float[Array, " steps"],
    key: jax.Array,
    done: int | Int[Array, ""],
    count: int | Int[Array, ""],
) -> tuple[TrainState, Float[Array, " steps"]]:
    """Run `count` optimisation steps without leaving the device; return the state and the losses."""
    optimizer, intervals = adam(_MAX_GRAD_NORM), len(pool.states) - 1

    def loss_of(params: Any, rows: Any, begin: Any, end: Any) -> Float[Array, ""]:
        model = nnx.merge(graphdef, params)
        before, after = pool.states[begin, rows], pool.states[end, rows]
        t, r = begin / intervals, end / intervals
        found = model(t, before, pool.x[rows], model.encode(pool.c[rows]), r)
        return jnp.mean(jnp.square(found - (after - before) / (r - t)[:, None]))

    def step(k, carry):
        state, losses = carry
        numbers = jnp.arange(batch, dtype=jnp.uint32)
        begin, end = _pieces(random_bits(key, done + k, numbers), n_steps, intervals, whole)
        rows = random_bits(related(key, _CELLS), done + k, numbers)[0] % np.uint32(pool.states.shape[1])
        loss, gradients = jax.value_and_grad(loss_of)(state.params, rows.astype(jnp.int32), begin, end)
        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        params = jax.tree.map(lambda p, u: p - rates[k] * u, state.params, updates)
        return TrainState(params, params, moments), losses.at[k].set(loss)

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(len(rates), jnp.float32)))
