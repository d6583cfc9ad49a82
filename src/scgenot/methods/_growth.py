"""Growth where marginals are relaxed: how much mass a cell sends, or gets, per unit of its prior mass."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from scgenot.coupling import Coupling
from scgenot.flow._config import RescalingConfig
from scgenot.flow._scaling import Standardizer
from scgenot.methods._method import POPULATIONS

# softplus(_ONE) = 1: networks start from the mean growth.
_ONE = math.log(math.expm1(1.0))
# Keeps the logarithm of a growth finite that underflows.
_TINY = 1e-30
_WARMUP_STEPS = 20
_MAX_GRAD_NORM = 1.0
_BLOCK = 4096


class Rescaling(nnx.Module):
    """A positive function of a cell, ``unit * softplus(MLP(x))``, batched over rows.

    Parameters
    ----------
    dim
        Number of features.
    config
        Widths.
    unit
        Mean growth over the population. Masses of 1e-3 and of 1 are learned alike in units of it.
    rngs
        Keys for the initial weights.
    """

    def __init__(
        self, dim: int, config: RescalingConfig, *, unit: float | Float[Array, ""] = 1.0, rngs: nnx.Rngs
    ) -> None:
        widths = config.hidden
        self.layers = nnx.List(
            [nnx.Linear(before, after, rngs=rngs) for before, after in zip((dim, *widths), widths, strict=False)]
        )
        self.out = nnx.Linear(widths[-1], 1, kernel_init=nnx.initializers.zeros, rngs=rngs)
        # Of one entry, not none: files of weights keep no arrays without axes.
        self.unit = nnx.Variable(jnp.full(1, unit, jnp.float32))

    def __call__(self, x: Float[Array, "rows d"]) -> Float[Array, " rows"]:
        """Return the growth of cells in standardised units."""
        return self.unit[...] * self.relative(x)

    def relative(self, x: Float[Array, "rows d"]) -> Float[Array, " rows"]:
        """Return the growth in units of its mean."""
        hidden = x
        for layer in self.layers:
            hidden = jax.nn.silu(layer(hidden))
        return jax.nn.softplus(self.out(hidden)[:, 0] + _ONE)


def rescaling_loss(eta: Float[Array, " rows"], ratio: Float[Array, " rows"], loss: str) -> Float[Array, ""]:
    """Return the mean divergence of `eta` from `ratio`, plus mass matching, ``1/2 (mean eta - mean ratio)^2``.

    The paper squares the distance of the mean of eta from the total mass, which is the mean of the ratios over the
    population. Here both means are over one batch: the same at the optimum, without the noise of which cells it has.

    Parameters
    ----------
    eta, ratio
        Growth as learned and as the coupling has it, at cells drawn from the prior weights.
    loss
        As in ``RescalingConfig.loss``.
    """
    if loss == "squared":
        errors = 0.5 * jnp.square(eta - ratio)
    else:
        errors = eta - ratio * jnp.log(eta + _TINY)
    return jnp.mean(errors) + 0.5 * jnp.square(jnp.mean(eta - ratio))


def fit_rescalings(
    key: jax.Array,
    coupling: Coupling,
    cells: tuple[Float[Array, "n dx"], Float[Array, "m dy"]],
    config: RescalingConfig,
) -> dict[str, nnx.State]:
    """Learn the growth of the populations whose marginal is relaxed; of the others nothing is to be learned.

    Parameters
    ----------
    key
        JAX key.
    coupling
        Says which marginals are relaxed, and has them.
    cells
        The coupled source and target cells, in standardised units.
    config
        Networks and training.

    Returns
    -------
    Weights by population, ``"source"`` or ``"target"``.
    """
    marginals = coupling.source_marginal, coupling.target_marginal
    sides = zip(POPULATIONS, coupling.marginal_kinds, cells, coupling.priors, marginals, strict=True)
    return {
        name: fit_rescaling(jax.random.fold_in(key, number), x, prior, marginal, config)
        for number, (name, kind, x, prior, marginal) in enumerate(sides)
        if kind == "relaxed"
    }


def fit_rescaling(
    key: jax.Array,
    cells: Float[Array, "n d"],
    prior: Float[Array, " n"],
    marginal: Float[Array, " n"],
    config: RescalingConfig,
) -> nnx.State:
    """Regress ``marginal / prior`` on cells, with each cell weighted by its prior mass.

    Parameters
    ----------
    key
        JAX key.
    cells
        Cells in standardised units.
    prior, marginal
        Their mass before and after relaxation. Cells without prior mass play no part.
    config
        Network and training.

    Returns
    -------
    The weights of a :class:`Rescaling`.
    """
    init_key, draw_key = jax.random.split(key)
    # Weights that sum to 1: the unit is the mean growth.
    prior = prior / jnp.sum(prior)
    unit = jnp.sum(marginal)
    ratio = jnp.where(prior > 0, marginal / (jnp.where(prior > 0, prior, 1.0) * unit), 0.0)
    network = Rescaling(cells.shape[1], config, unit=unit, rngs=nnx.Rngs(params=init_key))
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    rows = min(config.batch_size, len(cells))
    params = _fit(
        graphdef,
        rows,
        config.loss,
        params,
        rest,
        cells,
        jnp.cumsum(prior),
        ratio,
        draw_key,
        config.steps,
        config.learning_rate,
    )
    return nnx.merge_state(params, rest)


def empty_rescaling(dim: int, config: RescalingConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """Return structure and shapes of the weights of a :class:`Rescaling`."""
    return nnx.split(nnx.eval_shape(lambda: Rescaling(dim, config, rngs=nnx.Rngs(0))))


def evaluate_growth(
    params: nnx.State, units: Standardizer, cells: Float[np.ndarray, "n d"], config: RescalingConfig
) -> Float[np.ndarray, " n"]:
    """Return the growth of cells in the user's units, block by block; the last block is padded, so one shape is compiled."""
    graphdef, _ = empty_rescaling(cells.shape[1], config)
    found = [np.empty(0, np.float32)]
    for start in range(0, len(cells), _BLOCK):
        block = cells[start : start + _BLOCK]
        padded = np.pad(block, ((0, _BLOCK - len(block)), (0, 0)))
        found.append(np.asarray(_growth(graphdef, params, units, padded))[: len(block)])
    return np.concatenate(found)


@partial(jax.jit, static_argnames="graphdef")
def _growth(graphdef, params, units, cells):
    return nnx.merge(graphdef, params)(units.forward(cells))


@partial(jax.jit, static_argnames=("graphdef", "rows", "loss"))
def _fit(graphdef, rows, loss, params, rest, cells, cumulative, ratio, key, steps, learning_rate):
    """Run all steps without leaving the device; their number and the rate are arguments, not compiled in."""
    optimizer = optax.chain(optax.clip_by_global_norm(_MAX_GRAD_NORM), optax.scale_by_adam())

    def loss_of(params, x, r):
        return rescaling_loss(nnx.merge(graphdef, params, rest).relative(x), r, loss)

    def step(k, carry):
        params, state = carry
        # One cell from each of `rows` equal parts of the prior mass.
        offsets = jax.random.uniform(jax.random.fold_in(key, k), (rows,))
        quantiles = (jnp.arange(rows) + offsets) / rows * cumulative[-1]
        chosen = jnp.minimum(jnp.searchsorted(cumulative, quantiles, side="right"), len(cells) - 1)
        updates, state = optimizer.update(jax.grad(loss_of)(params, cells[chosen], ratio[chosen]), state)
        rate = learning_rate * jnp.minimum(1.0, (k + 1) / _WARMUP_STEPS) * 0.5 * (1.0 + jnp.cos(jnp.pi * k / steps))
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), state

    return jax.lax.fori_loop(0, steps, step, (params, optimizer.init(params)))[0]
