"""FOSCTTM and label transfer: against loops and cases with a known answer."""

import numpy as np
import pandas as pd
import pytest

from scgenot.metrics import foscttm, label_transfer_accuracy


def foscttm_by_loop(x, y):
    n, total = len(x), 0.0
    for a, b in ((x, y), (y, x)):
        for i in range(n):
            own = np.linalg.norm(a[i] - b[i])
            total += sum(np.linalg.norm(a[i] - b[j]) < own for j in range(n) if j != i) / (n - 1)
    return total / (2 * n)


def test_foscttm_is_the_loop_in_any_block_size(rng, monkeypatch):
    x = rng.normal(size=(40, 3))
    y = x + 0.8 * rng.normal(size=x.shape)
    expected = foscttm_by_loop(x, y)
    assert 0.02 < expected < 0.4
    assert foscttm(x, y) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("scgenot.metrics._blocks.MAX_ENTRIES", 130)
    assert foscttm(x, y) == pytest.approx(expected, rel=1e-12)


def test_foscttm_averages_two_different_directions():
    x, y = np.array([[0.0], [1.0], [1.1]]), np.array([[0.0], [5.0], [6.0]])
    # From x: cells 1 and 2 find y_0 (and y_1) nearer, shares (0, 1/2, 1). From y: cells 1 (x_2 nearer): (0, 1/2, 0).
    assert foscttm(x, y) == pytest.approx((0.5 + 0.5 / 3) / 2)
    assert foscttm(y, x) == pytest.approx(foscttm(x, y))


def test_foscttm_of_perfect_reversed_and_unrelated_matches(rng):
    x = rng.normal(size=(300, 2))
    assert foscttm(x, x) == 0.0
    assert foscttm(x, rng.permutation(x)) == pytest.approx(0.5, abs=0.05)
    ends = np.array([[0.0], [1.0]])
    assert foscttm(ends, ends[::-1]) == 1.0


def test_foscttm_does_not_count_ties(rng):
    y = np.repeat(rng.normal(size=(20, 7)), 3, axis=0)  # every cell has two exact twins
    assert foscttm(y, y) == 0.0
    assert foscttm(y + 0.1, y) < 0.05
    assert foscttm(np.zeros((300, 2)), rng.normal(size=(300, 2))) == pytest.approx(0.25, abs=1e-3)  # as documented


@pytest.mark.usefixtures("without_shape_checks")
def test_foscttm_refuses_unmatched_rows():
    with pytest.raises(ValueError, match="matched row by row, got 4 and 3 rows"):
        foscttm(np.zeros((4, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="`x` must have at least 2 row"):
        foscttm(np.zeros((1, 2)), np.zeros((1, 2)))


def test_labels_transfer_from_the_target(rng):
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    y_labels = np.repeat(["a", "b", "c"], 20)
    y = np.repeat(centres, 20, axis=0) + rng.normal(size=(60, 2))
    x = np.repeat(centres, 4, axis=0) + rng.normal(size=(12, 2))
    x_labels = np.repeat(["a", "b", "c"], 4)
    assert label_transfer_accuracy(x, x_labels, y, y_labels) == 1.0
    wrong = x_labels.copy()
    wrong[:3] = "b"
    assert label_transfer_accuracy(x, wrong, y, y_labels) == pytest.approx(9 / 12)
    wrong[0] = "only here"
    assert label_transfer_accuracy(x, pd.Categorical(wrong), y, list(y_labels)) == pytest.approx(9 / 12)


def test_k_neighbours_vote_by_majority():
    y, y_labels = np.array([[0.0], [0.2], [0.3], [9.0]]), np.array([1, 2, 2, 1])
    x, x_labels = np.array([[0.01]]), np.array([1])
    assert label_transfer_accuracy(x, x_labels, y, y_labels, k=1) == 1.0
    assert label_transfer_accuracy(x, x_labels, y, y_labels, k=3) == 0.0


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "x_labels, y_labels, k, message",
    [
        (["a"] * 3, ["a"] * 4, 5, r"`k` must lie in 1 \.\. 4"),
        (["a"] * 3, ["a"] * 4, 0, r"`k` must lie in 1 \.\. 4"),
        (["a"] * 2, ["a"] * 4, 1, r"`x_labels` must have one label a row, shape \(3,\), got \(2,\)"),
        (["a"] * 3, ["b"] * 4, 1, r"`x_labels` must share labels with `y_labels`, got \['a'\] and \['b'\]"),
        (["a"] * 3, ["a", None, "a", np.nan], 1, r"`y_labels` must have no missing labels, got 2 of 4"),
    ],
)
def test_bad_labels_are_refused(x_labels, y_labels, k, message):
    with pytest.raises(ValueError, match=message):
        label_transfer_accuracy(np.zeros((3, 2)), x_labels, np.zeros((4, 2)), y_labels, k=k)


def test_whole_number_labels_equal_their_objects(rng):
    x = rng.normal(size=(20, 2))
    labels = rng.integers(0, 3, 20)
    for one, other in ((labels, labels.astype(object)), (labels.astype(object), labels)):
        assert label_transfer_accuracy(x, one, x, other, k=1) == 1.0
