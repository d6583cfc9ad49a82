"""All benchmarks: one line each.

A benchmark is a module with a function ``rows(seed: int, quick: bool)`` that yields tables (`benchmarks._tables.Table`).
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator

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
    """

    name: str
    module: str
    question: str

    def tables(self, seed: int, quick: bool) -> Iterator[Table]:
        """Run it: the module is imported now, and no sooner."""
        return iter(importlib.import_module(self.module).rows(seed, quick))


BENCHMARKS = {
    one.name: one
    for one in (
        Benchmark("speed", "benchmarks.speed", "How fast are training and sampling on this machine?"),
        Benchmark("gaussian", "benchmarks.gaussian", "Are learned conditional laws those of the closed forms?"),
        Benchmark("solvers", "benchmarks.solvers_table", "Which solver comes nearest to known laws, in which time?"),
        Benchmark("solvers_real", "benchmarks.solvers_real", "Which solver predicts held-out cells of real data best?"),
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
