"""Run benchmarks and keep their figures: ``python -m benchmarks run [NAME ...] [--quick] [--seeds 0 1 2] [--out DIR]``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm.auto import tqdm

from benchmarks._registry import Benchmark, chosen
from benchmarks._results import FOLDER, Result, path_of, still_valid, surroundings, write
from benchmarks._tables import Table, measured


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    arguments.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; all by default")
    arguments.add_argument("--quick", action="store_true", help="small sizes: does it run, not what it is worth")
    arguments.add_argument("--seeds", type=int, nargs="+", default=None, help="0 with --quick, else 0 1 2")
    arguments.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    arguments.add_argument("--again", action="store_true", help="also what is there already, of the same code")


def main(options: argparse.Namespace) -> int:
    """Run what is chosen; return how many failed."""
    seeds = options.seeds if options.seeds is not None else [0] if options.quick else [0, 1, 2]
    return run(chosen(options.names), seeds, options.quick, options.out, again=options.again)


def run(
    benchmarks: Iterable[Benchmark], seeds: Iterable[int], quick: bool, folder: Path, *, again: bool = False
) -> int:
    """Run benchmarks, a file for each seed; one that fails does not stop the others.

    Parameters
    ----------
    benchmarks, seeds
        All of both are run, a seed after the other, so that a run that is stopped has whole tables of the first seeds.
    quick
        Small sizes.
    folder
        Where results are written and looked for.
    again
        Whether to compute also what is there, of the same code and machine.

    Returns
    -------
    How many could not be computed; why stands on the error stream.
    """
    made, failed = surroundings(), []
    jobs = [(one, seed) for seed in seeds for one in benchmarks]
    with tqdm(jobs, unit="table", disable=None) as bar:
        for one, seed in bar:
            bar.set_description(f"{one.name}, seed {seed}")
            if not again and still_valid(path_of(folder, one.name, seed, quick), made):
                continue
            started = time.perf_counter()
            try:
                tables = list(timed(one.tables(seed, quick)))
                peak = max(table.peak_gib for table in tables) if tables else 0.0
                seconds = time.perf_counter() - started
                write(folder, Result(one.name, seed, quick, **made, seconds=seconds, peak_gib=peak, tables=tables))
            # Data that are not there end a program that is called by itself.
            except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever it is, the others are run, and it is told)
                failed.append((one.name, seed, error))
                if not isinstance(error, SystemExit):
                    traceback.print_exc()
            tqdm.write(f"{one.name}, seed {seed}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    for name, seed, error in failed:
        print(f"{name}, seed {seed}: {error or type(error).__name__}", file=sys.stderr)
    return len(failed)


def timed(tables: Iterator[Table]) -> Iterator[Table]:
    """Yield tables with what each took since the one before."""
    while True:
        with measured() as meter, warnings.catch_warnings():
            # What did not converge stands in the tables.
            warnings.filterwarnings("ignore", message=".*did not converge", category=RuntimeWarning)
            table = next(tables, None)
        if table is None:
            return
        # Rows that measured themselves have set back the mark of the whole.
        peak = max([meter.peak_gib, *(row.peak_gib for row in table.rows if row.peak_gib is not None)])
        yield dataclasses.replace(table, seconds=meter.seconds, peak_gib=peak)
