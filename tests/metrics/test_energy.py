"""Energy distance: against SciPy in one dimension and a loop in several."""

import numpy as np
import pytest
import scipy.stats

from scgenot.metrics import energy_distance


def by_loop(x, y):
    def mean(a, b):
        return np.mean([[np.linalg.norm(p - q) for q in b] for p in a])

    return 2 * mean(x, y) - mean(x, x) - mean(y, y)


def test_is_the_square_of_scipys_in_one_dimension(rng):
    x, y = rng.normal(size=(40, 1)), rng.normal(0.7, 1.5, size=(31, 1))
    assert energy_distance(x, y) == pytest.approx(scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2, rel=1e-10)


def test_is_the_loop_in_any_block_size(rng, monkeypatch):
    x, y = rng.normal(size=(23, 4)), rng.normal(size=(17, 4)) + 0.5
    expected = by_loop(x, y)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-10)
    assert energy_distance(y, x) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr("scgenot.metrics._blocks.MAX_ENTRIES", 40)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_equal_samples_translation_and_units(rng):
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) + 1
    assert energy_distance(x, x[::-1]) == pytest.approx(0, abs=1e-12)
    assert energy_distance(x, np.concatenate([x, x])) == pytest.approx(0, abs=1e-12)  # equal as weighted sets
    assert energy_distance(10 * x + 5, 10 * y + 5) == pytest.approx(10 * energy_distance(x, y), rel=1e-9)


def test_two_points_in_closed_form():
    assert energy_distance(np.zeros((1, 2)), np.array([[3.0, 4.0]])) == pytest.approx(10.0)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "x, y",
    [(np.zeros(3), np.zeros((3, 1))), (np.zeros((3, 1)), np.zeros((3, 2))), (np.zeros((0, 2)), np.zeros((3, 2)))],
)
def test_bad_input_is_refused(x, y):
    with pytest.raises(ValueError, match=r"^`x`.* must .*got"):
        energy_distance(x, y)


def test_rows_with_nan_are_named():
    y = np.zeros((6, 2))
    y[[1, 4], 0] = np.nan
    with pytest.raises(ValueError, match=r"`y` must be finite, got NaN or inf in 2 of 6 row\(s\).*\[1, 4\]"):
        energy_distance(np.zeros((6, 2)), y)


def test_unbiased_is_centred_on_zero_for_two_samples_of_one_law():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(20, 3)), rng.normal(size=(30, 3))) for _ in range(400)]
    unbiased = np.array([energy_distance(x, y, unbiased=True) for x, y in pairs])
    biased = np.array([energy_distance(x, y) for x, y in pairs])
    # Four standard errors of the mean; the V-statistic's bias is dozens of them.
    assert abs(unbiased.mean()) < 4 * unbiased.std() / np.sqrt(len(pairs))
    assert biased.mean() > 20 * biased.std() / np.sqrt(len(pairs))


def test_unbiased_against_a_loop_over_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2)) + 1
    between = np.mean([np.linalg.norm(p - q) for p in x for q in y])
    inside = [
        np.mean([np.linalg.norm(p - q) for i, p in enumerate(z) for j, q in enumerate(z) if i != j]) for z in (x, y)
    ]
    np.testing.assert_allclose(energy_distance(x, y, unbiased=True), 2 * between - sum(inside), rtol=1e-12)


def test_unbiased_needs_two_points():
    with pytest.raises(ValueError, match="at least two points"):
        energy_distance(np.zeros((1, 2)), np.ones((3, 2)), unbiased=True)
