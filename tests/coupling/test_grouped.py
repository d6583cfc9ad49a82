"""Iterations over groups of cells, against plain iterations in double precision."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from scgenot.costs import resolve_cost
from scgenot.sinkhorn._geometry import BLOCK, Geometry, soft_min_groups
from scgenot.sinkhorn._groups import Groups, Stage, grouped_potentials

N, M, EPSILON = 173, 131, 0.3


def clusters(rng, n, shares, spread=0.3):
    """Cells of clusters on a line, in two dimensions."""
    which = rng.choice(len(shares), n, p=shares)
    return (np.stack([2.0 * which, 0.0 * which], axis=1) + spread * rng.normal(size=(n, 2))).astype(np.float32)


def problem(rng, n=N, m=M, stored=False):
    x, y = clusters(rng, n, (0.5, 0.3, 0.2)), clusters(rng, m, (0.2, 0.3, 0.5))
    geometry = Geometry(jnp.asarray(x), jnp.asarray(y), 1.0 / EPSILON, resolve_cost("sqeuclidean"))
    return geometry.stored() if stored else geometry


def costs(geometry):
    x, y = (np.asarray(side, np.float64) for side in (geometry.x, geometry.y))
    return np.square(x[:, None] - y[None]).sum(axis=-1) * float(geometry.inverse)


def plain_plan(scaled, a, b, taus, iterations=20_000):
    """Sinkhorn in NumPy, in double precision, until nothing changes."""
    v = np.zeros(len(b))
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    for _ in range(iterations):
        u = -taus[0] * logsumexp(log_b + v - scaled, axis=1)
        before, v = v, -taus[1] * logsumexp((log_a + u)[:, None] - scaled, axis=0)
        if np.abs(v - before).max() < 1e-12:
            break
    return a[:, None] * b * np.exp(u[:, None] + v - scaled)


def plan_of(geometry, a, b, u, v):
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    return a[:, None] * b * np.exp(u[:, None] + v - costs(geometry))


@pytest.mark.parametrize("width", [32, 128, BLOCK, 2 * BLOCK])
@pytest.mark.parametrize("stored", [False, True])
def test_sums_over_groups_of_columns(rng, width, stored):
    n, m = 70, 2500
    geometry = problem(rng, n, m, stored)
    h = rng.normal(size=m)
    h[:40] = -np.inf
    found = np.asarray(soft_min_groups(geometry, jnp.asarray(h, jnp.float32), width))
    logits = h[None, :] - costs(geometry)
    expected = np.stack([logsumexp(logits[:, k : k + width], axis=1) for k in range(0, m, width)], axis=1)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.9, 0.8), (1.0, 0.5), (0.5, 1.0), (1e-3, 0.999)])
@pytest.mark.parametrize("stored", [False, True])
def test_the_plan_is_that_of_plain_iterations(rng, taus, stored):
    geometry = problem(rng, stored=stored)
    a, b = rng.uniform(0.5, 1.5, N), rng.uniform(0.5, 1.5, M)
    a[:5], b[-3:] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    stages = [Stage(4.0, 1e-2, 5), Stage(1.0, 1e-6, 500)]
    u, v, violation, iterations = grouped_potentials(
        geometry, jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), jnp.zeros(M), taus, stages
    )
    expected = plain_plan(costs(geometry), a, b, taus)
    assert violation <= 1e-5 and iterations < 500
    assert np.abs(plan_of(geometry, a, b, u, v) - expected).sum() < 2e-3 * expected.sum()


def test_mass_between_clusters_arrives_in_few_iterations(rng):
    n = 600
    x, y = clusters(rng, n, (0.5, 0.3, 0.2), 0.1), clusters(rng, n, (0.2, 0.3, 0.5), 0.1)
    geometry = Geometry(jnp.asarray(x), jnp.asarray(y), 1.0 / 0.05, resolve_cost("sqeuclidean"))
    weights = jnp.full(n, 1.0 / n)
    u, v, violation, iterations = grouped_potentials(
        geometry, weights, weights, jnp.zeros(n), (1.0, 1.0), [Stage(1.0, 1e-3, 100)]
    )
    assert violation <= 1e-3 and iterations <= 30
    plain = plain_plan(costs(geometry), np.full(n, 1 / n), np.full(n, 1 / n), (1.0, 1.0), 10 * iterations)
    assert np.abs(plain.sum(axis=1) - 1 / n).sum() > 1e-3
    marginal = plan_of(geometry, np.asarray(weights), np.asarray(weights), u, v).sum(axis=0)
    assert np.abs(marginal - 1 / n).sum() < 2e-3


def test_order_of_cells_does_not_matter(rng):
    geometry, order = problem(rng), np.random.default_rng(1).permutation(N)
    a = jnp.asarray(rng.dirichlet(np.ones(N)), jnp.float32)
    b, stages = jnp.full(M, 1.0 / M), [Stage(1.0, 1e-6, 300)]
    u, v, *_ = grouped_potentials(geometry, a, b, jnp.zeros(M), (0.9, 1.0), stages)
    mixed = geometry.rows(order, np.arange(M))
    u_mixed, v_mixed, *_ = grouped_potentials(mixed, a[order], b, jnp.zeros(M), (0.9, 1.0), stages)
    np.testing.assert_allclose(u_mixed, u[order], atol=1e-3)
    np.testing.assert_allclose(v_mixed, v, atol=1e-3)


@pytest.mark.parametrize("n", [1, 5, 33, 3000, 40_000])
def test_groups_hold_every_cell_once_and_are_compact(rng, n):
    cells = rng.normal(size=(n, 2)).astype(np.float32)
    found = Groups.of(cells)
    np.testing.assert_array_equal(np.sort(found.order), np.arange(n))
    assert -(-n // found.width) <= 256
    assert found.width < BLOCK or found.width % BLOCK == 0
    if n >= 3000:
        within = [cells[found.order[k : k + found.width]].var(axis=0).sum() for k in range(0, n, found.width)]
        assert np.mean(within) < 0.2 * cells.var(axis=0).sum()


@pytest.mark.parametrize("seed", range(30))
def test_groups_of_awkward_cells(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.choice([33, 34, 64, 65, 200]))
    cells = rng.normal(size=(n, int(rng.choice([1, 2, 10])))) * 10.0 ** rng.integers(-6, 7) + rng.choice([0.0, 1e4])
    if seed % 3 == 0:
        cells[: rng.integers(1, n + 1)] = cells[0]
    if seed % 5 == 0:
        cells = cells[rng.integers(0, 3, n)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Groups.of(cells.astype(np.float32))
    np.testing.assert_array_equal(np.sort(found.order), np.arange(n))


def test_same_input_same_potentials(rng):
    geometry, a, b = problem(rng), jnp.full(N, 1.0 / N), jnp.full(M, 1.0 / M)
    first, second = (
        grouped_potentials(geometry, a, b, jnp.zeros(M), (1.0, 1.0), [Stage(1.0, 1e-4, 50)]) for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_no_more_iterations_than_allowed(rng):
    geometry, a, b = problem(rng), jnp.full(N, 1.0 / N), jnp.full(M, 1.0 / M)
    *_, violation, iterations = grouped_potentials(geometry, a, b, jnp.zeros(M), (1.0, 1.0), [Stage(1.0, 1e-12, 3)])
    assert iterations == 3 and 1e-12 < violation < 1
