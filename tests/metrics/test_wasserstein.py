"""Exact W1 and W2: against POT's network simplex and SciPy in one dimension."""

import numpy as np
import ot
import pytest
import scipy.stats

from scgenot.metrics import _wasserstein, wasserstein


def by_pot(x, y, p):
    costs = ot.dist(x, y, metric="euclidean" if p == 1 else "sqeuclidean")
    return ot.emd2(np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y)), costs) ** (1 / p)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("n, m", [(30, 30), (20, 40), (30, 45), (1, 7)])
def test_assignment_is_pots_value(rng, n, m, p):
    x, y = rng.normal(size=(n, 3)), 2 * rng.normal(size=(m, 3)) + 1
    assert wasserstein(x, y, p=p) == pytest.approx(by_pot(x, y, p), rel=1e-8)


@pytest.mark.parametrize("p", [1, 2])
def test_programme_is_pots_value(rng, monkeypatch, p):
    x, y = 1e-3 * rng.normal(size=(31, 3)), 2e-3 * rng.normal(size=(47, 3)) + 1e-3  # small units on purpose
    monkeypatch.setattr(_wasserstein, "_assignment_cost", None)  # lcm 1457 would be an assignment
    monkeypatch.setattr(_wasserstein, "MAX_ASSIGNMENT", 1000)
    assert wasserstein(x, y, p=p) == pytest.approx(by_pot(x, y, p), rel=1e-6)


def test_w1_is_scipys_in_one_dimension(rng):
    x, y = rng.normal(size=(24, 1)), rng.normal(0.7, 1.5, size=(36, 1))
    assert wasserstein(x, y, p=1) == pytest.approx(scipy.stats.wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-9)


def test_a_translation_is_transported_as_a_whole(rng):
    x = rng.normal(size=(50, 2))
    y = rng.permutation(x) + np.array([3.0, 4.0])
    assert wasserstein(x, y, p=1) == pytest.approx(5.0)
    assert wasserstein(x, y) == pytest.approx(5.0)  # W2, the root and not the square
    assert wasserstein(x, rng.permutation(x)) == pytest.approx(0, abs=1e-7)


@pytest.mark.usefixtures("without_shape_checks")
def test_too_large_is_refused_before_any_work():
    x, y = np.zeros((5001, 1)), np.zeros((4999, 1))
    with pytest.raises(ValueError, match=r"too large.*got 5001 and 4999.*Subsample"):
        wasserstein(x, y)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("p", [0, 3, 1.5, "2"])
def test_other_orders_are_refused(p):
    with pytest.raises(ValueError, match="`p` must be 1 or 2, got"):
        wasserstein(np.zeros((3, 1)), np.zeros((3, 1)), p=p)
