"""SF-EUOT (simulation-free entropic unbalanced transport; Choi et al. 2025): a generator and a value function, one call a sample.

The source is kept, the target relaxed: ``min E |x - y|^2 / 2 - e H(P) + alpha KL(P' 1 | q)``, whose dynamics are ``dX = -grad V(t, X) dt + sqrt(e) dW`` with

    V_t + e / 2 Lap V - |grad V|^2 / 2 = 0,    maximise  E V(0, x) - alpha E_q [exp(V(1, y) / alpha) - 1].

**The losses are our own derivation**: the paper's body and code were not at hand. A plan's bridges ``X_t = (1 - t) x + t Y + sqrt(e t (1 - t)) z`` have the
drift ``b = (Y - X_t) / (1 - t)``; by Ito along them ``E V(0, x) = E V(s, X_s) - E int_0^s [|grad V|^2 / 2 + b.grad V + R] dt`` with R the residual of the
equation and s < 1, since b is all noise at the end. So

    J = E V(s, X_s) - E int_0^s [|grad V|^2 / 2 + b.grad V] dt - alpha E_q [exp(V(1, y) / alpha) - 1],

V ascends ``J - kappa E |R|^2``, R at times up to 1, and the generator ``Y = T(x, z)`` descends J. With V(1, Y) in place of V(s, X_s) the spread of the ends
collapses, to a tenth after 5000 steps. It is a saddle, flat in T once R is 0: means settle, spreads waver (by -33 to +8 % in one feature, one seed, 4000
and 1500 steps). The semi-relaxed LightSB of `relaxed_lightsb` solves the same problem without one.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.solvers._base import Units, apply, by_rows, checked, draws, network

# Later, the drift of a bridge is all noise.
_LAST = 0.95


@dataclasses.dataclass(frozen=True)
class Generator:
    """The fitted generator and value."""

    params: Any
    value: Any
    e: float
    alpha: float
    units: Units
    stochastic: ClassVar[bool] = True
    density: ClassVar[bool] = False

    def sample(self, key: jax.Array, x: np.ndarray, n: int) -> np.ndarray:
        """Draw n targets for each cell."""
        u, number = np.repeat(self.units.to(x), n, axis=0), iter(range(len(x) * n))
        draw = lambda block: _generate(self.params, self.e, jax.random.fold_in(key, next(number)), block)
        return self.units.back(by_rows(draw, u)).reshape(len(x), n, -1)

    def mean(self, x: np.ndarray, n: int = 64) -> np.ndarray:
        """Return the mean of n samples."""
        return self.sample(jax.random.key(0), x, n).mean(axis=1)

    def xi(self, y: np.ndarray) -> np.ndarray:
        """Return how much mass target cells get per unit of theirs: ``exp(V(1, y) / alpha)``."""
        value = lambda block: _value(self.value, jnp.ones((len(block), 1)), block)
        return np.exp(by_rows(value, self.units.to(y)) / self.alpha)


def fit(
    key: jax.Array,
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    epsilon_b: float,
    alpha: float = 1.0,
    kappa: float = 1.0,
    steps: int = 10_000,
    batch_size: int = 256,
    width: int = 128,
    learning_rate: float = 1e-3,
) -> Generator:
    """Fit generator and value by turns.

    Parameters
    ----------
    epsilon_b, alpha
        Of the problem above, in squared units of the cells.
    kappa
        Weight of the squared residual.
    steps
        Of each of the two, by turns.
    batch_size, width, learning_rate
        Of both networks; the generator learns at half the rate.
    """
    x, y, a, b = checked(x, y, a, b)
    units = Units.of(x, y, a, b)
    x, y = units.to(x), units.to(y)
    e, alpha, d = epsilon_b / units.unit**2, alpha / units.unit**2, x.shape[1]
    generator = network(jax.random.fold_in(key, 1), (2 * d, width, width, width, d), last=0.1)
    value = network(jax.random.fold_in(key, 2), (d + 1, width, width, width, 1), last=0.1)
    rows = [draws(jax.random.fold_in(key, 3 + side), w, (steps, batch_size)) for side, w in enumerate((a, b))]
    keys, cells = jax.random.split(jax.random.fold_in(key, 5), steps), jax.device_put((x, y))
    rate = partial(optax.cosine_decay_schedule, decay_steps=steps, alpha=1e-2)
    # Momentum makes a saddle swing.
    rates = (0.5 * learning_rate, learning_rate)
    optimizers = [optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate(one), b1=0.0, b2=0.9)) for one in rates]

    def objective(generator, value, x, y, key):
        keys = jax.random.split(key, 6)
        ends = _generate(generator, e, keys[0], x)

        def bridge(t, key):
            return (1.0 - t) * x + t * ends + jnp.sqrt(e * t * (1.0 - t)) * jax.random.normal(key, x.shape)

        # The running cost up to the last time, where the process is not yet at its end: dropping that, the spread of the ends is free.
        t, last = _LAST * jax.random.uniform(keys[1], (len(x), 1)), jnp.full((len(x), 1), _LAST)
        now = bridge(t, keys[2])
        slope = _slope_and_residual(value, e, t, now)[0]
        running = 0.5 * jnp.square(slope).sum(1) + ((ends - now) / (1.0 - t) * slope).sum(1)
        # The equation has no singular end.
        anywhen = jax.random.uniform(keys[3], (len(x), 1))
        residual = _slope_and_residual(value, e, anywhen, bridge(anywhen, keys[4]))[1]
        arrived = alpha * jnp.expm1(jnp.minimum(_value(value, jnp.ones((len(y), 1)), y) / alpha, 10.0))
        gain = _value(value, last, bridge(last, keys[5])) - _LAST * running - arrived
        return gain.mean(), jnp.square(residual).mean()

    def ascent(value, generator, *batch):
        gain, residual = objective(generator, value, *batch)
        return kappa * residual - gain

    @jax.jit
    def run(carry, data):
        def step(carry, now):
            (generator, value), (first, second) = carry
            batch = cells[0][now[0]], cells[1][now[1]], now[2]
            gradients = jax.grad(ascent)(value, generator, *batch)
            updates, second = optimizers[1].update(gradients, second)
            value = optax.apply_updates(value, updates)
            gradients = jax.grad(lambda one: objective(one, value, *batch)[0])(generator)
            updates, first = optimizers[0].update(gradients, first)
            return ((optax.apply_updates(generator, updates), value), (first, second)), None

        return jax.lax.scan(step, carry, data)[0]

    state = ((generator, value), tuple(one.init(net) for one, net in zip(optimizers, (generator, value), strict=True)))
    (generator, value), _ = run(state, (*rows, keys))
    return Generator(generator, value, e, alpha, units)


@jax.jit
def _generate(params, e, key, x):
    # What is learned is what control adds to the end of the uncontrolled process: J is nearly flat in the spread, which stays where it starts.
    noise = jax.random.normal(key, x.shape)
    return x + jnp.sqrt(e) * noise + apply(params, jnp.concatenate([x, noise], axis=1))


@jax.jit
def _value(params, t, y):
    return apply(params, jnp.concatenate([t, y], axis=1))[:, 0]


def _slope_and_residual(value, e, t, x):
    """Return ``grad V``, and ``V_t + e / 2 Lap V - |grad V|^2 / 2``, at times and places."""

    def one(t, x):
        scalar = lambda t, x: _value(value, t[None], x[None])[0]
        in_time, slope = jax.grad(scalar, argnums=(0, 1))(t, x)
        laplacian = jnp.trace(jax.jacfwd(jax.grad(scalar, argnums=1), argnums=1)(t, x))
        return slope, in_time[0] + 0.5 * e * laplacian - 0.5 * jnp.square(slope).sum()

    return jax.vmap(one)(t, x)
