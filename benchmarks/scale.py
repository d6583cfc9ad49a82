"""Very many cells: seconds of coupling and of training, peak memory, marginals on fresh cells, and learned laws against known ones.

``python -m benchmarks.scale`` goes through sizes; ``--tolerances`` through what the marginals may be off, by cells that are
solved over and by sweeps, which is what the defaults of the extended coupling are set by (seeds 0 and 1; reported on others).
``--quadratic`` couples two spaces. ``--sizes 1000000 --data mixture`` is the row of a million cells alone. Each row is a process of
its own, as peak memory never falls; it is printed when it ends, and ``--save rows.jsonl`` adds it to a file. CPU seconds stand
beside seconds: on a machine that is shared, only they can be compared.

The mixture (D = 32, our own parameters) has known conditional laws: cBW-UVP in %, over 300 test cells with 500 samples each,
beside its floor (the truth, sampled alike) and the independent plan, which ignores the source cell. Of clusters (50-d, twenty of
them) only the coupling is known to be right or wrong, by its marginals.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from benchmarks._common import parser, peak_memory_gib, report
from benchmarks._tables import Row, Table
from benchmarks.couplings.sizes import two_spaces
from scgenot.coupling import CouplingConfig, Extended, Global, solve_coupling
from scgenot.datasets import MixtureProblem, gaussian_mixture
from scgenot.flow import TrainConfig
from scgenot.methods import GENOTSolver
from scgenot.metrics import cbw_uvp, foscttm

SIZES = (16_384, 65_536, 262_144, 1_000_000)
DIMENSION, TEST_CELLS, SAMPLES = 32, 300, 500
_MATCHED = "FOSCTTM, unseen"
# Columns of the harness's tables, where a row has them.
_TOLD = ("coupling s", "coupling CPU s", "training s", "training CPU s", "violation", "its error", "peak GiB")
KINDS = {"extended": Extended, "global": Global}
# Cells that are solved over, as a share of all; sweeps. No sweep ends early.
TOLERANCES = ((0.0625, 0), (0.0625, 2), (0.25, 0), (0.25, 1), (0.25, 3))


def clusters(seed: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Twenty clusters in 50 dimensions; those of the target are shifted."""
    rng = np.random.default_rng(seed)
    centres = 2.0 * rng.normal(size=(20, 50)).astype(np.float32)
    return tuple(
        centres[rng.integers(0, 20, cells)] + np.float32(shift) + rng.standard_normal((cells, 50), np.float32)
        for shift in (0.0, 0.5)
    )


def mixture(seed: int, cells: int) -> tuple[MixtureProblem, tuple[np.ndarray, np.ndarray]]:
    """The mixture and samples of both populations, drawn in parts: in double precision they would be twice as large."""
    problem, rng = gaussian_mixture(DIMENSION, rng=seed), np.random.default_rng(seed)
    parts = [min(65_536, cells - start) for start in range(0, cells, 65_536)]
    return problem, tuple(
        np.concatenate([np.float32(sample(rng, size)) for size in parts])
        for sample in (problem.sample_source, problem.sample_target)
    )


def row(seed: int, cells: int, *, data: str, kind: str, steps: int, options: dict[str, Any]) -> dict[str, Any]:
    """Couple, train, and score; in this process."""
    problem = None
    if data == "mixture":
        problem, (source, target) = mixture(seed, cells)
        # The closed form fixes epsilon in units of the raw cost.
        config = CouplingConfig(epsilon=float(problem.epsilon), scale_cost=1.0)
    else:
        (source, target), config = clusters(seed, cells), CouplingConfig()
    before = peak_memory_gib()
    clock = _Clock()
    coupling = solve_coupling(jax.random.key(seed), source, target, kind=KINDS[kind](**options), config=config)
    jax.block_until_ready(coupling.potentials)
    spent = clock("coupling")
    told = coupling.diagnostics
    found = {
        **spent,
        "violation": told.marginal_violation,
        "its error": told.violation_error,
        "effective targets": told.effective_targets,
        "coupling": told.kind,
        "GiB of data": before,
    }
    if steps:
        clock = _Clock()
        train = TrainConfig(max_steps=steps, learning_rate=2e-3)
        solver, _, _ = GENOTSolver.fit(seed, source, target, coupling=coupling, train_config=train, progress_bar=False)
        found |= clock("training")
        # Peak of coupling and training; scoring comes on top.
        found["peak GiB"] = peak_memory_gib()
        if problem is not None:
            found |= scored(seed, problem, solver)
    return found | {"peak GiB": found.get("peak GiB", peak_memory_gib())}


def scored(seed: int, problem: MixtureProblem, solver: GENOTSolver) -> dict[str, float]:
    """Return cBW-UVP of the learned laws, its floor, and that of the independent plan."""
    rng = np.random.default_rng([seed, 1])
    test = problem.sample_source(rng, TEST_CELLS)
    truth = problem.sample_conditional(rng, test, SAMPLES)
    independent = problem.sample_target(rng, TEST_CELLS * SAMPLES).reshape(truth.shape)
    moments, variance = problem.conditional_moments(test), float(np.trace(problem.target_cov))
    drawn = {
        "cBW-UVP": solver.sample(seed, np.float32(test), SAMPLES),
        "floor": truth,
        "independent": independent,
    }
    return {name: cbw_uvp(samples, *moments, variance) for name, samples in drawn.items()}


def quadratic(
    seed: int, cells: int, *, kind: str, options: dict[str, Any], epsilon: float | None = None
) -> dict[str, Any]:
    """Couple two spaces (30 and 20 noisy dimensions of three latent ones), and match cells that were not coupled."""
    unseen = 2000
    source, target, order = two_spaces(seed, cells + unseen)
    held, target_held = source[cells:], target[cells:]
    shuffled = target[:cells][order[order < cells]]
    clock = _Clock()
    config = CouplingConfig() if epsilon is None else CouplingConfig(epsilon=epsilon)
    coupling = solve_coupling(
        jax.random.key(seed), source[:cells], shuffled, problem="quadratic", kind=KINDS[kind](**options), config=config
    )
    jax.block_until_ready(coupling.potentials)
    spent, told = clock("coupling"), coupling.diagnostics
    between = coupling.extend(held, target_held)
    chance = np.random.default_rng(seed).permutation(unseen)
    return {
        **spent,
        "violation": told.marginal_violation,
        "its error": told.violation_error,
        "coupling": told.kind,
        "peak GiB": peak_memory_gib(),
        "FOSCTTM, unseen": foscttm(np.asarray(between.barycentric(target_held)), target_held),
        "by chance": foscttm(target_held[chance], target_held),
    }


class _Clock:
    """Seconds, and CPU seconds of all threads, since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __call__(self, name: str) -> dict[str, float]:
        taken = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        return dict(zip((f"{name} s", f"{name} CPU s"), taken, strict=True))


def measured(
    seeds: Iterable[int], sizes: Iterable[int], jobs: Iterable[dict[str, Any]], save: Path | None = None
) -> pd.DataFrame:
    """Return one row for each job, size and seed, each measured in a fresh process; what fails is told and left out."""
    found = []
    for job in jobs:
        for cells in sizes:
            for seed in seeds:
                job_options = dict(job)
                share = job_options.pop("share", None)
                options = dict(job_options.pop("options", {}))
                if share is not None:
                    options["n_cells"] = round(share * cells)
                job_options["options"] = options
                command = [sys.executable, "-m", "benchmarks.scale", "--row", json.dumps([seed, cells, job_options])]
                done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
                if done.returncode:
                    print(f"failed ({done.returncode}): {command[-1]}", file=sys.stderr, flush=True)
                    continue
                named = {key: value for key, value in job_options.items() if key not in ("options", "steps")}
                told = {"seed": seed, "cells a side": cells, **named, **options}
                found.append(told | json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(found[-1]), file=sys.stderr, flush=True)
                if save is not None:
                    with save.open("a") as file:
                        file.write(json.dumps(found[-1]) + "\n")
    if not found:
        sys.exit("no row could be measured")
    return pd.DataFrame(found)


def one(seed: int, cells: int, job: dict[str, Any]) -> dict[str, Any]:
    """Measure a row in this process."""
    return quadratic(seed, cells, **job) if "data" not in job else row(seed, cells, **job)


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness; each row is measured in a process of its own."""
    sizes, steps, pairs = ((2048,), 50, (500,)) if quick else (SIZES[:3], 5000, (16_384, 50_000))
    # Seeds 0 and 1 have set the defaults.
    found = measured([seed], sizes, [{"data": "mixture", "kind": "extended", "steps": steps, "options": {}}])
    lines = []
    for one in found.to_dict("records"):
        size = {"cells a side": one["cells a side"]}
        lines.append(Row(size | {"law": "truth (floor)"}, {"cBW-UVP, %": one["floor"]}, "floor"))
        lines.append(Row(size | {"law": "independent"}, {"cBW-UVP, %": one["independent"]}, "baseline"))
        lines.append(Row(size | {"law": "GENOT"}, {"cBW-UVP, %": one["cBW-UVP"]} | {k: one[k] for k in _TOLD}))
    yield Table(f"Extended coupling, mixture with D = {DIMENSION}, {steps} steps", lines)
    found = measured([seed], pairs, [{"kind": "extended", "options": {}}])
    lines = []
    for one in found.to_dict("records"):
        size = {"cells a side": one["cells a side"]}
        lines.append(Row(size | {"match": "perfect"}, {_MATCHED: 0.0}, "floor"))
        lines.append(Row(size | {"match": "by chance"}, {_MATCHED: one["by chance"]}, "baseline"))
        told = {name: one[name] for name in (_MATCHED, *_TOLD) if name in one}
        lines.append(Row(size | {"match": "barycentric"}, told))
    yield Table("Quadratic problems between two spaces", lines)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sizes", type=int, nargs="+", default=None, help="cells a side")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[2])
    arguments.add_argument("--data", nargs="+", default=["mixture", "clusters"], choices=["mixture", "clusters"])
    arguments.add_argument("--epsilon", type=float, default=None, help="with --quadratic; the package's unless told")
    arguments.add_argument("--kind", default="extended", choices=sorted(KINDS))
    arguments.add_argument("--steps", type=int, default=5000, help="training steps; 0 couples only")
    arguments.add_argument("--options", type=json.loads, default={}, help="options of the kind, as JSON")
    arguments.add_argument("--tolerances", action="store_true", help="cBW-UVP against what the marginals are off")
    arguments.add_argument("--quadratic", action="store_true", help="between two spaces")
    arguments.add_argument(
        "--save", type=Path, default=None, help="a file of JSON lines that each row is added to as it ends"
    )
    arguments.add_argument("--row", type=json.loads, default=None, help="one row in this process: [seed, cells, job]")
    asked = arguments.parse_args()
    if asked.row is not None:
        print(json.dumps(one(*asked.row), default=float))
        return
    if asked.tolerances:
        job = {"data": "mixture", "kind": "extended", "steps": asked.steps}
        jobs = [
            job | {"share": share, "options": {"n_sweeps": sweeps, "tolerance": 1e-6} | asked.options}
            for share, sweeps in TOLERANCES
        ]
        jobs.append(job | {"kind": "global"})
        table = measured(asked.seeds, asked.sizes or SIZES[:2], jobs, asked.save)
    elif asked.quadratic:
        table = measured(
            asked.seeds,
            asked.sizes or (50_000, 100_000),
            [{"kind": asked.kind, "options": asked.options, "epsilon": asked.epsilon}],
            asked.save,
        )
    else:
        job = {"kind": asked.kind, "steps": asked.steps, "options": asked.options}
        table = measured(asked.seeds, asked.sizes or SIZES, [job | {"data": name} for name in asked.data], asked.save)
    report(table.set_index(["seed", "cells a side"]), __doc__.splitlines()[0], asked.json, digits=4)


if __name__ == "__main__":
    main()
