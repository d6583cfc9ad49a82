"""Memory of a model whose AnnData stays on disk: set up, trained on a stored representation, and transported, ``X`` never held.

A file of sparse counts is written block by block; then each way to open it is measured in a process of its own. "GiB" is the peak of
resident memory up to the end of a stage; that of "imported" is what the libraries take, and the sparse counts alone would add what the
title says. Counts are higher in genes of the cells' group, the representation (``obsm["X_rep"]``) its centre and noise; few training steps and samples
do, since memory is asked for, and it does not grow with either. ``--coupling global`` measures the default coupling, which takes long.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from benchmarks._common import parser, peak_memory_gib, report

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
            x.create_dataset(name, shape=(cells * detected,), dtype=kind, chunks=(2**18,))
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


def main() -> None:
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
        "--folder", default=None, help="where the file is written, and left; a temporary one by default"
    )
    arguments.add_argument("--measure", nargs=2, default=None, metavar=("FILE", "HOW"), help="of one process")
    options = arguments.parse_args()
    if options.measure:
        print(json.dumps(measured(*options.measure, options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(options.folder or temporary) / f"cells{options.cells}x{options.genes}.h5ad"
        if not path.is_file():
            # Under another name until it is whole: one that was interrupted is not taken for it.
            part = path.with_suffix(".part")
            generate(part, options.cells, options.genes, options.detected, np.random.default_rng(0))
            part.rename(path)
        with h5py.File(path) as file:
            size = sum(one.size * one.dtype.itemsize for one in file["X"].values()) / 2**30
        for how in options.how:
            command = [sys.executable, "-m", "benchmarks.reading", *sys.argv[1:], "--measure", str(path), how]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            title = f"{how}: {options.cells} cells x {options.genes} genes, counts of {size:.2f} GiB, coupling {options.coupling}"
            report(pd.DataFrame(json.loads(found)).set_index("stage"), title, options.json)


if __name__ == "__main__":
    main()
