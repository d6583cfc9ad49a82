"""All solvers on problems whose conditional laws are known: mixtures (LightSB's own family), and a curve (nobody's).

Percentages are of the target's variance. ``cBW-UVP``: learned against true laws of test cells, by their means and covariances; only for
solvers that learn laws. ``mean``: mean squared error of conditional means. ``BW-UVP``: the push-forward of the test cells against the
target. The floor is the true law drawn anew at the same sizes. ``independent`` draws targets whatever the cell is, ``identity`` leaves cells
where they are. Seconds of a solver that learns from a coupling hold those of the coupling; ``core s`` are summed over cores, which others' use of the
machine hardly touches. ``GENOT, tuned`` flows from a linear prediction and is regressed on the mean over a batch's targets, with a learning rate of
1e-2: settled on seed 0 of D = 2 and 16 with epsilon_b = 1. Rows are kept under ``.benchmarks/solvers`` by their settings, code and machine, and a run that was stopped goes on there. The mixtures' parameters are our own
(S_k = 0.5 I, five components at radius 5, cost 1/2 |x - y|^2): the official ones are not public.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from benchmarks._common import parser, report
from benchmarks._results import ROOT, code_digest, machine
from benchmarks._solvers import LITERATURE, SOLVERS, Coupled, Solver
from benchmarks._tables import Plot, Row, Table
from benchmarks.conditions._store import Store
from scgenot.datasets import MixtureProblem, gaussian_curve, gaussian_mixture
from scgenot.metrics import bw_uvp, cbw_uvp

# Numbers that a law's draws may hold, in double precision 0.8 GB: with many features, fewer test cells are asked.
_MOST_NUMBERS = 10**8


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is run.

    Attributes
    ----------
    epsilons
        Regularisations, of ``1/2 |x - y|^2``.
    cells, steps
        Training cells a side, training steps.
    test_cells, samples
        Test cells and draws for each.
    lengths
        Training lengths of the table of time to quality.
    own_steps
        Most training steps of solvers that bring a number of their own.
    problems
        Which targets: of the table of laws.
    """

    epsilons: tuple[float, ...] = (1.0,)
    cells: int = 8192
    steps: int = 2000
    test_cells: int = 300
    samples: int = 300
    lengths: tuple[int, ...] = (250, 500, 1000, 2000)
    own_steps: int | None = None
    problems: tuple[str, ...] = ("mixture", "curve")


# By the part of the table. With many features a law is learned from more cells. Of the literature some solvers take hundreds of evaluations for a draw:
# fewer draws for all.
_MANY = Sizes(cells=16384, steps=4500, test_cells=500, samples=500)
FULL = {
    "laws": Sizes(),
    ("laws", 64): _MANY,
    ("laws", 128): _MANY,
    "time": Sizes(),
    "epsilons": Sizes((0.1, 10.0)),
    "literature": Sizes(cells=4096, test_cells=100, samples=100),
}
QUICK = Sizes(cells=1024, steps=100, test_cells=50, samples=50, lengths=(50, 100), own_steps=20)
PARTS = ("laws", "epsilons", "time", "literature")


class Posed:
    """A problem with its training and test cells, and a coupling that is solved once.

    Attributes
    ----------
    problem
        The truth.
    x, y
        Training cells.
    coupled
        The same, with their plan.
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
        # The closed form fixes epsilon.
        self.coupled = Coupled(self.x, self.y, float(problem.epsilon), seed)

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
        drawn, took = self.coupled.solved(solver, steps, self.test, self.samples)
        row = self.scores(drawn, solver.stochastic) | {"density": "yes" if solver.density else "no"} | took.values
        return row, took.seconds, took.peak_gib


def compared(posed: Posed, labels: dict, solvers: Sequence[Solver], sizes: Sizes, store: Store) -> Iterator[Row]:
    """Yield a row for each solver, the floor and the baselines; rows of the store are not computed again."""
    for name, role, values in posed.known():
        yield Row(labels | {"solver": name}, values, role)
    settings = {"case": "solvers", "seed": posed.seed, "sizes": dataclasses.asdict(sizes), "d": posed.x.shape[1]}
    settings |= {"problem": len(posed.problem.potential_weights), "code": code_digest(), "machine": machine()}
    for solver in solvers:
        if solver.most_features is not None and posed.x.shape[1] > solver.most_features:
            continue
        # The problem's epsilon is in units of |x - y|^2.
        if solver.least_epsilon is not None and posed.problem.epsilon < 2.0 * solver.least_epsilon:
            continue
        steps = min(solver.steps, sizes.own_steps or solver.steps) if solver.steps else sizes.steps
        key = settings | {"solver": solver.name, "steps": steps} | labels
        fit = lambda solver=solver, steps=steps: dict(
            zip(("values", "seconds", "peak_gib"), posed.solved(solver, steps), strict=True)
        )
        found = store.get(key, fit)
        yield Row(labels | {"solver": solver.name}, role="solver", **found)
        tqdm.write(f"{labels}, {solver.name}: {found['seconds']:.1f} s, {found['values']}", file=sys.stderr)


_NOTES = {
    "mixture": "The target is of LightSB's own family: there it can be exact",
    "curve": "Laws are pieces of a bent tube, no mixture of a few Gaussians",
}


def laws(seed: int, sizes: Sizes, d: int, solvers: Sequence[Solver], store: Store) -> Iterator[Table]:
    """Yield the table of mixtures, and that of a curve."""
    size = f"D = {d}, {sizes.cells} cells a side"
    problems = {"mixture": gaussian_mixture, "curve": gaussian_curve}
    for name in sizes.problems:
        problem, found = problems[name], []
        for epsilon in sizes.epsilons:
            posed = Posed(problem(d, epsilon_b=epsilon), sizes, seed)
            found += compared(posed, {"epsilon_b": epsilon}, solvers, sizes, store)
        plot = Plot("core s", "mean, %", "solver", "epsilon_b")
        yield Table(f"Gaussian to a {name}, {size}", found, note=_NOTES[name], plot=plot)


def time_to_quality(seed: int, sizes: Sizes, d: int) -> Table:
    """Return a row for each training length of all solvers that train, and one for those that do not."""
    problems = {
        f"mixture, D = {d}": gaussian_mixture(d, epsilon_b=sizes.epsilons[0]),
        f"curve, D = {d}": gaussian_curve(d, epsilon_b=sizes.epsilons[0]),
    }
    found = []
    for problem, truth in problems.items():
        posed = Posed(truth, sizes, seed)
        for name, role, values in posed.known():
            found.append(Row({"problem": problem, "solver": name, "steps": 0}, values, role))
        for solver in SOLVERS:
            # The first call compiles, or reads what was compiled: not a matter of this number of steps.
            posed.solved(solver, sizes.lengths[0])
            for steps in sizes.lengths if solver.trains else sizes.lengths[:1]:
                values, seconds, peak = posed.solved(solver, steps)
                labels = {"problem": problem, "solver": solver.name, "steps": steps if solver.trains else 0}
                found.append(Row(labels, values, "solver", seconds, peak))
    return Table(
        f"Quality by training time, {sizes.cells} cells a side",
        found,
        note="Seconds without those of compilation, with those of the coupling",
        plot=Plot("core s", "mean, %", "solver", "problem"),
    )


def rows(seed: int, quick: bool, part: str = "laws", d: int = 2) -> Iterator[Table]:
    """Yield the tables of a part for the harness."""
    # What compiles in few features compiles in many.
    small = dataclasses.replace(QUICK, problems=("mixture",)) if d > 16 or part == "literature" else QUICK
    sizes = small if quick else FULL[part, d] if (part, d) in FULL else FULL[part]
    store = Store(None if quick else str(ROOT / ".benchmarks" / "solvers"))
    if part == "time":
        yield time_to_quality(seed, sizes, d)
    else:
        yield from laws(seed, sizes, d, (*SOLVERS, *LITERATURE) if part == "literature" else SOLVERS, store)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--part", choices=PARTS, default="laws")
    arguments.add_argument("-d", type=int, default=2, help="dimension")
    options = arguments.parse_args()
    for table in rows(options.seed, options.quick, options.part, options.d):
        frame = pd.DataFrame([row.labels | row.values | {"s": row.seconds, "GiB": row.peak_gib} for row in table.rows])
        report(frame.set_index(list(table.rows[0].labels)), table.title, options.json)


if __name__ == "__main__":
    main()
