"""LightSB: entropic transport whose potential is a mixture of Gaussians, so that laws, draws and densities have closed forms."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt
from scipy.cluster.vq import kmeans2
from tqdm.auto import tqdm

from scgenot._blocks import matmul
from scgenot._devices import Devices  # noqa: F401 (annotations of the base class name it)
from scgenot._messages import check_count, check_positive
from scgenot._random import normal, random_bits, related, uniform
from scgenot._rng import RNG, as_key
from scgenot._sampling import cumulative_table, host_rng, independent
from scgenot._sizes import pad_edge, pad_with, padded_cells
from scgenot.costs import ScaleCost, check_scale_cost, cost_scale, resolve_cost
from scgenot.coupling import MarginalKind  # noqa: F401 (annotations of the base class name it)
from scgenot.flow._conditions import ConditionLayout  # noqa: F401 (annotations of the base class name it)
from scgenot.flow._config import DivergenceConfig, ODEConfig, TrainConfig
from scgenot.flow._result import Stopped, TrainResult
from scgenot.flow._trainer import learning_rates
from scgenot.methods._method import Abilities, FitData, Method

_ROWS = 2048
_CLUSTERED = 20_000


@dataclasses.dataclass(frozen=True)
class LightSBConfig:
    """The problem and the mixture.

    Attributes
    ----------
    epsilon
        Factor of the entropy, in units of the scaled cost ``|x - y|^2``, as of couplings.
    n_components
        Gaussians of the potential. The smaller epsilon is, the more it takes.
    scale_cost
        Costs are divided by their ``"mean"``, their ``"max"``, or by a number.
    marginals
        ``"prior"``: between the two samples, with their weights. ``"coupling"``: between the marginals of an unbalanced coupling, whose
        plan is the balanced one between these.
    """

    epsilon: float = 0.05
    n_components: int = 50
    scale_cost: ScaleCost = "mean"
    marginals: Literal["prior", "coupling"] = "prior"

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        check_positive("epsilon", self.epsilon)
        check_count("n_components", self.n_components)
        check_scale_cost(self.scale_cost)


@dataclasses.dataclass(frozen=True)
class LightSBSolver(Method):
    r"""The plan ``pi(y | x)`` in proportion to ``exp(x.y / e) v(y)``, with ``v = sum_k alpha_k N(r_k, e S_k)`` (Korotin et al. 2024).

    `e` is half of epsilon times the scale of the cost. Then ``pi(y | x) = sum_k w_k(x) N(r_k + S_k x, e S_k)`` with diagonal S. The
    loss is ``E log c(x) - E log v(y)``, c being the normalisation, over the two samples: no pairs are needed.
    """

    name: ClassVar[str] = "lightsb"
    needs: ClassVar[Literal["samples", "pairs", "potentials"]] = "samples"
    can: ClassVar[Abilities] = Abilities(stochastic=True, density=True)
    config_type: ClassVar[type] = LightSBConfig

    def __post_init__(self) -> None:
        """Ask for a coupling where its marginals are wanted."""
        if self.config.marginals == "coupling":
            object.__setattr__(self, "needs", "pairs")

    def learn(
        self, key: jax.Array, data: FitData, train_config: TrainConfig, *, progress_bar: bool = True
    ) -> tuple[LightSBSolver, TrainResult]:
        """Fit the mixture to two samples; those of an unbalanced coupling are drawn from its marginals."""
        x, y = self.cells(data.source), self.cells(data.target, "target")
        a, b = data.source_weights, data.target_weights
        kinds = ("kept", "kept")
        if self.config.marginals == "coupling":
            if data.coupling is None:
                raise ValueError(
                    "`data.coupling` is None, and `marginals`='coupling' needs one. Solve for a coupling first."
                )
            a, b = data.coupling.source_marginal, data.coupling.target_marginal
            # It learns no growth.
            kinds = tuple("kept" if kind == "kept" else "unknown" for kind in data.coupling.marginal_kinds)
        a, b = (np.ones(len(side)) if w is None else np.asarray(w, np.float64) for side, w in ((x, a), (y, b)))
        a, b = a / a.sum(), b / b.sum()
        centre = 0.5 * (a @ x + b @ y)
        # One number for all features: another one each would change the cost.
        unit = float(np.sqrt(0.5 * (a @ np.square(x - centre) + b @ np.square(y - centre)).mean())) or 1.0
        scale = cost_scale(resolve_cost("sqeuclidean"), jax.device_put(x), jax.device_put(y), self.config.scale_cost)
        e = 0.5 * self.config.epsilon * scale / unit**2
        x, y = (((side - centre) / unit).astype(np.float32) for side in (x, y))
        rng = host_rng(key)
        start = _start(rng, y, b, e, self.config.n_components)
        held = _held_out(data, centre, unit)
        params, result = _train(rng, start, np.float32(e), (x, a), (y, b), held, train_config, progress_bar)
        fixed = {"centre": centre, "unit": [unit], "e": [e]}
        weights = params | {name: jax.device_put(np.asarray(one, np.float32)) for name, one in fixed.items()}
        told = {"marginal_kinds": kinds, "training_cells": (len(x), len(y))}
        return dataclasses.replace(self, weights=weights, **told), result

    def sample_blocks(
        self,
        rng: RNG,
        x: Float[Array | np.ndarray, "n dx"],
        n_samples: int = 30,
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
        ode: ODEConfig | None = None,
        cell_ids: Int[np.ndarray, " n"] | None = None,
        rows: int | None = None,
    ) -> Iterator[tuple[slice, Float[np.ndarray, "k s dy"]]]:
        """Yield what :meth:`sample` returns, a run of consecutive cells at a time, to summarise without keeping it."""
        weights, x, key = self.trained(), self.cells(x), as_key(rng)
        check_count("n_samples", n_samples)
        self.condition_rows(condition, len(x))
        ids = np.arange(len(x)) if cell_ids is None else np.asarray(cell_ids)
        rows = rows or _ROWS
        cells = max(1, rows // n_samples)
        for start in range(0, len(x), cells):
            place = slice(start, min(start + cells, len(x)))
            own = np.repeat(ids[place], n_samples).astype(np.uint32)
            number = np.tile(np.arange(n_samples, dtype=np.uint32), place.stop - place.start)
            repeated, parts = np.repeat(x[place], n_samples, axis=0), []
            for first in range(0, len(own), rows):
                some = slice(first, first + rows)
                block = (pad_edge(one[some], rows) for one in (repeated, own, number))
                parts.append(np.asarray(_draw(weights, key, *block))[: len(own[some])])
            yield place, np.concatenate(parts).reshape(place.stop - place.start, n_samples, -1)

    def log_prob(
        self,
        y: Float[Array | np.ndarray, "m dy"],
        x: Float[Array | np.ndarray, "n dx"],
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
        pairs: tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]] | None = None,
        ode: ODEConfig | None = None,
        divergence: DivergenceConfig | None = None,
        rng: RNG = 0,
        rows: int | None = None,
    ) -> Float[np.ndarray, " p"]:
        """Return log pi(y | x) of pairs of rows, in closed form; see :meth:`Method.log_prob`."""
        weights, y, x = self.trained(), self.cells(y, "target"), self.cells(x)
        self.condition_rows(condition, len(x))
        i, j = self.pair_rows(y, x, pairs)
        found = np.empty(len(i), np.float32)
        rows = rows or _ROWS
        for start in range(0, len(i), rows):
            some = slice(start, start + rows)
            block = pad_edge(y[i[some]], rows), pad_edge(x[j[some]], rows)
            found[some] = np.asarray(_log_law(weights, *block))[: len(i[some])]
        return found

    def weights_template(self) -> dict[str, Any]:
        """Return the shapes of the weights, to read saved ones into."""
        k, d = self.config.n_components, self.source_dim
        shapes = {"log_w": (k,), "r": (k, d), "log_s": (k, d), "centre": (d,), "unit": (1,), "e": (1,)}
        return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}


def _start(rng: np.random.Generator, y, b, e: float, k: int) -> dict[str, Array]:
    """Return a potential of equal weights around k-means centres of the target cells."""
    drawn = y[independent(rng, cumulative_table(b), (min(max(len(y), 4 * k), _CLUSTERED),))]
    with warnings.catch_warnings():
        # Clusters that end empty keep the cell that they started from.
        warnings.simplefilter("ignore")
        centres = kmeans2(drawn.astype(np.float64), k, minit="++", seed=rng)[0]
    centres = np.where(np.isfinite(centres), centres, drawn[:k])
    # N(mu, c) times exp(-|y|^2 / 2e) is the component with S = c / (e + c) and r = (1 - S) mu. S = .1 is the paper's.
    s = 0.1
    r = (1.0 - s) * centres
    log_w = -s / (1.0 - s) * np.square(r).sum(1) / 2.0
    params = {"log_w": log_w, "r": r, "log_s": np.full(r.shape, np.log(s))}
    return {name: jax.device_put(np.asarray(one, np.float32)) for name, one in params.items()}


def _log_alpha(params, e) -> Float[Array, " k"]:
    # Relative to exp(-|r|^2 / 2e), and in units of 1 / e, as the terms of a cell are: components far from the centre are in reach.
    return (params["log_w"] - 0.5 * jnp.square(params["r"]).sum(1)) / e


def _log_c_terms(params, e, x) -> Float[Array, "rows k"]:
    squares = matmul(jnp.square(x), jnp.exp(params["log_s"]).T)
    return _log_alpha(params, e) + (squares + 2.0 * matmul(x, params["r"].T)) / (2.0 * e)


def _log_v(params, e, y) -> Float[Array, " rows"]:
    variances = e * jnp.exp(params["log_s"])
    inverse = 1.0 / variances
    far = matmul(jnp.square(y), inverse.T) - 2.0 * matmul(y, (params["r"] * inverse).T)
    far = far + (jnp.square(params["r"]) * inverse).sum(1)
    return jax.nn.logsumexp(_log_alpha(params, e) - 0.5 * (far + jnp.log(2.0 * jnp.pi * variances).sum(1)), axis=1)


def _loss(params, e, x, y) -> Float[Array, ""]:
    return jax.nn.logsumexp(_log_c_terms(params, e, x), axis=1).mean() - _log_v(params, e, y).mean()


_validation = jax.jit(_loss)


def _optimizer(max_grad_norm: float) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam())


@partial(jax.jit, static_argnames="max_grad_norm")
def _steps(max_grad_norm: float, params, state, e, cells, rows, rates):
    optimizer = _optimizer(max_grad_norm)

    def step(carry, now):
        params, state = carry
        i, j, rate = now
        loss, gradients = jax.value_and_grad(_loss)(params, e, cells[0][i], cells[1][j])
        updates, state = optimizer.update(gradients, state, params)
        return (jax.tree.map(lambda p, u: p - rate * u, params, updates), state), loss

    return jax.lax.scan(step, (params, state), (*rows, rates))


def _held_out(data: FitData, centre, unit: float):
    held = data.held_out
    if held is None or not len(held.source) or not len(held.target):
        return None
    return tuple(((np.asarray(side) - centre) / unit).astype(np.float32) for side in (held.source, held.target))


def _train(rng, params, e, source, target, held, config: TrainConfig, progress_bar: bool):
    """Minimise the loss over draws from both samples; return the parameters and what happened."""
    state = _optimizer(config.max_grad_norm).init(params)
    cells = tuple(jax.device_put(pad_with(side, padded_cells(len(side)), 0.0)) for side, _ in (source, target))
    tables = [cumulative_table(mass) for _, mass in (source, target)]
    rates, history, done, stopped = learning_rates(config), {}, 0, Stopped.MAX_STEPS
    best, since = (np.inf, params, 0), 0
    with tqdm(total=config.max_steps, disable=not progress_bar, desc="Training", unit="step") as bar:
        try:
            while done < config.max_steps:
                count = min(config.check_every, config.max_steps - done)
                # Steps behind the last one have rate 0, so that one number of steps is compiled.
                rate = pad_with(rates[done : done + count], config.check_every, 0.0)
                rows = tuple(independent(rng, table, (config.check_every, config.batch_size)) for table in tables)
                (after, state), losses = _steps(config.max_grad_norm, params, state, e, cells, rows, rate)
                values = {"train_loss": float(np.mean(np.asarray(losses)[:count]))}
                if not np.isfinite(values["train_loss"]):
                    stopped = Stopped.DIVERGED
                    break
                params, done = after, done + count
                if held is not None:
                    values["validation_loss"] = float(_validation(params, e, *held))
                    better = values["validation_loss"] < best[0]
                    best, since = ((values["validation_loss"], params, done), 0) if better else (best, since + 1)
                for name, value in values.items():
                    steps, recorded = history.setdefault(name, ([], []))
                    steps.append(done)
                    recorded.append(value)
                bar.update(count)
                if config.early_stopping and since >= config.patience:
                    stopped = Stopped.EARLY_STOPPING
                    break
        except KeyboardInterrupt:
            stopped = Stopped.INTERRUPTED
    if stopped in (Stopped.DIVERGED, Stopped.INTERRUPTED):
        warnings.warn(stopped.told(done), RuntimeWarning, stacklevel=3)
    if (config.restore_best or config.early_stopping) and np.isfinite(best[0]):
        params = best[1]
    return params, TrainResult(None, history, done, stopped)


@jax.jit
def _draw(weights, key: jax.Array, x, ids: UInt[Array | np.ndarray, " rows"], numbers) -> Float[Array, "rows d"]:
    e, d = weights["e"][0], x.shape[1]
    x = (x - weights["centre"]) / weights["unit"][0]
    shares = jnp.cumsum(jax.nn.softmax(_log_c_terms(weights, e, x), axis=1), axis=1)
    chance = uniform(random_bits(related(key, 1), ids, numbers)[0])
    k = (shares <= chance[:, None] * shares[:, -1:]).sum(1)
    s = jnp.exp(weights["log_s"])[k]
    pairs = -(-d // 2)
    counts = numbers[:, None] * np.uint32(pairs) + jnp.arange(pairs, dtype=jnp.uint32)[None]
    noise = normal(jnp.concatenate(random_bits(key, ids[:, None], counts), axis=1)[:, :d])
    found = weights["r"][k] + s * x + jnp.sqrt(e * s) * noise
    return found * weights["unit"][0] + weights["centre"]


@jax.jit
def _log_law(weights, y, x) -> Float[Array, " rows"]:
    e, unit = weights["e"][0], weights["unit"][0]
    y, x = ((side - weights["centre"]) / unit for side in (y, x))
    # exp(x.y / e) v(y) / c(x), in the user's units.
    law = (x * y).sum(1) / e + _log_v(weights, e, y) - jax.nn.logsumexp(_log_c_terms(weights, e, x), axis=1)
    return law - x.shape[1] * jnp.log(unit)
