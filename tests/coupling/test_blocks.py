"""Blocks: two Gaussian problems with known answers that share their source cells, under one scale."""

import jax
import numpy as np
import pytest
from tests.coupling.contract import compiles_at_most

from scgenot.costs import cost_scale, resolve_cost
from scgenot.coupling import CouplingConfig, Global, solve_blocks, solve_coupling
from scgenot.datasets import GaussianProblem

KEY = jax.random.key(0)
COV = np.array([[1.0, 0.3], [0.3, 0.6]])
COVS = (np.array([[0.8, -0.4], [-0.4, 1.2]]), np.array([[0.3, 0.0], [0.0, 1.5]]))
SHIFTS = np.array([[4.0, 0.0], [0.0, -3.0]])
N, SIZES = 250, (256, 64)
EPSILON = 0.3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    problems = [GaussianProblem(COV, cov, EPSILON) for cov in COVS]
    source = problems[0].sample_source(1, N).astype(np.float32)
    parts = [
        problem.sample_target(k + 2, size) + shift
        for k, (problem, size, shift) in enumerate(zip(problems, SIZES, SHIFTS, strict=True))
    ]
    # Targets of both conditions stand in one array, in random order.
    order = rng.permutation(sum(SIZES))
    target = np.concatenate(parts).astype(np.float32)[order]
    condition = np.repeat([0, 1], SIZES)[order]
    blocks = [(np.arange(N), np.flatnonzero(condition == k)) for k in (0, 1)]
    return problems, source, target, blocks, condition


@pytest.fixture(scope="module")
def coupled(data):
    _, source, target, blocks, _ = data
    return solve_blocks(KEY, source, target, blocks, config=CouplingConfig(epsilon=EPSILON, scale_cost=1.0))


def test_each_block_has_the_known_answer(data, coupled):
    problems, source, target, _, condition = data
    assert coupled.blocks == 2 and coupled.diagnostics.converged
    for k, problem in enumerate(problems):
        drawn = np.asarray(coupled.conditional(jax.random.key(1), np.arange(N), 200, block=k))
        assert (condition[drawn] == k).all()
        found, known = target[drawn].mean(1), problem.conditional(source)[0] + SHIFTS[k]
        independent = np.mean(np.sum((known - SHIFTS[k]) ** 2, 1))
        # The mean of a block's targets, of which there are few, is off by itself.
        off = target[condition == k].mean(0) - SHIFTS[k]
        assert np.mean(np.sum((found - off - known) ** 2, 1)) < independent / 8
        other = problems[1 - k].conditional(source)[0] + SHIFTS[k]
        assert np.mean(np.sum((found - off - other) ** 2, 1)) > 2 * np.mean(np.sum((found - off - known) ** 2, 1))


def test_batches_hold_blocks_in_proportion_and_pairs_stay_within(data, coupled):
    _, _, _, _, condition = data
    batches = coupled.pairs(jax.random.key(2), batch_size=90, steps=40)
    for _ in range(2):
        i, j, block = map(np.asarray, next(batches))
        assert i.shape == j.shape == block.shape == (40, 90)
        np.testing.assert_array_equal(condition[j], block)
        # 256 ** .5 to 64 ** .5 is two to one, in each batch.
        np.testing.assert_array_equal((block == 0).sum(1), 60)
        # Source cells of each block are all of them alike, also within a batch.
        for k in (0, 1):
            counts = np.bincount(i[block == k], minlength=N)
            assert abs(i[block == k].mean() - (N - 1) / 2) < 5 * N / np.sqrt(12 * counts.sum())
            assert i[0][block[0] == k].std() == pytest.approx(N / np.sqrt(12), rel=0.35)
    same = next(coupled.pairs(jax.random.key(2), batch_size=90, steps=40))
    again = next(coupled.pairs(jax.random.key(2), batch_size=90, steps=40))
    np.testing.assert_array_equal(same[1], again[1])


@pytest.mark.parametrize(("gamma", "share"), [(0.0, 0.5), (1.0, 0.8)])
def test_gamma(data, gamma, share):
    _, source, target, blocks, _ = data
    found = solve_blocks(
        KEY, source, target, blocks, gamma=gamma, config=CouplingConfig(epsilon=EPSILON, scale_cost=1.0)
    )
    block = np.asarray(next(found.pairs(KEY, batch_size=100, steps=4))[2])
    assert (block == 0).mean() == pytest.approx(share, abs=1e-9)
    assert float(found.target_marginal.sum()) == pytest.approx(1, abs=1e-5)


def test_one_scale_for_all_blocks(data):
    _, source, target, blocks, _ = data
    found = solve_blocks(KEY, source, target, blocks)
    cost = resolve_cost("sqeuclidean")
    own = [cost_scale(cost, jax.device_put(source[rows]), jax.device_put(target[columns])) for rows, columns in blocks]
    assert [one.scale for one in found.block_diagnostics] == pytest.approx([(2 * own[0] + own[1]) / 3] * 2, rel=1e-5)
    assert abs(own[0] - own[1]) > 0.05 * own[0]


def test_a_block_is_the_coupling_of_its_cells(data, coupled):
    """Nor are its costs kept, in contrast to one alone."""
    _, source, target, blocks, _ = data
    rows, columns = blocks[1]
    alone = solve_coupling(KEY, source[rows], target[columns], config=CouplingConfig(epsilon=EPSILON, scale_cost=1.0))
    part = coupled.parts[1]
    assert part.coupling.geometry.matrix is None and alone.geometry.matrix is not None
    ours, theirs = part.coupling.diagnostics, alone.diagnostics
    assert ours.objective == pytest.approx(theirs.objective, rel=1e-3)
    assert ours.cost == pytest.approx(theirs.cost, rel=1e-3)
    np.testing.assert_allclose(part.masses[0], alone.source_marginal, atol=1e-6)


def test_marginals_and_weights(data):
    _, source, target, blocks, condition = data
    a = np.ones(N)
    a[:50] = 0.0
    config = CouplingConfig(epsilon=EPSILON, scale_cost=1.0)
    found = solve_blocks(KEY, source, target, blocks, source_weights=a, config=config)
    np.testing.assert_allclose(found.source_marginal, a / a.sum(), atol=1e-5)
    assert np.asarray(found.target_marginal)[condition == 0].sum() == pytest.approx(2 / 3, abs=1e-4)
    i, _, _ = next(found.pairs(KEY, batch_size=90, steps=4))
    assert np.asarray(i).min() >= 50


def test_blocks_of_like_size_compile_nothing_more(data, coupled):
    _, source, target, blocks, _ = data
    # The first two of these are of the sizes that are compiled; of the others there are as many as of no other size.
    fewer = [(blocks[0][0][: -4 - k], blocks[0][1][k : -3 - 2 * k]) for k in range(4)]
    solve_blocks(KEY, source, target, fewer[:1], config=CouplingConfig(epsilon=EPSILON, scale_cost=1.0))
    with compiles_at_most(0):
        solve_blocks(KEY, source, target, fewer, config=CouplingConfig(epsilon=EPSILON, scale_cost=1.0))


def test_swapped_and_extended(data, coupled):
    _, source, target, blocks, condition = data
    other = coupled.swapped()
    drawn = np.asarray(other.conditional(KEY, np.arange(20), 4))
    assert drawn.max() < N
    np.testing.assert_allclose(other.source_marginal, coupled.target_marginal, atol=1e-6)
    rows = [(np.arange(40), np.flatnonzero(condition[:90] == 0)), (np.arange(40), np.flatnonzero(condition[:90] == 1))]
    some = coupled.extend(source[:40], target[:90], blocks=rows)
    i, j, block = map(np.asarray, next(some.pairs(KEY, batch_size=90, steps=4)))
    np.testing.assert_array_equal(condition[:90][j], block)
    assert i.max() < 40
    one = coupled.extend(source[:40], target[:90], blocks=[rows[0], (np.arange(40), np.arange(0))])
    block = np.asarray(next(one.pairs(KEY, batch_size=90, steps=4))[2])
    assert (block == 0).all() and np.isfinite(one.diagnostics.mass)


def test_what_blocks_cannot_do_gets_an_answer(data, coupled):
    _, source, target, blocks, _ = data
    with pytest.raises(ValueError, match="source cell 0 belongs to 2 blocks"):
        coupled.conditional(KEY, np.arange(3), 2)
    with pytest.raises(ValueError, match="`block` must lie in 0 .. 1"):
        coupled.conditional(KEY, np.arange(3), 2, block=2)
    with pytest.raises(ValueError, match=r"block 1 has 250 source and 0 target cells"):
        solve_blocks(KEY, source, target, [blocks[0], (np.arange(N), np.arange(0))])
    with pytest.raises(ValueError, match=r"`blocks\[0\]` names a cell twice"):
        solve_blocks(KEY, source, target, [(np.array([1, 1]), blocks[0][1])])
    with pytest.raises(ValueError, match=r"`blocks\[0\]` must hold whole numbers below 250"):
        solve_blocks(KEY, source, target, [(np.array([1, 250]), blocks[0][1])])
    with pytest.raises(ValueError, match="`gamma` must lie in"):
        solve_blocks(KEY, source, target, blocks, gamma=2.0)
    with pytest.raises(ValueError, match="blocks need one scale"):
        solve_blocks(KEY, source, target, blocks, config=CouplingConfig(cost="geodesic"))
    with pytest.raises(ValueError, match="`rank` does nothing"):
        solve_blocks(KEY, source, target, blocks, kind=Global(), config=CouplingConfig(rank=3))
    with pytest.raises(ValueError, match="`blocks` must hold rows .* for 2 blocks, got none"):
        coupled.extend(source, target)
