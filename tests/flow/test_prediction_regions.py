"""Ranks, thresholds and levels: exact for exchangeable scores, and each consistent with the others."""

import numpy as np
import pytest

from scgenot.flow import conformal_levels, conformal_thresholds, coverage, cross_levels, label_scores, rank_scores

LEVELS = np.array([0.1, 0.5, 0.8, 0.9])


def test_ranks_of_points_of_the_same_law_are_uniform():
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(20_000, 50))
    scores = rank_scores(logs[:, :1], logs[:, 1:])[:, 0]
    # One of 50 ranks each, .5, .8, .9 of them whole numbers: standard error .0035.
    np.testing.assert_allclose(coverage(scores, LEVELS), LEVELS, atol=0.015)


def test_points_beyond_all_samples_are_told_apart():
    samples = np.array([[0.0, -1.0, -2.0]])
    scores = rank_scores(np.array([[1.0, -0.5, -1.5, -2.5, -10.0]]), samples)
    np.testing.assert_allclose(scores, [[0.0, 0.25, 0.5, 0.75 + 0.5, 0.75 + 8.0]])


def test_conformal_levels_hold_what_they_say_for_any_scores():
    # 19 known scores of a heavy law: each level holds at least itself, and at most 1 / 20 more.
    rng = np.random.default_rng(0)
    scores = rng.standard_cauchy(size=(20_000, 20))
    levels = np.array([conformal_levels(row[1:], row[:1])[0] for row in scores])
    found = coverage(levels, LEVELS)
    assert (found > LEVELS - 0.012).all() and (found < LEVELS + 0.05 + 0.012).all()
    np.testing.assert_allclose(found[1:], LEVELS[1:], atol=0.012)


def test_thresholds_are_the_levels_turned_round():
    rng = np.random.default_rng(1)
    known, scores = rng.normal(size=37), rng.normal(size=500)
    for level, threshold in zip(LEVELS, conformal_thresholds(known, LEVELS), strict=True):
        np.testing.assert_array_equal(conformal_levels(known, scores) < level, scores <= threshold)
    assert conformal_thresholds(known[:8], np.array([0.9])) == np.inf
    assert conformal_thresholds(known[:9], np.array([0.9])) == known[:9].max()


def test_a_fold_is_judged_by_the_others():
    known = np.arange(10.0)
    folds = np.repeat([0, 1], 5)
    np.testing.assert_allclose(cross_levels(known, folds), np.r_[np.zeros(5), np.full(5, 5 / 6)])


def test_label_scores_are_the_mass_before_a_label():
    scores = label_scores(np.array([[0.5, 0.2, 0.3], [0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(scores, [[0.0, 0.8, 0.5], [1.0, 1.0, 0.0]])


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_raw_label_sets_are_the_fewest_labels_that_sum_to_the_level(level):
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.ones(6), size=100)
    inside = label_scores(probabilities) < level
    mass = np.where(inside, probabilities, 0).sum(axis=1)
    smallest = np.where(inside, probabilities, 2).min(axis=1)
    assert (mass >= level).all() and (mass - smallest < level).all()
