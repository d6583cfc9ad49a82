"""The paper's minibatch coupling."""

import jax
import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist

from scgenot.coupling import CouplingConfig, solve_coupling

CONFIG = CouplingConfig(epsilon=0.2, tolerance=1e-4)


def solve(x, y, config=CONFIG, **weights):
    return solve_coupling(jax.random.key(0), x, y, kind="minibatch", config=config, **weights)


def joint(coupling, n, m, *, batch_size, steps, seed=0):
    i, j = next(coupling.pairs(jax.random.key(seed), batch_size=batch_size, steps=steps))
    counts = np.zeros((n, m))
    np.add.at(counts, (np.asarray(i).ravel(), np.asarray(j).ravel()), 1)
    return counts / counts.sum()


def test_large_batches_follow_the_global_plan(rng):
    # A batch of 1024 out of 6 and 5 cells holds each cell hundreds of times: its plan is the plan of the whole.
    x, y = rng.normal(size=(6, 2)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)
    found = joint(solve(x, y), 6, 5, batch_size=1024, steps=40)
    cost = cdist(x.astype(float), y.astype(float), "sqeuclidean")
    plan = ot.sinkhorn(np.full(6, 1 / 6), np.full(5, 1 / 5), cost / cost.mean(), 0.2, method="sinkhorn_log")
    # 40,960 pairs: standard error of an entry of size 1/30 is .001; a batch's own marginals add sqrt(.03/40,960).
    assert np.abs(found - plan).max() < 5 * 0.0015
    assert np.abs(plan - 1 / 30).max() > 0.02  # independent pairing is far away


def test_pairs_follow_both_marginals(rng):
    x, y = rng.normal(size=(12, 2)).astype(np.float32), rng.normal(size=(9, 2)).astype(np.float32)
    a, b = rng.uniform(0.2, 2.0, 12), rng.uniform(0.2, 2.0, 9)
    a[4], b[2] = 0.0, 0.0
    found = joint(solve(x, y, source_weights=a, target_weights=b), 12, 9, batch_size=64, steps=300)
    # 19,200 independent draws of the source; a target cell's share is that of 300 batches of 64.
    np.testing.assert_allclose(found.sum(1), a / a.sum(), atol=5 * np.sqrt(0.15 / 19200))
    np.testing.assert_allclose(found.sum(0), b / b.sum(), atol=5 * np.sqrt(0.25 / 19200))
    assert found[4].sum() == 0 and found[:, 2].sum() == 0


def test_batches_differ_and_the_same_key_repeats_them(rng):
    x = rng.normal(size=(30, 2)).astype(np.float32)
    coupling = solve(x, x)
    first, again, other = (next(coupling.pairs(jax.random.key(k), batch_size=16, steps=3)) for k in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (np.asarray(first[0]) != np.asarray(other[0])).any()
    assert (np.asarray(first[0][0]) != np.asarray(first[0][1])).any()
    batches = coupling.pairs(jax.random.key(0), batch_size=16, steps=3)
    assert (np.asarray(next(batches)[0]) != np.asarray(next(batches)[0])).any()


@pytest.mark.parametrize("asked", [[2], [2, 0], np.tile([2, 0, 3, 1], 50), np.full(30, 1)], ids=len)
def test_draws_are_those_of_the_cells_asked_for_however_many_they_are(asked):
    x = (np.arange(4)[:, None] * np.array([[10.0, 0.0]])).astype(np.float32)
    coupling = solve(x, x[::-1].copy(), CouplingConfig(epsilon=0.01))
    drawn = np.asarray(coupling.conditional(jax.random.key(0), np.asarray(asked), 20))
    assert drawn.shape == (len(asked), 20)
    # Batches of 256 from 4 source and 4 target cells: 64 of each, give or take 7 on both sides. What is missing comes from a
    # neighbour: 10 in 64 on the way through all cells, and other cells asked for beside it change nothing of that.
    assert (drawn == 3 - np.asarray(asked)[:, None]).mean() > 0.75


def test_the_law_of_a_cell_does_not_depend_on_its_company(rng):
    x, y = rng.normal(size=(30, 2)).astype(np.float32), rng.normal(size=(25, 2)).astype(np.float32)
    coupling = solve(x, y)
    alone = np.asarray(coupling.conditional(jax.random.key(0), np.array([7]), 150))[0]
    among = np.asarray(coupling.conditional(jax.random.key(1), np.array([3, 7, 11, 2, 7]), 150))[1]
    shares = [np.bincount(one, minlength=25) / 150 for one in (alone, among)]
    # Two samples of 150 from one law of about 10 cells differ by .2 in L1 over 2; the independent law of A3 by .7.
    assert 0.5 * np.abs(shares[0] - shares[1]).sum() < 0.3
    assert 0.5 * np.abs(shares[0] - 1 / 25).sum() > 0.35


def test_diagnostics(rng):
    x, y = rng.normal(size=(40, 2)).astype(np.float32), rng.normal(size=(30, 2)).astype(np.float32)
    found = solve(x, y).diagnostics
    assert found.kind == "linear, minibatch"
    assert np.isnan(found.objective)
    assert found.converged and found.marginal_violation <= 1e-4
    assert found.mass == pytest.approx(1, abs=1e-3)
    assert 1 < found.effective_targets <= 40
    assert found.scale == pytest.approx(cdist(x, y, "sqeuclidean").mean(), rel=1e-4)
    assert found.epsilon == 0.2


def test_epsilon_has_the_unit_of_the_whole_populations(rng):
    # Scaling by each batch's own mean would make the width of a row depend on the batch: targets with one outlier.
    x = rng.normal(size=(40, 2)).astype(np.float32)
    assert solve(1000 * x, 1000 * x).diagnostics.effective_targets == pytest.approx(
        solve(x, x).diagnostics.effective_targets, rel=1e-2
    )


def test_extending_takes_weights(rng):
    x = rng.normal(size=(40, 2)).astype(np.float32)
    other = solve(x, x).extend(
        x[:7], x[:9], source_weights=np.r_[0.0, np.ones(6)], target_weights=np.r_[np.ones(8), 0.0]
    )
    i, j = map(np.asarray, next(other.pairs(jax.random.key(0), batch_size=32, steps=10)))
    assert i.min() == 1 and j.max() == 7


def test_extending_keeps_cost_and_scale(rng):
    x = rng.normal(size=(40, 2)).astype(np.float32)
    coupling = solve(x, x)
    other = coupling.extend(5 * x[:7], 5 * x[:9])
    assert (other.scale, other.cost) == (coupling.scale, coupling.cost)
    i, j = map(np.asarray, next(other.pairs(jax.random.key(0), batch_size=32, steps=10)))
    assert i.max() == 6 and j.max() == 8


def test_unbalanced_batches_leave_cells_without_counterpart_out(rng):
    near, far = rng.normal(size=(20, 2)), rng.normal(size=(20, 2)) + 6
    source, target = np.concatenate([near, far]).astype(np.float32), rng.normal(size=(30, 2)).astype(np.float32)
    coupling = solve(source, target, CouplingConfig(epsilon=0.1, tau_source=0.6, tau_target=0.9))
    found = joint(coupling, 40, 30, batch_size=128, steps=20).sum(1)
    assert found[20:].sum() < 0.2
    assert coupling.diagnostics.mass < 1
