"""Sinkhorn divergence of samples whose costs do not fit in memory: costs are computed anew, block by block, in each pass."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_ENTRIES = 2**22  # float32 entries of one block: 16 MiB
_THRESHOLD = 1e-4


def blocked_divergence(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    epsilon: Float[Array, ""],
    max_iterations: int,
    entries: int = _ENTRIES,
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Return the divergence of samples with uniform weights, and whether all three problems converged.

    Parameters
    ----------
    x, y
        Samples, centred and scaled so that squared distances are about 1.
    epsilon
        Factor of KL.
    max_iterations
        Passes over the costs in each of the three problems, at most.
    entries
        Costs held at once.
    """
    across, done = _across(x, y, epsilon, max_iterations, entries)
    within, settled = zip(*(_within(points, epsilon, max_iterations, entries) for points in (x, y)), strict=True)
    return across - 0.5 * (within[0] + within[1]), done & settled[0] & settled[1]


@partial(jax.jit, static_argnames=("max_iterations", "entries"))
def _across(x, y, epsilon, max_iterations, entries) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Return the regularised cost between two samples, as its dual value."""

    def more(carry):
        return (carry[2] > _THRESHOLD) & (carry[3] < max_iterations)

    def step(carry):
        _, g, _, count = carry
        f = _soft_min(x, y, g, epsilon, entries)
        new = _soft_min(y, x, f, epsilon, entries)
        # What the columns of the plan of f and g miss, in total.
        return f, new, jnp.mean(jnp.abs(jnp.expm1((g - new) / epsilon))), count + 1

    start = jnp.zeros(len(x)), jnp.zeros(len(y)), jnp.asarray(jnp.inf), 0
    f, g, violation, _ = jax.lax.while_loop(more, step, start)
    return f.mean() + g.mean(), violation <= _THRESHOLD


@partial(jax.jit, static_argnames=("max_iterations", "entries"))
def _within(x, epsilon, max_iterations, entries) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Return the regularised cost of a sample to itself: its two potentials are one, found by averaging steps."""

    def more(carry):
        return (carry[1] > _THRESHOLD) & (carry[2] < max_iterations)

    def step(carry):
        f, _, count = carry
        new = _soft_min(x, x, f, epsilon, entries)
        return 0.5 * (f + new), jnp.mean(jnp.abs(jnp.expm1((f - new) / epsilon))), count + 1

    f, violation, _ = jax.lax.while_loop(more, step, (jnp.zeros(len(x)), jnp.asarray(jnp.inf), 0))
    # One pass more: with an exact update on one side the plan has mass 1, as the dual value assumes.
    return f.mean() + _soft_min(x, x, f, epsilon, entries).mean(), violation <= _THRESHOLD


def _soft_min(
    x: Float[Array, "n d"], y: Float[Array, "m d"], g: Float[Array, " m"], epsilon: Float[Array, ""], entries: int
) -> Float[Array, " n"]:
    """Return ``-epsilon log mean_j exp((g_j - |x_i - y_j|^2) / epsilon)`` for every row i."""
    n, m = len(x), len(y)
    rows = min(n, max(1, entries // m))
    blocks = jnp.pad(x, ((0, -n % rows), (0, 0))).reshape(-1, rows, x.shape[1])
    squares = jnp.sum(y * y, axis=1)

    def of(block):
        costs = jnp.sum(block * block, axis=1)[:, None] + squares[None, :] - 2.0 * block @ y.T
        return -epsilon * (jax.nn.logsumexp((g[None, :] - jnp.maximum(costs, 0.0)) / epsilon, axis=1) - jnp.log(m))

    return jax.lax.map(of, blocks).reshape(-1)[:n]
