"""The roll and the spiral: arc lengths against a polygon, and what the pair is good for."""

import numpy as np
import pytest
from scipy.stats import ks_2samp, skew

from scgenot.datasets import swiss_roll_spiral


def test_shapes_and_unpaired_rows():
    source, target, source_arc, target_arc = swiss_roll_spiral(500)
    assert source.shape == (500, 3)
    assert target.shape == (500, 2)
    assert source_arc.shape == target_arc.shape == (500,)
    assert abs(np.corrcoef(source_arc, target_arc)[0, 1]) < 0.15
    assert ks_2samp(source_arc, target_arc).pvalue > 1e-3  # one law along the curve


@pytest.mark.parametrize("population", ["source", "target"])
def test_arc_length_is_the_length_along_the_points(population):
    data = swiss_roll_spiral(20_000, width=0.0)
    points = data.source[:, [0, 2]] if population == "source" else data.target
    arc = data.source_arc if population == "source" else data.target_arc
    order = np.argsort(arc)
    steps = np.linalg.norm(np.diff(points[order], axis=0), axis=1)
    np.testing.assert_allclose(arc[order[0]] + np.concatenate([[0], np.cumsum(steps)]), arc[order], atol=1e-3)
    assert arc.min() == pytest.approx(0, abs=0.05)  # counted from the inner end
    assert np.argmin(np.linalg.norm(points, axis=1)) == order[0]


def test_both_lie_on_one_curve_and_the_width_is_the_second_axis():
    data = swiss_roll_spiral(2000, 3, width=7.0)
    for points in (data.source[:, [0, 2]], data.target):
        radius = np.linalg.norm(points, axis=1)
        np.testing.assert_allclose(points, radius[:, None] * np.stack([np.cos(radius), np.sin(radius)], axis=1))
        assert 1.5 * np.pi <= radius.min() < radius.max() <= 4.5 * np.pi
    assert 0 <= data.source[:, 1].min() < 0.1
    assert 6.9 < data.source[:, 1].max() <= 7.0


def test_the_two_ends_differ_in_density():
    data = swiss_roll_spiral(5000)
    assert skew(data.source_arc) > 0.15  # a reversed match is no tie
    assert skew(data.target_arc) > 0.15


def test_seeds_and_generators():
    first, again, other = swiss_roll_spiral(9), swiss_roll_spiral(9, np.random.default_rng(0)), swiss_roll_spiral(9, 1)
    np.testing.assert_array_equal(first.source, again.source)
    assert np.abs(first.target - other.target).max() > 0.1


@pytest.mark.usefixtures("without_shape_checks")
def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 1, got 0"):
        swiss_roll_spiral(0)
    with pytest.raises(ValueError, match="`width` must be a non-negative number, got -1"):
        swiss_roll_spiral(3, width=-1)
