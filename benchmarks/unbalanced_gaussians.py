"""Learned growth against potentials between many more cells.

Growth is learned from 2000 cells a side, and judged at new cells by the potentials of a plan between 8000 other cells
a side, in the same units of cost. The discrete plan is the competitor: the potentials between the 2000 training
cells, extended to the new cells. What both lack is sampling error of the 2000 cells; what one lacks is its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from scgenot.coupling import Coupling, CouplingConfig, solve_coupling
from scgenot.flow import FlowConfig, RescalingConfig, TrainConfig
from scgenot.methods import GENOTSolver

TAUS = ((0.95, 0.95), (0.9, 0.9), (0.5, 0.5), (0.95, 0.5), (1.0, 0.9))
PROBLEMS = (("clusters", 2), ("clusters", 5), ("Gaussians", 2), ("Gaussians", 5))
NEW = 1000


def draw(problem: str, side: str, d: int, rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw cells of one side: two clusters of weights .7 and .3, or .3 and .7, or one Gaussian."""
    cells = rng.normal(size=(n, d))
    is_source = side == "source"
    if problem == "Gaussians":
        if not is_source:
            cells *= np.linspace(0.6, 1.4, d)
            cells[:, 0] += 1.0
        return cells.astype(np.float32)
    cells *= 0.7
    cells[:, 0] += np.where(rng.random(n) < (0.7 if is_source else 0.3), -1.5, 1.5)
    cells[:, 1] += 0.0 if is_source else 1.0
    return cells.astype(np.float32)


def extended(coupling: Coupling, cells: tuple, new: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Return growth of new cells of both sides, as the potentials over the coupled cells imply it."""
    eta = coupling.extend(new[0], cells[1]).source_marginal * len(new[0])
    xi = coupling.extend(cells[0], new[1]).target_marginal * len(new[1])
    return np.asarray(eta), np.asarray(xi)


def gaussians(options) -> Iterator[dict]:
    """Yield rank correlation and relative mean of growth, for each problem, tau, seed and side."""
    train = TrainConfig(max_steps=1)  # Growth needs no velocity field.
    flow = FlowConfig(rescaling=RescalingConfig(loss=options.loss))
    for problem, d in (one for one in PROBLEMS if one[1] in options.dims):
        rng = np.random.default_rng(12345)
        large, new = (
            tuple(draw(problem, side, d, rng, n) for side in ("source", "target")) for n in (options.reference, NEW)
        )
        # The mean squared distance, so that epsilon is the same for all samples.
        unit = sum(float((x**2).sum(axis=1).mean()) for x in large) - 2 * float(large[0].mean(0) @ large[1].mean(0))
        for taus in TAUS:
            config = CouplingConfig(tau_source=taus[0], tau_target=taus[1], scale_cost=unit)
            reference = solve_coupling(jax.random.key(0), *large, config=config)
            truth = extended(reference, large, new)
            for seed in options.seeds:
                rng = np.random.default_rng(seed)
                cells = tuple(draw(problem, side, d, rng, options.cells) for side in ("source", "target"))
                started = time.perf_counter()
                coupling = solve_coupling(jax.random.key(seed), *cells, config=config)
                solved = time.perf_counter()
                solver, _, _ = GENOTSolver.fit(
                    seed, *cells, coupling=coupling, flow_config=flow, train_config=train, progress_bar=False
                )
                trained = time.perf_counter()
                plan = extended(coupling, cells, new)
                for k, side in enumerate(("source", "target")):
                    found = solver.growth(new[k], side)
                    yield {
                        "problem": f"{problem}, {d}-d",
                        "taus": f"{taus[0]:g} / {taus[1]:g}",
                        "side": side,
                        "seed": seed,
                        **scores("", found, truth[k]),
                        **scores("plan ", plan[k], truth[k]),
                        "mass": float(truth[k].mean()),
                        "solve s": solved - started,
                        "train s": trained - solved,
                    }


def scores(prefix: str, found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return rank correlation (1 where both are constant, as kept marginals are), relative mean, relative error."""
    kept = np.ptp(truth) == 0 and np.ptp(found) == 0
    rank = 1.0 if kept else spearmanr(found, truth).statistic
    error = np.sqrt(np.mean((found - truth) ** 2)) / truth.mean()
    return {f"{prefix}rank": rank, f"{prefix}mean": float(found.mean() / truth.mean()), f"{prefix}rmse": float(error)}


def gaussians_table(options) -> tuple[pd.DataFrame, str]:
    """Return the worst figures over the seeds, or with ``--json`` all of them, and a title."""
    table = pd.DataFrame(gaussians(options))
    title = f"Growth of {NEW} new cells against a plan between {options.reference} cells a side"
    if options.json:
        return table, title
    worst = {"rank": "min", "plan rank": "min", "mass": "mean", "rmse": "max", "plan rmse": "max"}
    # The mean that is furthest from 1 over the seeds.
    furthest = lambda means: means.iloc[(means - 1).abs().argmax()]
    worst |= {"mean": furthest, "plan mean": furthest, "solve s": "mean", "train s": "mean"}
    table = table.groupby(["problem", "taus", "side"], sort=False).agg(worst)
    return table, f"{title}; worst of {len(options.seeds)} seeds"
