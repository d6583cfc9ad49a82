"""Blocks between two spaces: clouds that alone come out mirrored share the orientation of one reference plan."""

import dataclasses

import jax
import numpy as np
import pytest
from tests.coupling.contract import compiles_at_most
from tests.coupling.helpers import plan_of

from scgenot.costs import matrix_scale, resolve_cost
from scgenot.coupling import CouplingConfig, LowRank, Minibatch, solve_blocks, solve_coupling

KEY = jax.random.key(0)
N, SIZES = 60, (60, 56, 52, 56)
STRETCH = np.array([2.0, 1.0])
# From the plane of the sources into three dimensions, distances kept.
TURN = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0][:2]
CONFIG = CouplingConfig(epsilon=0.05)


@pytest.fixture(scope="module")
def data():
    """Ellipses, whose mirror images are ellipses: cells know their partners, costs within know no direction."""
    rng = np.random.default_rng(1)
    half = rng.normal(size=(N // 4, 2))
    # All four mirror images of each cell: that costs alone tell nothing holds exactly.
    cloud = np.concatenate([half * signs for signs in ([1, 1], [1, -1], [-1, 1], [-1, -1])]) * STRETCH
    rows, targets, place = [], [], []
    for size in SIZES:
        # Whole sets of mirror images are left out: none of the four corners has more mass than another.
        chosen = rng.permutation((rng.permutation(N // 4)[: size // 4, None] + N // 4 * np.arange(4)).ravel())
        targets.append(cloud[chosen] + 0.2 * rng.normal(size=(size, 2)))
        rows.append(len(np.concatenate(targets)) - size + np.arange(size))
        place.append(targets[-1])
    target, place = np.concatenate(targets), np.concatenate(place)
    return (
        cloud.astype(np.float32),
        (target @ TURN + 2.0).astype(np.float32),
        [(np.arange(N), own) for own in rows],
        place,
    )


@pytest.fixture(scope="module")
def coupled(data):
    source, target, blocks, _ = data
    return solve_blocks(KEY, source, target, blocks, problem="quadratic", config=CONFIG)


def signs(coupling, data):
    """Along each axis of the sources: how the mean of each block's rows runs, as a correlation."""
    source, _, _, place = data
    found = []
    for part in coupling.parts:
        mean = np.asarray(part.coupling.barycentric(place[part.target_rows]))
        own = source[part.source_rows]
        found.append([np.corrcoef(mean[:, axis], own[:, axis])[0, 1] for axis in range(2)])
    return np.array(found)


def test_all_blocks_have_the_orientation_of_the_reference(data, coupled):
    found = signs(coupled, data)
    assert (np.abs(found) > 0.8).all()
    np.testing.assert_array_equal(np.sign(found), np.broadcast_to(np.sign(found[0]), found.shape))
    assert coupled.diagnostics.converged
    assert coupled.diagnostics.agreement == min(part.agreement for part in coupled.parts) > 0.9
    assert {one.starts[0].start for one in coupled.block_diagnostics} == {"given"}


def test_blocks_alone_come_out_mirrored(data):
    source, target, blocks, _ = data
    free = solve_blocks(KEY, source, target, blocks, problem="quadratic", config=CONFIG, orientation="free")
    found = signs(free, data)
    assert (np.abs(found) > 0.8).all()
    assert len({tuple(row) for row in np.sign(found)}) > 1
    assert free.diagnostics.agreement is None and {one.agreement for one in free.block_diagnostics} == {None}


def test_a_block_is_its_problem_with_the_same_scales_and_start(data, coupled):
    source, target, blocks, _ = data
    cost = resolve_cost("euclidean")
    across = [
        [np.asarray(cost(jax.device_put(one), jax.device_put(one))) for one in (source[rows], target[columns])]
        for rows, columns in blocks
    ]
    shares = np.sqrt([len(columns) for _, columns in blocks])
    scales = [(shares / shares.sum()) @ [matrix_scale(one[side]) for one in across] for side in (0, 1)]
    told = coupled.block_diagnostics
    for one in told:
        assert (one.source_scale, one.target_scale) == pytest.approx(scales, rel=1e-5)
    rows, columns = blocks[1]
    config = dataclasses.replace(CONFIG, scale_cost=tuple(scales))
    start = plan_of(coupled.parts[1].coupling)
    alone = solve_coupling(KEY, source[rows], target[columns], problem="quadratic", config=config, init=start)
    assert alone.starts[0].start == "given"
    assert alone.diagnostics.objective == pytest.approx(told[1].objective, rel=1e-4)
    assert np.abs(plan_of(alone) - start).sum() < 5e-3
    # The same from the plan of another block, which implies one for these cells.
    other = coupled.parts[2].coupling
    alone = solve_coupling(KEY, source[rows], target[columns], problem="quadratic", config=config, init=other)
    assert alone.diagnostics.objective == pytest.approx(told[1].objective, rel=1e-4)


def test_a_mirrored_start_gives_the_mirrored_plan(data, coupled):
    source, target, blocks, _ = data
    rows, columns = blocks[0]
    part = coupled.parts[0].coupling
    # Cell i and cell i + N / 4 are mirror images of each other along the second axis: so are these rows.
    mirrored = plan_of(part).reshape(2, 2, N // 4, -1)[:, ::-1].reshape(N, -1)
    given = {"problem": "quadratic", "config": CONFIG, "init": mirrored}
    found = solve_coupling(KEY, source[rows], target[columns], **given)
    assert found.diagnostics.objective == pytest.approx(part.diagnostics.objective, rel=5e-2)
    mean = lambda plan: (plan @ target[columns]) / plan.sum(1, keepdims=True) @ TURN.T
    ours, theirs = (mean(one)[:, 1] - mean(one)[:, 1].mean() for one in (plan_of(part), plan_of(found)))
    assert np.corrcoef(ours, theirs)[0, 1] < -0.9
    several = solve_coupling(KEY, source[rows], target[columns], **given, only_init=False)
    names = [one.start for one in several.starts]
    assert "given" in names and "product" in names
    assert several.diagnostics.objective <= found.diagnostics.objective * (1 + 1e-4)


def test_blocks_of_like_size_compile_nothing_more(data, coupled):
    """The third to sixth block, and agreement with the reference, with the programs of the first two."""
    source, target, blocks, _ = data
    cuts = [(0, 0, 58), (1, 0, 55), (2, 0, 51), (3, 0, 53), (1, 1, 54), (3, 2, 55)]
    fewer = [(blocks[k][0][: N - k], blocks[k][1][first:last]) for k, first, last in cuts]
    with compiles_at_most(0):
        solve_blocks(KEY, source, target, fewer, problem="quadratic", config=CONFIG)


def test_checked_blocks_say_which_prefer_another_orientation(data, coupled):
    source, target, blocks, _ = data
    found = solve_blocks(KEY, source, target, blocks[:2], problem="quadratic", config=CONFIG, orientation="checked")
    for one in found.block_diagnostics:
        first, free = one.starts
        assert first.start == "given" and free.start.startswith("free: ")
        # Mirror images cost about the same: nothing to warn of.
        assert free.objective == pytest.approx(first.objective, rel=5e-2)


@pytest.mark.parametrize("known", ["shared", "pairs"])
def test_fused(data, known):
    source, target, blocks, place = data
    rng = np.random.default_rng(3)
    config = dataclasses.replace(CONFIG, alpha=0.7)
    given = {}
    if known == "shared":
        # A noisy view of where cells are: it breaks the symmetry, one way for all blocks.
        shared = (source + 0.3 * rng.normal(size=source.shape), place + 0.3 * rng.normal(size=place.shape))
        given["shared"] = tuple(np.float32(one) for one in shared)
    else:
        pairs = []
        for rows, columns in blocks:
            some = rng.choice(len(columns), 12, replace=False)
            near = np.linalg.norm(source[rows][None] - place[columns[some]][:, None], axis=2).argmin(1)
            pairs.append(np.stack([rows[near], columns[some]], axis=1))
        given["pairs"] = np.concatenate(pairs)
    found = solve_blocks(KEY, source, target, blocks, problem="fused", config=config, **given)
    assert (signs(found, data) > 0.8).all()
    assert found.diagnostics.agreement > 0.9
    scales = {one.shared_scale for one in found.block_diagnostics}
    assert len(scales) == (1 if known == "shared" else len(blocks))
    if known == "shared":
        rows = [(one[:30], two[:40]) for one, two in blocks]
        some = found.extend(source, target, shared=given["shared"], blocks=rows)
        mean = np.asarray(some.parts[0].coupling.barycentric(place[rows[0][1]]))
        assert np.corrcoef(mean[:, 0], source[:30, 0])[0, 1] > 0.8


def test_unbalanced(data):
    source, target, blocks, _ = data
    config = dataclasses.replace(CONFIG, tau_source=0.9, tau_target=0.95)
    found = solve_blocks(KEY, source, target, blocks[:2], problem="quadratic", config=config)
    assert found.diagnostics.agreement > 0.9 and found.diagnostics.converged
    assert found.marginal_kinds == ("relaxed", "relaxed")
    mass = [one.mass for one in found.block_diagnostics]
    assert (np.array(mass) < 1).all()
    assert float(found.source_marginal.sum()) == pytest.approx(found.weights @ mass, abs=1e-4)


def test_minibatches_share_a_reference_batch(data):
    source, target, blocks, _ = data
    found = solve_blocks(KEY, source, target, blocks, problem="quadratic", kind=Minibatch(), config=CONFIG)
    references = [part.coupling.reference for part in found.parts]
    assert all(one is references[0] for one in references)
    i, j, block = (np.asarray(one) for one in next(found.pairs(KEY, batch_size=64, steps=2)))
    for k, (rows, columns) in enumerate(blocks):
        assert np.isin(i[block == k], rows).all() and np.isin(j[block == k], columns).all()


def test_what_cannot_be_asked_of_blocks_or_starts_gets_an_answer(data, coupled):
    source, target, blocks, _ = data
    ask = lambda **given: solve_blocks(KEY, source, target, blocks, **{"problem": "quadratic", **given})
    with pytest.raises(ValueError, match="`orientation` must be one of"):
        ask(orientation="mirrored")
    with pytest.raises(ValueError, match="low-rank plans cannot start from another plan"):
        ask(kind=LowRank(rank=2), orientation="reference")
    with pytest.raises(ValueError, match="which minibatches do not have"):
        ask(kind="minibatch", orientation="checked")
    with pytest.raises(ValueError, match="belongs to fused problems"):
        ask(shared=(source, target[:, :2]))
    with pytest.raises(ValueError, match="`orientation` belongs to quadratic and fused problems"):
        solve_blocks(KEY, source, source, [(np.arange(N), np.arange(N))], orientation="free")
    with pytest.raises(ValueError, match="block 1: none of the `pairs` has both cells in it"):
        ask(problem="fused", pairs=np.array([[0, blocks[0][1][0]]]), orientation="free")
    rows, columns = blocks[0]
    ask = lambda init, **given: solve_coupling(
        KEY, source[rows], target[columns], init=init, **{"problem": "quadratic", **given}
    )
    with pytest.raises(ValueError, match=r"`init` must be a plan of shape \(60, 60\)"):
        ask(np.ones((3, 3)))
    with pytest.raises(ValueError, match="`init` must be finite and not negative"):
        ask(-np.ones((N, N)))
    with pytest.raises(ValueError, match="`init` has no mass"):
        ask(np.zeros((N, N)))
    with pytest.raises(ValueError, match="`init` must be a coupling with one plan"):
        ask(coupled)
    with pytest.raises(ValueError, match="`init` is a start for quadratic and fused problems of kind 'global'"):
        ask(np.ones((N, N)), kind="minibatch")


def test_scales_one_a_cost():
    config = CouplingConfig(scale_cost=[2.0, 3.0])
    assert config.scale_cost == (2.0, 3.0) and config.swapped().scale_cost == (3.0, 2.0)
    assert CouplingConfig(scale_cost=(2.0, "max", 1.0)).swapped().scale_cost == ("max", 2.0, 1.0)
    with pytest.raises(ValueError, match="linear problems have 1"):
        config.resolved("linear")
    with pytest.raises(ValueError, match="fused problems have 3"):
        config.resolved("fused")
    with pytest.raises(ValueError, match="`scale_cost` must be one for all costs"):
        CouplingConfig(scale_cost=(1.0,))
    with pytest.raises(ValueError, match="`scale_cost`"):
        CouplingConfig(scale_cost=(1.0, -1.0))
