"""Memory of a model whose AnnData stays on disk: set up, trained on a stored representation, and transported, ``X`` never held.

A file of sparse counts is written block by block; then each way to open it is measured in a process of its own. "GiB" is the peak of
resident memory up to the end of a stage; that of "imported" is what the libraries take, and the sparse counts alone would add what the
title says. Counts are higher in genes of the cells' group, the representation (``obsm["X_rep"]``) its centre and noise; few training steps and samples
do, since memory is asked for, and it does not grow with either. ``--coupling global`` measures the default coupling, which takes long.
``--what cells`` measures results instead: transported cells that are held, and that are written into a file block by block.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from benchmarks._common import parser, peak_memory_gib, report, two_populations
from benchmarks._tables import Meter, Row, Table
from benchmarks._tables import measured as meter

_GROUPS, _BLOCK, _FEATURES = 10, 1000, 50


def generate(path: Path, cells: int, genes: int, detected: int, rng: np.random.Generator) -> None:
    """Write `cells` x `genes` sparse counts with `detected` a cell, a block of cells at a time."""
    group = rng.integers(_GROUPS, size=cells)
    side = np.where(np.arange(cells) % 2 == 0, "source", "target")
    obs = pd.DataFrame({"population": pd.Categorical(side)}, index=np.arange(cells).astype(str))
    centres = rng.normal(size=(_GROUPS, _FEATURES)).astype(np.float32)
    rep = centres[group] + 0.5 * rng.normal(size=(cells, _FEATURES)).astype(np.float32)
    rep[side == "target"] += 0.5
    var = pd.DataFrame(index=[f"gene{k}" for k in range(genes)])
    ad.AnnData(obs=obs, var=var, obsm={"X_rep": rep}).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        if "X" in file:
            del file["X"]
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array([cells, genes])})
        wide = genes // detected
        for name, kind in (("data", "f4"), ("indices", "i4")):
            x.create_dataset(name, shape=(cells * detected,), dtype=kind, chunks=(min(2**18, cells * detected),))
        for start in range(0, cells, _BLOCK):
            some = slice(start, min(start + _BLOCK, cells))
            # One gene of each of `detected` runs of neighbours: ascending and each once, without sorting. Each run is of one group.
            size = (len(group[some]), detected)
            columns = np.arange(detected, dtype=np.int32) * wide + rng.integers(wide, size=size, dtype=np.int32)
            own = np.arange(detected) % _GROUPS == group[some, None]
            values = (rng.integers(1, 4, size=size, dtype=np.int8) + 2 * own).astype(np.float32)
            x["indices"][start * detected : some.stop * detected] = columns.ravel()
            x["data"][start * detected : some.stop * detected] = values.ravel()
        x.create_dataset("indptr", data=np.arange(cells + 1, dtype=np.int64) * detected)


def measured(path: str, how: str, options) -> list[dict]:
    """Open a file, set up, train, transport; return seconds and the peak of memory after each. Run in a process of its own."""
    import scgenot
    from scgenot import GENOT

    rows, started = [], time.perf_counter()

    def stage(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        rows.append({"stage": name, "s": now - started, "GiB": peak_memory_gib()})
        started = now

    stage("imported")
    adata = ad.experimental.read_lazy(path) if how == "lazy" else ad.read_h5ad(path, backed="r+")
    told = {"population_key": "population", "source": "source", "target": "target", "source_rep": "X_rep"}
    GENOT.setup_anndata(adata, **told)
    stage("set up")
    model = GENOT(adata, coupling=options.coupling)
    model.train(max_steps=options.max_steps, progress_bar=False)
    stage("trained")
    scgenot.tl.transport(adata, model, n_samples=options.samples, store_samples=options.store_samples)
    stage("transported")
    return rows


def cells_measured(options) -> list[dict]:
    """Transport cells of an AnnData without counts, held and in a file; return what each took. Run in a process of its own."""
    import scgenot
    from scgenot import GENOT
    from scgenot.flow import ODEConfig

    rng = np.random.default_rng(0)
    adata = two_populations(*(rng.normal(size=(options.cells // 2, _FEATURES)).astype(np.float32) for _ in range(2)))
    told = {"population_key": "population", "source": "source", "target": "target", "source_rep": "X_rep"}
    GENOT.setup_anndata(adata, **told)
    model = GENOT(adata, coupling=options.coupling)
    model.train(max_steps=options.max_steps, validation_size=0.0, progress_bar=False)
    # One step: memory does not depend on their number, seconds would.
    asked = {"ode": ODEConfig("euler", n_steps=1)}
    scgenot.tl.transported_cells(adata, model, indices=np.arange(100), **asked)
    found = []

    def line(name: str, took: Meter) -> None:
        found.append({"cells": name, "s": took.seconds, "core s": took.core_seconds, "GiB": took.peak_gib})

    with meter() as took:
        pass
    line("before", took)
    with tempfile.TemporaryDirectory() as folder:
        for name, file in (("in a file", Path(folder) / "cells.h5ad"), ("held", None)):
            with meter() as took:
                cells = scgenot.tl.transported_cells(adata, model, n_samples=options.cell_samples, file=file, **asked)
            line(name, took)
            found[-1]["GiB of X"] = cells.n_obs * cells.n_vars * 4 / 2**30
            found[-1]["GiB of obs"] = cells.obs.memory_usage(deep=True).sum() / 2**30
            del cells
    return found


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness; the cells are the same for all seeds, since memory does not depend on them."""
    words = (
        ["--cells", "2000", "--genes", "2000", "--detected", "100", "--max-steps", "5", "--cell-samples", "5"]
        if quick
        else []
    )
    options, lines = arguments().parse_args(words), []
    with written(options) as (path, size):
        for how in options.how:
            for one in in_a_process([*words, "--measure", str(path), how]):
                labels = {"opened": how, "up to": one["stage"]}
                role = "floor" if one["stage"] == "imported" else "solver"
                lines.append(Row(labels, {"peak GiB": one["GiB"]}, role, seconds=one["s"]))
    # Nothing is learned from memory: to hold the counts beside the libraries is what takes no thought.
    held = lines[0].values["peak GiB"] + size
    lines.append(Row({"opened": "in memory", "up to": "read"}, {"peak GiB": held}, "baseline"))
    yield Table(f"{options.cells} cells x {options.genes} genes, sparse counts of {size:.2f} GiB", lines)
    roles, lines = {"before": "floor", "held": "baseline"}, []
    for one in in_a_process([*words, "--measure-cells"]):
        values = {"peak GiB": one["GiB"], "GiB of X": one.get("GiB of X"), "GiB of obs": one.get("GiB of obs")}
        lines.append(Row({"cells": one["cells"]}, values, roles.get(one["cells"], "solver"), seconds=one["s"]))
    yield Table(f"{options.cell_samples} samples for {options.cells // 2} cells, {_FEATURES} features", lines)


@contextlib.contextmanager
def written(options: argparse.Namespace) -> Iterator[tuple[Path, float]]:
    """Yield the path of the file, written if it is not there, and the GiB of its counts."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(options.folder or temporary) / f"cells{options.cells}x{options.genes}.h5ad"
        if not path.is_file():
            # Under another name until it is whole: one that was interrupted is not taken for it.
            part = path.with_suffix(".part")
            generate(part, options.cells, options.genes, options.detected, np.random.default_rng(0))
            part.rename(path)
        with h5py.File(path) as file:
            size = sum(one.size * one.dtype.itemsize for one in file["X"].values()) / 2**30
        yield path, size


def in_a_process(words: Sequence[str]) -> list[dict]:
    """Return what is measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.reading", *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--cells", type=int, default=200_000, help="of both populations")
    arguments.add_argument("--genes", type=int, default=20_000)
    arguments.add_argument("--detected", type=int, default=1000, help="genes of a cell")
    arguments.add_argument("--how", nargs="+", default=["backed", "lazy"], choices=("backed", "lazy"))
    arguments.add_argument("--coupling", default="minibatch")
    arguments.add_argument("--max-steps", type=int, default=100)
    arguments.add_argument("--samples", type=int, default=3)
    arguments.add_argument("--store-samples", action="store_true")
    arguments.add_argument(
        "--what", default="data", choices=("data", "cells"), help="counts on disk, or transported cells"
    )
    arguments.add_argument("--cell-samples", type=int, default=30, help="transported cells for each source cell")
    arguments.add_argument(
        "--folder", default=None, help="where the file is written, and left; a temporary one by default"
    )
    arguments.add_argument("--measure", nargs=2, default=None, metavar=("FILE", "HOW"), help="of one process")
    arguments.add_argument("--measure-cells", action="store_true", help="the same")
    return arguments


def main() -> None:
    options = arguments().parse_args()
    if options.measure:
        print(json.dumps(measured(*options.measure, options)))
        return
    if options.measure_cells:
        print(json.dumps(cells_measured(options)))
        return
    if options.what == "cells":
        found = in_a_process([*sys.argv[1:], "--measure-cells"])
        title = f"{options.cell_samples} samples for {options.cells // 2} cells, {_FEATURES} features"
        report(pd.DataFrame(found).set_index("cells"), title, options.json)
        return
    with written(options) as (path, size):
        for how in options.how:
            found = in_a_process([*sys.argv[1:], "--measure", str(path), how])
            title = f"{how}: {options.cells} cells x {options.genes} genes, counts of {size:.2f} GiB, coupling {options.coupling}"
            report(pd.DataFrame(found).set_index("stage"), title, options.json)


if __name__ == "__main__":
    main()
