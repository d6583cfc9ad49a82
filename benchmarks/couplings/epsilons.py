"""Quadratic problems over epsilon: whether the right orientation is kept, and how often a row of the plan surrounds the true partner.

Cells of both sides are split alike into training and held-out ones. The coupling is solved over the training cells, in another
order on the target side, and extended to the held-out ones. A held-out cell's row gives 500 draws; the level at which its true
partner lies is the share of draws that are no further from the draws, on average, than the partner is (an energy rank: it
copes with draws that repeat, as those of a sharp plan do).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import numpy as np
from scipy.spatial.distance import cdist

from benchmarks._modalities import Paired, snareseq
from benchmarks.couplings._common import Tables, dense_plan, table
from scgenot._demo import REP, SOURCE, TARGET, split_panels
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.metrics import foscttm

EPSILONS = (0.002, 0.005, 0.01, 0.02, 0.05)
_DRAWS = 500


def panels(seed: int) -> Paired:
    """Two disjoint gene panels of 700 blood cells, as in the demonstration."""
    cells = split_panels(seed)
    sides = [np.asarray(cells[name].obsm[REP], np.float32) for name in (SOURCE, TARGET)]
    return Paired(*sides, cells[SOURCE].obs["bulk_labels"].to_numpy(str))


DATA = {"panels": panels, "SNARE-seq": lambda seed: snareseq()}


def run(seeds: Sequence[int], cells: int, held: int) -> Tables:
    """Return scores for each data set, epsilon and seed, and their means over seeds."""
    rows = {}
    for name, load in DATA.items():
        for seed in seeds:
            paired = load(seed)
            order = np.random.default_rng(seed).permutation(len(paired.source))
            train, test = paired.some(order[:cells]), paired.some(order[cells : cells + held])
            for epsilon in EPSILONS:
                rows[name, epsilon, seed] = scores(train, test, epsilon, seed)
    found = table(rows, ["data", "epsilon", "seed"])
    return {
        "each seed": found,
        "means over seeds": found.groupby(level=["data", "epsilon"]).mean(),
    }


def scores(train: Paired, test: Paired, epsilon: float, seed: int) -> dict[str, float]:
    """Solve over `train`, score on both."""
    target = train.target[np.random.default_rng(seed).permutation(len(train.target))]
    started = time.perf_counter()
    found = solve_coupling(
        jax.random.key(0), train.source, target, problem="quadratic", config=CouplingConfig(epsilon=epsilon)
    )
    seconds = time.perf_counter() - started
    plan = dense_plan(found)
    extended = found.extend(test.source, target)
    drawn = target[np.asarray(extended.conditional(jax.random.key(seed), np.arange(len(test.source)), _DRAWS))]
    levels = np.array([_level(draws, partner) for draws, partner in zip(drawn, test.target, strict=True)])
    return {
        "FOSCTTM": foscttm(plan @ target / plan.sum(axis=1, keepdims=True), train.target),
        "FOSCTTM held out": foscttm(drawn.mean(axis=1), test.target),
        "coverage of nominal 90 %": float((levels <= 0.9).mean()),
        "coverage of nominal 50 %": float((levels <= 0.5).mean()),
        "effective targets": found.diagnostics.effective_targets,
        "objective": found.diagnostics.objective,
        "converged": float(found.diagnostics.converged),
        "s": seconds,
    }


def _level(draws: np.ndarray, partner: np.ndarray) -> float:
    apart = cdist(np.vstack([draws, partner[None]]), draws).mean(axis=1)
    return float((apart[:-1] <= apart[-1]).mean())
