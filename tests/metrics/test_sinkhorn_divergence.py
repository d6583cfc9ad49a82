"""Sinkhorn divergence: against POT's plans with the objective written out."""

import warnings

import numpy as np
import ot
import pytest

from scgenot.metrics import _sinkhorn, sinkhorn_divergence, wasserstein
from scgenot.sinkhorn import Geometry


def by_pot(x, y, fraction):
    epsilon = fraction * ot.dist(x, y).mean()

    def transport(a, b):
        p, q, costs = np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b)), ot.dist(a, b)
        plan = ot.sinkhorn(p, q, costs, epsilon, method="sinkhorn_log", stopThr=1e-6, numItermax=5000)
        ratio = plan / np.outer(p, q)
        return np.sum(plan * costs) + epsilon * np.sum(plan * np.log(np.maximum(ratio, 1e-300)))

    return transport(x, y) - 0.5 * transport(x, x) - 0.5 * transport(y, y)


@pytest.fixture
def samples(rng):
    return rng.normal(size=(60, 3)), 1.5 * rng.normal(size=(45, 3)) + 1


@pytest.mark.parametrize("fraction", [0.05, 0.5])
def test_is_pots_value(samples, fraction):
    assert sinkhorn_divergence(*samples, epsilon=fraction) == pytest.approx(by_pot(*samples, fraction), rel=1e-3)


def test_units_and_origin(samples):
    x, y = samples
    value = sinkhorn_divergence(x, y)
    assert isinstance(value, float)
    assert sinkhorn_divergence(10 * x, 10 * y) == pytest.approx(100 * value, rel=1e-3)
    assert sinkhorn_divergence(x + 1e4, y + 1e4) == pytest.approx(value, rel=1e-3)  # float32 alone loses all digits


def test_equal_samples(samples):
    x, _ = samples
    assert sinkhorn_divergence(x, x[::-1]) == pytest.approx(0, abs=1e-4)
    assert sinkhorn_divergence(np.ones((4, 2)), np.ones((3, 2))) == 0.0


def test_between_the_squared_w2_and_the_means(samples):
    x, y = samples
    means = np.sum((x.mean(0) - y.mean(0)) ** 2)
    assert sinkhorn_divergence(x, y, epsilon=200.0) == pytest.approx(means, rel=0.02)  # the limit of large epsilon
    assert sinkhorn_divergence(x[:45], y, epsilon=0.01) == pytest.approx(wasserstein(x[:45], y) ** 2, rel=0.1)


def test_says_when_it_did_not_converge(samples, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sinkhorn_divergence(*samples)
    monkeypatch.setattr(_sinkhorn, "_MAX_ITERATIONS", 10)
    with pytest.warns(RuntimeWarning, match="did not converge within 10 iterations"):
        sinkhorn_divergence(*samples, epsilon=0.001)


@pytest.mark.usefixtures("without_shape_checks")
def test_bad_input_is_refused(samples):
    for epsilon in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="`epsilon` must be a positive fraction of the mean cost, got"):
            sinkhorn_divergence(*samples, epsilon=epsilon)


@pytest.fixture
def in_blocks(monkeypatch):
    """Samples of any size count as large; what is stored is refused."""
    monkeypatch.setattr(_sinkhorn, "MAX_ROWS", 10)
    stored = Geometry.stored

    def few(self):
        assert self.shape[0] * self.shape[1] <= 64 * 64, "a matrix of costs above the limit"
        return stored(self)

    monkeypatch.setattr(Geometry, "stored", few)


@pytest.mark.parametrize("fraction", [0.05, 0.5])
def test_blocks_give_pots_value(samples, fraction, in_blocks):
    assert sinkhorn_divergence(*samples, epsilon=fraction) == pytest.approx(by_pot(*samples, fraction), rel=1e-3)
    x, _ = samples
    assert sinkhorn_divergence(x, x[::-1], epsilon=fraction) == pytest.approx(0, abs=1e-4)


def test_blocks_say_when_they_did_not_converge(samples, in_blocks, monkeypatch):
    monkeypatch.setattr(_sinkhorn, "_MAX_ITERATIONS", 10)
    with pytest.warns(RuntimeWarning, match="did not converge within 10 iterations"):
        sinkhorn_divergence(*samples, epsilon=0.001)


@pytest.mark.parametrize("blocks", [False, True])
def test_weights_count_as_repeated_points(samples, blocks, request, rng):
    if blocks:
        request.getfixturevalue("in_blocks")
    x, y = samples
    times = rng.integers(0, 4, len(x))
    found = sinkhorn_divergence(x, y, epsilon=0.1, x_weights=times)
    # The scale of epsilon is the mean cost, which repetition changes alike.
    assert found == pytest.approx(by_pot(np.repeat(x, times, axis=0), y, 0.1), rel=1e-3)
    assert found != pytest.approx(sinkhorn_divergence(x, y, epsilon=0.1), rel=1e-2)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("wrong", [np.ones(3), -np.ones(60), np.zeros(60), np.full(60, np.nan)])
def test_wrong_weights_are_refused(samples, wrong):
    with pytest.raises(ValueError, match="`x_weights` must"):
        sinkhorn_divergence(*samples, x_weights=wrong)
