"""Stochastic gradients on the dual, OTT's semidiscrete solver, as the reference for the extended coupling: marginals off by seconds.

The mixture with D = 32 (`benchmarks.scale`); sources are drawn from the cells that the extended coupling has. Of each solver only the target potential is
taken; source potentials are made exact for it by one pass, so that rows sum to what they should, and what target cells get is compared with their
weights: ``off`` is the L1 distance, over all cells, ``dual`` the value of the dual per epsilon. Step sizes are in units in which a step of
1 lowers a target's log-potential by how much too much it gets, relative to its weight; they were chosen on another seed and 1024 cells
(``--only choose_steps --semidiscrete-cells 1024``).
``from`` is where it starts: at zero, or at the extension without sweeps, whose seconds are then counted, too.
OTT 0.6 averages potentials by ``potential_ema`` the other way round: .99 keeps the last iterate and .01 of the average; .02 is the average over fifty.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ott.geometry.semidiscrete_pointcloud import SemidiscretePointCloud
from ott.problems.linear.semidiscrete_linear_problem import SemidiscreteLinearProblem
from ott.solvers.linear.semidiscrete import SemidiscreteSolver

from benchmarks.couplings._common import Tables, table
from benchmarks.scale import mixture
from scgenot.coupling import CouplingConfig, Extended, Global, solve_coupling
from scgenot.sinkhorn import Geometry, soft_min_rows

BATCH = 1024
OPTIMISERS = {"SGD": optax.sgd, "Adam": optax.adam}
RATES = {"SGD": (0.3, 1.0, 3.0), "Adam": (0.03, 0.1, 0.3)}
# Weight of a new iterate in the average of potentials.
AVERAGES = (0.99, 0.02)
# Step size and average: the best of 100 steps on seed 0 with 1024 cells. The best of SGD is the smallest that was tried.
CHOSEN = {"SGD": (0.3, 0.99), "Adam": (0.3, 0.99)}


class Posed:
    """Cells of the mixture and the measures of a target potential."""

    def __init__(self, seed: int, cells: int) -> None:
        self.problem, (self.x, self.y) = mixture(seed, cells)
        self.epsilon = float(self.problem.epsilon)

    def coupled(self, kind, seed: int):
        config = CouplingConfig(epsilon=self.epsilon, scale_cost=1.0)
        return solve_coupling(jax.random.key(seed), self.x, self.y, kind=kind, config=config)

    def scores(self, geometry: Geometry, v: np.ndarray) -> dict[str, float]:
        """Return how far the marginals are off, and the value of the dual."""
        n, m = geometry.shape
        u = -np.asarray(soft_min_rows(geometry, jnp.asarray(v - np.log(m), jnp.float32)))
        ratio = np.exp(v + np.asarray(soft_min_rows(geometry.T, jnp.asarray(u - np.log(n), jnp.float32))), dtype=float)
        return {"off": float(np.abs(ratio - 1.0).mean()), "dual": float(u.mean(dtype=float) + v.mean(dtype=float))}

    def descended(
        self, way: str, rate: float, average: float, steps: int, seed: int, start: np.ndarray | None
    ) -> np.ndarray:
        """Return the log-potential that OTT's solver finds."""
        x, m = jnp.asarray(self.x), len(self.y)
        sampler = lambda key, shape, dtype: x[jax.random.randint(key, shape[:1], 0, len(x))].astype(dtype)
        problem = SemidiscreteLinearProblem(
            SemidiscretePointCloud(sampler, jnp.asarray(self.y), epsilon=self.epsilon, scale_cost=1.0)
        )
        # A gradient is what a target gets too much, in mass; steps of Adam have one size for all.
        size = rate * self.epsilon * (m if way == "SGD" else 1.0)
        solver = SemidiscreteSolver(
            num_iterations=steps,
            batch_size=BATCH,
            optimizer=OPTIMISERS[way](optax.cosine_decay_schedule(size, steps)),
            error_eval_every=steps,
            error_num_repeats=1,
            potential_ema=average,
        )
        given = None if start is None else jnp.asarray(start * self.epsilon, jnp.float32)
        return np.asarray(solver(jax.random.key(seed), problem, g_init=given).g) / self.epsilon


def choose(seed: int, cells: int, steps: int) -> Tables:
    """Return the scores of step sizes and averages."""
    posed, rows = Posed(seed, cells), {}
    geometry = posed.coupled(Extended(n_cells=min(1024, cells), n_sweeps=0), seed).geometry
    for way, rates in RATES.items():
        for rate in rates:
            for average in AVERAGES:
                found = posed.descended(way, rate, average, steps, seed, None)
                rows[way, rate, average] = posed.scores(geometry, found)
    return {f"{cells} cells a side, {steps} steps, seed {seed}": table(rows, ["by", "rate", "average"])}


def _ours(
    posed: Posed, seed: int, n_cells: int, sweeps: Iterable[int]
) -> Iterator[tuple[str, dict, np.ndarray, float]]:
    for count in sweeps:
        began, core = time.perf_counter(), time.process_time()
        found = posed.coupled(Extended(n_cells=n_cells, n_sweeps=count, tolerance=1e-6), seed)
        v = np.asarray(found.potentials.v, float)
        seconds, core = time.perf_counter() - began, time.process_time() - core
        name = f"extended, {n_cells} cells, {count} sweeps"
        yield name, {"core s": core, "s": seconds} | posed.scores(found.geometry, v), v, core


def run(seed: int, cells: int, steps: Iterable[int] = (24, 100, 300)) -> Tables:
    """Return scores and seconds of the extended coupling, of the converged one, and of stochastic gradients from zero and from the extension."""
    posed, rows, n_cells = Posed(seed, cells), {}, cells // 4
    # What is compiled, or read from the cache of compilations, is no matter of the method.
    for _ in _ours(posed, seed, n_cells, (0, 1)):
        pass
    start, before = None, 0.0
    for name, row, v, core in _ours(posed, seed, n_cells, (0, 1, 3)):
        rows[name, "-"] = row
        if start is None:
            start, before = v, core
    began, core = time.perf_counter(), time.process_time()
    whole = posed.coupled(Global(), seed)
    v = np.asarray(whole.potentials.v, float)
    took = {"core s": time.process_time() - core, "s": time.perf_counter() - began}
    rows["global, converged", "-"] = took | posed.scores(whole.geometry, v)
    rows["no potential", "-"] = posed.scores(whole.geometry, np.zeros(cells))
    for way, (rate, average) in CHOSEN.items():
        for origin, given in {"zero": None, "extension": start}.items():
            for count in steps:
                posed.descended(way, rate, average, count, seed, given)
                began, core = time.perf_counter(), time.process_time()
                found = posed.descended(way, rate, average, count, seed, given)
                core = time.process_time() - core + (before if given is not None else 0.0)
                took = {"core s": core, "s": time.perf_counter() - began}
                rows[f"OTT, {way}, {count} steps", origin] = took | posed.scores(whole.geometry, found)
    return {f"{cells} cells a side, seed {seed}": table(rows, ["solver", "from"])}
