"""All benchmarks: one line each.

A benchmark is a module with a function ``rows(seed: int, quick: bool)`` that yields tables (`benchmarks._tables.Table`). Where one module has several,
each with results of its own, `rows` takes further arguments, which stand here.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks._tables import Table


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark by its name.

    Attributes
    ----------
    name
        What the command line calls it.
    module
        Which module has its `rows`.
    question
        What it answers, in a sentence; it stands under its heading on the page.
    options
        Further arguments of `rows`.
    """

    name: str
    module: str
    question: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def tables(self, seed: int, quick: bool) -> Iterator[Table]:
        """Run it: the module is imported now, and no sooner."""
        return iter(importlib.import_module(self.module).rows(seed, quick, **self.options))


BENCHMARKS = {
    one.name: one
    for one in (
        Benchmark("speed", "benchmarks.speed", "How fast are training and sampling on this machine?"),
        Benchmark("profile", "benchmarks.profile", "Where do a training step and a pass over costs spend their time?"),
        Benchmark(
            "device",
            "benchmarks.device",
            "Which block sizes and which precision suit the device, and what do they cost?",
        ),
        Benchmark("gaussian", "benchmarks.gaussian", "Are learned conditional laws those of the closed forms?"),
        *(
            Benchmark(
                f"solvers_{d}",
                "benchmarks.solvers_table",
                f"Which solver comes nearest to known laws in {d} dimensions, and in which time?",
                {"part": "laws", "d": d},
            )
            for d in (2, 16, 64, 128)
        ),
        Benchmark(
            "solvers_epsilons",
            "benchmarks.solvers_table",
            "The same, with a sharper and a more blurred plan",
            {"part": "epsilons", "d": 16},
        ),
        Benchmark(
            "solvers_time",
            "benchmarks.solvers_table",
            "How good is each solver after so many seconds?",
            {"part": "time", "d": 16},
        ),
        Benchmark(
            "solvers_literature",
            "benchmarks.solvers_table",
            "How do published solvers do that are in the comparison only?",
            {"part": "literature", "d": 2},
        ),
        Benchmark(
            "solvers_real",
            "benchmarks.solvers_real",
            "Which solver predicts real cells that it never saw, and at what cost?",
            {"part": "solvers"},
        ),
        Benchmark(
            "solvers_real_time",
            "benchmarks.solvers_real",
            "How good is each solver on real cells after so many steps and seconds, peers included?",
            {"part": "time"},
        ),
        Benchmark(
            "solvers_real_literature",
            "benchmarks.solvers_real",
            "How do published solvers do on real cells that are in the comparison only?",
            {"part": "literature"},
        ),
        Benchmark("perturbation", "benchmarks.perturbation", "Are stimulated cells predicted that training never saw?"),
        Benchmark("couplings", "benchmarks.couplings.__main__", "Are the plans themselves right?"),
        Benchmark(
            "conditions", "benchmarks.conditions.__main__", "What does a model know of conditions that it never saw?"
        ),
        Benchmark("modalities", "benchmarks.modalities", "Are partners found between spaces without common features?"),
        Benchmark("calibration", "benchmarks.calibration", "Are densities and prediction regions right?"),
        Benchmark("development", "benchmarks.development", "Are fates and days in between predicted?"),
        Benchmark("genes", "benchmarks.genes", "Are changes of genes predicted, and their intervals right?"),
        Benchmark("uncertainty", "benchmarks.uncertainty", "Does uncertainty tell which predictions are wrong?"),
        Benchmark("unbalanced", "benchmarks.unbalanced", "Does growth tell which cells have no counterpart?"),
        Benchmark("few_steps", "benchmarks.few_steps", "What is lost where samples take one or two steps?"),
        Benchmark("scale", "benchmarks.scale", "What do very many cells take, and what is lost by it?"),
        Benchmark("sharing", "benchmarks.sharing", "Which share of a job do several devices not share?"),
        Benchmark("reading", "benchmarks.reading", "How much memory does a model take whose counts stay on disk?"),
    )
}


def chosen(names: list[str]) -> list[Benchmark]:
    """Return the benchmarks of these names, all of them without a name.

    Raises
    ------
    ValueError
        If there is no benchmark of a name.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}.")
    return [BENCHMARKS[name] for name in names] or list(BENCHMARKS.values())
