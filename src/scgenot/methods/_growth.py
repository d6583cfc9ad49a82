"""Growth where marginals are relaxed: how much mass a cell sends, or gets, per unit of its prior mass."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from sklearn.neighbors import NearestNeighbors

from scgenot._rng import keys
from scgenot._sampling import host_rng, stratified
from scgenot._sizes import pad_with, padded_cells
from scgenot.coupling import Coupling
from scgenot.flow._config import RescalingConfig
from scgenot.flow._scaling import Standardizer

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


def plan_growth(
    prior: Float[Array | np.ndarray, " n"], marginal: Float[Array | np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Return ``marginal / prior``, for priors that sum to 1; 0 for cells without prior mass."""
    prior, marginal = np.asarray(prior, np.float64), np.asarray(marginal, np.float64)
    share = prior / prior.sum()
    return np.divide(marginal, share, out=np.zeros_like(share), where=share > 0)


def growth_rows(
    coupling: Coupling, side: int
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return cells, their blocks, priors and marginals of the source (`side` 0) or target: what growth is learned from.

    A coupling of blocks has ``parts`` with rows, priors and masses of each; a cell in several blocks is there once for each.
    """
    parts = getattr(coupling, "parts", None)
    if parts is None:
        prior = np.asarray(coupling.priors[side], np.float64)
        marginal = np.asarray((coupling.source_marginal, coupling.target_marginal)[side], np.float64)
        return np.arange(len(prior)), np.zeros(len(prior), int), prior, marginal
    rows = [np.asarray((part.source_rows, part.target_rows)[side]) for part in parts]
    blocks = [np.full(len(one), number) for number, one in enumerate(rows)]
    shares = np.asarray(getattr(coupling, "weights"), np.float64)  # noqa: B009
    prior, marginal = (
        [share * np.asarray(getattr(part, name)[side], np.float64) for share, part in zip(shares, parts, strict=True)]
        for name in ("priors", "masses")
    )
    return tuple(np.concatenate(one) for one in (rows, blocks, prior, marginal))


def fit_rescaling(
    key: jax.Array,
    cells: Float[Array | np.ndarray, "n d"],
    prior: Float[Array | np.ndarray, " n"],
    marginal: Float[Array | np.ndarray, " n"],
    config: RescalingConfig,
) -> nnx.State:
    """Regress ``marginal / prior`` on cells, with each cell weighted by its prior mass.

    Parameters
    ----------
    key
        JAX key.
    cells
        Cells in standardised units, with their condition behind where there is one.
    prior, marginal
        Their mass before and after relaxation. Cells without prior mass play no part.
    config
        Network and training.

    Returns
    -------
    The weights of a :class:`Rescaling`. Where they end up as no numbers, training starts again, if need be at a tenth of the rate.

    Raises
    ------
    ValueError
        If `marginal` is not finite, or the weights are not at the smaller rate either.
    """
    init_key, draw_key = keys(key, 2)
    if not np.isfinite(np.asarray(marginal)).all():
        raise ValueError(
            "the coupling's marginals are not finite, so that growth cannot be learned. Try a larger `epsilon`, or taus nearer to 1."
        )
    # The unit is the mean growth.
    unit = float(np.sum(np.asarray(marginal, np.float64)))
    ratio = plan_growth(prior, marginal) / unit
    if config.neighbours:
        ratio = _smoothed(np.asarray(cells), ratio, np.asarray(prior, np.float64), config.neighbours)
    # One cell from each of as many equal parts of the prior mass as a batch has rows.
    chosen = stratified(host_rng(draw_key), prior, (config.steps, config.batch_size))
    graphdef = empty_rescaling(np.shape(cells)[1], config)[0]
    size = padded_cells(len(cells))
    cells, ratio = (pad_with(np.asarray(one, np.float32), size, 0.0) for one in (cells, ratio))
    # Twice at the same rate: on several threads of a CPU one program may return NaN now and not the next time (of JAX 0.11 reported in
    # jax-ml/jax#39741; here a NaN came up once, with 0.12, of unknown cause).
    for rate in (config.learning_rate, config.learning_rate, config.learning_rate / 10.0):
        at_rate = dataclasses.replace(config, learning_rate=rate)
        found = _fit(graphdef, at_rate, init_key, np.float32(unit), cells, ratio, chosen)
        if all(np.isfinite(np.asarray(one)).all() for one in jax.tree.leaves(found)):
            return found
    raise ValueError(
        f"growth could not be learned: weights are not finite at a `learning_rate` of {config.learning_rate:g}, nor at a tenth of it. "
        "Set a smaller one in FlowConfig(rescaling=RescalingConfig(...))."
    )


def _smoothed(
    cells: Float[np.ndarray, "n d"], ratio: Float[np.ndarray, " n"], prior: Float[np.ndarray, " n"], neighbours: int
) -> Float[np.ndarray, " n"]:
    """Return means of the ratio over the nearest cells that have prior mass, each cell among its own."""
    some = np.flatnonzero(prior > 0)
    nearest = NearestNeighbors(n_neighbors=min(neighbours, len(some))).fit(cells[some])
    near = some[nearest.kneighbors(cells, return_distance=False)]
    return (prior[near] * ratio[near]).sum(axis=1) / prior[near].sum(axis=1)


def empty_rescaling(dim: int, config: RescalingConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """Return structure and shapes of the weights of a :class:`Rescaling`."""
    return nnx.split(nnx.eval_shape(lambda: Rescaling(dim, config, rngs=nnx.Rngs(0))))


def evaluate_growth(
    params: nnx.State,
    units: Standardizer,
    cells: Float[np.ndarray, "n d"],
    config: RescalingConfig,
    conditions: Float[np.ndarray, "n c"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Return the growth of cells in the user's units, block by block; the last block is padded, so one shape is compiled.

    `conditions` are in standardised units.
    """
    cells = units.on_host(cells)
    cells = cells if conditions is None else np.concatenate([cells, conditions], axis=1)
    graphdef, _ = empty_rescaling(cells.shape[1], config)
    found = [np.empty(0, np.float32)]
    for start in range(0, len(cells), _BLOCK):
        block = cells[start : start + _BLOCK]
        block_of_cells = np.pad(block, ((0, _BLOCK - len(block)), (0, 0)))
        found.append(np.asarray(_growth(graphdef, params, block_of_cells))[: len(block)])
    return np.concatenate(found)


@partial(jax.jit, static_argnames="graphdef")
def _growth(graphdef, params, cells):
    return nnx.merge(graphdef, params)(cells)


@partial(jax.jit, static_argnames=("graphdef", "config"))
def _fit(
    graphdef: nnx.GraphDef,
    config: RescalingConfig,
    key: jax.Array,
    unit: Float[Array, ""],
    cells: Float[Array, "n d"],
    ratio: Float[Array, " n"],
    chosen: Int[Array, "steps rows"],
) -> nnx.State:
    """Start a network and run all steps, in one program."""
    network = Rescaling(cells.shape[1], config, unit=unit, rngs=nnx.Rngs(params=key))
    _, params, rest = nnx.split(network, nnx.Param, ...)
    optimizer = optax.chain(optax.clip_by_global_norm(_MAX_GRAD_NORM), optax.scale_by_adam())
    steps = config.steps

    def loss_of(params, x, r):
        return rescaling_loss(nnx.merge(graphdef, params, rest).relative(x), r, config.loss)

    def step(k, carry):
        params, state = carry
        some = chosen[k]
        updates, state = optimizer.update(jax.grad(loss_of)(params, cells[some], ratio[some]), state)
        fall = 0.5 * (1.0 + jnp.cos(jnp.pi * k / steps))
        rate = (config.learning_rate * jnp.minimum(1.0, (k + 1) / _WARMUP_STEPS) * fall).astype(jnp.float32)
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), state

    params = jax.lax.fori_loop(0, steps, step, (params, optimizer.init(params)))[0]
    return nnx.merge_state(params, rest)
