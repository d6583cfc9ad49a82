"""What the solvers share: weights, one unit for both populations, batches, a small network, and what a fit returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scgenot._sampling import cumulative_table, host_rng, independent
from scgenot._sizes import pad_edge

ROWS = 1024


class Fitted(Protocol):
    """What a fit returns.

    Attributes
    ----------
    stochastic
        Whether it learns laws; samples of a map are copies of its image.
    density
        Whether it has ``log_prob(y, x)`` of pairs of rows.
    """

    stochastic: ClassVar[bool]
    density: ClassVar[bool]

    def sample(self, key: jax.Array, x: np.ndarray, n: int) -> np.ndarray:
        """Draw n targets for each cell: cells x n x features."""
        ...

    def mean(self, x: np.ndarray) -> np.ndarray:
        """Return the mean of each cell's law, or its image."""
        ...


@dataclasses.dataclass(frozen=True)
class Map:
    """A deterministic map."""

    image: Callable[[np.ndarray], np.ndarray]
    stochastic: ClassVar[bool] = False
    density: ClassVar[bool] = False

    def mean(self, x: np.ndarray) -> np.ndarray:
        """Return images."""
        return by_rows(self.image, np.asarray(x, np.float32))

    def sample(self, key: jax.Array, x: np.ndarray, n: int) -> np.ndarray:
        """Return each image n times."""
        return np.repeat(self.mean(x)[:, None], n, axis=1)


@dataclasses.dataclass(frozen=True)
class Units:
    """A shift, and one scale for all features: another one each would change the cost."""

    centre: np.ndarray
    unit: float

    @classmethod
    def of(cls, x, y, a, b) -> Units:
        """Bring both populations together to mean 0 and mean variance 1."""
        centre = 0.5 * (a @ x + b @ y)
        square = 0.5 * (a @ np.square(x - centre) + b @ np.square(y - centre))
        return cls(centre, float(np.sqrt(square.mean())) or 1.0)

    def to(self, cells) -> np.ndarray:
        """Return cells in these units."""
        return ((np.asarray(cells, np.float64) - self.centre) / self.unit).astype(np.float32)

    def back(self, cells) -> np.ndarray:
        """Return cells in their own units."""
        return np.asarray(cells, np.float64) * self.unit + self.centre


def checked(x, y, a, b) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return cells in double precision, and weights that sum to 1."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"`x` and `y` must be cells of one space, got shapes {x.shape} and {y.shape}.")
    sides = []
    for cells, w in ((x, a), (y, b)):
        w = np.ones(len(cells)) if w is None else np.asarray(w, np.float64)
        sides.append(w / w.sum())
    return x, y, *sides


def by_rows(function: Callable[[np.ndarray], Any], x: np.ndarray, rows: int = ROWS) -> np.ndarray:
    """Call a compiled function on blocks of one size."""
    parts = []
    for start in range(0, len(x), rows):
        some = x[start : start + rows]
        parts.append(np.asarray(function(pad_edge(some, rows)))[: len(some)])
    return np.concatenate(parts)


def draws(key: jax.Array, weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Draw rows in proportion to weights."""
    return independent(host_rng(key), cumulative_table(weights), shape)


def batches(key: jax.Array, cells: np.ndarray, weights: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield batches of cells without end."""
    rng, table = host_rng(key), cumulative_table(weights)
    while True:
        yield cells[independent(rng, table, (size,))].astype(np.float32)


def network(key: jax.Array, widths: tuple[int, ...], last: float = 1.0) -> list[tuple[jax.Array, jax.Array]]:
    """Return the weights of a network; `last` scales those of its output."""
    rng, layers = host_rng(key), []
    for number, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        size = last if number == len(widths) - 2 else 1.0
        layers.append((rng.normal(size=(a, b)) * size / np.sqrt(a), np.zeros(b)))
    return jax.tree.map(lambda one: jax.device_put(np.asarray(one, np.float32)), layers)


def apply(layers, u):
    """Return the output of a network with SiLU between its layers."""
    for number, (w, b) in enumerate(layers):
        u = u @ w + b
        if number < len(layers) - 1:
            u = jax.nn.silu(u)
    return u


def descend(loss, params, data, steps: int, learning_rate: float):
    """Minimise ``loss(params, *one of data)`` by Adam along a cosine; `data` are arrays whose first axis are steps."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    )

    @jax.jit
    def run(params, state, data):
        def step(carry, now):
            params, state = carry
            value, gradients = jax.value_and_grad(loss)(params, *now)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, state), data)

    state, losses, chunk = optimizer.init(params), [], min(steps, 500)
    for start in range(0, steps, chunk):
        some = jax.tree.map(lambda one, at=start: one[at : at + chunk], data)
        (params, state), found = run(params, state, some)
        losses.append(np.asarray(found))
    losses = np.concatenate(losses)
    if not np.isfinite(losses[-1]):
        raise FloatingPointError(f"the loss became NaN or infinite with `learning_rate`={learning_rate!r}. Lower it.")
    return params, losses


def log_normal(away, log_variance):
    """Return log densities of independent normals, summed over the last axis."""
    return -0.5 * (jnp.square(away) * jnp.exp(-log_variance) + log_variance + jnp.log(2.0 * jnp.pi)).sum(-1)
