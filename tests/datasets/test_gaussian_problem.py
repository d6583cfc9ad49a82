"""The linear closed form: Schrödinger structure, a discrete Sinkhorn by POT, and empirical moments."""

import dataclasses

import numpy as np
import ot
import pytest

from scgenot.datasets import GaussianProblem, gaussian_pair


def joint_cov(problem):
    cross = problem.cross_cov
    return np.block([[problem.source_cov, cross], [cross.T, problem.target_cov]])


@pytest.mark.parametrize("d", [1, 2, 8])
@pytest.mark.parametrize("fraction", [0.01, 0.05, 1.0])
def test_plan_has_the_structure_of_an_entropic_plan(d, fraction):
    # The plan's density is a(x) b(y) exp(-|x - y|^2 / epsilon): the precision between x and y is -2 I / epsilon.
    problem = gaussian_pair(d, epsilon_fraction=fraction, rng=1)
    precision = np.linalg.inv(joint_cov(problem))
    np.testing.assert_allclose(precision[:d, d:], -2 / problem.epsilon * np.eye(d), atol=1e-7 / problem.epsilon)
    assert np.linalg.eigvalsh(joint_cov(problem))[0] > 0


def discretised(cov, points_an_axis=34):
    """A fine grid with the Gaussian's weights: for smooth densities as good as the integral."""
    reach = 4.5 * np.sqrt(np.linalg.eigvalsh(cov)[-1])
    axis = np.linspace(-reach, reach, points_an_axis)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    weights = np.exp(-0.5 * np.einsum("ni,ij,nj->n", points, np.linalg.inv(cov), points))
    return points, weights / weights.sum()


def test_pots_sinkhorn_finds_the_closed_form():
    problem = gaussian_pair(2, epsilon_fraction=0.3, rng=11)
    commutator = problem.source_cov @ problem.target_cov - problem.target_cov @ problem.source_cov
    assert np.abs(commutator).max() > 0.1  # else the order of the matrices in the formula would not matter
    (x, a), (y, b) = discretised(problem.source_cov), discretised(problem.target_cov)
    costs = ot.dist(x, y)
    plan = ot.sinkhorn(a, b, costs, problem.epsilon, stopThr=1e-9)
    cross = x.T @ plan @ y
    np.testing.assert_allclose(cross, problem.cross_cov, atol=1e-3)

    central = np.flatnonzero(np.linalg.norm(x, axis=1) < 1.5)
    rows = plan[central] / plan[central].sum(axis=1, keepdims=True)
    means, cov = problem.conditional(x[central])
    np.testing.assert_allclose(rows @ y, means, atol=5e-3)
    row = np.cov(y.T, aweights=rows[0], ddof=0)
    np.testing.assert_allclose(row, cov, atol=5e-3)

    value = np.sum(plan * costs) + problem.epsilon * np.sum(plan * np.log(plan / np.outer(a, b)))
    assert value == pytest.approx(problem.value, rel=1e-3)
    assert np.outer(a, b).ravel() @ costs.ravel() == pytest.approx(problem.mean_cost, rel=1e-3)
    # The two likeliest mistakes, a factor 2 either way, are far outside these tolerances.
    for wrong in (0.5, 2.0):
        other = dataclasses.replace(problem, epsilon=wrong * problem.epsilon)
        assert np.abs(other.cross_cov - cross).max() > 0.05


def test_limits_in_epsilon():
    problem = gaussian_pair(3, rng=2)
    tight = dataclasses.replace(problem, epsilon=1e-6)
    pushed = np.linalg.solve(tight.source_cov, tight.cross_cov)  # the optimal map is linear and pushes A to B
    np.testing.assert_allclose(pushed.T @ tight.source_cov @ pushed, tight.target_cov, atol=1e-4)
    squared = ot.gaussian.bures_wasserstein_distance(np.zeros(3), np.zeros(3), tight.source_cov, tight.target_cov) ** 2
    assert tight.value == pytest.approx(squared, abs=1e-4)
    loose = dataclasses.replace(problem, epsilon=1e6)
    np.testing.assert_allclose(loose.cross_cov, 0, atol=1e-4)
    assert loose.value == pytest.approx(loose.mean_cost, rel=1e-4)


def test_samples_have_the_stated_moments(rng):
    problem = gaussian_pair(3, rng=4)
    x, y = problem.sample_source(rng, 40_000), problem.sample_target(rng, 40_000)
    np.testing.assert_allclose(np.cov(x.T), problem.source_cov, atol=0.06)
    np.testing.assert_allclose(np.cov(y.T), problem.target_cov, atol=0.06)
    few = x[:4]
    draws = problem.sample_conditional(rng, few, 20_000)
    assert draws.shape == (4, 20_000, 3)
    means, cov = problem.conditional(few)
    np.testing.assert_allclose(draws.mean(axis=1), means, atol=0.04)
    for row in draws:
        np.testing.assert_allclose(np.cov(row.T), cov, atol=0.03)


def test_conditionals_over_the_source_make_up_the_target(rng):
    problem = gaussian_pair(3, rng=4)
    x = problem.sample_source(rng, 40_000)
    y = problem.sample_conditional(rng, x, 1)[:, 0]
    np.testing.assert_allclose(np.cov(y.T), problem.target_cov, atol=0.06)
    np.testing.assert_allclose(x.T @ y / len(x), problem.cross_cov, atol=0.06)


def test_gaussian_pair_is_well_conditioned_and_reproducible():
    problem, again, other = gaussian_pair(20), gaussian_pair(20, rng=np.random.default_rng(0)), gaussian_pair(20, rng=1)
    for cov in (problem.source_cov, problem.target_cov):
        values = np.linalg.eigvalsh(cov)
        assert 0.3 <= values[0] < values[-1] <= 2.0
        assert np.abs(cov - np.diag(np.diag(cov))).max() > 0.1  # rotated
    assert problem.epsilon == pytest.approx(0.05 * problem.mean_cost)
    np.testing.assert_array_equal(problem.source_cov, again.source_cov)
    assert np.abs(problem.source_cov - other.source_cov).max() > 0.1
    np.testing.assert_array_equal(problem.sample_source(5, 3), problem.sample_source(5, 3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.epsilon = 1.0


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gaussian_pair(0), r"`d` must be a whole number of at least 1, got 0"),
        (lambda: gaussian_pair(2.5), r"`d` must be a whole number of at least 1, got 2\.5"),
        (lambda: gaussian_pair(2, epsilon_fraction=0), r"`epsilon_fraction` must be a finite number above 0, got 0"),
        (lambda: GaussianProblem(np.eye(2), np.eye(3), 1.0), r"must have one shape, got \(2, 2\) and \(3, 3\)"),
        (lambda: GaussianProblem(np.eye(2), np.eye(2), -1.0), r"`epsilon` must be a finite number above 0"),
        (lambda: GaussianProblem(np.ones((2, 2)), np.eye(2), 1.0), r"`source_cov` must be symmetric positive definite"),
        (lambda: GaussianProblem(np.eye(2), np.tri(2), 1.0), r"`target_cov` must be .* asymmetric entries"),
        (lambda: gaussian_pair(2).conditional(np.zeros((4, 3))), r"`x` must have shape \(n, 2\).*got \(4, 3\)"),
        (lambda: gaussian_pair(2).sample_source(0, -1), r"`n` must be a whole number of at least 1, got -1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
