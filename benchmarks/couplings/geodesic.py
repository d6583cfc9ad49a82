"""Problems that a geodesic cost must solve: a roll that unrolls to a spiral, clones that differentiate."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import jax
import numpy as np
from scipy.stats import spearmanr

from benchmarks._common import data
from benchmarks.couplings._common import Tables, against_bars, dense_plan, table
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import swiss_roll_spiral

# Euclidean distances are shown for contrast, on so many seeds.
_CONTRASTS = 3


def swissroll(seeds: Sequence[int], n: int = 1000) -> Tables:
    """Swiss roll to spiral: rank correlation between the arc length of a cell and that which it is sent to."""
    rows = {}
    for cost, some in (("geodesic", seeds), ("euclidean", seeds[:_CONTRASTS])):
        for seed in some:
            roll = swiss_roll_spiral(n, seed)
            started = time.perf_counter()
            config = CouplingConfig(cost=cost)
            found = solve_coupling(jax.random.key(seed), roll.source, roll.target, problem="quadratic", config=config)
            seconds = time.perf_counter() - started
            plan = dense_plan(found)
            sent = plan @ roll.target_arc / plan.sum(axis=1)
            rows[cost, seed] = {
                "rank correlation": spearmanr(roll.source_arc, sent).statistic,
                "effective targets": found.diagnostics.effective_targets,
                "objective": found.diagnostics.objective,
                "converged": float(found.diagnostics.converged),
                "s": seconds,
            }
    found = table(rows, ["cost", "seed"])
    # The direction along the spiral is free.
    worst = found.loc["geodesic", "rank correlation"].abs().min()
    return {
        f"arc lengths along roll and spiral, n = {n}, default settings but for the cost": found,
        "Swiss roll, against the bar": against_bars(("geodesic: rank correlation, worst seed", worst, ">=", 0.95)),
    }


# Of both costs that are distances, and squared Euclidean, the default of linear problems.
LARRY_COSTS = ("geodesic", "euclidean", "sqeuclidean")
LARRY_EPSILONS = (0.05, 0.005)


def larry() -> Tables:
    """Mass of the plan between days 4 and 6 that stays within a clone, over cells of the clones that both days have."""
    adata = data("larry_clonal_subset")
    cells = adata.obsm["X_pca"].astype(np.float32)
    early, late = (np.flatnonzero(adata.obs["time"] == day) for day in (4.0, 6.0))
    clones, types = adata.obs["clone"].to_numpy(), adata.obs["cell_type"].astype(str).to_numpy()
    same = clones[early][:, None] == clones[late][None, :]
    scored = same.any(axis=1)
    one_hot = (types[late][:, None] == np.unique(types)[None, :]).astype(float)
    fates = (same @ one_hot)[scored]
    fates /= fates.sum(axis=1, keepdims=True)
    rows = {("independent", float("nan")): _shares(np.ones(same.shape), same, scored, one_hot, fates)}
    for epsilon in LARRY_EPSILONS:
        for cost in LARRY_COSTS:
            config = CouplingConfig(cost=cost, epsilon=epsilon)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="the neighbour graph")
                found = solve_coupling(jax.random.key(0), cells[early], cells[late], config=config)
            row = _shares(dense_plan(found), same, scored, one_hot, fates)
            summary = found.diagnostics
            row |= {"effective targets": summary.effective_targets, "converged": float(summary.converged)}
            rows[cost, epsilon] = row
    claims = [
        (f"{share}: geodesic less {other}, epsilon {epsilon:g}", _gain(rows, share, other, epsilon), ">=", 0.0)
        for share in ("on the clone's fates, %", "overlap of fates, %", "within the clone, %")
        for other in LARRY_COSTS[1:]
        for epsilon in LARRY_EPSILONS
    ]
    title = f"LARRY d4 ({len(early)} cells) to d6 ({len(late)}), {scored.sum()} cells of shared clones"
    return {
        title: table(rows, ["cost", "epsilon"]),
        "LARRY, against the bars": against_bars(*claims),
    }


def _gain(rows: dict, column: str, other: str, epsilon: float) -> float:
    return rows["geodesic", epsilon][column] - rows[other, epsilon][column]


def _shares(plan, same, scored, one_hot, fates) -> dict[str, float]:
    """Return shares of mass, the mean over the scored source cells.

    `within the clone`: on day-6 cells of the same clone. `on the clone's fates`: on cell types that the clone has at day 6.
    `overlap of fates`: sum over types of the smaller of both shares, the plan's and the clone's.
    """
    conditional = (plan / plan.sum(axis=1, keepdims=True))[scored]
    by_type = conditional @ one_hot
    return {
        "within the clone, %": 100 * (conditional * same[scored]).sum(axis=1).mean(),
        "on the clone's fates, %": 100 * (by_type * (fates > 0)).sum(axis=1).mean(),
        "overlap of fates, %": 100 * np.minimum(by_type, fates).sum(axis=1).mean(),
    }
