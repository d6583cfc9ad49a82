"""Scores over conditions: against ranks and correlations by SciPy."""

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cdist

from scgenot.metrics import discrimination_score, effect_correlation


def test_discrimination_is_scipys_average_rank(rng, monkeypatch):
    # Whole numbers: some distances in a row are the same.
    predicted, observed = rng.integers(0, 4, (12, 2)), rng.integers(0, 4, (12, 2))
    ranks = scipy.stats.rankdata(cdist(predicted, observed), method="average", axis=1)
    expected = 1 - (np.diagonal(ranks) - 1) / 11
    assert set(np.diagonal(ranks) % 1) == {0.0, 0.5}  # both with ties and without
    np.testing.assert_allclose(discrimination_score(predicted, observed), expected, rtol=1e-12)
    monkeypatch.setattr("scgenot.metrics._blocks.MAX_ENTRIES", 30)
    np.testing.assert_allclose(discrimination_score(predicted, observed), expected, rtol=1e-12)


def test_discrimination_of_the_truth_its_reverse_and_one_answer_for_all(rng):
    observed = rng.normal(size=(9, 4))
    np.testing.assert_array_equal(discrimination_score(observed, observed), 1)
    np.testing.assert_array_equal(discrimination_score(-np.ones((2, 1)), np.array([[0.0], [1.0]])), [1, 0])
    assert discrimination_score(np.zeros((9, 4)), observed).mean() == pytest.approx(0.5, abs=1e-12)
    np.testing.assert_array_equal(discrimination_score(rng.normal(size=(9, 4)), np.ones((9, 4))), 0.5)


def test_correlation_of_one_condition_is_scipys(rng):
    predicted, observed = rng.normal(size=(1, 30)), rng.normal(size=(1, 30))
    expected = scipy.stats.pearsonr(predicted[0], observed[0]).statistic
    assert effect_correlation(predicted, observed) == pytest.approx(expected, rel=1e-12)


def test_correlation_weighs_conditions_by_their_effects(rng):
    predicted, observed = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    covariances = [np.cov(p, o) for p, o in zip(predicted, observed, strict=True)]
    expected = sum(c[0, 1] for c in covariances) / np.sqrt(
        sum(c[0, 0] for c in covariances) * sum(c[1, 1] for c in covariances)
    )
    assert effect_correlation(predicted, observed) == pytest.approx(expected, rel=1e-12)
    # A condition without an effect, but for noise, that is predicted the wrong way round.
    noise = 1e-3 * rng.normal(size=(1, 8))
    assert effect_correlation(np.concatenate([observed, -noise]), np.concatenate([observed, noise])) > 0.999
    assert effect_correlation(np.zeros((5, 8)), observed) == 0


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("score", [discrimination_score, effect_correlation])
def test_bad_input_is_refused(score):
    with pytest.raises(ValueError, match=r"`predicted` and `observed` must be matched row by row, got 4 and 3 rows"):
        score(np.zeros((4, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"`observed` must be finite, got NaN or inf in 1 of 3"):
        score(np.zeros((3, 2)), np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"`predicted` must be two-dimensional"):
        score(np.zeros(3), np.zeros((3, 1)))


def test_discrimination_needs_two_conditions():
    with pytest.raises(ValueError, match=r"`predicted` must have at least 2 row"):
        discrimination_score(np.zeros((1, 2)), np.zeros((1, 2)))
