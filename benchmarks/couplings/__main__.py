"""Run ``python -m benchmarks.couplings``: all sections, or one of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from benchmarks import couplings
from benchmarks._common import parser, report
from benchmarks._tables import Table, from_columns, from_frame
from benchmarks.couplings import epsilons, gaussians, geodesic, modalities, relaxed, semidiscrete, sizes, variance

SECTIONS = {
    "gaussians": lambda options: gaussians.run(range(options.seeds)),
    "relaxed": lambda options: relaxed.run(range(options.seeds)),
    "panels": lambda options: modalities.panels(range(options.splits)),
    "snareseq": lambda options: modalities.snareseq(range(options.seeds)),
    "variance": lambda options: variance.run(range(options.fits)),
    "swissroll": lambda options: geodesic.swissroll(range(options.seeds)),
    "epsilons": lambda options: epsilons.run(range(options.seeds), 256, 100),
    "larry": lambda options: geodesic.larry(),
    "semidiscrete": lambda options: semidiscrete.run(2, options.semidiscrete_cells),
    "choose_steps": lambda options: semidiscrete.choose(0, options.semidiscrete_cells, 100),
    "sizes": lambda options: sizes.run(options.linear_cells, options.quadratic_cells),
}


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables of one seed for the harness; what is measured, not the bars."""
    one = [seed]
    found = list(gaussians.run(one, 300 if quick else gaussians.N).items())
    of_law = {"vs law, %": "solver", "vs own, %": "solver", "own vs law, %": "floor", "independent": "baseline"}
    frame = found[0][1].assign(independent=100.0).droplevel("seed")
    yield from_columns(frame, found[0][0], "error, %", of_law, note=_OWN)
    names = [name for name in found[1][1] if name.endswith("%") or name == "s"]
    floor = "a plan that fits its own sample exactly has an error of 0 against it"
    independent = "the independent plan's cross-covariance is 0, an error of 100 %"
    yield from_frame(
        found[1][1][names].droplevel("seed"), found[1][0], no_floor=floor, no_baseline=independent, note=_OWN
    )
    if not quick:
        exact = {
            "no_floor": "the same plan, 0",
            "no_baseline": "it is compared with another solver's plan, not with an answer",
        }
        for title, frame in relaxed.run(one).items():
            if "bars" not in title:
                yield from_frame(frame, title.replace(", worst of 1 seeds", ""), **exact)
        yield _paired(modalities.panels(one), "gene panels", "split")
    roll, frame = next(iter(geodesic.swissroll(one, 200 if quick else 1000).items()))
    frame = frame.droplevel("seed").assign(**{"rank correlation": frame["rank correlation"].abs().to_numpy()})
    yield from_frame(frame, roll, ends={"rank correlation": (1.0, 0.0)})
    if quick:
        return
    yield _paired(modalities.snareseq(one), "SNARE-seq, chromatin to RNA", "cells")
    repeats = range(2 * seed, 2 * seed + 2)
    title, frame = next(iter(variance.run(repeats).items()))
    one_fit = "the column 'within one fit' of the row 'global' is what one solution has"
    yield from_frame(frame, title, baseline="^independent$", no_floor=one_fit)
    title, frame = next(iter(epsilons.run(one, 256, 100).items()))
    ends = {"FOSCTTM": (0.0, 0.5), "FOSCTTM held out": (0.0, 0.5)}
    yield from_frame(frame.droplevel("seed"), "Epsilon of quadratic problems", ends=ends)
    title, frame = next(iter(geodesic.larry().items()))
    yield from_frame(frame, title, baseline="^independent", no_floor="sisters differ, by how much is not known")
    title, frame = next(iter(sizes.run(200_000, 50_000).items()))
    bare = {"no_floor": "seconds and memory have none", "no_baseline": "seconds and memory have none"}
    yield from_frame(frame, title, **bare)


_OWN = "'own': against the closed form of the sample's own moments; 'law': of the law that the sample is from"


def _paired(tables: dict, title: str, level: str) -> Table:
    """Return the first table of paired data, each seed's subset by the same name."""
    frame = next(iter(tables.values()))
    frame = frame.rename(index=lambda one: one.rstrip("0123456789 ") if isinstance(one, str) else one, level=level)
    return from_frame(frame, title, ends={"FOSCTTM": (0.0, 0.5)})


def main() -> None:
    arguments = parser(couplings.__doc__.splitlines()[0])
    measured = [name for name in SECTIONS if name != "choose_steps"]
    arguments.add_argument("--only", nargs="+", choices=SECTIONS, default=measured, help="which sections")
    arguments.add_argument("--seeds", type=int, default=10, help="seeds of generated data, subsets of SNARE-seq")
    arguments.add_argument("--splits", type=int, default=20, help="splits of the gene panels")
    arguments.add_argument("--fits", type=int, default=10, help="repeated fits whose conditionals are pooled")
    arguments.add_argument("--linear-cells", type=int, default=200_000, help="cells a side of the large linear problem")
    arguments.add_argument("--quadratic-cells", type=int, default=50_000, help="and of the large quadratic one")
    arguments.add_argument(
        "--semidiscrete-cells", type=int, default=16_384, help="cells a side of the problem of gradients"
    )
    options = arguments.parse_args()
    # What did not converge stands in the tables.
    warnings.filterwarnings("ignore", message=".*did not converge", category=RuntimeWarning)
    for name in options.only:
        for title, rows in SECTIONS[name](options).items():
            report(rows, f"{name}: {title}", options.json, digits=4)


if __name__ == "__main__":
    main()
