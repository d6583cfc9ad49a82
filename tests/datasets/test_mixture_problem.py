"""The mixture construction: Schrödinger structure, a discrete Sinkhorn by POT, and empirical moments."""

import dataclasses

import numpy as np
import ot
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from scgenot.datasets import MixtureProblem, gaussian_mixture


@pytest.fixture
def problem():
    means = np.array([[2.0, 0.0, 1.0], [-2.0, 1.0, 0.0], [0.0, -1.5, -1.0]])
    return MixtureProblem(means, np.array([1.0, 2.0, 3.0]), 0.5, 0.8)


def log_conditional(problem, x, y):
    """log pi(y_j | x_i), shape (n, m), from what `conditional` returns."""
    weights, means, cov = problem.conditional(x)
    return np.array(
        [
            logsumexp([np.log(w) + multivariate_normal.logpdf(y, m, cov) for w, m in zip(*row, strict=True)], axis=0)
            for row in zip(weights, means, strict=True)
        ]
    )


def separable_remainder(table):
    """What is left of f(i, j) after the best u(i) + v(j)."""
    return np.abs(table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()).max()


def test_plan_has_the_structure_of_an_entropic_plan_at_our_epsilon(problem, rng):
    # log pi(y | x) + |x - y|^2 / epsilon must be u(x) + v(y).
    x, y = rng.normal(size=(9, 3)), 2 * rng.normal(size=(11, 3))
    table, costs = log_conditional(problem, x, y), ot.dist(x, y)
    assert separable_remainder(table + costs / problem.epsilon) < 1e-9
    assert separable_remainder(table + costs / problem.epsilon_b) > 0.5  # the benchmark's epsilon with our cost
    assert separable_remainder(table + costs / (2 * problem.epsilon)) > 0.5


def test_potential_is_the_stated_mixture(problem, rng):
    # v(y) ~ pi(y | x) exp(|x - y|^2 / (2 epsilon_b)), for any x.
    x, y = rng.normal(size=(4, 3)), 2 * rng.normal(size=(11, 3))
    stated = logsumexp(
        [
            np.log(w) + multivariate_normal.logpdf(y, m, 0.5 * np.eye(3))
            for w, m in zip([1 / 6, 2 / 6, 3 / 6], problem.potential_means, strict=True)
        ],
        axis=0,
    )
    implied = log_conditional(problem, x, y) + ot.dist(x, y) / (2 * problem.epsilon_b)
    np.testing.assert_allclose(np.diff(implied, axis=1), np.broadcast_to(np.diff(stated), (4, 10)), atol=1e-9)


def test_pots_sinkhorn_finds_the_conditional_laws():
    problem = MixtureProblem(np.array([[-4.0], [1.0], [5.0]]), np.array([0.5, 0.2, 0.3]), 0.5, 1.0)
    x, y = np.linspace(-5, 5, 201)[:, None], np.linspace(-7, 8, 301)[:, None]
    a = norm.pdf(x[:, 0])
    b = a @ np.exp(log_conditional(problem, x, y))  # the push-forward of the source
    plan = ot.sinkhorn(a / a.sum(), b / b.sum(), ot.dist(x, y), problem.epsilon, stopThr=1e-10, numItermax=5000)
    rows = plan / plan.sum(axis=1, keepdims=True)
    mean = rows @ y[:, 0]
    variance = rows @ y[:, 0] ** 2 - mean**2

    inner = np.abs(x[:, 0]) < 3
    means, covs = problem.conditional_moments(x)
    np.testing.assert_allclose(means[inner, 0], mean[inner], atol=2e-3)
    np.testing.assert_allclose(covs[inner, 0, 0], variance[inner], atol=5e-3)
    assert covs.max() > 3  # modes far apart: no single Gaussian would do
    assert problem.target_mean[0] == pytest.approx(b / b.sum() @ y[:, 0], abs=0.01)
    assert problem.target_cov[0, 0] == pytest.approx(np.cov(y[:, 0], aweights=b, ddof=0), rel=5e-3)


def test_moments_are_those_of_the_samples(problem, rng):
    x = rng.normal(size=(5, 3))
    samples = problem.sample_conditional(rng, x, 40_000)
    assert samples.shape == (5, 40_000, 3)
    means, covs = problem.conditional_moments(x)
    np.testing.assert_allclose(samples.mean(axis=1), means, atol=0.03)
    for row, cov in zip(samples, covs, strict=True):
        np.testing.assert_allclose(np.cov(row.T), cov, atol=0.03)


def test_samples_come_from_the_mixture_and_not_from_its_moments(rng):
    problem = MixtureProblem(np.array([[-4.0], [4.0]]), np.array([0.7, 0.3]), 0.5, 1.0)
    x = np.array([[0.3]])
    weights, means, cov = problem.conditional(x)
    samples = problem.sample_conditional(rng, x, 50_000)[0, :, 0]
    for edge in (-3.0, -2.0, 0.0, 2.0, 3.0):
        expected = weights[0] @ norm.cdf(edge, means[0, :, 0], np.sqrt(cov[0, 0]))
        assert np.mean(samples < edge) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("d", [1, 3, 8])
def test_target_moments_are_those_of_a_large_sample(d):
    problem = gaussian_mixture(d, rng=2)
    y = problem.sample_target(1, 100_000)
    np.testing.assert_allclose(y.mean(axis=0), problem.target_mean, atol=0.04)
    cov = np.atleast_2d(np.cov(y.T))
    np.testing.assert_allclose(cov, problem.target_cov, atol=0.06)
    assert np.trace(problem.target_cov) == pytest.approx(np.trace(cov), rel=0.01)
    x = problem.sample_source(3, 100_000)
    np.testing.assert_allclose(np.cov(x.T), problem.source_cov, atol=0.03)
    assert np.mean(np.sum((x - y) ** 2, axis=1)) == pytest.approx(problem.mean_cost, rel=0.01)  # x and y independent


def test_defaults_are_as_stated_and_reproducible():
    problem = gaussian_mixture(16)
    np.testing.assert_allclose(np.linalg.norm(problem.potential_means, axis=1), 5.0)
    assert problem.potential_means.shape == (5, 16)
    assert (problem.epsilon_b, problem.epsilon, problem.covariance) == (1.0, 2.0, 0.5)
    np.testing.assert_array_equal(problem.potential_means, gaussian_mixture(16).potential_means)
    assert np.abs(problem.potential_means - gaussian_mixture(16, rng=1).potential_means).max() > 0.1
    weights, _, cov = problem.conditional(problem.sample_source(0, 200))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(cov, np.eye(16) / 3)
    assert (weights.max(axis=0) > 0.5).sum() >= 3  # several modes are in play, not one
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.epsilon_b = 2.0


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gaussian_mixture(3, n_components=0), r"`n_components` must be a whole number of at least 1, got 0"),
        (lambda: gaussian_mixture(3, epsilon_b=0.0), r"`epsilon_b` must be a finite number above 0, got 0\.0"),
        (lambda: gaussian_mixture(3, covariance=np.inf), r"`covariance` must be a finite number above 0, got inf"),
        (lambda: MixtureProblem(np.zeros(3), np.ones(3), 1.0, 1.0), r"`potential_means` must be .* got shape \(3,\)"),
        (lambda: MixtureProblem(np.zeros((2, 1)), np.ones(3), 1.0, 1.0), r"`potential_weights` must be 2 positive"),
        (lambda: MixtureProblem(np.zeros((2, 1)), np.array([1.0, 0.0]), 1.0, 1.0), r"`potential_weights` must be 2"),
        (lambda: gaussian_mixture(3).conditional(np.zeros((4, 2))), r"`x` must have shape \(n, 3\).*got \(4, 2\)"),
        (lambda: gaussian_mixture(3).sample_conditional(0, np.zeros((4, 3)), 0), r"`n_samples` must be a whole number"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
