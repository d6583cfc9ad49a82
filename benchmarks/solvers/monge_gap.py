"""OTT 0.6's ``MongeGapEstimator`` (Uscidda and Cuturi 2023): a map that fits the target and costs no more than transport."""

from __future__ import annotations

import jax
import numpy as np
import optax
from flax import linen as nn
from ott.neural.methods.monge_gap import MongeGapEstimator, monge_gap_from_samples
from ott.neural.networks.potentials import BasePotential
from ott.tools.sinkhorn_divergence import sinkdiv

from benchmarks.solvers._base import Map
from benchmarks.solvers.neural_dual import loaders_of, map_of


class Residual(BasePotential):
    """``x`` plus a network, as the authors' code has it."""

    hidden: tuple[int, ...] = (128, 64, 64)

    @property
    def is_potential(self) -> bool:
        return False

    @nn.compact
    def __call__(self, x):
        z = x
        for width in self.hidden:
            z = nn.gelu(nn.Dense(width)(z))
        return x + nn.Dense(x.shape[-1])(z)


def fit(
    key: jax.Array,
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    epsilon_b: float | None = None,
    steps: int = 10_000,
    batch_size: int = 256,
    hidden: tuple[int, ...] = (128, 64, 64),
    learning_rate: float = 1e-3,
    strength: float = 1.0,
    fit_epsilon: float = 0.1,
    gap_epsilon: float = 0.05,
) -> Map:
    """Fit the map; `epsilon_b` has no use, since the map is that of the problem without entropy.

    Both epsilons are in squared units of cells that have mean variance 1, with cost ``|x - y|^2``; smaller ones take longer.
    """
    units, loaders = loaders_of(key, x, y, a, b, batch_size)
    solver = MongeGapEstimator(
        len(units.centre),
        Residual(tuple(hidden)),
        optax.adam(optax.cosine_decay_schedule(learning_rate, steps, 1e-2)),
        fitting_loss=lambda mapped, target: (sinkdiv(mapped, target, epsilon=fit_epsilon)[0], None),
        regularizer=lambda source, mapped: (monge_gap_from_samples(source, mapped, epsilon=gap_epsilon), None),
        regularizer_strength=strength,
        num_train_iters=steps,
        valid_freq=steps + 1,
        rng=jax.random.fold_in(key, 4),
    )
    state, _ = solver.train_map_estimator(*loaders)
    return map_of(units, jax.jit(lambda u: state.apply_fn({"params": state.params}, u)))
