"""Potentials of a landscape: linear in fixed features, solved in closed form, or a small network; fitted to velocities."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.cluster.vq import kmeans2

from scgenot._blocks import rows_per_block
from scgenot._messages import check_count, check_positive
from scgenot._sampling import cumulative_table, independent
from scgenot._sizes import pad_edge

FOLDS = 5
# Relative to the mean square of the features' gradients. Below, single precision is lost; above, little but 0 is left.
RIDGES = 10.0 ** np.arange(-7, 1)
_CLUSTERED = 20_000
_MOST_ROWS = 512


@dataclasses.dataclass(frozen=True)
class LinearPotential:
    """A potential linear in its features: a closed form, of which nothing is left to chance but the centres.

    Attributes
    ----------
    degree
        Powers of each feature of cells up to this one; 0 for none.
    products
        Whether the products of two features are among them, without which the axes do not act on each other but through Gaussians.
        There are ``d (d - 1) / 2`` of them, so that 50 features take minutes for 10,000 cells, and 10 a second.
    n_centers
        Gaussians around as many k-means centres of the later cells, as wide as four times the median distance from a centre to the next.
    ridge
        Weight of the squared coefficients, in units of the mean square of the features' gradients. ``None``: of eight powers of ten
        from 1e-7 to 1 the one that predicts velocities of left-out cells best, in five folds.
    """

    degree: int = 2
    products: bool = True
    n_centers: int = 100
    ridge: float | None = None

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        check_count("degree", self.degree, minimum=0)
        check_count("n_centers", self.n_centers, minimum=0)
        if self.ridge is not None:
            check_positive("ridge", self.ridge)
        if not self.degree and not self.products and not self.n_centers:
            raise ValueError("a potential needs features: `degree` and `n_centers` are 0, and `products` is False.")


@dataclasses.dataclass(frozen=True)
class NetworkPotential:
    """A potential that is a network of softplus layers.

    Attributes
    ----------
    hidden
        Widths of the hidden layers.
    steps
        Optimisation steps. Weights are those of the check, one of 20, at which left-out cells, a fifth, are predicted best.
    batch_size
        Cells a step, drawn in proportion to their mass.
    learning_rate
        Peak learning rate of Adam, which falls to zero along a cosine.
    """

    hidden: Sequence[int] = (64, 64)
    steps: int = 3000
    batch_size: int = 256
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        if not tuple(self.hidden):
            raise ValueError("`hidden` must name at least one layer width, got (). Use, for example, (64, 64).")
        for width in self.hidden:
            check_count("hidden", width)
        object.__setattr__(self, "hidden", tuple(self.hidden))
        check_count("steps", self.steps)
        check_count("batch_size", self.batch_size)
        check_positive("learning_rate", self.learning_rate)


PotentialConfig: TypeAlias = LinearPotential | NetworkPotential


def value(config: PotentialConfig, weights: Any, u: Float[Array, " d"]) -> Float[Array, ""]:
    """Return the potential of one cell, in standard units."""
    if isinstance(config, LinearPotential):
        return _features(config, weights, u) @ weights["theta"]
    for w, b in weights["layers"]:
        u = jax.nn.softplus(w.T @ u + b)
    return weights["out"] @ u


def gradients(config: PotentialConfig, weights: Any, u: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Return the gradients of the potential at cells, in standard units."""
    return jax.vmap(jax.grad(partial(value, config, weights)))(u)


_gradients = partial(jax.jit, static_argnums=0)(gradients)


def fit_linear(
    rng: np.random.Generator,
    config: LinearPotential,
    u: Float[np.ndarray, "n d"],
    slopes: Float[np.ndarray, "n d"],
    mass: Float[np.ndarray, " n"],
) -> tuple[Any, float]:
    """Solve for the coefficients; return the weights, and the loss at cells that were left out.

    It is ridge regression of the slopes on the features' gradients, whose rows are never held: their sums of products are.
    """
    weights = {"centers": np.zeros((0, u.shape[1]), np.float32), "width": np.float32(1.0)}
    if config.n_centers:
        weights["centers"], weights["width"] = _centers(rng, u, mass, config.n_centers)
    weights = jax.device_put(weights)
    fold = rng.permutation(np.arange(len(u)) % FOLDS)
    parts = [_sums(config, weights, u[fold == k], slopes[fold == k], mass[fold == k]) for k in range(FOLDS)]
    gram, moment, square = (sum(part[number] for part in parts) for number in range(3))
    # Features in units of their gradients, so that one ridge suits powers and Gaussians.
    size = np.sqrt(np.maximum(np.diag(gram) / mass.sum(), 1e-12))
    scaled = [(a / np.outer(size, size), b / size) for a, b, _ in parts]
    whole = gram / np.outer(size, size), moment / size
    grid = RIDGES if config.ridge is None else np.array([config.ridge])
    errors = np.zeros(len(grid))
    for a, b in scaled:
        for number, theta in enumerate(_ridged(whole[0] - a, whole[1] - b, grid)):
            errors[number] += theta @ a @ theta - 2.0 * b @ theta
    best = int(errors.argmin())
    theta = _ridged(*whole, grid[best : best + 1])[0] / size
    weights = weights | {"theta": jax.device_put(theta.astype(np.float32))}
    return weights, float((errors[best] + square) / mass.sum())


def fit_network(
    rng: np.random.Generator,
    config: NetworkPotential,
    u: Float[np.ndarray, "n d"],
    slopes: Float[np.ndarray, "n d"],
    mass: Float[np.ndarray, " n"],
) -> tuple[Any, float]:
    """Train the network; return its weights, and the loss at cells that were left out."""
    held = rng.permutation(np.arange(len(u)) % FOLDS) == 0
    if not mass[held].sum() > 0 or not mass[~held].sum() > 0:
        held = np.zeros(len(u), bool)
    table = cumulative_table(mass[~held])
    cells = tuple(jax.device_put(np.asarray(one[~held], np.float32)) for one in (u, slopes))
    params = _initial(rng, config, u.shape[1])
    rates = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    state, best = _optimizer().init(params), (np.inf, params)
    count = -(-config.steps // 20)
    judged = held if held.any() else np.ones(len(u), bool)
    for first in range(0, config.steps, count):
        # Steps behind the last one have rate 0, so that one number of steps is compiled.
        now = np.arange(first, first + count)
        rate = np.where(now < config.steps, np.asarray(rates(now)), 0.0).astype(np.float32)
        rows = independent(rng, table, (count, config.batch_size))
        params, state = _steps(config, params, state, cells, rows, rate)
        found = loss(config, params, u[judged], slopes[judged], mass[judged])
        if found < best[0]:
            best = found, params
    if not np.isfinite(best[0]):
        raise FloatingPointError(
            f"the loss of the potential became NaN or infinite with `learning_rate`={config.learning_rate!r}. Use a smaller one."
        )
    return best[1], best[0]


def loss(config: PotentialConfig, weights: Any, u, slopes, mass) -> float:
    """Return the mean squared distance of gradients from slopes, weighted by mass."""
    off = np.concatenate([np.asarray(_gradients(config, weights, block))[:n] for block, n in blocks(u, u.shape[1])])
    return float(mass @ np.square(off - slopes).sum(axis=1, dtype=np.float64) / mass.sum())


def blocks(u: Float[np.ndarray, "n d"], row_entries: int):
    """Yield cells in blocks of one size, and how many of each are cells and no filling."""
    rows = min(_MOST_ROWS, rows_per_block(row_entries))
    for start in range(0, len(u), rows):
        some = u[start : start + rows]
        yield pad_edge(np.asarray(some, np.float32), rows), len(some)


def _features(config: LinearPotential, weights: Any, u: Float[Array, " d"]) -> Float[Array, " p"]:
    parts = [u**power for power in range(1, config.degree + 1)]
    if config.products:
        i, j = np.triu_indices(len(u), 1)
        parts.append(u[i] * u[j])
    if config.n_centers:
        away = jnp.square(u - weights["centers"]).sum(axis=1)
        parts.append(jnp.exp(-0.5 * away / jnp.square(weights["width"])))
    return jnp.concatenate(parts)


@partial(jax.jit, static_argnums=0)
def _jacobians(config: LinearPotential, weights: Any, u: Float[Array | np.ndarray, "n d"]) -> Float[Array, "n p d"]:
    return jax.vmap(jax.jacfwd(partial(_features, config, weights)))(u)


def _sums(config, weights, u, slopes, mass) -> tuple[np.ndarray, np.ndarray, float]:
    """Return ``sum m J J'``, ``sum m J s`` and ``sum m |s|^2`` over cells, in double precision."""
    d = u.shape[1]
    p = config.degree * d + (d * (d - 1) // 2 if config.products else 0) + len(weights["centers"])
    gram, moment, start = np.zeros((p, p)), np.zeros(p), 0
    for block, n in blocks(u, d * p):
        jacobian = np.asarray(_jacobians(config, weights, block), np.float64)[:n]
        some = slice(start, start + n)
        root = np.sqrt(mass[some])[:, None]
        rows = (jacobian * root[:, None]).transpose(1, 0, 2).reshape(p, -1)
        gram += rows @ rows.T
        moment += rows @ (slopes[some] * root).ravel()
        start += n
    return gram, moment, float(mass @ np.square(slopes).sum(axis=1))


def _ridged(gram: np.ndarray, moment: np.ndarray, ridges: np.ndarray) -> list[np.ndarray]:
    """Return the solutions for several ridges, in units of the mean diagonal."""
    values, vectors = np.linalg.eigh(gram)
    turned, unit = vectors.T @ moment, np.trace(gram) / len(gram)
    return [vectors @ (turned / (np.maximum(values, 0.0) + ridge * unit)) for ridge in ridges]


def _centers(rng: np.random.Generator, u, mass, k: int) -> tuple[np.ndarray, np.float32]:
    drawn = u[independent(rng, cumulative_table(mass), (min(max(len(u), 4 * k), _CLUSTERED),))].astype(np.float64)
    with warnings.catch_warnings():
        # Clusters that end empty keep the cell that they started from.
        warnings.simplefilter("ignore")
        found = kmeans2(drawn, k, minit="++", seed=rng)[0]
    found = np.where(np.isfinite(found), found, drawn[:k])
    apart = np.square(found[:, None] - found[None]).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1)
    nearest = nearest[np.isfinite(nearest) & (nearest > 0)]
    # A double well in two features, 600 cells: gradients at new cells off by 11, 1.7, .4, .3 and .1 % with 1, 2, 3, 4 and 6 (mean of
    # seeds 0 to 2); in ten features with noise .28, .195, .181, .175, .172 of the velocity is left. Wider ones become alike.
    width = 4.0 * np.sqrt(np.median(nearest)) if len(nearest) else 1.0
    return found.astype(np.float32), np.float32(width)


def _initial(rng: np.random.Generator, config: NetworkPotential, d: int) -> Any:
    sizes = (d, *config.hidden)
    layers = [(rng.normal(size=(a, b)) / np.sqrt(a), np.zeros(b)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    params = {"layers": layers, "out": rng.normal(size=sizes[-1]) / np.sqrt(sizes[-1])}
    return jax.tree.map(lambda one: jax.device_put(np.asarray(one, np.float32)), params)


def _optimizer() -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())


@partial(jax.jit, static_argnums=0)
def _steps(config: NetworkPotential, params, state, cells, rows, rates):
    def objective(params, i):
        return jnp.square(gradients(config, params, cells[0][i]) - cells[1][i]).sum(axis=1).mean()

    def step(carry, now):
        params, state = carry
        i, rate = now
        updates, state = _optimizer().update(jax.grad(objective)(params, i), state, params)
        return (jax.tree.map(lambda p, u: p - rate * u, params, updates), state), None

    return jax.lax.scan(step, (params, state), (rows, rates))[0]
