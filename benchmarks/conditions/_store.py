"""Results as JSON, one file a fit, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax

LIBRARIES = ("scgenot", "jax", "numpy", "anndata", "scvi-tools", "ott-jax")


class Store:
    """A folder of results by name and settings; without a folder, nothing is kept."""

    def __init__(self, folder: str | None) -> None:
        self._folder = Path(folder) if folder else None

    def get(self, key: dict, compute: Callable[[], dict]) -> dict:
        """Return the result of these settings, computed and written unless it is there."""
        if self._folder is None:
            return compute()
        text = json.dumps(key, sort_keys=True, default=str)
        path = self._folder / f"{key['case']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if path.is_file():
            return json.loads(path.read_text())["result"]
        result = compute()
        self._folder.mkdir(parents=True, exist_ok=True)
        # Written beside and moved: a run that is stopped leaves no half of a file.
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"key": key, "made": machine(), "result": result}, default=float))
        draft.replace(path)
        return result


def machine() -> dict:
    """Return what figures depend on besides data and settings."""
    root = Path(__file__).resolve().parents[2]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit.stdout.strip(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": versions,
    }
