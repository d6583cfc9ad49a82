"""Densities against closed forms: linear flows, untrained ones, and a trained one whose density sums to 1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.linalg import expm
from scipy.stats import multivariate_normal

from scgenot.flow import (
    DivergenceConfig,
    FlowConfig,
    FlowWeights,
    NoiseAroundMean,
    NoiseAroundSource,
    NoiseToTarget,
    ODEConfig,
    Path,
    Standardizer,
    TrainConfig,
    VelocityField,
    log_density,
)
from scgenot.flow import _density as density
from scgenot.methods import GENOTSolver

MATRIX = np.array([[0.5, 1.0, 0.0], [-0.8, -0.3, 0.4], [0.2, 0.0, 0.9]], np.float32)
SCALE = [0.1, 5.0, 0.3]
FINE = ODEConfig(n_steps=64)


class Linear(nnx.Module):
    """The velocity A z + x."""

    def __init__(self):
        self.matrix = nnx.Param(jnp.asarray(MATRIX))

    def encode(self, conditions):
        return conditions

    def __call__(self, t, z, x, c=None):
        return z @ self.matrix[...].T + x


def units(mean, scale):
    return Standardizer(jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32))


@pytest.fixture(scope="module")
def linear():
    """A linear flow between spaces of other units, and points and cells in these."""
    graphdef, params = nnx.split(Linear())
    weights = FlowWeights(params, units([1.0, 0.0, -2.0], [2.0, 1.0, 0.5]), units([0.0, 3.0, 1.0], SCALE))
    rng = np.random.default_rng(0)
    cells, points = rng.normal(size=(2, 40, 3))
    return graphdef, weights, (points * SCALE + [0.0, 3.0, 1.0]).astype("f4"), cells.astype("f4")


def closed_form(weights, points, cells):
    """z(1) = e^A z(0) + A^-1 (e^A - I) x, where z(0) is Gaussian."""
    matrix = np.float64(MATRIX)
    end = expm(matrix)
    x = (cells - np.asarray(weights.source_units.mean)) / np.asarray(weights.source_units.scale)
    scale, shift = (np.float64(one) for one in (weights.target_units.scale, weights.target_units.mean))
    slope, base, spread = np.zeros((3, 3)), np.zeros(3), np.eye(3)
    if isinstance(weights.path, NoiseAroundSource):
        slope = np.eye(3)
    elif isinstance(weights.path, NoiseAroundMean):
        slope, base, spread = (np.float64(one) for one in (weights.path.slope, weights.path.shift, weights.path.spread))
    means = x @ np.linalg.solve(matrix, end - np.eye(3)).T + (x @ slope.T + base) @ end.T
    cov = np.diag(scale) @ end @ spread @ spread.T @ end.T @ np.diag(scale)
    return np.array(
        [multivariate_normal(mean, cov).logpdf(y) for mean, y in zip(means * scale + shift, points, strict=True)]
    )


SLOPE, SPREAD = [[0.5, 0.2, 0.0], [-0.3, 0.8, 0.1], [0.0, 0.4, -0.6]], [[0.7, 0, 0], [0.3, 1.6, 0], [-0.2, 0.1, 0.4]]
LINEAR = NoiseAroundMean(*(jnp.array(one) for one in (SLOPE, [1.0, -0.5, 0.2], SPREAD)))


@pytest.mark.parametrize("path", [NoiseToTarget(), NoiseAroundSource(), LINEAR], ids=["noise", "source", "linear"])
@pytest.mark.parametrize("ode", [FINE, ODEConfig("tsit5", rtol=1e-5, atol=1e-5)], ids=["fixed", "adaptive"])
def test_a_linear_flow_has_its_gaussian_density(linear, path, ode):
    graphdef, weights, points, cells = linear
    weights, ids = dataclasses.replace(weights, path=path), np.arange(len(cells))
    found = log_density(graphdef, weights, points, cells, ids, ids, ode)
    expected = closed_form(weights, points, cells)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    # Dropping the units' Jacobian, the divergence, or the source cell would show.
    assert abs(np.log(SCALE).sum()) > 1.0 and abs(np.trace(MATRIX)) > 1.0
    swapped = log_density(graphdef, weights, points, cells, ids, ids[::-1].copy(), ode)
    np.testing.assert_allclose(swapped, closed_form(weights, points, cells[::-1]), atol=5e-3)
    assert np.abs(swapped - found).max() > 1.0


def test_random_probes_have_the_trace_as_their_mean(linear):
    graphdef, weights, points, cells = linear
    # The divergence of a linear flow is one number: so is that of a pair with given probes, and pairs differ by their probes.
    zeros = np.zeros(4000, int)
    given = points[:1], cells[:1], zeros, zeros, ODEConfig()
    exact = log_density(graphdef, weights, points[:1], cells[:1], zeros[:1], zeros[:1], ODEConfig())[0]
    found = log_density(graphdef, weights, *given, divergence=DivergenceConfig("hutchinson", 1), key=jax.random.key(1))
    # Variance of z'Az with random signs: 2 |S|^2 off the diagonal, S the symmetric part.
    symmetric = (MATRIX + MATRIX.T) / 2
    deviation = np.sqrt(2 * (np.sum(symmetric**2) - np.sum(np.diag(symmetric) ** 2)))
    np.testing.assert_allclose(found.std(), deviation, rtol=0.1)
    assert abs(found.mean() - exact) < 5 * deviation / np.sqrt(4000)
    more = log_density(graphdef, weights, *given, divergence=DivergenceConfig("hutchinson", 16), key=jax.random.key(1))
    np.testing.assert_allclose(more.std(), deviation / 4, rtol=0.15)
    other = log_density(graphdef, weights, *given, divergence=DivergenceConfig("hutchinson", 1), key=jax.random.key(2))
    assert (other != found).any()
    with pytest.raises(ValueError, match="`key` is needed"):
        log_density(graphdef, weights, *given, divergence=DivergenceConfig("hutchinson"))


def test_exact_up_to_a_hundred_features():
    assert DivergenceConfig().probes(100) == 0 and DivergenceConfig().probes(101) == 16
    assert DivergenceConfig("exact").probes(500) == 0 and DivergenceConfig("hutchinson", 3).probes(2) == 3


@pytest.mark.parametrize("start", ["noise", "source"])
def test_an_untrained_flow_is_noise_in_the_users_units(start):
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(64, 2)) * [3.0, 0.2], rng.normal(size=(64, 2)) * [0.5, 8.0] + [10.0, 0.0]
    even = np.ones(64)
    sides = [Standardizer.fit(side.astype("f4"), even, "feature") for side in (source, target)]
    config = FlowConfig(hidden=(8,), start=start)
    params = nnx.split(VelocityField(2, 2, config, rngs=nnx.Rngs(0)))[1]
    solver = GENOTSolver(2, 2, config)
    weights = dataclasses.replace(
        solver.weights_template(), params=params, source_units=sides[0], target_units=sides[1]
    )
    solver = dataclasses.replace(solver, weights=weights)
    mean = target.mean(0) + (target.std(0) * (source - source.mean(0)) / source.std(0) if start == "source" else 0.0)
    expected = -0.5 * np.sum(
        ((target - mean) / target.std(0)) ** 2 + np.log(2 * np.pi) + 2 * np.log(target.std(0)), axis=1
    )
    np.testing.assert_allclose(solver.log_prob(target, source), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def bent():
    """A trained flow with two modes, whose law depends on the source cell, in units far from 1."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(512, 2)).astype(np.float32)
    sides = np.where(rng.random(512) < 0.3, -1.0, 1.0)
    target = np.stack([sides * 3 + source[:, 0], 0.02 * (source[:, 1] + 0.5 * rng.normal(size=512))], axis=1)
    from tests.flow.conftest import FixedCoupling

    blank = GENOTSolver(2, 2, FlowConfig(hidden=(32, 32), time_frequencies=4, standardize="feature"))
    schedule = TrainConfig(max_steps=400, batch_size=256, check_every=20, learning_rate=1e-2)
    from scgenot.methods import FitData

    data = FitData(source, target.astype(np.float32), FixedCoupling(np.arange(512)))
    return blank.learn(jax.random.key(0), data, schedule, progress_bar=False)[0]


def test_a_trained_density_sums_to_one_and_is_that_of_the_samples(bent):
    cell = np.array([[0.5, -0.5]], np.float32)
    first, second = np.linspace(-7, 7, 121), np.linspace(-0.12, 0.12, 61)
    grid = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
    pairs = np.arange(len(grid)), np.zeros(len(grid), int)
    mass = (
        np.exp(bent.log_prob(grid, cell, pairs=pairs).astype(np.float64))
        * (first[1] - first[0])
        * (second[1] - second[0])
    )
    assert abs(mass.sum() - 1) < 0.02
    samples = bent.sample(0, cell, 4000)[0]
    right, wide = samples[:, 0] > 0, np.abs(samples[:, 1] + 0.01) > 0.012
    on_right, on_wide = grid[:, 0] > 0, np.abs(grid[:, 1] + 0.01) > 0.012
    # Of 4000 samples a share is known to .008; the edges lie between points of the grid.
    assert abs(right.mean() - mass[on_right].sum()) < 0.04
    assert abs(wide.mean() - mass[on_wide].sum()) < 0.04
    # Both modes are there, and more on the right: a density of one mode would not pass.
    assert 0.1 < 1 - mass[on_right].sum() < 0.5


def test_the_source_cell_counts(bent):
    rng = np.random.default_rng(1)
    cells = rng.normal(size=(200, 2)).astype(np.float32)
    samples = bent.sample(0, cells, 1)[:, 0]
    own, others = bent.log_prob(samples, cells), bent.log_prob(samples, cells[::-1].copy())
    assert (own - others).mean() > 1.0


def test_pairs_do_not_depend_on_each_other_and_compile_nothing(bent):
    rng = np.random.default_rng(2)
    cells, points = rng.normal(size=(30, 2)).astype(np.float32), rng.normal(size=(30, 2)).astype(np.float32)
    whole = bent.log_prob(points, cells)
    before = density._log_rows._cache_size()
    some = np.array([20, 3, 20])
    np.testing.assert_array_equal(bent.log_prob(points[some], cells[some]), whole[some])
    np.testing.assert_array_equal(bent.log_prob(points, cells, pairs=(some, some)), whole[some])
    assert bent.log_prob(points[:0], cells[:0]).shape == (0,)
    many = np.zeros(3000, int)
    np.testing.assert_array_equal(bent.log_prob(points, cells, pairs=(many, many)), np.full(3000, whole[0]))
    assert density._log_rows._cache_size() == before
    with pytest.raises(ValueError, match="`y` and `x` must have as many rows"):
        bent.log_prob(points, cells[:4])


def test_paths_without_an_inverse_have_no_density(linear):
    class Elsewhere(NoiseAroundSource):
        noise = Path.noise

    graphdef, weights, points, cells = linear
    weights = dataclasses.replace(weights, path=Elsewhere())
    with pytest.raises(NotImplementedError, match="Elsewhere has no `noise`"):
        log_density(graphdef, weights, points, cells, np.arange(2), np.arange(2), ODEConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "trace"}, "`method` must be one of"), ({"n_probes": 0}, "`n_probes` must be a whole number")],
)
def test_wrong_options(options, message, plain_calls):
    with pytest.raises(ValueError, match=message):
        DivergenceConfig(**options)
