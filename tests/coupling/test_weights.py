"""Weights of cells: subsets stand for the weights of all, and draws follow them."""

import jax
import numpy as np
import pytest

from scgenot._sampling import alike, choose, cumulative_table, independent, systematic, weighted_subset
from scgenot.costs import resolve_cost_pair
from scgenot.coupling import CouplingConfig
from scgenot.coupling.quadratic._sides import Side

N, SIZE = 400, 100


@pytest.fixture
def heavy(rng):
    """Weights of which the first tenth of the cells holds .833, and one further cell .1."""
    weights = rng.uniform(0.5, 1.5, N)
    weights[: N // 10] *= 0.833 / weights[: N // 10].sum()
    weights[N // 10 :] *= 0.067 / weights[N // 10 :].sum()
    weights[-1] = 0.1
    weights[-3] = 0.0
    return weights / weights.sum()


def test_subsets_stand_for_the_weights_of_all(heavy):
    found = [weighted_subset(np.random.default_rng(seed), heavy, SIZE) for seed in range(400)]
    total = np.zeros(N)
    for rows, weights in found:
        assert len(np.unique(rows)) == len(rows) == SIZE and (np.diff(rows) > 0).all()
        assert weights.sum() == pytest.approx(1)
        # The heavy cells are all there, with their own weights.
        np.testing.assert_allclose(weights[rows < N // 10], heavy[: N // 10], rtol=1e-9)
        assert weights[rows == N - 1] == pytest.approx(heavy[-1])
        total[rows] += weights
    assert total[-3] == 0
    # A cell of weight 2e-4 is chosen with probability .3 or less: a standard error of 10 % in 400 subsets.
    light = total[N // 10 : -3] / 400
    np.testing.assert_allclose(light, heavy[N // 10 : -3], rtol=0.5)
    assert light.sum() == pytest.approx(heavy[N // 10 : -3].sum(), rel=1e-2)


def test_subsets_of_equal_weights_and_of_few_cells():
    rows, weights = weighted_subset(np.random.default_rng(0), np.ones(1000), 100)
    assert len(rows) == 100
    np.testing.assert_allclose(weights, 0.01)
    rows, weights = weighted_subset(np.random.default_rng(0), np.array([0.0, 1.0, 3.0, 0.0]), 3)
    np.testing.assert_array_equal(rows, [1, 2])
    np.testing.assert_allclose(weights, [0.25, 0.75])
    rows, weights = weighted_subset(np.random.default_rng(0), np.array([1e6, 1.0, 1.0, 1.0]), 1)
    np.testing.assert_array_equal(rows, [0])


def test_landmarks_keep_the_weights(heavy, rng):
    cells = np.asarray(rng.normal(size=(N, 2)), np.float32)
    config = CouplingConfig(landmarks=SIZE).resolved("quadratic")
    side = Side.of(
        rng, jax.numpy.asarray(cells), jax.numpy.asarray(heavy, "float32"), resolve_cost_pair("euclidean")[0], config, 0
    )
    weights = np.asarray(side.weights)
    assert len(side.chosen) == SIZE
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert weights[side.chosen < N // 10].sum() == pytest.approx(heavy[: N // 10].sum(), abs=1e-5)
    assert weights[-1] == pytest.approx(heavy[-1], rel=1e-5)


def both_choices(table, count):
    """Return indices as compiled code draws them, and as the host does."""
    rng = np.random.default_rng(0)
    bits = rng.integers(2**32, size=count, dtype=np.uint32)
    return np.asarray(choose(jax.device_put(bits), jax.device_put(table))), independent(rng, table, (count,))


def test_choice_among_a_million_cells_follows_the_weights():
    weights = np.ones(1_000_000)
    weights[::2] = 3.0
    table = cumulative_table(weights)
    widths = np.diff(np.r_[0.0, table.astype(float)]) / 2**32 * weights.sum()
    np.testing.assert_allclose(widths, weights, rtol=2e-3)
    for drawn in both_choices(table, 200_000):
        assert (drawn % 2 == 0).mean() == pytest.approx(0.75, abs=5 * 0.001)


def test_choice_skips_cells_without_weight():
    table = cumulative_table(np.array([0.0, 1.0, 0.0, 2.0, 0.0]))
    for drawn in both_choices(table, 3000):
        assert set(drawn) == {1, 3}
        assert (drawn == 3).mean() == pytest.approx(2 / 3, abs=0.05)
    last = np.full(3, 2**32 - 1, np.uint32)
    np.testing.assert_array_equal(choose(jax.device_put(last), jax.device_put(table)), 3)
    drawn = systematic(np.random.default_rng(0), np.array([0.0, 1.0, 0.0, 2.0, 0.0]), (2, 300))
    assert [np.sum(drawn[0] == k) for k in range(5)] == [0, 100, 0, 200, 0]


def kinds(rng, shares=(0.5, 0.3, 0.15, 0.05), n=4000):
    """Cells of four kinds, far from each other, in no order; and the kind of each."""
    of = rng.permutation(np.repeat(np.arange(4), (np.array(shares) * n).astype(int)))
    return np.float32(20.0 * rng.normal(size=(4, 6))[of] + rng.normal(size=(n, 6))), of


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e30])
def test_alike_cells_are_neighbours(rng, scale):
    cells, of = kinds(rng)
    order = alike(cells * np.float32(scale), 256)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(cells)))
    # In no order .64 of neighbours are of different kinds.
    assert (np.diff(of[order]) != 0).mean() < 0.02
    np.testing.assert_array_equal(order, alike(cells * np.float32(scale), 256))


@pytest.mark.parametrize("cells", [np.zeros((50, 3)), np.ones((1, 2)), np.arange(7.0)[:, None]])
def test_alike_of_few_and_of_equal_cells(cells):
    np.testing.assert_array_equal(np.sort(alike(cells, 512)), np.arange(len(cells)))


def test_subsets_along_alike_cells_have_each_kind_in_its_share(rng):
    cells, of = kinds(rng)
    order, share = alike(cells, 100), np.bincount(of) / len(of)
    within, random = [], []
    for seed in range(20):
        for found, given in ((within, order), (random, None)):
            rows, own = weighted_subset(np.random.default_rng(seed), np.ones(len(cells)), 100, given)
            assert len(np.unique(rows)) == 100
            found.append(np.abs(np.bincount(of[rows], weights=own, minlength=4) - share).max())
    # One cell of a hundred more or less at each border of a part, where chance alone makes five.
    assert max(within) <= 0.02 < np.mean(random)


def test_subsets_along_alike_cells_stand_for_the_weights_of_all(heavy):
    order = alike(np.random.default_rng(5).normal(size=(N, 2)), SIZE)
    total = np.zeros(N)
    for seed in range(400):
        rows, weights = weighted_subset(np.random.default_rng(seed), heavy, SIZE, order)
        assert len(rows) == SIZE and weights[rows == N - 1] == pytest.approx(heavy[-1])
        total[rows] += weights
    assert total[-3] == 0
    np.testing.assert_allclose(total[N // 10 : -3] / 400, heavy[N // 10 : -3], rtol=0.5)
