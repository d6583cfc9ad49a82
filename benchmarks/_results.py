"""Results as JSON, one file for a benchmark and a seed: what was measured, on which machine, with which code."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks._tables import Table

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"
# What a figure may depend on. Pages and results are not code.
CODE = ("src", "benchmarks")
LIBRARIES = (
    "scgenot",
    "jax",
    "flax",
    "diffrax",
    "ott-jax",
    "numpy",
    "scipy",
    "scikit-learn",
    "anndata",
    "scvi-tools",
    "POT",
)
SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Result:
    """The tables of one benchmark for one seed, and what made them.

    Attributes
    ----------
    benchmark, seed, quick
        What was run.
    code
        Digest of all Python files under `CODE`. Two results of one digest come from the same code, committed or not.
    commit, dirty
        The repository's state: its commit, and whether files under `CODE` differed from it.
    machine, versions
        Where it ran.
    seconds, peak_gib
        What the whole took.
    tables
        The figures.
    """

    benchmark: str
    seed: int
    quick: bool
    code: str
    commit: str
    dirty: bool
    machine: dict
    versions: dict
    seconds: float
    peak_gib: float
    tables: Sequence[Table]

    def __post_init__(self) -> None:
        """Refuse a result without figures, or with two tables of one name."""
        if not self.tables:
            raise ValueError(f"the benchmark {self.benchmark!r} returned no table.")
        titles = [table.title for table in self.tables]
        if len(set(titles)) < len(titles):
            raise ValueError(
                f"the benchmark {self.benchmark!r} has two tables of one title: {titles}. Give each its own."
            )


def path_of(folder: Path, benchmark: str, seed: int, quick: bool) -> Path:
    """Return where a result stands; quick ones beside full ones, and neither in the other's place."""
    return folder / f"{benchmark}{'-quick' if quick else ''}-seed{seed}.json"


def write(folder: Path, result: Result) -> Path:
    """Write a result, whole or not at all."""
    path = path_of(folder, result.benchmark, result.seed, result.quick)
    folder.mkdir(parents=True, exist_ok=True)
    saved = {"schema": SCHEMA} | _rounded(dataclasses.asdict(result))
    draft = path.with_suffix(f".{os.getpid()}.part")
    try:
        draft.write_text(json.dumps(saved, indent=1, allow_nan=False) + "\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def read(path: Path) -> Result:
    """Read a result; raise if it is not a valid one.

    Raises
    ------
    ValueError
        If the file is of another schema, or a table in it lacks its floor or baseline.
    """
    saved = json.loads(path.read_text())
    if saved.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} is not a result of schema {SCHEMA}. Remove it and run the benchmark again.")
    return Result(**(saved | {"tables": [Table.from_dict(table) for table in saved["tables"]]}))


def still_valid(path: Path, made: dict) -> bool:
    """Return whether a file holds what would be computed again: of the same code, on the same machine, whole and valid."""
    try:
        found = read(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return found.code == made["code"] and found.machine == made["machine"] and found.versions == made["versions"]


def surroundings() -> dict:
    """Return what figures depend on besides the seed: code, commit, machine, versions."""
    return {"code": code_digest(), **_commit(), "machine": machine(), "versions": versions()}


def code_digest(root: Path = ROOT) -> str:
    """Return a digest of all Python files of the package and the benchmarks."""
    found = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (root / folder).rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _commit() -> dict:
    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", *(f"{folder}/*.py" for folder in CODE))
    return {"commit": git("rev-parse", "HEAD") or "unknown", "dirty": changed is None or bool(changed)}


@functools.cache
def machine() -> dict:
    """Return cores, memory, processor and accelerator."""
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "device": f"{device.platform}: {device.device_kind}",
        # Seconds of a first call are then those of reading a program, and not of compiling it.
        "kept_compilations": "yes" if os.environ.get("JAX_COMPILATION_CACHE_DIR") else "no",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((one.split(":", 1)[1].strip() for one in lines if one.startswith("model name")), platform.machine())


@functools.cache
def versions() -> dict:
    """Return the versions of Python and of the libraries that figures depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _rounded(value):
    """Round to six significant digits: more are noise, and the files are kept in the repository."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
