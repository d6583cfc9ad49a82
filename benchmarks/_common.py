"""What the benchmarks share: data, tables, peak memory."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd


def data(name: str) -> ad.AnnData:
    """Read a data set from ``$SCGENOT_DATA`` or ``../shared/data``; end with a reason where it is not there."""
    folder = Path(os.environ.get("SCGENOT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    path = folder / f"{name}.h5ad"
    if not path.is_file():
        sys.exit(f"this benchmark needs {path.name} in $SCGENOT_DATA; there is no {path}")
    return ad.read_h5ad(path)


def two_populations(source: np.ndarray, target: np.ndarray) -> ad.AnnData:
    """Return an AnnData with the populations ``"source"`` and ``"target"`` of ``obs["population"]`` in ``obsm["X_rep"]``."""
    cells = np.concatenate([source, target]).astype(np.float32)
    names = np.repeat(["source", "target"], [len(source), len(target)])
    obs = pd.DataFrame({"population": pd.Categorical(names)}, index=np.arange(len(cells)).astype(str))
    return ad.AnnData(obs=obs, obsm={"X_rep": cells})


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    found.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return found


def report(table: pd.DataFrame, title: str, as_json: bool, digits: int | None = None) -> None:
    """Print a table, with three decimals or with so many significant `digits`."""
    if as_json:
        print(json.dumps({"title": title, "rows": table.reset_index().to_dict("records")}, default=float))
        return
    with pd.option_context("display.width", 250, "display.max_columns", 50):
        form = ".3f" if digits is None else f".{digits}g"
        print(f"\n{title}\n{table.to_string(float_format=lambda value: format(value, form))}", flush=True)


def peak_memory_gib() -> float:
    """Return the largest resident memory of this process so far."""
    # Linux's `ru_maxrss` of a process that another started begins with the other's.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(one for one in lines if one.startswith("VmHWM")).split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
