"""Weights of points: as if points were repeated."""

import numpy as np
import ot
import pytest

from scgenot.metrics import energy_distance, mmd_rbf, wasserstein


@pytest.fixture
def problem(rng):
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(20, 2)) + 0.5
    return x, y, rng.integers(0, 4, 30), rng.integers(1, 4, 20)


@pytest.mark.parametrize("metric", [energy_distance, lambda *cells, **weights: mmd_rbf(*cells, 0.7, **weights)])
def test_weights_are_repeated_points(metric, problem):
    x, y, a, b = problem
    expected = metric(np.repeat(x, a, axis=0), np.repeat(y, b, axis=0))
    assert metric(x, y, x_weights=a, y_weights=b) == pytest.approx(expected, rel=1e-9)
    assert metric(x, y) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("p", [1, 2])
def test_weighted_wasserstein_is_pots(p, problem):
    x, y, a, b = problem
    a, b = a / a.sum(), b / b.sum()
    costs = ot.dist(x, y, "euclidean" if p == 1 else "sqeuclidean")
    assert wasserstein(x, y, p, x_weights=a, y_weights=b) == pytest.approx(ot.emd2(a, b, costs) ** (1 / p), rel=1e-6)


def test_unbiased_forms_leave_out_a_point_with_itself(problem):
    x, y, *_ = problem
    same = {"x_weights": np.full(30, 2.0), "y_weights": np.ones(20)}
    assert energy_distance(x, y, unbiased=True, **same) == pytest.approx(energy_distance(x, y, unbiased=True))
    assert mmd_rbf(x, y, 0.7, unbiased=True, **same) == pytest.approx(mmd_rbf(x, y, 0.7, unbiased=True))


def test_one_point_with_all_of_the_weight_has_no_unbiased_form(problem):
    x, y, *_ = problem
    with pytest.raises(ValueError, match="at least two points"):
        energy_distance(x, y, unbiased=True, x_weights=np.eye(30)[0])
