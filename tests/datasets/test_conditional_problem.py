"""Conditions with known laws: the entropic plan by POT, the potential by quadrature, moments, synergy, and additivity."""

import dataclasses

import numpy as np
import ot
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from scgenot.datasets import ConditionalMixtureProblem, conditional_gaussian, conditional_mixture
from scgenot.metrics import bw_uvp, cbw_uvp

DOSES = np.array([1.0, 0.0, 2.5])


@pytest.fixture
def problem():
    return conditional_mixture(3, n_drugs=3, n_donors=2, n_components=4, epsilon_b=0.8, rng=1)


def log_conditional(problem, x, y, doses):
    """log pi_c(y_j | x_i), shape (n, m), from what `conditional` returns."""
    weights, means, cov = problem.conditional(x, doses)
    return np.array(
        [
            logsumexp([np.log(w) + multivariate_normal.logpdf(y, m, cov) for w, m in zip(*row, strict=True)], axis=0)
            for row in zip(weights, means, strict=True)
        ]
    )


def log_potential(problem, y, doses):
    """log v_c(y) as the issue states it: the mixture, tilted."""
    components = [
        np.log(w) + multivariate_normal.logpdf(y, m, problem.covariance * np.eye(y.shape[1]))
        for w, m in zip(problem.potential_weights, problem.potential_means, strict=True)
    ]
    tilt = sum(
        np.log1p(dose / problem.reference_dose) * (y @ slope - 0.5 * np.einsum("nd,de,ne->n", y, curvature, y))
        for dose, slope, curvature in zip(doses, problem.slopes, problem.curvatures, strict=True)
    )
    return logsumexp(components, axis=0) + tilt


def separable_remainder(table):
    """What is left of f(i, j) after the best u(i) + v(j)."""
    return np.abs(table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()).max()


def test_plan_has_the_structure_of_an_entropic_plan_at_our_epsilon(problem, rng):
    x, y = rng.normal(size=(9, 3)), 2 * rng.normal(size=(11, 3))
    table, costs = log_conditional(problem, x, y, DOSES), ot.dist(x, y)
    assert separable_remainder(table + costs / problem.epsilon) < 1e-9
    assert separable_remainder(table + costs / problem.epsilon_b) > 0.5  # the benchmark's epsilon with our cost
    assert separable_remainder(table + costs / (2 * problem.epsilon)) > 0.5


@pytest.mark.parametrize("doses", [np.zeros(3), DOSES])
def test_potential_is_the_stated_tilted_mixture(problem, rng, doses):
    # v_c(y) ~ pi_c(y | x) exp(|x - y|^2 / (2 epsilon_b)), for any x.
    x, y = rng.normal(size=(4, 3)), 2 * rng.normal(size=(11, 3))
    implied = log_conditional(problem, x, y, doses) + ot.dist(x, y) / (2 * problem.epsilon_b)
    stated = np.diff(log_potential(problem, y, doses))
    np.testing.assert_allclose(np.diff(implied, axis=1), np.broadcast_to(stated, (4, 10)), atol=1e-9)


def test_pots_sinkhorn_finds_the_conditional_laws_for_every_donor():
    # Two donors with the same truth, one drug that bends and shifts: the plan between each donor's populations is that truth.
    problem = ConditionalMixtureProblem(
        potential_means=np.array([[-4.0], [1.0], [5.0]]),
        potential_weights=np.array([0.5, 0.2, 0.3]),
        covariance=0.5,
        epsilon_b=1.0,
        slopes=np.array([[0.9]]),
        curvatures=np.array([[[0.4]]]),
        reference_dose=0.5,
        donor_means=np.array([[0.0], [0.8]]),
        donor_covs=np.array([[[1.0]], [[0.6]]]),
    )
    doses = np.array([1.0])
    x, y = np.linspace(-5, 5, 201)[:, None], np.linspace(-7, 8, 301)[:, None]
    inner = np.abs(x[:, 0]) < 2.5
    means, covs = problem.conditional_moments(x, doses)
    for donor in (0, 1):
        a = norm.pdf(x[:, 0], problem.donor_means[donor, 0], np.sqrt(problem.donor_covs[donor, 0, 0]))
        b = a @ np.exp(log_conditional(problem, x, y, doses))  # the push-forward of the source
        plan = ot.sinkhorn(a / a.sum(), b / b.sum(), ot.dist(x, y), problem.epsilon, stopThr=1e-10, numItermax=5000)
        rows = plan / plan.sum(axis=1, keepdims=True)
        mean = rows @ y[:, 0]
        np.testing.assert_allclose(means[inner, 0], mean[inner], atol=2e-3)
        np.testing.assert_allclose(covs[inner, 0, 0], (rows @ y[:, 0] ** 2 - mean**2)[inner], atol=5e-3)
        target_mean, target_cov = problem.target_moments(doses, donor)
        assert target_mean[0] == pytest.approx(b / b.sum() @ y[:, 0], abs=0.01)
        assert target_cov[0, 0] == pytest.approx(np.cov(y[:, 0], aweights=b, ddof=0), rel=5e-3)
    assert covs.max() > 2  # modes far apart: no single Gaussian would do


def test_samples_have_the_stated_moments(problem, rng):
    x = problem.sample_source(rng, 5)
    samples = problem.sample_conditional(rng, x, 40_000, DOSES)
    means, covs = problem.conditional_moments(x, DOSES)
    np.testing.assert_allclose(samples.mean(axis=1), means, atol=0.05)
    for row, cov in zip(samples, covs, strict=True):
        np.testing.assert_allclose(np.cov(row.T), cov, atol=0.08)
    assert cbw_uvp(samples, means, covs, problem.target_moments(DOSES)[1]) < 0.05
    vehicle = problem.sample_conditional(rng, x, 2000, np.zeros(3))
    assert cbw_uvp(vehicle, means, covs, problem.target_moments(DOSES)[1]) > 5


@pytest.mark.parametrize("donor", [0, 1])
def test_target_moments_are_those_of_a_large_sample(problem, donor):
    x, y = problem.sample_source(3, 100_000, donor), problem.sample_target(4, 100_000, DOSES, donor)
    np.testing.assert_allclose(x.mean(axis=0), problem.donor_means[donor], atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), problem.donor_covs[donor], atol=0.03)
    mean, cov = problem.target_moments(DOSES, donor)
    np.testing.assert_allclose(y.mean(axis=0), mean, atol=0.04)
    np.testing.assert_allclose(np.cov(y.T), cov, atol=0.06)
    assert bw_uvp(y, mean, cov) < 0.02
    assert bw_uvp(y, *problem.target_moments(DOSES, 1 - donor)) > 1  # donors differ in what they become ...
    assert np.mean(np.sum((x - y) ** 2, axis=1)) == pytest.approx(problem.mean_cost(DOSES, donor), rel=0.01)


def test_dose_zero_is_no_drug_and_effects_grow_with_the_logarithm(problem, rng):
    x = rng.normal(size=(6, 3))
    np.testing.assert_array_equal(problem.doses({0: 1.0, 2: 2.5, 1: 0.0}), DOSES)
    # Twice h is the dose at which log1p has doubled: d (d + 2) in units of the reference dose.
    once, twice = problem.doses({0: 1.5}), problem.doses({0: 1.5 * 3.5})
    tilts = [log_potential(problem, x, doses) - log_potential(problem, x, np.zeros(3)) for doses in (once, twice)]
    np.testing.assert_allclose(tilts[1], 2 * tilts[0])
    implied = [log_conditional(problem, x[:1], x, doses)[0] for doses in (np.zeros(3), once, twice)]
    np.testing.assert_allclose(np.diff(implied[2] - implied[0]), 2 * np.diff(implied[1] - implied[0]), atol=1e-9)


@pytest.mark.parametrize("d", [2, 8, 16])
def test_drugs_have_synergy_in_the_mixture(d):
    problem = conditional_mixture(d)
    first, second, both = (problem.doses(one) for one in ({0: 2.0}, {1: 2.0}, {0: 2.0, 1: 2.0}))
    nothing, *singles, together = (problem.target_moments(doses)[0] for doses in (np.zeros(6), first, second, both))
    additive = singles[0] + singles[1] - nothing
    # What additivity misses is a good part of what the pair does.
    assert np.linalg.norm(together - additive) > 0.15 * np.linalg.norm(together - nothing)


def test_shifts_of_the_gaussian_add_up_exactly(rng):
    problem = conditional_gaussian(5, n_drugs=4)
    x = rng.normal(size=(7, 5))
    singles = [problem.conditional_moments(x, problem.doses({drug: dose})) for drug, dose in ((0, 1.0), (3, 2.0))]
    nothing, cov = problem.conditional_moments(x, np.zeros(4))
    means, together = problem.conditional_moments(x, problem.doses({0: 1.0, 3: 2.0}))
    np.testing.assert_allclose(means - nothing, sum(mean - nothing for mean, _ in singles), atol=1e-12)
    # The same shift for each cell, and nothing but a shift: A h(d) theta.
    shift = singles[0][0] - nothing
    np.testing.assert_allclose(shift, np.broadcast_to(np.log(2) / 3 * problem.slopes[0], (7, 5)), atol=1e-12)
    np.testing.assert_allclose(together, cov, atol=1e-12)
    for donor in range(3):
        moments = [problem.target_moments(problem.doses(one), donor) for one in ({}, {0: 1.0})]
        np.testing.assert_allclose(moments[1][0] - moments[0][0], shift[0], atol=1e-12)
        np.testing.assert_allclose(moments[1][1], moments[0][1], atol=1e-12)


def test_defaults_are_as_stated_and_reproducible():
    problem = conditional_mixture(16)
    assert (problem.n_drugs, problem.n_donors, problem.epsilon, problem.reference_dose) == (6, 3, 2.0, 1.0)
    np.testing.assert_allclose(np.linalg.norm(problem.potential_means, axis=1), 5.0)
    np.testing.assert_allclose(np.linalg.norm(problem.slopes, axis=1), 1.5)
    np.testing.assert_allclose(np.linalg.eigvalsh(problem.curvatures)[:, -1], 1.0)
    np.testing.assert_allclose(np.linalg.norm(problem.donor_means, axis=1), 1.0)
    values = np.linalg.eigvalsh(problem.donor_covs)
    assert 0.5 <= values.min() and values.max() <= 1.5
    np.testing.assert_array_equal(problem.slopes, conditional_mixture(16).slopes)
    assert np.abs(problem.slopes - conditional_mixture(16, rng=1).slopes).max() > 0.1
    np.testing.assert_array_equal(
        problem.sample_target(5, 9, np.ones(6), 1), problem.sample_target(5, 9, np.ones(6), 1)
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.epsilon_b = 2.0


def changed(**fields):
    return dataclasses.replace(conditional_mixture(2, n_drugs=2), **fields)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: conditional_mixture(3, n_drugs=0), r"`n_drugs` must be a whole number of at least 1, got 0"),
        (lambda: conditional_gaussian(3, epsilon_b=-1.0), r"`epsilon_b` must be a finite number above 0"),
        (lambda: changed(potential_means=np.zeros(3)), r"`potential_means` must be .* got shape \(3,\)"),
        (lambda: changed(potential_weights=np.zeros(5)), r"`potential_weights` must be 5 positive"),
        (lambda: changed(slopes=np.zeros((2, 3))), r"`slopes` must be .*shape \(n, 2\).*got shape \(2, 3\)"),
        (lambda: changed(slopes=np.full((2, 2), np.nan)), r"`slopes` must be finite.*got NaN"),
        (lambda: changed(curvatures=-np.ones((2, 2, 2))), r"`curvatures` must be symmetric and positive semi-definite"),
        (lambda: changed(curvatures=np.zeros((3, 2, 2))), r"`curvatures` must be .*shape \(2, 2, 2\)"),
        (lambda: changed(reference_dose=0.0), r"`reference_dose` must be a finite number above 0"),
        (lambda: changed(donor_covs=np.zeros((3, 2, 2))), r"`donor_covs` must be symmetric positive definite"),
        (lambda: changed().conditional(np.zeros((4, 3)), np.zeros(2)), r"`x` must have shape \(n, 2\).*got \(4, 3\)"),
        (lambda: changed().conditional(np.zeros((4, 2)), np.zeros(3)), r"`doses` must be 2 finite numbers"),
        (lambda: changed().target_moments([1.0, -1.0]), r"`doses` must be 2 finite numbers of at least 0"),
        (lambda: changed().target_moments([1.0, np.nan]), r"`doses` must be 2 finite numbers of at least 0"),
        (lambda: changed().doses({2: 1.0}), r"`given` must name drugs by their numbers, 0 to 1, got \[2\]"),
        (lambda: changed().doses({0: -1.0}), r"`doses` must be 2 finite numbers of at least 0"),
        (lambda: changed().sample_source(0, 5, donor=3), r"`donor` must be one of 0 to 2, got 3"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
