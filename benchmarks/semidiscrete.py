"""OTT's stochastic solver beside ours: potentials of one coupling after equal core seconds.

The mixture of `benchmarks.scale` (D = 32, epsilon_b = 1), 16,384 cells a side. `ott.solvers.linear.semidiscrete` ascends the dual of the column
potentials by stochastic gradients, each from `batch` source cells drawn anew, against all target cells, and averages its iterates. Both start from nothing. Measured
for column potentials v, with row potentials that are exact for them, over all cells: "violation", how far the columns' marginal is off (L1), and "dual
gap", how far the dual objective is below the one that is solved to 1e-4, in epsilons. Compilation is not counted. Step size
(in units of epsilon times the number of target cells, the inverse curvature of the dual) and schedule are chosen in each run on other, fewer cells: those of the
highest dual objective after some core seconds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from ott.geometry.semidiscrete_pointcloud import SemidiscretePointCloud
from ott.problems.linear.semidiscrete_linear_problem import SemidiscreteLinearProblem
from ott.solvers.linear.semidiscrete import SemidiscreteSolver, SemidiscreteState

from benchmarks._common import parser, report
from benchmarks._tables import Row, Table
from benchmarks.scale import mixture
from scgenot.costs import resolve_cost
from scgenot.coupling import CouplingConfig, Extended, Global, solve_coupling
from scgenot.sinkhorn import Geometry, soft_min_rows

BATCH, CHUNK = 512, 20
RATES = {"constant": (0.03, 0.1, 0.3, 1.0), "cosine": (0.3, 1.0)}
# Cells a side and core seconds that step sizes are chosen with, and in a quick run; of a seed that is not reported.
CHOOSING, QUICKLY, OTHER = (2048, 1.0), (256, 0.05), 100


@dataclasses.dataclass(frozen=True)
class Problem:
    """A linear problem with equal weights: cells of both sides, and epsilon in units of the squared distance."""

    source: np.ndarray
    target: np.ndarray
    epsilon: float

    @property
    def geometry(self) -> Geometry:
        """Costs over epsilon."""
        return Geometry(*jax.device_put((self.source, self.target)), 1 / self.epsilon, resolve_cost("sqeuclidean"))

    def measured(self, v: np.ndarray) -> tuple[float, float]:
        """Return how far the column marginal is off, and the dual objective over epsilon."""
        v = np.asarray(v, np.float32)
        n, m = len(self.source), len(v)
        u = -np.asarray(soft_min_rows(self.geometry, v - np.float32(np.log(m))))
        column = np.exp(
            np.float64(v) + np.asarray(soft_min_rows(self.geometry.T, u - np.float32(np.log(n))), np.float64)
        )
        return float(np.abs(column - 1).mean()), float(u.mean(dtype=np.float64) + v.mean(dtype=np.float64))


def ours(seed: int, problem: Problem, kind) -> tuple[np.ndarray, float]:
    """Return column potentials and core seconds."""
    config = CouplingConfig(epsilon=problem.epsilon, scale_cost=1.0)
    started = time.process_time()
    coupling = solve_coupling(jax.random.key(seed), problem.source, problem.target, kind=kind, config=config)
    v = np.asarray(jax.block_until_ready(coupling.potentials.v))
    return v, time.process_time() - started


def stochastic(
    seed: int, problem: Problem, budgets: list[float], rate: float, schedule: str, batch: int
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yield steps, core seconds and averaged potentials of OTT's solver as each budget of core seconds is used up.

    A schedule that falls to zero is run for each budget by itself, with as many steps as fit into it.
    """
    cells = jnp.asarray(problem.source)
    drawn = lambda key, shape, dtype=None: cells[jax.random.randint(key, shape[:1], 0, len(cells))]
    posed = SemidiscreteLinearProblem(
        SemidiscretePointCloud(drawn, jnp.asarray(problem.target), epsilon=problem.epsilon)
    )
    top = rate * problem.epsilon * len(problem.target)

    def started(steps: int):
        rates = optax.cosine_decay_schedule(top, steps) if schedule == "cosine" else top
        # The default average forgets what lies more than a hundred steps back.
        solver = SemidiscreteSolver(num_iterations=steps, batch_size=batch, optimizer=optax.sgd(rates))
        g = jnp.zeros(len(problem.target))
        blank, opt_state = jnp.zeros(steps), solver.optimizer.init(g)
        state = SemidiscreteState(jnp.array(0), jnp.float32(0), g, g, opt_state, blank, blank, jnp.zeros(1))

        @jax.jit
        def some(state, key):
            one = lambda state, key: (solver.step(key, state, posed, rng_error=key), None)
            return jax.lax.scan(one, state, jax.random.split(key, CHUNK))[0]

        jax.block_until_ready(some(state, jax.random.key(0)))
        return state, some

    most, key = 200_000, jax.random.key(seed)
    state, some = started(most)
    clock = time.process_time()
    jax.block_until_ready(some(state, key))
    pace, spent, done = time.process_time() - clock, 0.0, 0
    for budget in budgets:
        if schedule == "cosine":
            state, some = started(max(1, round(budget / pace)) * CHUNK)
            spent, done = 0.0, 0
        while spent < budget:
            clock = time.process_time()
            state = jax.block_until_ready(some(state, jax.random.fold_in(key, done)))
            spent, done = spent + time.process_time() - clock, done + CHUNK
        yield done, spent, np.asarray(state.g_ema) / problem.epsilon


def problem_of(seed: int, cells: int) -> Problem:
    known, (source, target) = mixture(seed, cells)
    return Problem(source, target, float(known.epsilon))


def tuned(seed: int, cells: int, budget: float, batch: int = BATCH) -> pd.DataFrame:
    """Return what step sizes and schedules leave after some core seconds."""
    problem, lines = problem_of(seed, cells), []
    for schedule, rates in RATES.items():
        for rate in rates:
            for steps, seconds, v in stochastic(seed, problem, [budget], rate, schedule, batch):
                violation, dual = problem.measured(v)
                lines.append([schedule, rate, steps, seconds, violation, dual])
    return pd.DataFrame(lines, columns=["schedule", "rate", "steps", "core s", "violation", "dual"])


def table(seed: int, cells: int, choosing: tuple[int, float] = CHOOSING, batch: int = BATCH) -> Table:
    """Return the solvers beside each other."""
    found = tuned(seed + OTHER, *choosing, batch)
    # A step size that is too large ends in what is no number.
    best_way = found.loc[found["dual"].fillna(-np.inf).idxmax()]
    problem, lines = problem_of(seed, cells), []
    extended = Extended(n_cells=cells // 4, n_sweeps=1, tolerance=1e-6)
    # What comes first compiles for those after it.
    ours(seed, problem, extended)
    exact, _ = ours(seed, problem, Global(tolerance=1e-4))
    best = problem.measured(exact)[1]

    def line(name: str, v: np.ndarray, seconds: float | None, role: str = "solver", steps: int | None = None) -> None:
        violation, dual = problem.measured(v)
        values = {"core s": seconds, "violation": violation, "dual gap": best - dual, "steps": steps}
        lines.append(Row({"solver": name}, values, role))

    line("global, to 1e-4", exact, None, "floor")
    line("start, v = 0", np.zeros(cells), 0.0, "baseline")
    kinds = {
        "global": Global(),
        "extended, a quarter of the cells, 1 sweep": extended,
        "extended, a quarter of the cells, 3 sweeps": dataclasses.replace(extended, n_sweeps=3),
    }
    budgets = []
    for name, kind in kinds.items():
        v, seconds = ours(seed, problem, kind)
        line(name, v, seconds)
        budgets.append(seconds)
    budgets = sorted(budgets)
    found = stochastic(seed, problem, budgets, best_way["rate"], best_way["schedule"], batch)
    for number, (steps, seconds, v) in enumerate(found):
        line(f"OTT's stochastic, budget {number + 1}", v, seconds, steps=steps)
    note = f"OTT's steps: {best_way['rate']:g}, {best_way['schedule']}."
    return Table(f"Coupling {cells} x {cells} cells, D = 32", lines, note=note)


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the table for the harness."""
    yield table(seed, 1024, QUICKLY, 128) if quick else table(seed, 16_384)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--cells", type=int, default=16_384)
    arguments.add_argument("--seed", type=int, default=2)
    options = arguments.parse_args()
    made = table(options.seed, options.cells)
    found = pd.DataFrame([row.labels | row.values for row in made.rows]).set_index("solver")
    report(found, f"{made.title}, seed {options.seed}. {made.note}", options.json, digits=4)


if __name__ == "__main__":
    main()
