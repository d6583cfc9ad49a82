"""OTT 0.6's ``W2NeuralDual``: two input-convex networks, one the amortised conjugate of the other (Makkuva et al. 2020; Amos 2023)."""

from __future__ import annotations

import jax
import numpy as np
import optax
from ott.neural.methods.neuraldual import W2NeuralDual
from ott.neural.networks.icnn import ICNN
from ott.neural.networks.potentials import PotentialMLP

from benchmarks.solvers._base import Map, Units, batches, checked


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
    hidden: tuple[int, ...] = (64, 64, 64, 64),
    learning_rate: float = 1e-4,
    convex: bool = True,
) -> Map:
    """Fit the potentials; `epsilon_b` has no use, since the map is that of the problem without entropy.

    Its networks start from near the identity only if cells are centred and of unit size, as they are made here. A
    step solves for conjugates, which takes .1 to .4 s on two cores even for 128 cells of two features. `convex` networks are input-convex ones; others are
    plain, trained both ways at once.
    """
    units, loaders = loaders_of(key, x, y, a, b, batch_size)
    adam = lambda: optax.adam(learning_rate, b1=0.5, b2=0.9)
    d = len(units.centre)
    if convex:
        networks = [ICNN(dim_data=d, dim_hidden=list(hidden), pos_weights=True) for _ in range(2)]
    else:
        networks = [PotentialMLP(dim_hidden=list(hidden)) for _ in range(2)]
    solver = W2NeuralDual(
        d,
        *networks,
        adam(),
        adam(),
        num_train_iters=steps,
        valid_freq=steps + 1,
        log_freq=steps + 1,
        rng=jax.random.fold_in(key, 4),
    )
    solver(*loaders)
    # Not the `transport` of what it returns, which goes half of the way: OTT 0.6 hands `|x|^2 / 2 - f` on as a potential of the cost `|x - y|^2`.
    image = solver.state_f.potential_gradient_fn(solver.state_f.params)
    return map_of(units, jax.jit(image))


def loaders_of(key: jax.Array, x, y, a, b, batch_size: int):
    """Return units, and what OTT's trainers ask for: training and validation batches of both sides. The latter are never read."""
    x, y, a, b = checked(x, y, a, b)
    units = Units.of(x, y, a, b)
    sides = ((units.to(x), a), (units.to(y), b))
    loaders = [batches(jax.random.fold_in(key, number), *sides[number % 2], batch_size) for number in range(4)]
    return units, loaders


def map_of(units: Units, image) -> Map:
    """Return the map of cells in their own units, from one in units of the fit."""
    return Map(lambda block: units.back(image(units.to(block))))
