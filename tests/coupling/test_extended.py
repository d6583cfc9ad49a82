"""The extended coupling where cells are sampled, against the plan of the global one over the same cells."""

import dataclasses

import jax
import numpy as np
import pytest
from tests.coupling.contract import compiles_at_most
from tests.coupling.helpers import plan_of

from scgenot.coupling import (
    Auto,
    CouplingConfig,
    Extended,
    Global,
    _extended,
    _kinds,
    _orientation,
    kind_with_options,
    solve_blocks,
    solve_coupling,
)
from scgenot.sinkhorn import _extended as passes

pytestmark = pytest.mark.once
KEY = jax.random.key(0)
N, M, CELLS = 1500, 1400, 400
SAMPLED = {"n_cells": CELLS, "tolerance": 1e-6}
EPSILON = 0.2


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(N, 3)), rng.normal(size=(M, 3)) * [1.0, 0.5, 2.0] + 1.0
    return np.float32(source), np.float32(target)


@pytest.fixture(scope="module")
def exact(cells):
    return solve_coupling(KEY, *cells, kind="global", config=CouplingConfig(epsilon=EPSILON))


def extended(cells, *, taus=(1.0, 1.0), weights=(None, None), **options):
    config = CouplingConfig(epsilon=EPSILON, tau_source=taus[0], tau_target=taus[1])
    given = {"source_weights": weights[0], "target_weights": weights[1]}
    with pytest.warns(RuntimeWarning, match="marginals are off by .* Try more `n_sweeps`"):
        return solve_coupling(KEY, *cells, kind=Extended(**SAMPLED | options), config=config, **given)


@pytest.fixture(scope="module")
def sampled(cells):
    return extended(cells, n_sweeps=2)


def off(found, exact):
    """Distance of the column potentials from the exact ones, up to the constant that says nothing."""
    difference = np.asarray(found.potentials.v) - np.asarray(exact.potentials.v)
    return difference.std()


def test_sweeps_approach_the_plan_of_all_cells(cells, exact, sampled):
    none = extended(cells, n_sweeps=0)
    assert off(none, exact) < 0.2
    assert off(sampled, exact) < 0.75 * off(none, exact)
    assert sampled.diagnostics.marginal_violation < 0.75 * none.diagnostics.marginal_violation
    assert np.abs(plan_of(sampled) - plan_of(exact)).sum() < 0.15
    assert sampled.diagnostics.kind == "linear, extended from 1200 x 1200 cells"
    assert sampled.diagnostics.iterations > 0 and not sampled.diagnostics.converged
    # In units of the cost, and lower bounds by both.
    assert sampled.diagnostics.objective == pytest.approx(exact.diagnostics.objective, rel=1e-2)


def test_the_violation_is_that_of_the_plan_and_so_is_its_error(monkeypatch, sampled):
    plan = plan_of(sampled)
    sides = plan.sum(1) - np.asarray(sampled.a), plan.sum(0) - np.asarray(sampled.b)
    real = max(np.abs(side).sum() for side in sides)
    # Of all cells, there are fewer than are measured.
    assert sampled.diagnostics.marginal_violation == pytest.approx(real, rel=1e-3)
    assert sampled.diagnostics.violation_error == 0.0
    monkeypatch.setattr(passes, "_MEASURED", 100)
    a, b, found = sampled.a, sampled.b, sampled.potentials
    one_side = np.abs(sides[0]).sum()
    measured = [
        passes.marginal_off(sampled.geometry, a, b, found.u, found.v, 1.0, np.random.default_rng(k)) for k in range(30)
    ]
    means, errors = np.array(measured).T
    assert abs(means.mean() - one_side) < 4 * means.std() / np.sqrt(30)
    assert 0.6 < errors.mean() / means.std() < 1.6


def test_pairs_from_subsets_are_those_of_the_plan(monkeypatch, sampled):
    monkeypatch.setattr(_extended, "_POOLED", 512)
    monkeypatch.setattr(_extended, "_TOGETHER", 128)
    config = sampled.config
    few = _replaced(sampled, n_targets=100, n_draws=4)
    groups = [np.digitize(side[:, 0], np.quantile(side[:, 0], [0.25, 0.5, 0.75])) for side in _sides(sampled)]
    wanted = _grouped(plan_of(sampled), groups)
    batches = few.pairs(jax.random.key(3), batch_size=256, steps=8)
    found = np.zeros((4, 4))
    for _ in range(120):
        i, j = (np.asarray(one).ravel() for one in next(batches))
        np.add.at(found, (groups[0][i], groups[1][j]), 1.0)
    found /= found.sum()
    # 120 pools of four subsets of 100 targets: a row's own sum over so few, taken for its mass, would leave .05 and more.
    assert config.n_targets > M
    assert np.abs(found - wanted / wanted.sum()).sum() < 0.03
    rows = np.asarray(next(batches)[0])
    assert len(np.unique(rows)) > 100


def test_every_cell_has_its_turn_in_the_pools(monkeypatch, sampled):
    size = N // 4
    monkeypatch.setattr(_extended, "_POOLED", size)
    pools, real = [], _extended.ExtendedCoupling._pool

    def spied(self, *given):
        found = real(self, *given)
        pools.append(found[0])
        return found

    monkeypatch.setattr(_extended.ExtendedCoupling, "_pool", spied)
    # One draw of each cell: a call of as many pairs uses a pool up.
    batches = _replaced(sampled, n_draws=1).pairs(jax.random.key(3), batch_size=size, steps=1)
    for _ in range(8):
        next(batches)
    assert len(pools) == 8
    for four in (pools[:4], pools[4:]):
        np.testing.assert_array_equal(np.sort(np.concatenate(four)), np.arange(4 * size))
    # Another order the second time.
    assert set(pools[0]) != set(pools[4])


def _replaced(coupling, **options):
    return dataclasses.replace(coupling, config=dataclasses.replace(coupling.config, **options))


def _sides(coupling):
    return np.asarray(coupling.geometry.x), np.asarray(coupling.geometry.y)


def _grouped(plan, groups):
    rows = np.stack([plan[groups[0] == k].sum(0) for k in range(4)])
    return np.stack([rows[:, groups[1] == k].sum(1) for k in range(4)], axis=1)


def test_no_pass_compares_all_with_all(monkeypatch, cells):
    seen = []

    def spy(geometry, columns, rows, real=passes._sums):
        seen.append(len(columns.rows) * len(rows))
        return real(geometry, columns, rows)

    monkeypatch.setattr(passes, "_sums", spy)
    monkeypatch.setattr(passes, "_MEASURED", 100)
    extended(cells, n_sweeps=1)
    assert len(seen) > 6 and max(seen) <= CELLS * max(N, M)


def test_relaxed_marginals_and_weights_are_those_of_the_global_plan(cells):
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.2, 3.0, N), rng.uniform(0.2, 3.0, M)
    weights[0][:5] = 0.0
    taus = 0.9, 1.0
    found = extended(cells, n_sweeps=3, taus=taus, weights=weights)
    config = CouplingConfig(epsilon=EPSILON, tau_source=0.9)
    given = {"source_weights": weights[0], "target_weights": weights[1]}
    exact = solve_coupling(KEY, *cells, kind="global", config=config, **given)
    assert found.diagnostics.mass == pytest.approx(exact.diagnostics.mass, rel=0.02)
    assert (np.asarray(found.source_marginal)[:5] == 0).all()
    correlation = np.corrcoef(found.source_marginal, exact.source_marginal)[0, 1]
    assert correlation > 0.99
    assert found.diagnostics.penalty == pytest.approx(exact.diagnostics.penalty, rel=0.1)


def test_other_cells_get_the_potentials_of_these(cells, exact, sampled):
    rng = np.random.default_rng(5)
    source, target = (np.float32(side[rng.choice(len(side), 300, replace=False)] + 0.05) for side in cells)
    between, wanted = sampled.extend(source, target), exact.extend(source, target)
    assert np.abs(plan_of(between) - plan_of(wanted)).sum() < 0.2
    turned = sampled.swapped().extend(target, source)
    assert np.abs(plan_of(turned).T - plan_of(wanted)).sum() < 0.3


def test_blocks_may_be_extended(cells):
    source, target = cells
    rows = [(np.arange(0, N, 2), np.arange(0, M, 2)), (np.arange(1, N, 2), np.arange(1, M, 2))]
    kind = Extended(n_cells=CELLS, n_sweeps=0, tolerance=0.5)
    found = solve_blocks(KEY, source, target, rows, kind=kind, config=CouplingConfig(epsilon=EPSILON))
    assert found.diagnostics.kind == "2 blocks: linear, extended from 400 x 400 cells"
    i, j, block = (np.asarray(one) for one in next(found.pairs(KEY, batch_size=64, steps=4)))
    assert (i % 2 == block).all() and (j % 2 == block).all()


def test_other_sizes_compile_nothing_more(cells):
    config = CouplingConfig(epsilon=EPSILON)

    def solved(n, m):
        found = solve_coupling(
            KEY, cells[0][:n], cells[1][:m], kind=Extended(n_cells=CELLS, tolerance=0.9), config=config
        )
        next(found.pairs(KEY, batch_size=64, steps=4))
        return found.diagnostics

    solved(N, M)
    with compiles_at_most(0):
        solved(N - 111, M - 222)


def test_blocks_between_two_spaces_share_a_reference_that_is_solved_sharply(monkeypatch, cells):
    asked = []

    def spy(*given, real=_orientation.quadratic_coupling, **options):
        asked.append(given[-1].tolerance)
        return real(*given, **options)

    monkeypatch.setattr(_orientation, "quadratic_coupling", spy)
    source, target = cells[0][:120] * [1.0, 2.0, 4.0], cells[0][:120, :2] * [4.0, 2.0]
    halves = [(np.arange(k, 120, 2),) * 2 for k in range(2)]
    kind = Extended(n_cells=40, landmarks=64, tolerance=0.9)
    found = solve_blocks(KEY, np.float32(source), np.float32(target), halves, problem="quadratic", kind=kind)
    assert asked == [Global.tolerance]
    worst = max(found.block_diagnostics, key=lambda one: one.marginal_violation)
    assert found.diagnostics.violation_error == worst.violation_error is not None


def test_two_spaces_through_landmarks(cells):
    source = cells[0][:900] * [1.0, 2.0, 4.0]
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    target = np.float32(source @ turn)
    kind = Extended(n_cells=300, landmarks=128, tolerance=0.3)
    found = solve_coupling(KEY, np.float32(source), target, problem="quadratic", kind=kind)
    assert found.diagnostics.kind.startswith("quadratic, extended, 128 x 128 landmarks from ")
    assert found.diagnostics.marginal_violation < 0.3
    reached = np.asarray(found.barycentric(target))
    # Each cell is its own partner, up to a reflection that no distance tells.
    best = max(abs(np.corrcoef(reached @ turn.T[:, 2], source[:, 2])[0, 1]), 0.0)
    assert best > 0.9
    assert found.diagnostics.starts and np.isfinite(found.diagnostics.objective)


def test_auto_is_one_of_the_two(monkeypatch, cells):
    config = CouplingConfig(epsilon=EPSILON)
    assert solve_coupling(KEY, *cells, kind="auto", config=config).diagnostics.kind == "linear, global"
    monkeypatch.setitem(_kinds._MANY, "linear", N * M - 1)
    found = solve_coupling(KEY, *cells, kind=Auto(), config=config)
    assert found.diagnostics.kind == "linear, extended"
    assert solve_coupling(KEY, *cells, kind="global", config=config).diagnostics.kind == "linear, global"
    assert kind_with_options("auto", "linear", {}) == Auto()
    assert kind_with_options("auto", "linear", {}, N * M) == Extended()
    # Between spaces only who asks for it gets it.
    assert kind_with_options("auto", "quadratic", {}, 10**12) == Global()
    # Who asks for a tolerance, or for what only one of them has, has said which.
    assert kind_with_options("auto", "linear", {"tolerance": 0.01}, N * M) == Global(tolerance=0.01)
    assert kind_with_options("auto", "linear", {"n_cells": 99}) == Extended(n_cells=99)
    with pytest.raises(ValueError, match="`rank` does nothing"):
        kind_with_options("auto", "linear", {"rank": 3})
    with pytest.raises(ValueError, match="`dense_limit` does nothing in a linear problem with the 'extended' coupling"):
        kind_with_options("extended", "linear", {"dense_limit": 3})
    with pytest.raises(ValueError, match="`n_cells`"):
        Extended(n_cells=1)
    assert Extended(n_sweeps=0).n_sweeps == 0


def test_potentials_of_no_plan_are_not_used(cells):
    """With a sharp epsilon no sampled cell is near another one, and what is extended is off by orders of magnitude."""
    sharp = CouplingConfig(epsilon=2e-3)
    with pytest.warns(RuntimeWarning, match="400 cells are too few for `epsilon`=0.002 here: .* off by .*'global'"):
        found = solve_coupling(KEY, *cells, kind=Extended(**SAMPLED), config=sharp)
    exact = solve_coupling(KEY, *cells, kind="global", config=sharp)
    assert found.diagnostics.kind == "linear, global" and found.diagnostics.converged
    assert found.diagnostics.objective == pytest.approx(exact.diagnostics.objective, rel=1e-4)


def test_each_kind_of_cells_has_its_share_of_those_solved_over(rng):
    """Groups far from each other: by chance the 200 chosen would be off by 3 % of the mass, which then had to go to another group."""
    of = rng.permutation(np.repeat(np.arange(4), 250))
    source, target = (
        np.float32(30.0 * np.eye(4)[of] + rng.normal(size=(1000, 4))) for _ in range(2)
    )  # fmt: skip
    config, kind = CouplingConfig(epsilon=0.02), Extended(n_cells=200, n_sweeps=0, tolerance=1.0)
    found = solve_coupling(KEY, source, target, kind=kind, config=config)
    for side in (found.extension.source, found.extension.target):
        np.testing.assert_allclose(np.bincount(of[side.rows], weights=side.weights), 0.25, atol=0.006)
    # The one side's share is the other's: no mass crosses.
    drawn = np.asarray(found.conditional(KEY, np.arange(1000), 8))
    assert (of[drawn] == of[:, None]).mean() > 0.99
