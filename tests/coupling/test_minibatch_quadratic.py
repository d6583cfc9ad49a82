"""Quadratic minibatches: each batch against the whole problem, and what a warm start is for."""

import dataclasses

import jax
import numpy as np
import pytest

from scgenot.coupling import CouplingConfig, solve_coupling

CONFIG = CouplingConfig(cost="euclidean", epsilon=5e-3)


@pytest.fixture(scope="module")
def clouds():
    """A lopsided cloud and its rotated copy, in the same order."""
    rng = np.random.default_rng(0)
    source = (rng.gamma(1.5, size=(200, 2)) * [2.0, 0.7]).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]
    return source, (source @ turn).astype(np.float32)


@pytest.fixture(scope="module")
def solved(clouds):
    return solve(clouds)


def solve(clouds, config=CONFIG, problem="quadratic", **kwargs):
    return solve_coupling(jax.random.key(0), *clouds, problem=problem, kind="minibatch", config=config, **kwargs)


def misplaced(coupling, target, key=1):
    """Mean distance of drawn targets to the true partner, relative to that of random pairs."""
    source, drawn = next(coupling.pairs(jax.random.key(key), batch_size=128, steps=4))
    apart = np.linalg.norm(target[np.asarray(drawn)] - target[np.asarray(source)], axis=-1).mean()
    return apart / np.linalg.norm(target[:, None] - target[None], axis=-1).mean()


def test_warm_batches_find_the_partners_and_stay_together(clouds, solved):
    found = solved
    assert found.diagnostics.kind == "quadratic, minibatch, warm start"
    assert misplaced(found, clouds[1]) < 0.4
    drawn = np.asarray(found.conditional(jax.random.key(2), np.arange(100), 6))
    assert drawn.shape == (100, 6)
    spread = clouds[1][drawn].var(axis=1).sum(axis=-1).mean() / clouds[1].var(axis=0).sum()
    assert spread < 0.3


def test_symmetric_clouds_flip_from_batch_to_batch_unless_started_warm():
    rng = np.random.default_rng(1)
    source = (rng.normal(size=(200, 2)) * [2.0, 1.0]).astype(np.float32)
    target = source.copy()

    def spread(warm):
        config = dataclasses.replace(CONFIG, warm_start=warm)
        drawn = np.asarray(solve((source, target), config).conditional(jax.random.key(1), np.arange(200), 6))
        return target[drawn].var(axis=1).sum(axis=-1).mean() / target.var(axis=0).sum()

    assert spread(True) < 0.5 * spread(False)


def test_shared_features_decide_in_fused_batches(clouds):
    source, target = clouds
    config = dataclasses.replace(CONFIG, alpha=0.1)
    shared = source[:, :1], source[:, :1]
    found = solve(clouds, config, "fused", shared=shared)
    assert "fused" in found.diagnostics.kind
    assert misplaced(found, target) < 0.5
    wrong = solve(clouds, config, "fused", shared=(-shared[0], shared[1]))
    assert misplaced(wrong, target) > misplaced(found, target) + 0.2


def test_same_key_same_pairs_and_another_key_others(clouds, solved):
    first, again = (next(one.pairs(jax.random.key(3), batch_size=128, steps=4)) for one in (solved, solve(clouds)))
    other = next(solved.pairs(jax.random.key(4), batch_size=128, steps=4))
    np.testing.assert_array_equal(first[1], again[1])
    assert (np.asarray(first[1]) != np.asarray(other[1])).any()


def test_swapped_and_extended(clouds):
    """Fewer targets, in another order: what is not turned round, or not extended, is wrong everywhere."""
    # As many as are padded to the same size.
    source, order = clouds[0], np.random.default_rng(3).permutation(200)[:195]
    target = clouds[1][order]
    found = solve((source, target))

    def apart(coupling, partner, cells):
        """Mean distance between the drawn cell and the partner of the one it was drawn for, in that of random pairs."""
        i, j = (np.asarray(one) for one in next(coupling.pairs(jax.random.key(1), batch_size=128, steps=4)))
        distances = np.linalg.norm(cells[j] - partner[i], axis=-1).mean()
        return distances / np.linalg.norm(cells[:, None] - partner[None], axis=-1).mean()

    assert apart(found, clouds[1], target) < 0.5
    assert apart(found.swapped(), source[order], source) < 0.5
    left, right = np.arange(199, 39, -1), np.arange(120)[::-1]
    some = found.extend(source[left], target[right])
    assert some.source_marginal.shape == (160,) and some.target_marginal.shape == (120,)
    assert apart(some, clouds[1][left], target[right]) < 0.5


@pytest.mark.parametrize("taus", [(0.8, 0.8), (1.0, 0.5)])
def test_relaxed_batches_are_finite(clouds, taus):
    config = dataclasses.replace(CONFIG, tau_source=taus[0], tau_target=taus[1])
    found = solve(clouds, config)
    assert 0 < found.diagnostics.mass <= 1.001
    source, drawn = (np.asarray(one) for one in next(found.pairs(jax.random.key(1), batch_size=128, steps=4)))
    assert source.max() < 200 and drawn.max() < 200 and drawn.min() >= 0


def test_what_a_batch_cannot_do_gets_an_answer(clouds, plain_calls):
    with pytest.raises(ValueError, match="'geodesic'.*whole population.*'global'"):
        solve(clouds, CouplingConfig(cost="geodesic"))
    with pytest.raises(ValueError, match="`pairs` belong to the global coupling"):
        solve(clouds, problem="fused", pairs=np.array([[0, 0]]))
