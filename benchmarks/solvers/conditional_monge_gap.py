"""The conditional Monge gap, what became of CondOT: one residual map ``T(x, c)`` for all conditions.

Each step takes one condition, drawn at random, and descends the Sinkhorn divergence of the images from its target cells, plus the gap of the map: what it
costs beyond the transport between source cells and images. Own implementation after the published description (Driessen et al. 2025); the maps of CondOT,
gradients of a partially input-convex network, are not here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from ott.neural.methods.monge_gap import monge_gap_from_samples
from ott.tools.sinkhorn_divergence import sinkdiv

from benchmarks.solvers._base import Units, apply, by_rows, checked, descend, draws, network


@dataclasses.dataclass(frozen=True)
class ConditionalMap:
    """The fitted map, and what shifts and scales the vectors of conditions."""

    params: Any
    units: Units
    centre: np.ndarray
    scale: np.ndarray
    stochastic: ClassVar[bool] = False
    density: ClassVar[bool] = False

    def mean(self, x: np.ndarray, condition: np.ndarray) -> np.ndarray:
        """Return images of cells under one condition, seen in training or not."""
        c = (np.asarray(condition, np.float32) - self.centre) / self.scale
        return self.units.back(by_rows(partial(_image, self.params, c.astype(np.float32)), self.units.to(x)))

    def sample(self, key: jax.Array, x: np.ndarray, n: int, condition: np.ndarray) -> np.ndarray:
        """Return each image n times."""
        return np.repeat(self.mean(x, condition)[:, None], n, axis=1)


def fit(
    key: jax.Array,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    conditions: np.ndarray,
    *,
    epsilon_b: float | None = None,
    steps: int = 10_000,
    batch_size: int = 256,
    hidden: tuple[int, ...] = (64, 64, 64, 64),
    learning_rate: float = 1e-3,
    strength: float = 1.0,
    fit_epsilon: float = 0.1,
    gap_epsilon: float = 0.05,
) -> ConditionalMap:
    """Fit the map.

    Parameters
    ----------
    key
        JAX key.
    pairs
        Source and target cells of each condition.
    conditions
        One vector a condition.
    epsilon_b
        Has no use: the map is that of the problem without entropy.
    steps, batch_size, learning_rate
        Of Adam; a step sees one condition.
    hidden
        Widths of the network.
    strength, fit_epsilon, gap_epsilon
        Weight of the gap; epsilons of the divergence and of the gap, with cost ``|x - y|^2`` and cells of mean variance 1.
    """
    conditions = np.asarray(conditions, np.float32)
    if len(pairs) != len(conditions) or conditions.ndim != 2:
        raise ValueError(f"`conditions` must hold a vector for each of {len(pairs)} pairs, got {conditions.shape}.")
    sides = [np.concatenate([np.asarray(pair[side], np.float64) for pair in pairs]) for side in (0, 1)]
    x, y, a, b = checked(*sides, None, None)
    units = Units.of(x, y, a, b)
    centre, scale = conditions.mean(axis=0), np.maximum(conditions.std(axis=0), 1e-6)
    vectors = jax.device_put((conditions - centre) / scale)
    d = x.shape[1]
    params = network(jax.random.fold_in(key, 1), (d + conditions.shape[1], *hidden, d), last=0.1)
    which = draws(jax.random.fold_in(key, 2), np.ones(len(pairs)), (steps,))
    rows = [
        _rows(jax.random.fold_in(key, 3 + side), [pair[side] for pair in pairs], which, batch_size) for side in (0, 1)
    ]
    cells = jax.device_put((units.to(x), units.to(y)))

    def loss(params, number, i, j):
        source, target = cells[0][i], cells[1][j]
        images = _image(params, vectors[number], source)
        away = sinkdiv(images, target, epsilon=fit_epsilon)[0]
        return away + strength * monge_gap_from_samples(source, images, epsilon=gap_epsilon)

    params, _ = descend(loss, params, (which, *rows), steps, learning_rate)
    return ConditionalMap(params, units, centre, scale)


def _rows(key: jax.Array, parts: Sequence[np.ndarray], which: np.ndarray, batch_size: int) -> np.ndarray:
    """Draw rows, among the cells of all conditions, of those of each step's condition."""
    sizes = np.array([len(part) for part in parts])
    first = np.cumsum(sizes) - sizes
    chance = np.asarray(jax.random.uniform(key, (len(which), batch_size)))
    return (first[which][:, None] + np.minimum(chance * sizes[which][:, None], sizes[which][:, None] - 1)).astype(
        np.int32
    )


@jax.jit
def _image(params, c, x):
    return x + apply(params, jnp.concatenate([x, jnp.broadcast_to(c, (len(x), len(c)))], axis=1))
