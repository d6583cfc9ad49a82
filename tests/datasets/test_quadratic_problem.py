"""The quadratic closed form: an optimiser, the linear closed form at its fixed point, and POT on a grid."""

import numpy as np
import ot
import pytest
from scipy.optimize import minimize

from scgenot.datasets import GaussianProblem, QuadraticGaussianProblem, quadratic_gaussian


def test_the_figures_of_the_method():
    problem = quadratic_gaussian()
    np.testing.assert_allclose(problem.cross_singular_values, [1.6583, 0.5916], atol=5e-5)
    assert problem.value == pytest.approx(3.3402, abs=5e-5)


def objective(cross, problem):
    """Value of the Gaussian plan with this cross-covariance, straight from the definition."""
    a, b = problem.source_cov, problem.target_cov
    mismatch = np.trace(a @ a) + np.trace(b @ b) - 2 * np.sum(cross**2)
    joint = np.block([[a, cross], [cross.T, b]])
    sign, log_det = np.linalg.slogdet(joint)
    if sign <= 0 or np.linalg.eigvalsh(joint)[0] <= 0:
        return 1e3  # no plan has this cross-covariance; finite, for the optimiser's differences
    return mismatch + problem.epsilon * 0.5 * (np.linalg.slogdet(a)[1] + np.linalg.slogdet(b)[1] - log_det)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_no_gaussian_plan_is_better(epsilon, rng):
    problem = quadratic_gaussian(epsilon=epsilon)
    assert objective(problem.cross_cov(), problem) == pytest.approx(problem.value, rel=1e-10)
    best = min(
        (
            minimize(lambda k: objective(k.reshape(3, 2), problem), 0.3 * rng.normal(size=6), method="BFGS")
            for _ in range(4)
        ),
        key=lambda result: result.fun,
    )
    assert best.fun == pytest.approx(problem.value, rel=1e-6)
    singular = np.linalg.svd(best.x.reshape(3, 2), compute_uv=False)
    np.testing.assert_allclose(singular, problem.cross_singular_values, atol=5e-3)


def test_plan_is_a_fixed_point_of_the_linearised_problem():
    # Linearised at K the cost is -4 x'K y: up to marginal terms |2K'x - y|^2, a linear problem at the same epsilon.
    problem = QuadraticGaussianProblem(np.array([2.0, 1.0, 0.5]), np.array([1.5, 0.6]), 1.0)
    cross = problem.cross_cov(signs=[1, -1])
    linear = GaussianProblem(4 * cross.T @ problem.source_cov @ cross, problem.target_cov, problem.epsilon)
    np.testing.assert_allclose(linear.cross_cov, 2 * cross.T @ cross, atol=1e-10)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_pots_solver_finds_it_on_a_grid(epsilon):
    problem = quadratic_gaussian([1.5], [1.0], epsilon=epsilon)
    x, y = np.linspace(-6.5, 6.5, 71), np.linspace(-5.5, 5.5, 61)
    a, b = np.exp(-0.5 * x**2 / 1.5), np.exp(-0.5 * y**2)
    a, b = a / a.sum(), b / b.sum()
    start = np.outer(a, b) * (1 + 0.5 * np.tanh(np.outer(x, y)))  # the product plan alone is a stationary point
    plan = ot.gromov.entropic_gromov_wasserstein(
        np.outer(x, x), np.outer(y, y), a, b, epsilon=epsilon, G0=start, max_iter=300, tol=1e-10
    )
    cross = x @ plan @ y
    assert abs(cross) == pytest.approx(problem.cross_singular_values[0], rel=1e-3)
    kl = np.sum(plan * np.log(np.maximum(plan, 1e-300) / np.outer(a, b)))
    value = (a @ x**2) ** 2 + (b @ y**2) ** 2 - 2 * cross**2 + epsilon * kl
    assert value == pytest.approx(problem.value, rel=1e-3)

    x_some = np.array([[-1.0], [0.5], [2.0]])
    means, cov = problem.conditional(x_some, signs=[np.sign(cross)])
    for x_i, mean in zip(x_some[:, 0], means[:, 0], strict=True):
        row = plan[np.argmin(np.abs(x - x_i))]
        row = row / row.sum()
        offset = mean / x_i * (x[np.argmin(np.abs(x - x_i))] - x_i)  # the grid's point is not quite x_i
        assert row @ y == pytest.approx(mean + offset, abs=5e-3)
        assert row @ y**2 - (row @ y) ** 2 == pytest.approx(cov[0, 0], rel=0.01)


def test_large_epsilon_switches_directions_off():
    problem = quadratic_gaussian(epsilon=3.0)  # 0.6 - 3/4 < 0
    np.testing.assert_allclose(problem.cross_singular_values, [np.sqrt(3.0 - 0.75), 0.0])
    independent = quadratic_gaussian(epsilon=100.0)
    assert independent.value == pytest.approx(np.sum([4, 1, 0.25, 2.25, 0.36]))
    means, cov = independent.conditional(np.ones((2, 3)))
    np.testing.assert_array_equal(means, 0)
    np.testing.assert_allclose(cov, independent.target_cov)


@pytest.mark.parametrize("source, target", [((2.0, 1.0, 0.5), (1.5, 0.6)), ((1.5, 0.6), (2.0, 1.0, 0.5))])
def test_conditionals_over_the_source_make_up_the_target(rng, source, target):
    problem = quadratic_gaussian(source, target)
    x = problem.sample_source(rng, 60_000)
    signs = [-1, 1]
    means, cov = problem.conditional(x, signs)
    assert np.linalg.eigvalsh(cov)[0] > 0
    np.testing.assert_allclose(np.cov(x.T), problem.source_cov, atol=0.05)
    np.testing.assert_allclose(np.cov(means.T) + cov, problem.target_cov, atol=0.05)
    np.testing.assert_allclose(x.T @ means / len(x), problem.cross_cov(signs), atol=0.05)
    np.testing.assert_allclose(np.cov(problem.sample_target(rng, 60_000).T), problem.target_cov, atol=0.05)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: quadratic_gaussian((1.0, 2.0)), r"`source_eigenvalues` must be sorted from large to small"),
        (lambda: quadratic_gaussian((1.0,), (0.0,)), r"`target_eigenvalues` must be a vector of positive numbers"),
        (lambda: quadratic_gaussian(epsilon=0.0), r"`epsilon` must be a finite number above 0"),
        (lambda: quadratic_gaussian().cross_cov([1]), r"`signs` must be 2 entries of \+1 or -1"),
        (lambda: quadratic_gaussian().cross_cov([1, 0.5]), r"`signs` must be 2 entries of \+1 or -1"),
        (lambda: quadratic_gaussian().conditional(np.zeros((4, 2))), r"`x` must have shape \(n, 3\).*got \(4, 2\)"),
        (lambda: quadratic_gaussian().sample_target(0, 0), r"`n` must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
