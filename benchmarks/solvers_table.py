"""All solvers on problems whose conditional laws are known: mixtures (LightSB's own family), and a curve (nobody's).

Percentages are of the target's variance. ``cBW-UVP``: learned against true laws of test cells, by their means and covariances; only for
solvers that learn laws. ``mean``: mean squared error of conditional means. ``BW-UVP``: the push-forward of the test cells against the
target. The floor is the true law drawn anew at the same sizes. ``independent`` draws targets whatever the cell is, ``identity`` leaves cells
where they are. Seconds of a solver that learns from a coupling hold those of the coupling. The mixtures' parameters are our own
(S_k = 0.5 I, five components at radius 5, cost 1/2 |x - y|^2): the official ones are not public.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd

from benchmarks._common import parser, report
from benchmarks._solvers import SOLVERS, Cells, Solver
from benchmarks._tables import Meter, Plot, Row, Table, measured
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import MixtureProblem, gaussian_curve, gaussian_mixture
from scgenot.metrics import bw_uvp, cbw_uvp

# Numbers that a law's draws may hold, in double precision 0.8 GB: with many features, fewer test cells are asked.
_MOST_NUMBERS = 10**8


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is run.

    Attributes
    ----------
    dims, epsilons
        Features and regularisations (of ``1/2 |x - y|^2``).
    cells, steps
        Training cells a side, training steps.
    test_cells, samples
        Test cells and draws for each.
    lengths
        Training lengths of the table of time to quality.
    """

    dims: tuple[int, ...] = (2, 16, 64, 128)
    epsilons: tuple[float, ...] = (0.1, 1.0, 10.0)
    cells: int = 16384
    steps: int = 4500
    test_cells: int = 1000
    samples: int = 1000
    lengths: tuple[int, ...] = (250, 500, 1000, 2000, 4000)


QUICK = Sizes((2, 16), (1.0,), cells=1024, steps=200, test_cells=100, samples=100, lengths=(100, 200))


class Posed:
    """A problem with its training and test cells, and a coupling that is solved once.

    Attributes
    ----------
    problem
        The truth.
    x, y
        Training cells.
    test
        Source cells that laws are asked for.
    """

    def __init__(self, problem: MixtureProblem, sizes: Sizes, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.problem, self.seed, self.samples = problem, seed, sizes.samples
        self.x, self.y = (
            draw(rng, sizes.cells).astype(np.float32) for draw in (problem.sample_source, problem.sample_target)
        )
        d = self.x.shape[1]
        n_test = min(sizes.test_cells, max(100, _MOST_NUMBERS // (sizes.samples * d)))
        self.test = problem.sample_source(rng, n_test).astype(np.float32)
        self.moments = problem.conditional_moments(self.test)
        self.variance = float(np.trace(problem.target_cov))
        self.rng = rng

    @functools.cached_property
    def coupling(self) -> tuple[object, Meter]:
        """The plan between the training cells, and what it took."""
        # The closed form fixes epsilon in units of the raw cost.
        config = CouplingConfig(epsilon=float(self.problem.epsilon), scale_cost=1.0)
        with measured() as meter:
            found = solve_coupling(jax.random.key(self.seed), self.x, self.y, config=config)
            jax.block_until_ready(found.potentials)
        return found, meter

    def scores(self, drawn: np.ndarray, stochastic: bool) -> dict[str, float]:
        """Score draws, test cells x samples x features; of maps, one sample."""
        off = drawn.mean(axis=1, dtype=np.float64) - self.moments[0]
        flat = drawn.reshape(-1, drawn.shape[-1])
        # As many for maps and laws, since the floor of both depends on it.
        return {
            "cBW-UVP, %": cbw_uvp(drawn, *self.moments, self.variance) if stochastic else np.nan,
            "mean, %": 100 * float(np.square(off).sum(axis=1).mean()) / self.variance,
            "BW-UVP, %": bw_uvp(flat, self.problem.target_mean, self.problem.target_cov),
        }

    def known(self) -> Iterator[tuple[str, str, dict[str, float]]]:
        """Yield names, roles and scores of what needs no solver."""
        truth = self.problem.sample_conditional(self.rng, self.test, self.samples)
        yield "truth (floor)", "floor", self.scores(truth, True)
        truth = self.problem.sample_target(self.rng, truth.shape[0] * truth.shape[1]).reshape(truth.shape)
        yield "independent", "baseline", self.scores(truth, True)
        yield "identity", "baseline", self.scores(self.test[:, None], False)

    def solved(self, solver: Solver, steps: int) -> tuple[dict[str, float | str], float, float]:
        """Fit and score a solver; return scores, seconds of learning, and peak memory in GiB."""
        cells = Cells(self.x, self.y, float(self.problem.epsilon), steps)
        seconds, peak = 0.0, 0.0
        if solver.coupled:
            found, meter = self.coupling
            cells, seconds, peak = dataclasses.replace(cells, coupling=found), meter.seconds, meter.peak_gib
        with measured() as meter:
            fitted = solver.fit(jax.random.key(self.seed), cells)
        started = time.perf_counter()
        n = self.samples if solver.stochastic else 1
        drawn = np.asarray(fitted.sample(jax.random.key(self.seed + 1), self.test, n))
        spent = time.perf_counter() - started
        row = self.scores(drawn, solver.stochastic)
        row |= {"ms a draw": 1000 * spent / drawn[..., 0].size, "density": "yes" if solver.density else "no"}
        return row, seconds + meter.seconds, max(peak, meter.peak_gib)


def compared(posed: Posed, labels: dict, steps: int) -> Iterator[Row]:
    """Yield a row for each solver, the floor and the baselines."""
    for name, role, values in posed.known():
        yield Row(labels | {"solver": name}, values, role)
    for solver in SOLVERS:
        if solver.most_features is None or posed.x.shape[1] <= solver.most_features:
            values, seconds, peak = posed.solved(solver, steps)
            yield Row(labels | {"solver": solver.name}, values, "solver", seconds, peak)


def tables(seed: int, sizes: Sizes) -> Iterator[Table]:
    """Yield the table of mixtures, that of curves, and quality by training time."""
    size = f"{sizes.cells} cells a side, {sizes.steps} steps"
    found = []
    for d in sizes.dims:
        for epsilon in sizes.epsilons:
            posed = Posed(gaussian_mixture(d, epsilon_b=epsilon), sizes, seed)
            found += compared(posed, {"D": d, "epsilon_b": epsilon}, sizes.steps)
    note = "The target of LightSB's own family: there it can be exact"
    yield Table(f"Gaussian to mixture, {size}", found, note=note)
    found = []
    for d in sizes.dims[:3]:
        for epsilon in sizes.epsilons[:2]:
            posed = Posed(gaussian_curve(d, epsilon_b=epsilon), sizes, seed)
            found += compared(posed, {"D": d, "epsilon_b": epsilon}, sizes.steps)
    yield Table(
        f"Gaussian to a curve, {size}", found, note="Laws are pieces of a bent tube: no mixture of a few Gaussians"
    )
    yield time_to_quality(seed, sizes)


def time_to_quality(seed: int, sizes: Sizes) -> Table:
    """Return a row for each training length of all solvers that train, and one for those that do not."""
    d = sizes.dims[1]
    problems = {
        f"mixture, D = {d}": gaussian_mixture(d, epsilon_b=1.0),
        f"curve, D = {d}": gaussian_curve(d, epsilon_b=1.0),
    }
    found = []
    for problem, truth in problems.items():
        posed = Posed(truth, sizes, seed)
        for name, role, values in posed.known():
            found.append(Row({"problem": problem, "solver": name, "steps": 0}, values, role))
        for solver in SOLVERS:
            lengths = sizes.lengths if solver.trains else (0,)
            if solver.trains:
                # The first call compiles, or reads what was compiled: not a matter of this number of steps.
                posed.solved(solver, min(lengths))
            for steps in lengths:
                values, seconds, peak = posed.solved(solver, steps)
                labels = {"problem": problem, "solver": solver.name, "steps": steps}
                found.append(Row(labels, values, "solver", seconds, peak))
    return Table(
        f"Quality by training time, {sizes.cells} cells a side",
        found,
        note="Seconds without those of compilation, with those of the coupling",
        plot=Plot("seconds", "mean, %", "solver", "problem"),
    )


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness."""
    return tables(seed, QUICK if quick else Sizes())


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    for table in rows(options.seed, options.quick):
        frame = pd.DataFrame([row.labels | row.values | {"s": row.seconds, "GiB": row.peak_gib} for row in table.rows])
        report(frame.set_index(list(table.rows[0].labels)), table.title, options.json)


if __name__ == "__main__":
    main()
