"""Plans to start quadratic problems from: many that really differ, none of which needs a label."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_BLUR = 0.05
_QUANTILES = 64
_COMPONENTS = 3
# A start that is a guess is followed from near; the product plan knows nothing, and needs a large epsilon to move at all.
NEAR, FAR = 10.0, 50.0


def start_plans(
    within_source: Float[Array, "n n"],
    within_target: Float[Array, "m m"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    shared: Float[Array, "n m"] | None,
) -> Iterator[tuple[str, float, Float[Array, "n m"]]]:
    """Yield the name of each start, from how many times epsilon to anneal it, and its plan.

    - ``product``: the plan that knows nothing. It is a stationary point of some problems, so never the only start.
    - ``profiles``: cells whose sorted costs to all others are alike (the first lower bound of Memoli, 2011).
    - ``components +-+``: leading principal coordinates of both populations, under each pattern of signs: a plan that is
      right up to a reflection is the typical bad optimum, and this tries the reflections.
    - ``shared``: by the shared features alone, in fused problems.
    """
    match = partial(_matched, a=a, b=b)
    yield "product", FAR, jnp.outer(a, b)
    yield "profiles", NEAR, match(*(_profiles(costs) for costs in (within_source, within_target)))
    if shared is not None:
        yield "shared", NEAR, _plan_of(shared, a, b)
    x, y = _principal(within_source, a), _principal(within_target, b)
    count = min(x.shape[1], y.shape[1])
    for signs in itertools.product((1.0, -1.0), repeat=count):
        pattern = "".join("+" if sign > 0 else "-" for sign in signs)
        yield f"components {pattern}", NEAR, match(x[:, :count], y[:, :count] * np.asarray(signs, np.float32))


def _matched(x: Float[Array, "n k"], y: Float[Array, "m k"], a, b) -> Float[Array, "n m"]:
    squares = jnp.square(x).sum(axis=1)[:, None] + jnp.square(y).sum(axis=1)[None, :]
    return _plan_of(squares - 2.0 * x @ y.T, a, b)


@partial(jax.jit, static_argnames="iterations")
def _plan_of(cost: Float[Array, "n m"], a, b, iterations: int = 50) -> Float[Array, "n m"]:
    """Return a blurred plan for a linear cost; a start needs no exact marginals."""
    scaled = cost / (_BLUR * jnp.maximum(jnp.mean(jnp.abs(cost)), 1e-30))
    log_a, log_b = jnp.log(a), jnp.log(b)

    def step(_, v):
        u = -jax.nn.logsumexp(log_b[None, :] + v[None, :] - scaled, axis=1)
        return -jax.nn.logsumexp(log_a[:, None] + u[:, None] - scaled, axis=0)

    v = jax.lax.fori_loop(0, iterations, step, jnp.zeros_like(b))
    u = -jax.nn.logsumexp(log_b[None, :] + v[None, :] - scaled, axis=1)
    return jnp.exp(log_a[:, None] + log_b[None, :] + u[:, None] + v[None, :] - scaled)


def _profiles(costs: Float[Array, "n n"]) -> Float[Array, "n q"]:
    return jnp.quantile(costs, jnp.linspace(0.0, 1.0, _QUANTILES), axis=1).T


def _principal(costs: Float[Array, "n n"], weights: Float[Array, " n"]) -> Float[Array, "n k"]:
    """Return leading principal coordinates (classical scaling of the costs), each of variance 1."""
    costs = np.asarray(costs, np.float64)
    weights = np.asarray(weights, np.float64)
    centred = costs - weights @ costs - (costs @ weights)[:, None] + weights @ costs @ weights
    values, vectors = np.linalg.eigh(0.5 * (centred + centred.T))
    # Costs that are distances have negative leading values, inner products positive ones: take the largest of either.
    order = np.argsort(-np.abs(values))[:_COMPONENTS]
    order = order[np.abs(values[order]) > 1e-9 * max(np.abs(values).max(), 1e-300)]
    return jnp.asarray(vectors[:, order] * np.sqrt(len(costs)), jnp.float32)
