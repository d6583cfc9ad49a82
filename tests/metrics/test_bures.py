"""Bures-Wasserstein distance and the percentages: against POT, closed forms and loops."""

import jax.numpy as jnp
import numpy as np
import ot
import pytest
from scipy.linalg import sqrtm

from scgenot.datasets import gaussian_mixture
from scgenot.metrics import bw2, bw_uvp, cbw_uvp


def covariances(rng, *shape_d):
    *batch, d = shape_d
    root = rng.normal(size=(*batch, d, d + 2))
    return root @ np.swapaxes(root, -1, -2) / d


def by_definition(x_mean, x_cov, y_mean, y_cov):
    root = sqrtm(x_cov)
    cross = np.trace(sqrtm(root @ y_cov @ root)).real
    return 0.5 * np.sum((x_mean - y_mean) ** 2) + 0.5 * np.trace(x_cov + y_cov) - cross


@pytest.mark.parametrize("d", [1, 2, 7])
def test_bw2_is_half_of_pots_squared_distance(rng, d):
    x_mean, y_mean = rng.normal(size=(2, d))
    x_cov, y_cov = covariances(rng, 2, d)
    expected = 0.5 * ot.gaussian.bures_wasserstein_distance(x_mean, y_mean, x_cov, y_cov) ** 2
    value = bw2(x_mean, x_cov, y_mean, y_cov)
    assert isinstance(value, float)
    assert value == pytest.approx(expected, rel=1e-8)
    assert value == pytest.approx(bw2(y_mean, y_cov, x_mean, x_cov), rel=1e-8)


def test_bw2_in_one_dimension_and_between_point_masses():
    one = bw2(np.array([1.0]), np.array([[4.0]]), np.array([3.0]), np.array([[9.0]]))
    assert one == pytest.approx(0.5 * (3 - 1) ** 2 + 0.5 * (3 - 2) ** 2)
    zero = np.zeros((2, 2))
    assert bw2(np.zeros(2), zero, np.array([3.0, 4.0]), zero) == pytest.approx(12.5)
    assert bw2(np.zeros(2), zero, np.zeros(2), np.diag([2.0, 0.0])) == pytest.approx(1.0)


def test_bw2_is_zero_and_never_negative_for_equal_laws(rng):
    mean, cov = rng.normal(size=(50, 6)), covariances(rng, 50, 6)
    values = bw2(mean, cov, mean, cov)
    assert values.shape == (50,)
    assert np.all(values >= 0)
    np.testing.assert_allclose(values, 0, atol=1e-12)


@pytest.mark.parametrize("x_shape, y_shape", [((5,), (5,)), ((), (5,)), ((5,), ()), ((3, 1), (1, 4))])
def test_bw2_broadcasts_like_a_loop(rng, x_shape, y_shape):
    d = 3
    x_mean, y_mean = rng.normal(size=(*x_shape, d)), rng.normal(size=(*y_shape, d))
    x_cov, y_cov = covariances(rng, *x_shape, d), covariances(rng, *y_shape, d)
    values = bw2(x_mean, x_cov, y_mean, y_cov)
    shape = np.broadcast_shapes(x_shape, y_shape)
    assert values.shape == shape
    for index in np.ndindex(shape):
        expected = by_definition(
            np.broadcast_to(x_mean, (*shape, d))[index],
            np.broadcast_to(x_cov, (*shape, d, d))[index],
            np.broadcast_to(y_mean, (*shape, d))[index],
            np.broadcast_to(y_cov, (*shape, d, d))[index],
        )
        assert values[index] == pytest.approx(expected, rel=1e-7)


def test_bw_uvp_by_definition_with_the_unbiased_covariance(rng):
    samples, mean, cov = rng.normal(size=(12, 3)), rng.normal(size=3), covariances(rng, 3)
    expected = 100 * by_definition(mean, cov, samples.mean(0), np.cov(samples.T)) / (0.5 * np.trace(cov))
    assert bw_uvp(samples, mean, cov) == pytest.approx(expected, rel=1e-8)
    biased = 100 * by_definition(mean, cov, samples.mean(0), np.cov(samples.T, ddof=0)) / (0.5 * np.trace(cov))
    assert abs(expected - biased) > 1e-3  # the test tells the two apart


def test_bw_uvp_of_known_errors(rng):
    d, cov = 4, np.diag([1.0, 2.0, 3.0, 4.0])
    samples = rng.normal(size=(200, d))
    samples -= samples.mean(0)
    samples = samples @ np.linalg.inv(np.linalg.cholesky(np.cov(samples.T))).T @ np.sqrt(cov)  # moments now exact
    assert bw_uvp(samples, np.zeros(d), cov) == pytest.approx(0, abs=1e-10)
    shift = np.array([1.0, 0.0, -2.0, 0.0])
    assert bw_uvp(samples + shift, np.zeros(d), cov) == pytest.approx(100 * 5 / 10)
    assert bw_uvp(2 * samples, np.zeros(d), cov) == pytest.approx(100 * 10 / 10)  # each sd doubled
    assert bw_uvp(0 * samples, np.zeros(d), cov) == pytest.approx(100)  # a point mass at the mean


@pytest.mark.parametrize("shared", [False, True])
def test_cbw_uvp_is_the_mean_over_source_cells(rng, monkeypatch, shared):
    n_x, n, d = 9, 15, 3
    samples, means = rng.normal(size=(n_x, n, d)), rng.normal(size=(n_x, d))
    covs = covariances(rng, d) if shared else covariances(rng, n_x, d)
    target_cov = np.diag([1.0, 2.0, 4.0])
    each = [
        by_definition(means[i], covs if shared else covs[i], samples[i].mean(0), np.cov(samples[i].T))
        for i in range(n_x)
    ]
    expected = 100 * np.mean(each) / 3.5
    assert cbw_uvp(samples, means, covs, target_cov) == pytest.approx(expected, rel=1e-8)
    assert cbw_uvp(samples, means, covs, 7.0) == pytest.approx(expected, rel=1e-8)
    assert cbw_uvp(jnp.asarray(samples), means, covs, 7.0) == pytest.approx(expected, rel=1e-4)  # float32
    monkeypatch.setattr("scgenot.metrics._blocks.MAX_ENTRIES", 2 * n * d)  # blocks of two x, the last of one
    assert cbw_uvp(samples, means, covs, 7.0) == pytest.approx(expected, rel=1e-8)


def test_cbw_uvp_floor_falls_with_the_number_of_samples():
    problem = gaussian_mixture(4)
    x = problem.sample_source(1, 100)
    truth = (*problem.conditional_moments(x), problem.target_cov)
    few, many = (cbw_uvp(problem.sample_conditional(2, x, n), *truth) for n in (50, 800))
    assert 0 < many < few / 8
    independent = np.stack([problem.sample_target(i, 200) for i in range(100)])  # ignores x
    assert cbw_uvp(independent, *truth) > 20


BAD = {
    "covariance's shape": lambda: bw2(np.zeros(3), np.eye(2), np.zeros(3), np.eye(3)),
    "means of two widths": lambda: bw2(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)),
    "asymmetric": lambda: bw2(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]), np.zeros(2), np.eye(2)),
    "negative variance": lambda: bw2(np.zeros(2), -np.eye(2), np.zeros(2), np.eye(2)),
    "NaN": lambda: bw_uvp(np.array([[0.0], [np.nan]]), np.zeros(1), np.eye(1)),
    "one sample": lambda: bw_uvp(np.zeros((1, 2)), np.zeros(2), np.eye(2)),
    "no variance": lambda: bw_uvp(np.zeros((4, 2)), np.zeros(2), np.zeros((2, 2))),
    "samples not 3-D": lambda: cbw_uvp(np.zeros((4, 2)), np.zeros((4, 2)), np.eye(2), 1.0),
    "one sample each": lambda: cbw_uvp(np.zeros((4, 1, 2)), np.zeros((4, 2)), np.eye(2), 1.0),
    "means of other x": lambda: cbw_uvp(np.zeros((4, 3, 2)), np.zeros((5, 2)), np.eye(2), 1.0),
    "covs of other x": lambda: cbw_uvp(np.zeros((4, 3, 2)), np.zeros((4, 2)), np.zeros((5, 2, 2)), 1.0),
    "no target variance": lambda: cbw_uvp(np.zeros((4, 3, 2)), np.zeros((4, 2)), np.eye(2), 0.0),
    "inf in a sample": lambda: cbw_uvp(np.full((4, 3, 2), np.inf), np.zeros((4, 2)), np.eye(2), 1.0),
}


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("call", BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"^`\w+`.* must .*(got|be finite)"):
        call()
