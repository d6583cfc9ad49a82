"""MMD: against scikit-learn's kernel, the population value between Gaussians, and its own definition."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

from scgenot.metrics import mmd_rbf


def by_kernel(x, y, bandwidths, unbiased):
    total = 0.0
    for h in bandwidths:
        xx, yy, xy = (rbf_kernel(a, b, gamma=1 / (2 * h**2)) for a, b in ((x, x), (y, y), (x, y)))
        if unbiased:
            n, m = len(x), len(y)
            within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
        else:
            within = xx.mean() + yy.mean()
        total += within - 2 * xy.mean()
    return total / len(bandwidths)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("bandwidths", [1.3, (0.5, 2.0, 3.0)])
def test_is_the_definition_in_any_block_size(rng, monkeypatch, unbiased, bandwidths):
    x, y = rng.normal(size=(25, 3)), rng.normal(size=(18, 3)) + 0.4
    expected = by_kernel(x, y, np.atleast_1d(bandwidths), unbiased)
    assert mmd_rbf(x, y, bandwidths, unbiased=unbiased) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr("scgenot.metrics._blocks.MAX_ENTRIES", 40)
    assert mmd_rbf(x, y, bandwidths, unbiased=unbiased) == pytest.approx(expected, rel=1e-9)


def test_default_bandwidths_are_the_median_heuristic(rng):
    x, y = rng.normal(size=(25, 3)), rng.normal(size=(18, 3)) + 0.4
    distances = euclidean_distances(np.concatenate([x, y]))
    median = np.median(distances[np.triu_indices(43, k=1)])
    assert mmd_rbf(x, y) == pytest.approx(by_kernel(x, y, median * np.array([0.5, 1, 2]), False), rel=1e-6)
    assert mmd_rbf(7 * x, 7 * y) == pytest.approx(mmd_rbf(x, y), rel=1e-9)  # free of units


def test_heuristic_on_a_subsample_of_many_points_is_close(rng, monkeypatch):
    x, y = rng.normal(size=(400, 3)), rng.normal(size=(400, 3)) + 0.4
    full = mmd_rbf(x, y)
    monkeypatch.setattr("scgenot.metrics._mmd._HEURISTIC_ROWS", 200)
    assert mmd_rbf(x, y) == pytest.approx(full, rel=0.1)
    assert mmd_rbf(x, y) == mmd_rbf(x, y)


def test_unbiased_estimates_the_population_value(rng):
    # E exp(-|u|^2 / 2) for u ~ N(m, v I) in d dimensions is (1 + v)^(-d/2) exp(-|m|^2 / (2 (1 + v))); here v = 2.
    d, shift = 2, 1.0
    population = 2 * 3 ** (-d / 2) * (1 - np.exp(-(shift**2) / 6))
    values, zeros = [], []
    for _ in range(30):
        x, y, same = rng.normal(size=(3, 150, d))
        values.append(mmd_rbf(x, y + np.array([shift, 0]), 1.0, unbiased=True))
        zeros.append(mmd_rbf(x, same, 1.0, unbiased=True))
    assert np.mean(values) == pytest.approx(population, abs=4 * np.std(values) / np.sqrt(30))
    assert abs(np.mean(zeros)) < 0.1 * population
    assert min(zeros) < 0  # unbiased means that it can be


def test_equal_samples(rng):
    x = rng.normal(size=(20, 2))
    assert mmd_rbf(x, x[::-1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("bandwidths", [0.0, (1.0, -1.0), (), np.nan])
def test_bad_bandwidths_are_refused(bandwidths):
    with pytest.raises(ValueError, match=r"`bandwidths` must be one or more positive numbers, got"):
        mmd_rbf(np.zeros((3, 1)), np.ones((3, 1)), bandwidths)


@pytest.mark.usefixtures("without_shape_checks")
def test_degenerate_input_is_refused():
    with pytest.raises(ValueError, match="`bandwidths` must be given here"):
        mmd_rbf(np.zeros((5, 1)), np.zeros((5, 1)))
    with pytest.raises(ValueError, match="`y` must have at least 2 row"):
        mmd_rbf(np.zeros((5, 1)), np.zeros((1, 1)), 1.0, unbiased=True)
