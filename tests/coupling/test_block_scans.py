"""Scans over blocks: the plans that `solve_blocks` has at the same numbers, and one suggestion that all of them can stand."""

import dataclasses

import jax
import numpy as np
import pytest

from scgenot.coupling import (
    CouplingConfig,
    EpsilonScan,
    TauScan,
    scan_block_epsilons,
    scan_block_taus,
    scan_taus,
    solve_blocks,
)
from scgenot.coupling._block_scans import _common_epsilon, _common_tau

KEY = jax.random.key(0)
TIGHT = CouplingConfig(tolerance=1e-5, max_iterations=5000)
GRID = {"taus": (1.0, 0.98, 0.9), "epsilons": (0.1, 0.05)}


@pytest.fixture
def data(rng):
    """Three groups far apart. The first block's target has all of them, the second one's lacks one, and is of wider groups."""
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    group = np.repeat([0, 1, 2], 40)
    source = centres[group] + 0.5 * rng.normal(size=(120, 2))
    both = np.concatenate([source, 3.0 * centres[group] + 2.0 * rng.normal(size=(120, 2))])
    full = centres[group] + 0.5 * rng.normal(size=(120, 2))
    less = 3.0 * centres[np.repeat([0, 1], 35)] + 2.0 * rng.normal(size=(70, 2))
    blocks = [(np.arange(120), np.arange(120)), (np.arange(120, 240), np.arange(120, 190))]
    return both.astype(np.float32), np.concatenate([full, less]).astype(np.float32), blocks, group


def test_the_table_of_each_block_is_its_plan_among_all(data):
    """Under one scale: alone, either block would have another epsilon."""
    source, target, blocks, _ = data
    found = scan_block_taus(KEY, source, target, blocks, **GRID, config=TIGHT)
    config = dataclasses.replace(TIGHT, epsilon=0.05, tau_source=0.9, tau_target=0.9)
    coupled = solve_blocks(KEY, source, target, blocks, config=config)
    for scan, told, (rows, columns) in zip(found.scans, coupled.block_diagnostics, blocks, strict=True):
        here = (scan.table["epsilon"] == 0.05) & (scan.table["tau"] == 0.9)
        assert scan.table["mass"][here][0] == pytest.approx(told.mass, rel=1e-3)
        assert scan.table["objective"][here][0] == pytest.approx(told.objective, rel=1e-3)
        alone = scan_taus(KEY, source[rows], target[columns], **GRID, config=TIGHT).table
        assert abs(alone["objective"][here][0] / told.objective - 1) > 0.1
        assert (scan.n_source, scan.n_target) == (len(rows), len(columns))


def test_growth_of_each_block_shows_at_the_common_tau(data):
    source, target, blocks, group = data
    found = scan_block_taus(KEY, source, target, blocks, config=TIGHT)
    config = dataclasses.replace(TIGHT, epsilon=found.epsilon, tau_source=found.tau, tau_target=found.tau)
    assert found.tau == max(one.tau for one in found.scans) < 1.0
    sent = [120 * part.masses[0] for part in solve_blocks(KEY, source, target, blocks, config=config).parts]
    stays, dies = ([one[group == k].mean() for k in range(3)] for one in sent)
    # Who has a counterpart keeps nine tenths at the least; who has none goes, and the target's mass falls to the others.
    assert min(stays) > 0.9 and max(stays) < 1.1
    assert dies[2] < 0.1 and min(dies[:2]) > 1.0


def test_some_blocks_are_scanned_under_the_scale_of_all(data):
    source, target, blocks, _ = data
    both = scan_block_taus(KEY, source, target, blocks, **GRID)
    one = scan_block_taus(KEY, source, target, blocks, scanned=[1], names=["", "B"], **GRID)
    assert len(one.scans) == 1 and "'B'" not in both.why
    for name, column in one.scans[0].table.items():
        np.testing.assert_array_equal(column, both.scans[1].table[name])


def test_epsilons_of_blocks(data):
    source, target, blocks, _ = data
    epsilons = (1.0, 0.02)
    found = scan_block_epsilons(KEY, source, target, blocks, epsilons=epsilons, config=TIGHT)
    coupled = solve_blocks(KEY, source, target, blocks, config=dataclasses.replace(TIGHT, epsilon=0.02))
    for scan, told in zip(found.scans, coupled.block_diagnostics, strict=True):
        assert scan.table["objective"][1] == pytest.approx(told.objective, rel=1e-3)
    assert found.stable and found.epsilon in epsilons


def test_bad_input_names_the_block(data):
    source, target, blocks, _ = data
    with pytest.raises(ValueError, match=r"`scanned` must name some of the 2 blocks by their numbers, got \[2\]"):
        scan_block_taus(KEY, source, target, blocks, scanned=[2])
    few = [blocks[0], (blocks[1][0], blocks[1][1][:2])]
    with pytest.raises(ValueError, match="'B': `target` must have at least 4 cells"):
        scan_block_taus(KEY, source, target, few, names=["A", "B"], scanned=[1])
    with pytest.raises(ValueError, match="several conditions have no scale in common. Use a cost between two cells"):
        scan_block_taus(KEY, source, target, blocks, config=CouplingConfig(cost="geodesic"))
    with pytest.raises(ValueError, match="`gamma` must lie in"):
        scan_block_epsilons(KEY, source, target, blocks, gamma=2.0)


def taus(kept, effective):
    """A scan on two epsilons and three taus, of 100 target cells."""
    table = {"epsilon": np.repeat([0.1, 0.05], 3), "tau": np.tile([1.0, 0.98, 0.9], 2)}
    table |= {"kept": np.array(kept), "effective_targets": np.repeat(effective, 3)}
    return TauScan(table, 1.0, 0.1, "", 100, 100)


def test_the_tau_that_all_can_stand():
    low = taus([1, 0.99, 0.95] * 2, [4.0, 3.0])
    high = taus([1, 0.95, 0.7] * 2, [4.0, 3.0])
    assert _common_tau((low, low), ["A", "B"])[:2] == (0.9, 0.1)
    tau, epsilon, why = _common_tau((low, high), ["A", "B"])
    assert (tau, epsilon) == (0.98, 0.1) and "(0.9 to 0.98), for 'B'" in why and "in all of them" in why
    # Rows of the second are wide at the larger epsilon; of a third, at both.
    wide, widest = taus([1, 0.99, 0.95] * 2, [6.0, 3.0]), taus([1, 0.99, 0.95] * 2, [9.0, 8.0])
    assert _common_tau((low, wide), ["A", "B"])[:2] == (0.9, 0.05)
    tau, epsilon, why = _common_tau((low, wide, widest), ["A", "B", "C"])
    assert (tau, epsilon) == (0.9, 0.05) and "in 2 of 3, not in 'C'" in why
    tau, epsilon, why = _common_tau((widest,), ["C"])
    assert epsilon == 0.05 and "in none of them" in why
    lost = taus([0.8, 0.7, 0.6] * 2, [4.0, 3.0])
    tau, _, why = _common_tau((low, lost), ["A", "B"])
    assert tau == 1.0 and "less than 90% of their mass in 'B'" in why


def epsilons(agreement, effective):
    table = {"epsilon": np.array([0.1, 0.05, 0.02]), "agreement": np.array(agreement)}
    return EpsilonScan(table | {"effective_targets": np.array(effective)}, 0.1, True, "", 100, 100)


def test_the_epsilon_that_all_can_stand():
    good = epsilons([0.95, 0.95, 0.92], [4, 3, 2])
    assert _common_epsilon((good, good), ["A", "B"])[:2] == (0.1, True)
    wide = epsilons([0.95, 0.95, 0.92], [9, 4, 3])
    epsilon, stable, why = _common_epsilon((good, wide), ["A", "B"])
    assert (epsilon, stable) == (0.05, True) and "in all 2 conditions" in why
    shaky = epsilons([0.95, 0.5, 0.4], [9, 4, 3])
    epsilon, stable, why = _common_epsilon((good, wide, shaky), ["A", "B", "C"])
    assert (epsilon, stable) == (0.05, False) and "in 2 of 3" in why and "do not agree in 'C'" in why
    # Where rows are never narrow, the smallest that most agree at; where none agrees, the best there is.
    blurred = epsilons([0.95, 0.95, 0.4], [30, 20, 10])
    assert _common_epsilon((blurred,), ["D"])[:2] == (0.05, True)
    epsilon, stable, why = _common_epsilon((epsilons([0.1, 0.3, 0.2], [4, 3, 2]),), ["E"])
    assert (epsilon, stable) == (0.05, False) and why.startswith("Do not trust")
