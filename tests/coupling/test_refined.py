"""Potentials that are extended from landmarks to all cells, against the problem solved over all cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scgenot.costs import resolve_cost
from scgenot.sinkhorn import Geometry, SinkhornConfig, refine_potentials, solve_potentials

N, M, LANDMARKS = 300, 240, 60


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(n, 2)) + shift, jnp.float32) for n, shift in ((N, 0.0), (M, 0.5)))
    return Geometry(x, y, 1.0 / 0.2, resolve_cost("sqeuclidean")), jnp.full(N, 1.0 / N), jnp.full(M, 1.0 / M)


def from_landmarks(problem, config):
    """Refine the potentials of a problem over few cells of both sides."""
    geometry, a, b = problem
    rows, columns = np.arange(0, N, N // LANDMARKS), np.arange(0, M, M // LANDMARKS)
    weights = jnp.full(LANDMARKS, 1.0 / LANDMARKS)
    few = solve_potentials(geometry.rows(rows, columns), weights, weights, config, key=jax.random.key(0))
    return refine_potentials(geometry, a, b, (rows, weights, few.u), config)


def plan_of(problem, potentials):
    geometry, a, b = problem
    x, y = (np.asarray(side, np.float64) for side in (geometry.x, geometry.y))
    costs = np.square(x[:, None] - y[None]).sum(axis=-1) * float(geometry.inverse)
    u, v = (np.asarray(one, np.float64) for one in (potentials.u, potentials.v))
    return np.asarray(a)[:, None] * np.asarray(b)[None] * np.exp(u[:, None] + v[None] - costs)


@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.9, 0.8)])
def test_enough_sweeps_reach_the_plan_between_all_cells(problem, taus):
    config = SinkhornConfig(epsilon=0.2, tolerance=1e-4, tau_source=taus[0], tau_target=taus[1])
    found = from_landmarks(problem, config)
    whole = solve_potentials(*problem, config, key=jax.random.key(0))
    assert found.converged and found.violation <= 1e-4
    assert np.abs(plan_of(problem, found) - plan_of(problem, whole)).sum() < 1e-3


@pytest.mark.parametrize("sweeps", [1, 3])
def test_no_more_sweeps_than_allowed_and_their_violation_is_told(problem, sweeps):
    config = SinkhornConfig(epsilon=0.2, tolerance=1e-7, max_iterations=sweeps)
    found = from_landmarks(problem, config)
    assert found.iterations == sweeps
    # What is told was seen before the last correction of the columns, so it bounds what is left.
    plan = plan_of(problem, found)
    left = max(np.abs(plan.sum(axis=1) - 1 / N).sum(), np.abs(plan.sum(axis=0) - 1 / M).sum())
    assert 1e-4 < left <= found.violation
    assert found.converged == (found.violation <= 0.05)
