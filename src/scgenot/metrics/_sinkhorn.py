"""Sinkhorn divergence between two samples, by the solvers of :mod:`scgenot.sinkhorn`."""

from __future__ import annotations

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real
from numpy.typing import ArrayLike

from scgenot.costs import Cost, resolve_cost
from scgenot.metrics._checks import as_point_pair, as_weights
from scgenot.sinkhorn import (
    ITERATIONS_PER_ROUND,
    Geometry,
    SinkhornConfig,
    dense_rounds,
    soft_min_rows,
    solve_potentials,
)

MAX_ROWS = 4096  # a few float32 matrices of this size squared are held: about 250 MB
_MAX_ITERATIONS = 5000
# Marginals off by 1e-4 leave the value right to about 1e-4 of the mean cost (tests against POT).
_TOLERANCE = 1e-4


def sinkhorn_divergence(
    x: Real[Array | np.ndarray, "n d"],
    y: Real[Array | np.ndarray, "m d"],
    epsilon: float = 0.05,
    *,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
) -> float:
    r"""Sinkhorn divergence between two samples, ground cost :math:`|x - y|^2` (no 1/2).

    .. math:: S = OT_\varepsilon(x, y) - \tfrac12 OT_\varepsilon(x, x) - \tfrac12 OT_\varepsilon(y, y)

    where :math:`OT_\varepsilon = \min_P \langle C, P\rangle + \varepsilon\, KL(P | a b^\top)`, the KL term included,
    with one :math:`\varepsilon` in all three.

    Parameters
    ----------
    x, y
        Samples, shapes (n, d) and (m, d). Each new pair of shapes is compiled once. Above 4096 rows costs are never
        held, but computed anew in blocks, which takes time in proportion to the product of the two numbers of rows.
    epsilon
        The regularisation as a fraction of the mean cost between x and y; so it does not depend on units.
    x_weights, y_weights
        Non-negative weights of the points, n and m of them; uniform if left out. They are normalised.

    Returns
    -------
    The divergence, in squared units of the data (compare its square root with W2). 0 for equal samples.

    Raises
    ------
    ValueError
        If a sample is not a finite matrix, the widths differ, weights are not one for each point, or ``epsilon`` is not
        positive.

    Warns
    -----
    RuntimeWarning
        If Sinkhorn's iterations stopped before they converged.

    References
    ----------
    Feydy et al. (2019), "Interpolating between optimal transport and MMD using Sinkhorn divergences", AISTATS.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> round(scgenot.metrics.sinkhorn_divergence(x, x + np.array([3.0, 0.0])), 1)
    9.0
    """
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(
            f"`epsilon` must be a positive fraction of the mean cost, got {epsilon!r}. "
            "Use 0.05, or `wasserstein` for 0."
        )
    x, y = as_point_pair(x, y)
    a, b = as_weights("x_weights", x_weights, len(x)), as_weights("y_weights", y_weights, len(y))
    # Points that weigh nothing have no part in it.
    (x, a), (y, b) = ((points[weights > 0], weights[weights > 0]) for points, weights in ((x, a), (y, b)))
    # Scaled to a mean cost of 1, so that one tolerance serves all data.
    centre = 0.5 * (a @ x + b @ y)
    x, y = x - centre, y - centre
    mean_cost = float(a @ (x**2).sum(axis=1) + b @ (y**2).sum(axis=1) - 2.0 * (a @ x) @ (b @ y))
    if mean_cost <= 0.0:
        return 0.0
    scale = np.sqrt(mean_cost)
    x, y, a, b, strength = (jnp.asarray(value, jnp.float32) for value in (x / scale, y / scale, a, b, epsilon))
    solve = _blocked if max(len(x), len(y)) > MAX_ROWS else _dense
    value, converged = solve(resolve_cost("sqeuclidean"), (x, y), (a, b), strength, _MAX_ITERATIONS)
    if not bool(converged):
        warnings.warn(
            f"Sinkhorn did not converge within {_MAX_ITERATIONS} iterations at `epsilon`={epsilon}; the divergence is "
            "approximate. Use a larger epsilon.",
            RuntimeWarning,
            stacklevel=2,
        )
    return float(value) * mean_cost


# One over the other, and each with itself: what is added and subtracted.
_TERMS = ((0, 1, 1.0), (0, 0, -0.5), (1, 1, -0.5))


@partial(jax.jit, static_argnames="cost")
def _dense(cost: Cost, points, weights, epsilon, max_iterations) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    value, converged = jnp.zeros(()), jnp.asarray(True)
    rounds = (max_iterations + ITERATIONS_PER_ROUND - 1) // ITERATIONS_PER_ROUND
    for left, right, factor in _TERMS:
        a, b = weights[left], weights[right]
        scaled = cost(points[left], points[right]) / epsilon
        zeros = jnp.zeros_like(a), jnp.zeros_like(b)
        _, v, violation, _ = dense_rounds(scaled, a, b, *zeros, (1.0, 1.0), _TOLERANCE, rounds)
        # One update more: with exact rows the plan has mass 1, as the dual value assumes.
        u = -jax.nn.logsumexp(jnp.log(b) + v - scaled, axis=1)
        value += factor * epsilon * (jnp.sum(a * u) + jnp.sum(b * v))
        converged &= violation <= _TOLERANCE
    return value, converged


def _blocked(cost: Cost, points, weights, epsilon: Float[Array, ""], max_iterations: int) -> tuple[float, bool]:
    value, converged = 0.0, True
    config = SinkhornConfig(float(epsilon), tolerance=_TOLERANCE, max_iterations=max_iterations, dense_limit=1)
    for left, right, factor in _TERMS:
        a, b = weights[left], weights[right]
        geometry = Geometry(points[left], points[right], 1.0 / epsilon, cost)
        found = solve_potentials(geometry, a, b, config, key=jax.random.key(0))
        u = -soft_min_rows(geometry, found.v + jnp.log(b))
        value += factor * float(epsilon) * float(jnp.sum(a * u) + jnp.sum(b * found.v))
        converged &= found.converged
    return value, converged
