"""The scan of taus: its numbers against single couplings and POT, its suggestion against what is known of the data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist
from tests.coupling.helpers import plan_of

from scgenot.coupling import CouplingConfig, displaced_cost, scan_taus, solve_coupling

KEY = jax.random.key(0)
TIGHT = CouplingConfig(tolerance=1e-5, max_iterations=5000)
GRID = {"taus": (1.0, 0.9), "epsilons": (0.1, 0.05)}


@pytest.fixture
def groups(rng):
    """Three groups far apart; the target has no cells of the third."""
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    here, there = np.repeat([0, 1, 2], 20), np.repeat([0, 1], 30)
    x = centres[here] + rng.normal(size=(60, 2))
    y = centres[there] + rng.normal(size=(60, 2))
    return x.astype(np.float32), y.astype(np.float32), here, there


def row(scan, epsilon, tau):
    place = np.flatnonzero((scan.table["epsilon"] == epsilon) & (scan.table["tau"] == tau))
    assert len(place) == 1
    return {name: column[place[0]] for name, column in scan.table.items()}


def test_a_point_of_the_grid_is_the_coupling_there(groups):
    x, y, _, _ = groups
    scan = scan_taus(KEY, x, y, **GRID, config=TIGHT)
    config = dataclasses.replace(TIGHT, epsilon=0.1, tau_source=0.9, tau_target=0.9)
    coupling = solve_coupling(KEY, x, y, config=config)
    found, summary = row(scan, 0.1, 0.9), coupling.diagnostics
    for name in ("mass", "objective"):
        assert found[name] == pytest.approx(getattr(summary, name), rel=1e-4), name
    plan = plan_of(coupling)
    rows = plan / plan.sum(axis=1, keepdims=True)
    entropy = -(rows * np.log(rows)).sum(axis=1).mean()
    # The coupling estimates them from draws, the scan does not.
    assert found["effective_targets"] == pytest.approx(np.exp(entropy), rel=1e-3)
    assert found["effective_targets"] == pytest.approx(summary.effective_targets, rel=0.1)
    change = np.abs(np.asarray(coupling.source_marginal) - 1 / 60).sum()
    assert found["source_change"] == pytest.approx(change, rel=1e-3)
    assert found["converged"] and len(scan.table["tau"]) == 4


def test_cost_and_purity_against_pot(groups):
    x, y, here, there = groups
    weights = np.linspace(1, 3, 60)
    a, b = weights / weights.sum(), np.full(60, 1 / 60)
    scan = scan_taus(KEY, x, y, **GRID, config=TIGHT, source_weights=weights, source_labels=here, target_labels=there)
    cost = cdist(x, y, "sqeuclidean")
    cost /= cost.mean()
    plan = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, 0.05, 0.05 * 0.9 / 0.1, method="sinkhorn_stabilized", reg_type="kl", stopThr=1e-12, numItermax=20000
    )
    found = row(scan, 0.05, 0.9)
    assert found["mass"] == pytest.approx(plan.sum(), rel=1e-3)
    assert found["cost"] == pytest.approx((plan * cost).sum() / plan.sum(), rel=1e-3)
    assert found["purity"] == pytest.approx(plan[here[:, None] == there].sum() / plan.sum(), rel=1e-3)
    assert found["target_change"] == pytest.approx(np.abs(plan.sum(0) - b).sum(), rel=1e-2)


def test_balanced_rows_keep_everything(groups):
    found = row(scan_taus(KEY, *groups[:2], **GRID), 0.05, 1.0)
    assert found["mass"] == pytest.approx(1, abs=1e-3) and found["kept"] == 1.0
    assert max(found["source_change"], found["target_change"]) < 1e-2


def test_labels_have_no_say(groups, rng):
    x, y, here, there = groups
    taus, epsilons = (1.0, 0.99, 0.95, 0.8), (0.1, 0.03)
    plain = scan_taus(KEY, x, y, taus=taus, epsilons=epsilons)
    labelled = [
        scan_taus(KEY, x, y, taus=taus, epsilons=epsilons, source_labels=one, target_labels=other)
        for one, other in ((here, there), (rng.permutation(here), rng.permutation(there)))
    ]
    assert labelled[0].table["purity"].mean() > 1.2 * labelled[1].table["purity"].mean()
    assert "purity" not in plain.table
    for scan in labelled:
        assert (scan.tau, scan.epsilon, scan.why) == (plain.tau, plain.epsilon, plain.why)
        for name, column in plain.table.items():
            np.testing.assert_array_equal(scan.table[name], column)


def test_suggested_is_the_smallest_tau_that_keeps_enough(groups):
    scan = scan_taus(KEY, *groups[:2], taus=(1.0, 0.99, 0.95, 0.8), epsilons=(0.1, 0.03))
    here = scan.table["epsilon"] == scan.epsilon
    kept, taus = scan.table["kept"][here], scan.table["tau"][here]
    assert scan.tau == taus[kept >= 0.9].min()
    assert f"tau {scan.tau:g}" in scan.why and f"epsilon {scan.epsilon:g}" in scan.why


def test_cells_without_a_counterpart_go_and_the_others_stay_at_the_suggestion(groups):
    x, y, here, _ = groups
    scan = scan_taus(KEY, x, y, epsilons=(0.05,))
    assert scan.tau < 1
    config = CouplingConfig(epsilon=scan.epsilon, tau_source=scan.tau, tau_target=scan.tau)
    eta = 60 * np.asarray(solve_coupling(KEY, x, y, config=config).source_marginal)
    # Twenty cells of each group face thirty: they may grow, but not shrink.
    assert eta[here == 2].max() < eta[here < 2].min()
    assert row(scan, 0.05, scan.tau)["mass"] < row(scan, 0.05, scan.tau)["kept"]


def test_the_order_of_the_grid_and_repeats_do_not_matter(groups):
    one = scan_taus(KEY, *groups[:2], taus=(0.9, 1.0, 0.9), epsilons=(0.05, 0.1))
    other = scan_taus(KEY, *groups[:2], **GRID)
    for name, column in one.table.items():
        np.testing.assert_array_equal(column, other.table[name])


def test_large_data_are_sampled_with_their_labels(rng):
    x, y = (rng.normal(size=(n, 2)).astype(np.float32) for n in (300, 250))
    side = lambda cells: (cells[:, 0] > 0).astype(int)
    scan = scan_taus(
        KEY, x, y, taus=(0.9,), epsilons=(0.05,), source_labels=side(x), target_labels=side(y), max_cells=60
    )
    assert (scan.n_source, scan.n_target) == (60, 60)
    # Labels that had come loose from their cells would agree by half.
    assert scan.table["purity"][0] > 0.75


def test_nothing_keeps_enough(groups):
    scan = scan_taus(KEY, *groups[:2], taus=(0.05, 0.1), epsilons=(0.05,))
    assert scan.tau == 0.1 and "add larger ones" in scan.why


def test_a_displaced_cost_moves_the_source(rng):
    x, y = (rng.normal(size=(n, 3)).astype(np.float32) for n in (7, 5))
    shift = np.array([1.0, -2.0, 0.5])
    found = displaced_cost("cosine", shift)
    np.testing.assert_allclose(found(jnp.asarray(x), jnp.asarray(y)), cdist(x + shift, y, "cosine"), atol=1e-5)
    np.testing.assert_allclose(
        found.swapped()(jnp.asarray(y), jnp.asarray(x)), cdist(x + shift, y, "cosine").T, atol=1e-5
    )
    assert found == displaced_cost("cosine", shift.copy()) and hash(found) == hash(displaced_cost("cosine", shift))


def test_halves_of_one_population_are_not_displaced(groups):
    """Moved away and measured with the shift back, nothing changes: neither the scan nor what the halves keep."""
    x, y, _, _ = groups
    plain = scan_taus(KEY, x, y, **GRID, config=TIGHT)
    away = np.array([3.0, -1.0], np.float32)
    config = dataclasses.replace(TIGHT, cost=displaced_cost("sqeuclidean", -away))
    moved = scan_taus(KEY, x + away, y, **GRID, config=config)
    for name in ("mass", "kept", "cost", "objective"):
        np.testing.assert_allclose(moved.table[name], plain.table[name], rtol=1e-3, atol=1e-4)


def test_kept_uses_the_scale_of_the_problem(groups):
    x, y, _, _ = groups
    y = y + np.float32(20)
    far = scan_taus(KEY, x, y, taus=(0.9,), epsilons=(0.05,))
    scale = float(cdist(x, y, "sqeuclidean").mean())
    numbered = scan_taus(KEY, x, y, taus=(0.9,), epsilons=(0.05,), config=CouplingConfig(scale_cost=scale))
    assert far.table["kept"] == pytest.approx(numbered.table["kept"], rel=1e-3)
    # Next to such a distance, that between cells is nothing.
    assert far.table["kept"][0] > 0.9 > far.table["mass"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taus": ()}, "`taus` must hold at least one value"),
        ({"epsilons": []}, "`epsilons` must hold at least one value"),
        ({"taus": (0.5, 1.5)}, r"`taus` must lie in \(0, 1\], got 1.5"),
        ({"epsilons": (0.0,)}, "`epsilons` must be a finite number above 0"),
        ({"max_cells": 2}, "`max_cells` must be a whole number of at least 4"),
        ({"source_labels": np.zeros(60)}, "only `source_labels` is given"),
        ({"source_labels": np.zeros(60), "target_labels": np.zeros(7)}, r"`target_labels` must .* 60 cells, got shape"),
        ({"source_weights": np.ones(9)}, r"`source_weights` must hold one value for each of the 60 cells"),
        (
            {"config": CouplingConfig(cost=displaced_cost("cosine", np.zeros(5)))},
            "displaces cells of 5 features, got 2",
        ),
    ],
)
def test_bad_input(groups, plain_calls, options, message):
    with pytest.raises(ValueError, match=message):
        scan_taus(KEY, *groups[:2], **options)


def test_bad_cells(groups, plain_calls):
    x, y, _, _ = groups
    with pytest.raises(ValueError, match="got 1 features in `source` and 2 in `target`"):
        scan_taus(KEY, x[:, :1], y)
    with pytest.raises(ValueError, match="`source` must have at least 4 cells"):
        scan_taus(KEY, x[:3], y)
    with pytest.raises(ValueError, match="`target` has NaN or inf in 1 of 60 rows"):
        scan_taus(KEY, x, np.where(np.arange(60)[:, None] == 3, np.nan, y))
    for shift in (np.zeros((2, 2)), np.array([np.nan, 0.0])):
        with pytest.raises(ValueError, match="`shift` must hold one finite number for each feature"):
            displaced_cost("cosine", shift)
