"""Plans to start quadratic problems from: many that really differ, none of which needs a label."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.distance import cdist

from scgenot.coupling.quadratic._problem import QuadraticProblem
from scgenot.sinkhorn import dense_sinkhorn

# A start says where things lie, not more; annealing settles the rest. Other values were not tried.
_BLUR = 0.05
_TOLERANCE, _ROUNDS = 1e-2, 5
_QUANTILES = 64
# Patterns of signs are 2 to this power, a start each.
_COMPONENTS = 3
# A start that is a guess is followed from near; the product plan knows nothing, and needs a large epsilon to move at all.
NEAR, FAR = 10.0, 50.0


def start_plans(
    problem: QuadraticProblem, sizes: tuple[int, int], *, shared: bool
) -> Iterator[tuple[str, float, Float[Array | np.ndarray, "n m"]]]:
    """Yield the name of each start, from how many times epsilon to anneal it, and its plan.

    `sizes` are the cells of both sides that do not only fill up the shape.

    - ``product``: the plan that knows nothing. It is a stationary point of some problems, so never the only start.
    - ``profiles``: cells whose sorted costs to all others are alike (the first lower bound of Memoli, 2011).
    - ``components +-+``: leading principal coordinates of both populations, under each pattern of signs: a plan that is
      right up to a reflection is the typical bad optimum, and this tries the reflections.
    - ``shared``: by the shared features alone, in fused problems.
    """
    (n, m), (a, b) = sizes, (problem.a, problem.b)
    within = np.asarray(problem.within_source)[:n, :n], np.asarray(problem.within_target)[:m, :m]
    match = partial(_matched, a=a, b=b)
    yield "product", FAR, np.outer(a, b)
    yield "profiles", NEAR, match(*map(_profiles, within))
    if shared:
        yield "shared", NEAR, _plan_of(np.asarray(problem.shared)[:n, :m], a, b)
    weights = np.asarray(a)[:n], np.asarray(b)[:m]
    x, y = (_principal(costs, one) for costs, one in zip(within, weights, strict=True))
    count = min(x.shape[1], y.shape[1])
    for signs in itertools.product((1.0, -1.0), repeat=count):
        pattern = "".join("+" if sign > 0 else "-" for sign in signs)
        yield f"components {pattern}", NEAR, match(x[:, :count], y[:, :count] * np.asarray(signs))


def _matched(x: Float[np.ndarray, "n k"], y: Float[np.ndarray, "m k"], a, b) -> Float[Array, "p q"]:
    return _plan_of(cdist(x, y, "sqeuclidean").astype(np.float32), a, b)


def _plan_of(cost: Float[np.ndarray, "n m"], a, b) -> Float[Array, "p q"]:
    """Return a blurred plan for a linear cost, in the shape of the marginals; a start needs no exact ones."""
    sizes = zip((len(a), len(b)), cost.shape, strict=True)
    return _blurred(np.pad(cost, [(0, size - had) for size, had in sizes]), a, b)


@jax.jit
def _blurred(cost: Float[Array | np.ndarray, "n m"], a, b) -> Float[Array, "n m"]:
    mean = jnp.sum(a[:, None] * b[None, :] * jnp.abs(cost))
    scaled = cost / (_BLUR * jnp.maximum(mean, 1e-30))
    zeros = jnp.zeros_like(a), jnp.zeros_like(b)
    u, v, _ = dense_sinkhorn(scaled, a, b, *zeros, (1.0, 1.0), _TOLERANCE, _ROUNDS)
    return a[:, None] * b[None, :] * jnp.exp(u[:, None] + v[None, :] - scaled)


def _profiles(costs: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n q"]:
    return np.quantile(costs, np.linspace(0.0, 1.0, _QUANTILES), axis=1).T


def _principal(costs: Float[np.ndarray, "n n"], weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n k"]:
    """Return leading principal coordinates (classical scaling of the costs), each of variance 1."""
    costs = np.asarray(costs, np.float64)
    weights = np.asarray(weights, np.float64)
    centred = costs - weights @ costs - (costs @ weights)[:, None] + weights @ costs @ weights
    values, vectors = np.linalg.eigh(0.5 * (centred + centred.T))
    # Costs that are distances have negative leading values, inner products positive ones: take the largest of either.
    order = np.argsort(-np.abs(values))[:_COMPONENTS]
    order = order[np.abs(values[order]) > 1e-9 * max(np.abs(values).max(), 1e-300)]
    return vectors[:, order] * np.sqrt(len(costs))
