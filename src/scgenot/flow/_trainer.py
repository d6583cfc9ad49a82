"""Training: many steps in one compiled call, validation between calls, and an end that always leaves a model."""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from tqdm.auto import tqdm

from scgenot._devices import Devices, brought_home, gathered, over_devices, put_whole
from scgenot._random import random_bits
from scgenot._rng import keys
from scgenot._sizes import pad_edge, pad_with, padded_cells
from scgenot.coupling import Coupling, PairScores
from scgenot.flow._candidates import Candidates
from scgenot.flow._config import TrainConfig
from scgenot.flow._path import NoiseToTarget, Pairs, Path, noise_and_time
from scgenot.flow._result import Params, Stopped, TrainResult

_VALIDATION_PAIRS = 4096
_EXPLODED = 10.0
_FEWEST_CONDITIONS = 8
# Steps whose median loss is judged. A batch whose loss is ten times the first one's, for an outlier's sake, is at most one in
# ten (outliers are part of the variance that cells are scaled by): 10 of 20 are such with a probability below 1e-5. A
# diverging run goes on for at most so many steps.
_JUDGED = 20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Weights, their moving average, and the optimiser's state."""

    params: Params
    average: Params
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class ValidationSet:
    """Held-out pairs in standardised units, with noise and times fixed so that checks compare.

    `c` are the conditions of the rows, of no columns where there are none.
    """

    x: Float[Array | np.ndarray, "rows dx"]
    y: Float[Array | np.ndarray, "rows dy"]
    z: Float[Array, "rows dy"]
    t: Float[Array, " rows"]
    c: Float[Array | np.ndarray, "rows dc"] | None = None

    @classmethod
    def draw(
        cls,
        key: jax.Array,
        coupling: Coupling,
        source: Float[Array | np.ndarray, "n dx"],
        target: Float[Array | np.ndarray, "m dy"],
        conditions: Float[np.ndarray, "blocks dc"] | None = None,
    ) -> ValidationSet:
        """Draw pairs of held-out cells from the coupling between them."""
        pair_key, noise_key = keys(key, 2)
        i, j, *block = next(coupling.pairs(pair_key, batch_size=_VALIDATION_PAIRS, steps=1))
        noise, times = noise_and_time(noise_key, _VALIDATION_PAIRS, target.shape[1])
        rows = np.zeros((_VALIDATION_PAIRS, 0), np.float32)
        if conditions is not None:
            rows = np.asarray(conditions, np.float32)[np.asarray(block[0][0])]
        return cls(np.asarray(source)[np.asarray(i[0])], np.asarray(target)[np.asarray(j[0])], noise, times, rows)


def training_pairs(key: jax.Array, coupling: Coupling, config: TrainConfig) -> Pairs:
    """Return the pairs that `train_velocity` learns from with this key, for those who look at the first ones before."""
    return coupling.pairs(keys(key, 2)[0], batch_size=config.batch_size, steps=config.check_every)


def train_velocity(
    key: jax.Array,
    graphdef: nnx.GraphDef,
    params: Params,
    coupling: Coupling,
    source: Float[Array | np.ndarray, "n dx"],
    target: Float[Array | np.ndarray, "m dy"],
    config: TrainConfig,
    *,
    path: Path | None = None,
    pairs: Pairs | None = None,
    scores: PairScores | None = None,
    conditions: Float[Array | np.ndarray, "blocks dc"] | None = None,
    n_models: int = 1,
    validation: ValidationSet | None = None,
    extra_metrics: Callable[[Params], dict[str, float]] | None = None,
    progress_bar: bool = True,
    devices: Devices | None = None,
) -> TrainResult:
    """Fit the velocity field to pairs from a coupling.

    Parameters
    ----------
    key
        JAX key; the result is a function of it and of the data.
    graphdef, params
        The velocity field and its initial weights.
    coupling
        Where pairs come from.
    source, target
        The coupled cells, in standardised units.
    config
        Steps, batch size, schedule.
    path
        Where the flow starts and what is regressed on the way; GENOT's by default.
    pairs
        What :func:`training_pairs` returned for this key; by default it is called here.
    scores
        How likely pairs are, to regress on the mean over a batch's targets; ``None``: on each row's own.
    conditions
        What the velocity sees of each block of a coupling that has blocks, in standardised units.
    n_models
        Members of the ensemble; above 1, `params` and the weights have them as their first axis. Losses are means over them.
    validation
        Held-out pairs.
    extra_metrics
        Called with the weights at each check; what it returns goes into the history.
    progress_bar
        Whether to show one.
    devices
        Devices that share the rows of each batch, and hold the weights and all cells each; ``None``: one.

    Returns
    -------
    The weights and the history. An interrupted or diverging training returns the last good weights and says so.
    """
    path = path or NoiseToTarget()
    state = initial_state(config.max_grad_norm, n_models, params)
    if devices is not None:
        state = put_whole(devices, state)
    step_key = keys(key, 2)[1]
    batches = training_pairs(key, coupling, config) if pairs is None else pairs
    rates = learning_rates(config)
    recorder = _Recorder(config, validation, (graphdef, path, n_models, devices), extra_metrics)
    # Padded on the host, so that the compiled steps know a few numbers of cells only.
    cells = tuple(
        put_whole(devices, pad_with(np.asarray(side, np.float32), padded_cells(len(side)), 0.0))
        for side in (source, target)
    )
    table, scores = _conditions(conditions), None if scores is None else scores.on(devices)
    run = partial(_run_steps, graphdef, path, n_models, config.max_grad_norm, config.ema_decay, devices)
    good, done, stopped = params, 0, Stopped.MAX_STEPS
    watch = _Divergence(params)
    with tqdm(total=config.max_steps, disable=not progress_bar, desc="Training", unit="step") as bar:
        try:
            while done < config.max_steps:
                count = min(config.check_every, config.max_steps - done)
                rate = np.zeros(config.check_every, np.float32)
                rate[:count] = rates[done : done + count]
                i, j, *block = next(batches)
                block = block[0] if block and conditions is not None else np.zeros(i.shape, np.int32)
                before = _kept(state, config)
                state, losses = run(state, cells, scores, table, (i, j, block), rate, step_key, done, count)
                losses = np.asarray(losses)[:count]
                if watch.seen(losses, before, done, ends=done + count == config.max_steps):
                    stopped, good, done = Stopped.DIVERGED, watch.good, watch.good_steps
                    break
                loss = float(losses.mean())
                done += count
                good = _kept(state, config)
                shown = recorder.check(done, loss, good)
                bar.update(count)
                bar.set_postfix(shown, refresh=False)
                if recorder.should_stop:
                    stopped = Stopped.EARLY_STOPPING
                    break
        except KeyboardInterrupt:
            stopped = Stopped.INTERRUPTED
    if stopped in (Stopped.DIVERGED, Stopped.INTERRUPTED):
        warnings.warn(stopped.told(done), RuntimeWarning, stacklevel=2)
    return TrainResult(brought_home(devices, recorder.best(good)), recorder.history, done, stopped)


def learning_rates(config: TrainConfig) -> Float[np.ndarray, " steps"]:
    """Return the learning rate of each step."""
    steps = np.arange(config.max_steps)
    warmup = min(config.warmup_steps, config.max_steps // 10)
    rise = np.minimum(1.0, (steps + 1) / max(warmup, 1))
    decay = 1.0
    if config.schedule == "cosine":
        decay = 0.5 * (1.0 + np.cos(np.pi * np.clip((steps - warmup) / max(config.max_steps - warmup, 1), 0.0, 1.0)))
    return (config.learning_rate * rise * decay).astype(np.float32)


def adam(max_grad_norm: float) -> optax.GradientTransformation:
    """Return Adam's direction only: the learning rate is applied in the step, so that no schedule is compiled in."""
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam())


@partial(jax.jit, static_argnames=("max_grad_norm", "n_models"))
def initial_state(max_grad_norm: float, n_models: int, params: Params) -> TrainState:
    """Return the state before the first step."""
    init = adam(max_grad_norm).init
    return TrainState(params, params, init(params) if n_models == 1 else jax.vmap(init)(params))


def _conditions(conditions: Any) -> Float[np.ndarray, "blocks dc"]:
    """Return the table of conditions, its last row repeated up to a power of two: few numbers of conditions are compiled.

    Without any, it has one row of no columns, which all pairs look up.
    """
    if conditions is None:
        return np.zeros((1, 0), np.float32)
    rows = np.asarray(conditions, np.float32)
    return pad_edge(rows, max(_FEWEST_CONDITIONS, 1 << (len(rows) - 1).bit_length()))


@partial(jax.jit, static_argnames=("graphdef", "n_models", "max_grad_norm", "ema_decay", "devices"))
def _run_steps(
    graphdef: nnx.GraphDef,
    path: Path,
    n_models: int,
    max_grad_norm: float,
    ema_decay: float | None,
    devices: Devices | None,
    state: TrainState,
    cells: tuple[Float[Array, "n dx"], Float[Array, "m dy"]],
    scores: PairScores | None,
    conditions: Float[Array, "blocks dc"],
    pairs: tuple[Int[Array, "steps batch"], Int[Array, "steps batch"], Int[Array, "steps batch"]],
    rates: Float[Array, " steps"],
    key: jax.Array,
    done: int | Int[Array, ""],
    count: int | Int[Array, ""],
) -> tuple[TrainState, Float[Array, " steps"]]:
    """Run `count` optimisation steps without leaving the devices; return the state and the losses."""
    optimizer = adam(max_grad_norm)
    i, j, block = pairs

    def loss_of(params, x, y, z, t, rows, candidates):
        field = nnx.merge(graphdef, params)
        # Each condition is encoded once, unless there are more of them than rows in the batch.
        few = len(conditions) <= len(rows)
        c = field.encode(conditions)[rows] if few else field.encode(conditions[rows])
        return path.regress(partial(field, c=c), x, y, z, t, candidates)

    def step(k, carry):
        states, losses = carry
        left, right, rows = over_devices(devices, (i[k], j[k], block[k]))
        x, y = cells[0][left], cells[1][right]
        candidates = None if scores is None else Candidates.among(scores, left, j[k], cells[1])

        def one(state, member):
            z, t = over_devices(devices, noise_and_time(random_bits(key, done + k, member), *y.shape))
            of_loss = jax.value_and_grad(loss_of, has_aux=True)
            # What is reported is the loss of pairs, as in validation.
            (_, loss), gradients = of_loss(state.params, x, y, z, t, rows, candidates)
            # Sums over all devices; each then updates the weights that it holds.
            loss, gradients = gathered(devices, (loss, gradients))
            updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
            params = jax.tree.map(lambda p, u: p - rates[k] * u, state.params, updates)
            average = state.average
            if ema_decay is not None:
                average = optax.incremental_update(params, average, 1.0 - ema_decay)
            return TrainState(params, average, optimizer_state), loss

        if n_models == 1:
            states, loss = one(states, 0)
        else:
            states, loss = jax.vmap(one)(states, jnp.arange(n_models))
        return states, losses.at[k].set(loss.mean())

    # The bound is an argument, so that a last, shorter call runs the same compiled loop.
    return gathered(devices, jax.lax.fori_loop(0, count, step, (state, jnp.zeros(i.shape[0], jnp.float32))))


@partial(jax.jit, static_argnames=("graphdef", "n_models", "devices"))
def _validation_loss(
    graphdef: nnx.GraphDef, path: Path, n_models: int, devices: Devices | None, params: Params, x, y, z, t, c
) -> Float[Array, ""]:
    x, y, z, t, c = over_devices(devices, (x, y, z, t, c))

    def one(params):
        field = nnx.merge(graphdef, params)
        return path.loss(partial(field, c=field.encode(c)), x, y, z, t)

    # One after another: 4096 pairs at once for each would be a peak of memory that training does not have.
    return gathered(devices, one(params) if n_models == 1 else jnp.mean(jax.lax.map(one, params)))


def _kept(state: TrainState, config: TrainConfig) -> Params:
    return state.params if config.ema_decay is None else state.average


class _Divergence:
    """Tells when training diverges, and which weights were good last.

    Diverged is a loss that is not finite, or a median over the last steps above ten times the first step's loss: the
    initial velocity is zero, so this is ten times worse than knowing nothing. Single losses tell nothing: a batch with an
    outlier among its targets has a large one. Weights are good once a loss was computed with them: those after a call's
    last step have not been tried yet.
    """

    def __init__(self, params: Params) -> None:
        self.good, self.good_steps = params, 0
        self._limit = np.inf
        self._last: collections.deque[float] = collections.deque(maxlen=_JUDGED)

    def seen(self, losses: Float[np.ndarray, " steps"], before: Params, steps_before: int, *, ends: bool) -> bool:
        """Take in the losses of a call that started from `before`; return whether training has diverged.

        Judged are full windows, and what there is when training ends.
        """
        if steps_before == 0:
            self._limit = _EXPLODED * losses[0]
        if losses[0] <= self._limit:
            self.good, self.good_steps = before, steps_before
        self._last.extend(losses)
        enough = ends or len(self._last) == _JUDGED
        return not np.isfinite(losses).all() or bool(enough and np.median(self._last) > self._limit)


class _Recorder:
    """History, best weights and early stopping."""

    def __init__(self, config, validation, static, extra_metrics) -> None:
        self.history: dict[str, tuple[list[int], list[float]]] = {}
        self.should_stop = False
        self._config, self._validation, self._extra = config, validation, extra_metrics
        self._static = static
        self._best: tuple[float, Params] | None = None
        self._since_best = 0

    def check(self, step: int, loss: float, params: Params) -> dict[str, str]:
        """Record one check; return what the progress bar shows."""
        values = {"train_loss": loss}
        if self._validation is not None:
            held_out = self._validation
            c = np.zeros((len(held_out.x), 0), np.float32) if held_out.c is None else held_out.c
            arrays = (held_out.x, held_out.y, held_out.z, held_out.t, c)
            values["validation_loss"] = float(_validation_loss(*self._static, params, *arrays))
            self._compare(values["validation_loss"], params)
        if self._extra is not None:
            values |= self._extra(params)
        for name, value in values.items():
            steps, recorded = self.history.setdefault(name, ([], []))
            steps.append(step)
            recorded.append(value)
        return {name: f"{value:.4g}" for name, value in values.items()}

    def best(self, last: Params) -> Params:
        """Return the weights to keep."""
        keep_best = self._config.restore_best or self._config.early_stopping
        return self._best[1] if keep_best and self._best is not None else last

    def _compare(self, loss: float, params: Params) -> None:
        if np.isfinite(loss) and (self._best is None or loss < self._best[0]):
            self._best, self._since_best = (loss, params), 0
            return
        self._since_best += 1
        self.should_stop = self._config.early_stopping and self._since_best >= self._config.patience
