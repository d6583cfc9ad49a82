"""All solvers on real cells, at cells that training never saw: a perturbation, a patient, clones, and two modalities.

Distances are between held-out target cells and transported held-out source cells, one sample for each, means over ten samples; in % of what doing nothing
leaves (of modalities: of what their centre leaves, as nothing can be done there). All are unbiased, so that the truth itself has 0 on average, but for ``energy
distance (V)``, the usual one, which counts the noise of finite samples as distance. The floor is the root mean square of halves of the held-out target cells
against each other: what is nearer to 0 is noise. ``types``: how often the nearest training
target cells of a prediction have a type that is right: the cell's own, or, of clones, one that the clone has on day 6; of the mean of 30
samples, or of a sample. ``AUROC``: how well the spread of samples ranks cells whose mean has a wrong type: by the package's uncertainty, and by variance. The
constants of the former were settled on other splits of Kang and SNARE-seq.

``independent`` draws training targets whatever the cell is: it has hardly any distance where the populations of training and test are the same, so that
distances alone do not show that a solver has learned anything of cells. Epsilon is .05 of the mean cost, the default, for all that have
one; package defaults were partly settled on other splits of Kang, nothing on these. ``core s`` are seconds summed over cores, of learning, with the plan's where a solver learns from one, and with
compilation; wall time says little where others use the machine.

OTT 0.5's GENOT and CellFlow 0.0.9 run where ``$SCGENOT_ENVIRONMENTS`` has their environments (`benchmarks/environments.sh`), with the same epsilon, batches of
512 (GENOT's has 1024) and networks of three layers of 256. Their rows are stages of one training, and of ten samples a cell, which makes means and AUROC
of types rougher; those of the others are trainings of their own. As shipped OTT's matching is not compiled, here it is.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from benchmarks._common import parser, report
from benchmarks._modalities import Task, discrete, held_samples, trained
from benchmarks._modalities import scores as pair_scores
from benchmarks._real import BIASED, Problem, gbm, kang, larry, modalities
from benchmarks._results import ROOT, code_digest, machine
from benchmarks._solvers import LITERATURE, SOLVERS, Coupled, Solver, of_method
from benchmarks._tables import Plot, Row, Table, measured
from benchmarks.conditions._store import Store
from benchmarks.modalities import ridge
from benchmarks.solvers import foreign
from scgenot.baselines import OTCFM, EntropicMap, LightSB
from scgenot.flow import FlowConfig
from scgenot.methods import GENOTSolver

# Thirty samples: the package's default.
SAMPLES = 30
# Training steps of the table of time to quality.
LENGTHS = {"GENOT": (250, 500, 1500), "LightSB": (250, 500, 1500), "OT-CFM": (500, 1500, 3000)}
PEERS = (
    ("OTT 0.5's GENOT", "ott05", {"lengths": (500, 1500, 3000)}),
    ("CellFlow 0.0.9's GENOT", "cellflow", {"lengths": (500, 1500, 3000), "solver": "genot"}),
)
# Theirs take long: several core seconds each for all cells once.
PEER_SAMPLES = 10
# Of two spaces.
OTHERS = (LightSB, EntropicMap, OTCFM)
# What the documentation advises for cells of a kind that training never saw.
FROM_SOURCE = Solver(
    "GENOT, from source",
    of_method(lambda d, epsilon: GENOTSolver(d, d, FlowConfig(start="source")), 2e-3),
    stochastic=True,
    trains=True,
    coupled=True,
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is run.

    Attributes
    ----------
    steps
        Training steps, of solvers that have no number of their own.
    lengths
        Training steps of the table of time to quality, by solver.
    own_steps
        Most steps of solvers that bring a number of their own.
    samples
        Samples a cell.
    cells
        Training cells a side, and three times as many as held-out ones; of SNARE-seq, cells in all. ``None``: all there are.
    peers
        Whether peers are in the table of time to quality.
    """

    steps: int = 500
    lengths: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=lambda: LENGTHS)
    own_steps: int | None = None
    samples: int = SAMPLES
    cells: int | None = None
    peers: bool = True


FULL = Sizes()
QUICK = Sizes(20, {"GENOT": (20, 40)}, own_steps=20, samples=4, cells=150, peers=False)
PARTS = ("solvers", "time", "literature")


def compared(
    problem: Problem, seed: int, jobs: Sequence[tuple[Solver, Sequence[int]]], sizes: Sizes, store: Store
) -> Iterator[Row]:
    """Yield the floor, the baselines, and a row for each solver and number of steps; those of the store are not computed again."""
    label = lambda name, steps=0: {"solver": name, "steps": steps}
    yield Row(label("halves of the truth (floor)"), problem.floor(), "floor")
    for name, values in problem.trivial(np.random.default_rng(seed), sizes.samples).items():
        yield Row(label(name), values, "baseline")
    coupled = Coupled(problem.x, problem.y, problem.epsilon, seed)
    settings = {"case": "real", "problem": problem.name, "seed": seed, "samples": sizes.samples}
    settings |= {"code": code_digest(), "machine": machine()}
    for solver, lengths in jobs:
        if solver.most_features is not None and problem.x.shape[1] > solver.most_features:
            continue
        for steps in lengths:

            def fit(solver: Solver = solver, steps: int = steps) -> dict[str, Any]:
                samples, took = coupled.solved(solver, steps, problem.test, sizes.samples)
                values = problem.scores(samples, solver.stochastic) | took.values
                return {"values": values, "seconds": took.seconds, "peak_gib": took.peak_gib}

            found = store.get(settings | {"solver": solver.name, "steps": steps}, fit)
            yield Row(label(solver.name, steps if solver.trains or solver.steps else 0), role="solver", **found)
            tqdm.write(f"{problem.name}, {solver.name}, {steps}: {found['values']}", file=sys.stderr)


def peers(problem: Problem, seed: int) -> Iterator[Row]:
    """Yield a row for each stage of the peers whose environments are there."""
    for name, environment, options in PEERS:
        try:
            fitted = foreign.fit(
                jax.random.key(seed), problem.x, problem.y, epsilon_b=problem.epsilon / 2, name=environment, **options
            )
        except FileNotFoundError as error:
            tqdm.write(f"{name} is left out: {error}", file=sys.stderr)
            continue
        stages = fitted.stages(problem.test, PEER_SAMPLES, keep=ROOT / ".benchmarks" / "peers")
        for samples, told in zip(stages, fitted.told["stages"], strict=True):
            took = {"core s": told["core_seconds"], "core s, sampling": told["core_seconds_sampling"]}
            values = problem.scores(samples, fitted.stochastic) | took
            yield Row(
                {"solver": name, "steps": told["steps"]}, values, "solver", told["seconds"], fitted.told["peak_gib"]
            )


def two_spaces(seed: int, sizes: Sizes) -> Table:
    """Return the table of two modalities: GENOT, and how the others refuse them."""
    one, problem = modalities(seed, sizes.cells)
    rows, held = [], one.held

    def scored(samples: np.ndarray, stochastic: bool) -> dict[str, float]:
        found = problem.scores(samples, stochastic)
        # Of the centre it is noise alone, of which nothing is a percentage.
        del found["error of means, %"]
        return found | {"FOSCTTM": pair_scores(samples.mean(axis=1), one, "mean")["FOSCTTM mean"]}

    floor = problem.floor() | {"FOSCTTM": 0.0}
    del floor["error of means, %"]
    rows.append(Row({"solver": "truth (floor)"}, floor, "floor"))
    drawn = problem.y[np.random.default_rng(seed).integers(len(problem.y), size=(len(held.source), sizes.samples))]
    # Of one draw: means of draws are nearly one place, and of equal places FOSCTTM makes .25.
    chance = {"FOSCTTM": pair_scores(drawn[:, 0], one, "draw")["FOSCTTM draw"]}
    rows.append(Row({"solver": "independent"}, scored(drawn, True) | chance, "baseline"))
    rows.append(Row({"solver": "centre"}, scored(problem.test[:, None], False) | {"FOSCTTM": None}, "baseline"))
    with measured() as meter:
        model = trained(one, seed)
    with measured() as sampling:
        samples = held_samples(model, held.source, sizes.samples)
    cores = {"core s": meter.core_seconds, "core s, sampling": sampling.core_seconds}
    peak = max(meter.peak_gib, sampling.peak_gib)
    rows.append(Row({"solver": "GENOT, quadratic"}, scored(samples, True) | cores, "solver", meter.seconds, peak))
    means = discrete(model, held.source, one.mdata["target"].obsm["X_rep"])
    rows.append(Row({"solver": "its plan's means"}, scored(np.float32(means)[:, None], False), "solver"))
    known = ridge(one)
    told = {"types, mean": known["labels ridge, supervised"], "FOSCTTM": known["FOSCTTM ridge, supervised"]}
    rows.append(Row({"solver": "ridge, all pairs known"}, told, "reference"))
    rows += [Row({"solver": other.__name__}, {"refuses": refusal(other, one)}) for other in OTHERS]
    return Table("SNARE-seq, chromatin to RNA, nothing paired", rows, note="% of what the centre leaves")


def refusal(model: type, one: Task) -> str:
    """Return in which words a model refuses two spaces; raise if it does not."""
    sides = {"source_modality": "source", "target_modality": "target", "source_rep": "X_rep", "target_rep": "X_rep"}
    model.setup_mudata(one.mdata, **sides)
    try:
        model(one.mdata)
    except ValueError as error:
        return str(error)
    raise RuntimeError(f"{model.__name__} works across two spaces: enter it in the table.")


# Title and note of each problem.
_TOLD = {
    "Kang": ("Kang, held-out cells, control to stimulated", "A fifth of both populations is held out"),
    "GBM": (
        "GBM, a patient left out, control to treated",
        "Another patient for each seed; controls of all others are coupled with treated cells of all others",
    ),
    "LARRY": (
        "LARRY, clones left out, day 4 to day 6",
        "Half of the clones with cells on both days is left out, some ninety cells of day 4: their distances are mostly noise",
    ),
}
_PLOT = Plot("core s", f"{BIASED}, %", "solver")


def rows(seed: int, quick: bool, part: str = "solvers") -> Iterator[Table]:
    """Yield the tables of a part for the harness."""
    sizes = QUICK if quick else FULL
    store = Store(None if quick else str(ROOT / ".benchmarks" / "solvers"))
    # Of one size in a quick run, so that little is compiled.
    cut = lambda problem: problem if sizes.cells is None else problem.some(sizes.cells, sizes.cells // 3)
    if part == "solvers":
        for make in (kang, gbm, larry):
            problem = cut(make(seed))
            solvers = (*SOLVERS, FROM_SOURCE) if problem.name == "GBM" else SOLVERS
            found = list(compared(problem, seed, [(one, (sizes.steps,)) for one in solvers], sizes, store))
            title, note = _TOLD[problem.name]
            yield Table(title, found, note=note, plot=_PLOT)
        yield two_spaces(seed, sizes)
        return
    problem = cut(kang(seed))
    if part == "literature":
        own = lambda solver: min(solver.steps, sizes.own_steps or solver.steps)
        jobs = [(one, (own(one),)) for one in LITERATURE]
        title, note = "Kang, held-out cells, solvers of the comparison only", "Each with the options of its own tests"
        yield Table(title, list(compared(problem, seed, jobs, sizes, store)), note=note, plot=_PLOT)
        return
    jobs = [(one, sizes.lengths.get(one.name, ())) for one in SOLVERS]
    found = [*compared(problem, seed, jobs, sizes, store), *(peers(problem, seed) if sizes.peers else ())]
    note = "Peers only where their environments are; their rows are stages of one training"
    yield Table("Kang, held-out cells, by training steps", found, note=note, plot=_PLOT)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--part", choices=PARTS, default="solvers")
    options = arguments.parse_args()
    for table in rows(options.seed, options.quick, options.part):
        frame = pd.DataFrame([row.labels | row.values | {"s": row.seconds, "GiB": row.peak_gib} for row in table.rows])
        report(frame.set_index(list(table.rows[0].labels)), table.title, options.json)


if __name__ == "__main__":
    main()
