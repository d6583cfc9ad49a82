"""OTT 0.6's ``ExpectileNeuralDual`` (ENOT; Buzun et al. 2024): a dual without inner conjugates, held together by an expectile loss."""

from __future__ import annotations

import jax
import numpy as np
import optax
from ott.neural.methods.expectile_neural_dual import ExpectileNeuralDual
from ott.neural.networks.potentials import MLP

from benchmarks.solvers._base import Map
from benchmarks.solvers.neural_dual import loaders_of, map_of


def fit(
    key: jax.Array,
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    epsilon_b: float | None = None,
    steps: int = 20_000,
    batch_size: int = 512,
    hidden: tuple[int, ...] = (128, 128, 128, 128),
    learning_rate: float = 3e-4,
    expectile: float = 0.99,
) -> Map:
    """Fit the potentials; `epsilon_b` has no use, since the map is that of the problem without entropy."""
    units, loaders = loaders_of(key, x, y, a, b, batch_size)
    networks = (MLP(dim_hidden=[*hidden, 1], act_fn=jax.nn.elu) for _ in range(2))
    # Falls to zero along a cosine, as in the authors' code; without it the map wavers to the end.
    optimizers = (optax.adam(optax.cosine_decay_schedule(learning_rate, steps, 1e-2), b1=0.9, b2=0.9) for _ in range(2))
    solver = ExpectileNeuralDual(
        len(units.centre),
        *networks,
        *optimizers,
        expectile=expectile,
        num_train_iters=steps,
        valid_freq=steps + 1,
        rng=jax.random.fold_in(key, 4),
    )
    return map_of(units, jax.jit(solver(*loaders).transport))
