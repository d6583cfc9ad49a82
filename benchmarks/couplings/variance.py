"""How much of a conditional's variance is the solver's own: repeated fits, pooled.

Gaussians in 20 dimensions on both sides. The same cells are fitted again and again, with other keys and in another order each
time; targets of 256 source cells are drawn from each fit and traced back to the cells that they are. Pooled over fits, the
variance of y given x, summed over features, is that of one fit plus what differs between fits: turned or reflected solutions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from benchmarks.couplings._common import Tables, against_bars, table
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import gaussian_pair

N, D, ASKED = 1500, 20, 256
EPSILON = 0.01
# A quadratic minibatch coupling solves a problem for each draw of 256 cells, a global one for all draws.
DRAWS, MINIBATCH_DRAWS = 64, 8
Draw = Callable[[int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def run(fits: Sequence[int]) -> Tables:
    problem = gaussian_pair(D, rng=0)
    rng = np.random.default_rng(0)
    source, target = (np.float32(draw(rng, N)) for draw in (problem.sample_source, problem.sample_target))
    rows = {name: repeated(draw, source, target, fits) for name, draw in methods().items()}
    floor = rows["global"]["within one fit"]
    for row in rows.values():
        row["pooled / global's within one fit"] = row["pooled"] / floor
        row["pooled / own within one fit"] = row["pooled"] / row["within one fit"]
    claims = [
        (f"{name}: pooled over {len(fits)} fits / within one fit", rows[name]["pooled / own within one fit"], "<=", 1.3)
        for name in ("global", "global, 512 landmarks")
    ]
    title = f"conditional variance, Gaussians {D}-d to {D}-d, n = {N}, epsilon {EPSILON}, {len(fits)} fits"
    return {title: table(rows, "coupling"), "variance, against the bars": against_bars(*claims)}


def methods() -> dict[str, Draw]:
    return {
        "global": quadratic("global", DRAWS),
        "global, 512 landmarks": quadratic("global", DRAWS, landmarks=512),
        "minibatch, warm start": quadratic("minibatch", MINIBATCH_DRAWS, warm_start=True),
        "minibatch": quadratic("minibatch", MINIBATCH_DRAWS, warm_start=False),
        "independent": independent,
    }


def repeated(draw: Draw, source: np.ndarray, target: np.ndarray, fits: Sequence[int]) -> dict[str, float]:
    asked = np.linspace(0, N - 1, ASKED).round().astype(int)
    started = time.perf_counter()
    drawn = []
    for fit in fits:
        rng = np.random.default_rng(fit)
        rows, columns = rng.permutation(N), rng.permutation(N)
        # Where the asked cells are now; drawn targets are numbers in the shuffled order.
        places = np.argsort(rows)[asked]
        drawn.append(target[columns[draw(fit, source[rows], target[columns], places)]])
    means = np.stack([one.mean(axis=1) for one in drawn])
    return {
        "within one fit": float(np.mean([spread(one) for one in drawn])),
        "pooled": spread(np.concatenate(drawn, axis=1)),
        "between means of fits": float(means.var(axis=0).sum(axis=-1).mean()),
        "s a fit": (time.perf_counter() - started) / len(fits),
    }


def spread(cells: np.ndarray) -> float:
    """Return the variance of draws (cells x draws x features) given the cell, summed over features, the mean over cells."""
    return float(cells.astype(np.float64).var(axis=1, ddof=1).sum(axis=-1).mean())


def quadratic(kind: str, n_draws: int, **options) -> Draw:
    def draw(fit: int, source: np.ndarray, target: np.ndarray, rows: np.ndarray) -> np.ndarray:
        config = CouplingConfig(cost="sqeuclidean", epsilon=EPSILON, **options)
        found = solve_coupling(jax.random.key(fit), source, target, problem="quadratic", kind=kind, config=config)
        return np.asarray(found.conditional(jax.random.key(1000 + fit), rows, n_draws))

    return draw


def independent(fit: int, source: np.ndarray, target: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.random.default_rng(10_000 + fit).integers(0, len(target), (len(rows), DRAWS))
