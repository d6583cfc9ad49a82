"""Which share of a job several devices do not share: counted, since devices that are simulated on one CPU show no speed.

*Core seconds*: a job on one device, with the seconds of all cores inside of the programs whose rows devices share, and in all else: copying and
padding cells, drawing, fetching, dispatch. That is on one thread of the host, however many devices there are. Each program is waited for, so what
the host does while a device works counts as well: the share is an upper bound. *Operations*: what XLA counts in the compiled program of one
device of eight (simulated, in a process of its own), against that of one device alone; "not shared" is the part f of a program for which one of P
devices has ``f + (1 - f) / P`` of it. Loops are counted once there, so sizes are such that a pass is one block. "8 devices" is by how much Amdahl's law
lets eight devices like this one be faster, with the share by core seconds. Of another device only the seconds of the host stay as they are.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pandas as pd

from benchmarks._common import parser, report
from benchmarks._tables import Row, Table
from scgenot.coupling import CouplingConfig, Extended, Global, solve_coupling
from scgenot.flow import FlowConfig, ODEConfig, TrainConfig
from scgenot.methods import GENOTSolver
from scgenot.sinkhorn import _geometry

# Where the compiled programs stand whose rows are shared, by what they do.
PROGRAMS = {
    "Sinkhorn's iterations": ("scgenot.sinkhorn._groups", "_steps"),
    "a pass over costs": ("scgenot.sinkhorn._geometry", "_soft_min_rows"),
    "draws of pairs": ("scgenot.sinkhorn._draws", "_draw_rows"),
    "training steps": ("scgenot.flow._trainer", "_run_steps"),
    "samples": ("scgenot.flow._sampler", "_solve_rows"),
}
DEVICES, FEATURES = 8, 50
GLOBAL, EXTENDED, TRAINING, LARGER, SAMPLING = (
    "coupling, global",
    "coupling, extended",
    "training, 1024 pairs a step",
    "training, 8192 pairs a step",
    "samples",
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the jobs are: cells a side (of the extended coupling twice as many), training steps, cells that are sampled 30 times."""

    cells: int = 8192
    steps: int = 50
    sampled: int = 300


# For counting operations: a pass is one block, and what devices do not share evenly is little.
COUNTED, QUICK = Sizes(1024, 1, 256), Sizes(1024, 10, 60)


@dataclasses.dataclass
class Watched:
    """A compiled program that tells what its calls took, and its operations.

    Attributes
    ----------
    program
        What is called.
    seconds
        Core seconds inside of it, so far.
    operations
        Those that one device has in the first call of each shape; counted if `counting`.
    """

    program: Callable[..., Any]
    counting: bool = False
    seconds: float = 0.0
    operations: float = 0.0

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call it and wait."""
        if self.counting and not self.operations:
            told = self.program.lower(*args, **options).compile().cost_analysis()
            self.operations = float((told[0] if isinstance(told, list) else told)["flops"])
        started = time.process_time()
        found = jax.block_until_ready(self.program(*args, **options))
        self.seconds += time.process_time() - started
        return found


def watched(counting: bool = False) -> dict[str, Watched]:
    """Put a :class:`Watched` in the place of each program, for the rest of the process."""
    found = {}
    for name, (module, program) in PROGRAMS.items():
        holder = importlib.import_module(module)
        found[name] = Watched(getattr(holder, program), counting)
        setattr(holder, program, found[name])
    return found


def jobs(sizes: Sizes) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is measured, in order; later ones use the couplings of earlier ones."""
    rng = np.random.default_rng(0)
    source, target = (np.float32(rng.normal(size=(2 * sizes.cells, FEATURES))) for _ in range(2))
    target[:, 0] += np.where(rng.random(len(target)) < 0.5, 3, -3).astype(np.float32)
    half, made = slice(sizes.cells), {}

    def coupled(cells: slice, kind: Any) -> None:
        config = CouplingConfig(epsilon=0.1)
        made["coupling"] = solve_coupling(jax.random.key(1), source[cells], target[cells], kind=kind, config=config)

    def trained(batch: int) -> None:
        train = TrainConfig(max_steps=sizes.steps, batch_size=batch, check_every=max(1, sizes.steps // 2))
        given = {"coupling": made["coupling"], "flow_config": FlowConfig(), "train_config": train}
        made["solver"] = GENOTSolver.fit(2, source[half], target[half], progress_bar=False, **given)[0]

    few = max(1024, sizes.cells // 4)
    yield EXTENDED, lambda: coupled(slice(None), Extended(n_cells=few, n_targets=few, n_sweeps=2, tolerance=1e-6))
    yield GLOBAL, lambda: coupled(half, Global(dense_limit=1))
    yield TRAINING, lambda: trained(1024)
    yield LARGER, lambda: trained(8192)
    # By default several devices solve for so many rows each at once.
    yield SAMPLING, lambda: made["solver"].sample(3, source[: sizes.sampled], 30, ode=ODEConfig(), rows=2048)


def core_seconds(sizes: Sizes) -> pd.DataFrame:
    """Return what each job takes on one device, inside and outside of shared programs; each is done once before, to be compiled."""
    programs, lines = watched(), {}
    for name, job in jobs(sizes):
        job()
        before, started = sum(one.seconds for one in programs.values()), time.process_time()
        job()
        total = time.process_time() - started
        inside = sum(one.seconds for one in programs.values()) - before
        share = max(0.0, total - inside) / total
        lines[name] = {
            "core s, shared": inside,
            "core s, not shared": total - inside,
            "not shared": share,
            "8 devices": 1 / (share + (1 - share) / DEVICES),
        }
    return pd.DataFrame(lines).T.rename_axis("job")


def operations() -> dict[str, float]:
    """Return the operations of one device in each program, in this process."""
    # One block: in a loop over blocks, XLA counts one.
    _geometry.BLOCK = 2 * COUNTED.cells
    programs = watched(counting=True)
    for _, job in jobs(COUNTED):
        job()
    return {name: one.operations for name, one in programs.items()}


def in_a_process(*words: str, devices: int = 1) -> Any:
    """Return what this module measures in a process that sees so many simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.sharing", *words]
    # The host's part in one thread: several that wait for each other on busy cores would count as work.
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compared(alone: dict[str, float], shared: dict[str, float]) -> pd.DataFrame:
    """Return the operations of one device alone and of one of several, and the part that is not shared."""
    found = pd.DataFrame({"one device": alone, "one of 8": shared}).rename_axis("program")
    ratio = found["one of 8"] / found["one device"]
    return found.assign(ratio=ratio, **{"not shared": (DEVICES * ratio - 1) / (DEVICES - 1)})


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness; nothing in them depends on the seed."""
    reason = "what is counted has none: nothing shared is 1, everything 0"
    found = pd.DataFrame(in_a_process("--measure", "seconds", *(["--quick"] if quick else []))).rename_axis("job")
    tables = {"Core seconds on one device": found}
    if not quick:
        tables["Operations"] = compared(*(in_a_process("--measure", "operations", devices=k) for k in (1, DEVICES)))
    for title, frame in tables.items():
        lines = [Row({frame.index.name: name}, values) for name, values in frame.to_dict("index").items()]
        yield Table(title, lines, no_floor=reason, no_baseline=reason)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="small sizes")
    arguments.add_argument("--measure", choices=("seconds", "operations"), help="in this process")
    options = arguments.parse_args()
    if options.measure == "operations":
        print(json.dumps(operations()))
    elif options.measure == "seconds":
        print(core_seconds(QUICK if options.quick else Sizes()).to_json())
    else:
        for table in rows(0, options.quick):
            frame = pd.DataFrame([row.labels | row.values for row in table.rows])
            report(frame.set_index(list(table.rows[0].labels)), table.title, options.json, digits=3)


if __name__ == "__main__":
    main()
