"""The curve: laws against quadrature along the continuous curve and sums over a plane, which share no code with the problem."""

import numpy as np
import pytest
from scipy.integrate import quad

from scgenot.datasets import gaussian_curve
from scgenot.datasets._curve import _curve, curve_weights

pytestmark = pytest.mark.once
WIDTH, EPSILON_B = 0.3, 1.0


def plane_point(s: float) -> np.ndarray:
    radius = 4.0 * (1.0 + 0.25 * np.cos(6 * np.pi * s))
    return radius * np.array([np.cos(2 * np.pi * s), np.sin(2 * np.pi * s)])


def speed(s: float) -> float:
    """Return the curve's length per unit of s, by a difference quotient."""
    return np.linalg.norm(plane_point(s + 1e-6) - plane_point(s - 1e-6)) / 2e-6


@pytest.fixture(scope="module")
def problem():
    return gaussian_curve(2, epsilon_b=EPSILON_B, width=WIDTH)


@pytest.fixture(scope="module")
def turn(problem):
    """The rotation, read off the first two of the problem's own points."""
    first = problem.potential_means[0] / 5.0
    # The curve starts at (5, 0).
    second = problem.potential_means[1]
    flipped = first[0] * second[1] < first[1] * second[0]
    return np.stack([first, (np.array([first[1], -first[0]]) if flipped else np.array([-first[1], first[0]]))])


@pytest.fixture(scope="module")
def plane():
    """Points of a fine grid, and the potential there by adaptive quadrature along the continuous curve, before rotation."""
    axis = np.arange(-6.6, 6.61, 0.12)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    s = (np.arange(40_000) + 0.5) / 40_000
    points = np.stack([plane_point(one) for one in s])
    lengths = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)
    mass = (1.0 + 0.8 * np.sin(2 * np.pi * s)) * lengths
    values = np.zeros(len(grid))
    for rows in np.array_split(np.arange(len(s)), 80):
        # Coarse sums of a smooth periodic integrand converge beyond any power; `quad` below says so for some points.
        far = ((grid[:, None] - points[rows].mean(axis=0)) ** 2).sum(-1)[:, 0]
        near = far < 4.0
        squares = ((grid[near][:, None] - points[rows][None, ::20]) ** 2).sum(-1)
        values[near] += np.exp(-squares / (2 * WIDTH**2)) @ mass[rows][::20]
    return grid, values


def test_potential_is_the_integral_along_the_curve(problem, turn, plane):
    grid, values = plane
    checked = np.argsort(values)[::-1][[0, 300, 1000, 2000]]
    exact = [
        quad(
            lambda s, y=grid[row]: (
                (1.0 + 0.8 * np.sin(2 * np.pi * s))
                * speed(s)
                * np.exp(-((y - plane_point(s)) ** 2).sum() / (2 * WIDTH**2))
            ),
            0.0,
            1.0,
            limit=400,
            epsabs=1e-9,
        )[0]
        for row in checked
    ]
    np.testing.assert_allclose(values[checked] / values[checked[0]], np.array(exact) / exact[0], rtol=2e-3)
    squares = ((grid[checked] @ turn)[:, None] - problem.potential_means) ** 2
    own = np.exp(-squares.sum(-1) / (2 * WIDTH**2)) @ problem.potential_weights
    np.testing.assert_allclose(own / own[0], np.array(exact) / exact[0], rtol=1e-3)


@pytest.mark.parametrize("x", [(0.0, 0.0), (1.5, -0.5), (-0.3, 2.0)])
def test_laws_are_those_of_a_sum_over_the_plane(problem, turn, plane, x):
    """Moments, and shares of half-planes, of potential times Gaussian on a grid."""
    grid, values = plane
    x = np.array([x])
    law = values * np.exp(-((grid - x) ** 2).sum(-1) / (2 * EPSILON_B))
    law /= law.sum()
    points = grid @ turn
    mean = law @ points
    cov = (points - mean).T @ (law[:, None] * (points - mean))
    means, covs = problem.conditional_moments(x @ turn)
    np.testing.assert_allclose(means[0], mean, atol=5e-3)
    np.testing.assert_allclose(covs[0], cov, atol=1e-2)

    draws = problem.sample_conditional(1, x @ turn, 40_000)[0]
    for direction in np.eye(2):
        # Between two points of the grid, in the middle: there the sum is the law's share.
        for edge in (-3.06, -1.02, 1.02, 3.06):
            expected = law[grid @ direction < edge].sum()
            assert np.mean(draws @ turn.T @ direction < edge) == pytest.approx(expected, abs=0.01)


def test_law_is_bent(problem, turn):
    """No Gaussian: the mean lies off the curve, where the law itself has next to no mass."""
    x = np.zeros((1, 2))
    draws = problem.sample_conditional(0, x, 20_000)[0]
    assert np.mean(np.linalg.norm(draws - draws.mean(axis=0), axis=1) < 1.0) < 0.02


@pytest.mark.parametrize("d", [2, 5, 16])
def test_points_lie_closely_and_evenly_on_the_curve(d):
    found = gaussian_curve(d, width=0.4)
    steps = np.linalg.norm(np.roll(found.potential_means, -1, axis=0) - found.potential_means, axis=1)
    assert steps.max() <= 0.5 * 0.4
    assert steps.min() > 0.9 * steps.max()
    # Rotation keeps distances; weights are those per length.
    assert np.linalg.norm(found.potential_means[0]) == pytest.approx(np.linalg.norm(_curve(np.zeros(1), d)))
    assert found.potential_weights.max() / found.potential_weights.min() == pytest.approx(9.0, rel=0.01)
    assert curve_weights(np.array([0.25, 0.75])).tolist() == [1.8, pytest.approx(0.2)]


def test_no_curve_in_one_dimension():
    with pytest.raises(ValueError, match=r"`d` must be at least 2, got 1"):
        gaussian_curve(1)
