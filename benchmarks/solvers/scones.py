"""SCONES (Daniels, Maunu and Hand 2021): samples of the entropic plan by Langevin dynamics from a learned score of the target.

``log pi(y | x) = log q(y) + v(y) - |x - y|^2 / (2 e) + const``, with cost ``|x - y|^2 / 2`` and epsilon ``e``. Two parts of its gradient are known
here, and not learned by a network as in the paper: ``v`` is the soft c-transform of our Sinkhorn solution, whose gradient is ``(y - T(y)) / e`` with T
the entropic map from target to source, so that they add up to ``(x - T(y)) / e``. What is learned is the score of q under noise, by denoising; Langevin
dynamics are annealed along these noises.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.solvers._base import Units, apply, by_rows, checked, descend, draws, network
from scgenot.coupling import CouplingConfig, solve_coupling


@dataclasses.dataclass(frozen=True)
class Langevin:
    """How the dynamics are annealed.

    Attributes
    ----------
    noises
        From the largest to the smallest, in units of the cells' standard deviation, geometric.
    steps
        At each noise.
    rate
        Length of a step, as a share of the smaller one of the noise's variance and what the plan allows.
    """

    noises: tuple[float, ...] = tuple(np.geomspace(3.0, 0.05, 15))
    steps: int = 40
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Scones:
    """The score and the potential of the plan."""

    score: Any
    source: jax.Array
    log_weights: jax.Array
    e: float
    langevin: Langevin
    units: Units
    stochastic: ClassVar[bool] = True
    density: ClassVar[bool] = False

    def sample(self, key: jax.Array, x: np.ndarray, n: int) -> np.ndarray:
        """Run one chain a sample."""
        u, number = np.repeat(self.units.to(x), n, axis=0), iter(range(len(x) * n))
        noises = np.asarray(self.langevin.noises, np.float32)
        run = lambda block: _chains(
            self.langevin.steps,
            self.score,
            (self.source, self.log_weights, np.float32(self.e), np.float32(self.langevin.rate)),
            noises,
            jax.random.fold_in(key, next(number)),
            block,
        )
        return self.units.back(by_rows(run, u)).reshape(len(x), n, -1)

    def mean(self, x: np.ndarray, n: int = 32) -> np.ndarray:
        """Return the mean of n samples."""
        return self.sample(jax.random.key(0), x, n).mean(axis=1)


def fit(
    key: jax.Array,
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    epsilon_b: float,
    steps: int = 5000,
    batch_size: int = 512,
    width: int = 256,
    learning_rate: float = 1e-3,
    langevin: Langevin = Langevin(),
) -> Scones:
    """Solve for the potential, and learn the score of the target."""
    x, y, a, b = checked(x, y, a, b)
    units = Units.of(x, y, a, b)
    x, y = units.to(x), units.to(y)
    e = epsilon_b / units.unit**2
    config = CouplingConfig(epsilon=2.0 * e, scale_cost=1.0)
    weights = {"source_weights": a.astype(np.float32), "target_weights": b.astype(np.float32)}
    coupling = solve_coupling(key, x, y, config=config, **weights)
    with np.errstate(divide="ignore"):
        log_weights = np.asarray(coupling.potentials.u) + np.log(a).astype(np.float32)
    return Scones(
        _learn_score(key, y, b, langevin.noises, steps, batch_size, width, learning_rate),
        jax.device_put(x),
        jax.device_put(log_weights.astype(np.float32)),
        e,
        langevin,
        units,
    )


def _learn_score(key, y, b, noises, steps: int, batch_size: int, width: int, learning_rate: float):
    d = y.shape[1]
    params = network(jax.random.fold_in(key, 1), (d + 1, width, width, width, d), last=0.1)
    rows = draws(jax.random.fold_in(key, 2), b, (steps, batch_size))
    cells, keys = jax.device_put(y), jax.random.split(jax.random.fold_in(key, 3), steps)
    low, high = np.log(min(noises)), np.log(max(noises))

    def loss(params, i, key):
        first, second = jax.random.split(key)
        sigma = jnp.exp(jax.random.uniform(first, (batch_size, 1), minval=low, maxval=high))
        noise = jax.random.normal(second, (batch_size, d))
        # What the score times sigma should be: minus the noise.
        return jnp.square(_scaled_score(params, cells[i] + sigma * noise, sigma) + noise).sum(1).mean()

    return descend(loss, params, (rows, keys), steps, learning_rate)[0]


def _scaled_score(params, y, sigma):
    """Return sigma times the score. At unit variance and large noise it is ``-sigma y / (1 + sigma^2)``: the rest is learned."""
    known = -sigma * y / (1.0 + jnp.square(sigma))
    inputs = jnp.concatenate([y / jnp.sqrt(1.0 + jnp.square(sigma)), jnp.log(sigma)], axis=1)
    return known + apply(params, inputs)


def _pull(plan, y):
    """Return T(y), the mean of the plan's column: where source cells that go to y come from."""
    source, log_weights, e, _ = plan
    logits = log_weights[None] + (y @ source.T - 0.5 * jnp.square(source).sum(1)[None]) / e
    return jax.nn.softmax(logits, axis=1) @ source


@partial(jax.jit, static_argnums=0)
def _chains(steps: int, score, plan, noises, key, x):
    e, rate = plan[2], plan[3]

    def level(y, now):
        sigma, key = now
        # T changes by its rows' variance over e for each unit of y, of the order of e itself: a longer step than e oscillates.
        length = rate * jnp.minimum(jnp.square(sigma), e)

        def move(number, y):
            column = jnp.full((len(y), 1), sigma)
            slope = _scaled_score(score, y, column) / sigma + (x - _pull(plan, y)) / e
            noise = jax.random.normal(jax.random.fold_in(key, number), y.shape)
            return y + length * slope + jnp.sqrt(2.0 * length) * noise

        return jax.lax.fori_loop(0, steps, move, y), None

    start, chain = jax.random.split(key)
    y = noises[0] * jax.random.normal(start, x.shape)
    y = jax.lax.scan(level, y, (noises, jax.random.split(chain, len(noises))))[0]
    # The last step takes off the noise that is left (Tweedie).
    return y + noises[-1] * _scaled_score(score, y, jnp.full((len(y), 1), noises[-1]))
