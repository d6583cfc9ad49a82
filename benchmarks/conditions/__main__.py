"""Run ``python -m benchmarks.conditions``: all cases, or some of them."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks import conditions
from benchmarks._common import parser, report
from benchmarks._tables import Table, from_frame
from benchmarks.conditions import one_model, scale, screens, simulated
from benchmarks.conditions._models import Training
from benchmarks.conditions._store import Store, machine

CASES = {
    "cytof": lambda options: screens.run("cytof", options),
    "gbm": lambda options: screens.run("gbm", options),
    "kang": lambda options: screens.run("kang", options),
    "simulated": simulated.run,
    "one_model": one_model.run,
    "scale": scale.run,
}


def options_of(words: list[str] | None = None):
    """Return what the command line says, with training, seeds and the store made of it; an empty list: the defaults."""
    arguments = parser(conditions.__doc__.splitlines()[0])
    arguments.add_argument("cases", nargs="*", metavar="CASE", default=list(CASES), help=f"of {', '.join(CASES)}")
    arguments.add_argument("--quick", action="store_true", help="does it run: small networks, few steps, four folds")
    arguments.add_argument("--baselines", action="store_true", help="train nothing (screens)")
    arguments.add_argument("--seeds", type=int, default=1, help="fits a fold")
    arguments.add_argument(
        "--folds", choices=("all", "tuning", "report"), default="all", help="a quarter, or the others"
    )
    arguments.add_argument("--max-folds", type=int, default=None)
    arguments.add_argument("--kinds", nargs="+", default=None, help="which models, by their names in the tables")
    arguments.add_argument(
        "--pcs", choices=("train", "file"), default="train", help="fitted without what is left out, or given"
    )
    arguments.add_argument("--steps", type=int, default=1500)
    arguments.add_argument("--batch-size", type=int, default=512)
    arguments.add_argument("--hidden", type=int, nargs="+", default=[128, 128, 128])
    arguments.add_argument("--epsilon", type=float, default=0.05, help="of screens, in units of the mean cost")
    arguments.add_argument("--learning-rate", type=float, default=1e-3)
    arguments.add_argument(
        "--injection", choices=("film", "concat"), default="film", help="of conditions into the field"
    )
    arguments.add_argument("--start", choices=("noise", "source", "linear"), default="noise", help="where flows start")
    arguments.add_argument("--n-models", type=int, default=1, help="members of an ensemble")
    arguments.add_argument("--store", default=".benchmarks/conditions", help="folder of results, to go on; '' for none")
    arguments.add_argument("--out", default=None, help="write tables, settings and machine to this JSON file")
    options = arguments.parse_args(words)
    if unknown := set(options.cases) - set(CASES):
        arguments.error(f"there is no case {sorted(unknown)}; there are {', '.join(CASES)}")
    if options.quick:
        options.steps, options.hidden, options.max_folds = min(options.steps, 300), [64, 64, 64], options.max_folds or 4
    options.training = Training(
        options.steps,
        options.batch_size,
        tuple(options.hidden),
        options.epsilon,
        options.learning_rate,
        options.injection,
        options.start,
        options.n_models,
    )
    options.store = Store(options.store)
    options.seeds = range(options.seeds)
    return options


_BASELINES = "nothing|mean shift|additive|nearest context|same context|independent"


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables of one seed for the harness."""
    small = [
        "--quick",
        "--max-folds",
        "2",
        "--steps",
        "50",
        "--store",
        "",
        "--kinds",
        "GENOT, all, context by controls",
    ]
    options = options_of(small if quick else [])
    options.seeds = [seed]
    for name in ["cytof"] if quick else ["cytof", "gbm", "kang"]:
        found = next(iter(screens.run(name, options).values()))
        yield from_frame(
            found,
            f"{name}, left out in turn",
            floor="^replicate halves",
            baseline=_BASELINES,
            reference="oracle|ceiling",
        )
    for title, found in simulated.run(options).items():
        title = title.replace(f", seed {seed}", "")
        yield from_frame(found, title, floor="floor", baseline=_BASELINES, reference="ceiling")
    if quick:
        return
    title, found = next(iter(one_model.run(options).items()))
    title = title.split(",")[0]
    yield from_frame(found, title, floor="floor", baseline="nothing")
    title, found = next(iter(scale.run(options).items()))
    bare = "seconds and memory have none"
    yield from_frame(found, title, no_floor=bare, no_baseline=bare)


def main() -> None:
    options = options_of()
    # What did not converge stands in the tables.
    warnings.filterwarnings("ignore", message=".*did not converge", category=RuntimeWarning)
    found: dict[str, list] = {}
    started = time.perf_counter()
    for case in options.cases:
        for title, rows in CASES[case](options).items():
            report(rows, title, options.json, digits=3)
            found[title] = rows.reset_index().to_dict("records")
    if options.out:
        settings = {name: value for name, value in vars(options).items() if name != "store"}
        made = machine() | {"seconds": time.perf_counter() - started}
        Path(options.out).write_text(
            json.dumps({"made": made, "settings": settings, "tables": found}, default=str, indent=1)
        )


if __name__ == "__main__":
    main()
