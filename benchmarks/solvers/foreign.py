"""OTT 0.5's GENOT and CellFlow 0.0.9, run in environments of their own, which ``benchmarks/environments.sh`` makes.

They are found in the folder ``$SCGENOT_ENVIRONMENTS``. Another process trains, and samples the cells that are asked for, so that a fit
trains at each call of ``sample``. With `keep` what was found is kept, by cells, options and the text of the scripts, on which alone it
depends: half an hour of training is not repeated since something else in this repository has changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

SCRIPTS = Path(__file__).parent / "environments"
# Environment and script of each.
KNOWN = {"ott05": ("ott05", "ott05_genot.py"), "cellflow": ("cellflow", "cellflow_genot.py")}


@dataclasses.dataclass
class Foreign:
    """Cells to train on, and what the last run told.

    Attributes
    ----------
    told
        JSON of the last run: what each stage of training and its samples took, versions, options.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    options: dict[str, Any]
    told: dict[str, Any] = dataclasses.field(default_factory=dict)
    stochastic: ClassVar[bool] = True
    density: ClassVar[bool] = False

    def sample(self, key: jax.Array, x: np.ndarray, n: int) -> np.ndarray:
        """Train, and draw n targets for each cell; the seed of training is that of the fit."""
        return self.stages(x, n)[-1]

    def stages(self, x: np.ndarray, n: int, keep: Path | None = None) -> np.ndarray:
        """Train, and draw n targets for each cell after each of the fit's `lengths`: stages x cells x n x features."""
        environment, script = KNOWN[self.name]
        arrays = {"x": self.x, "y": self.y, "at": x}
        arrays = {name: np.ascontiguousarray(cells, np.float32) for name, cells in arrays.items()}
        options = json.dumps(self.options | {"n": int(n)}, sort_keys=True)
        texts = [(SCRIPTS / name).read_bytes() for name in (script, "_arrays.py")]
        digest = hashlib.sha256(b"".join([options.encode(), *texts, *(cells.tobytes() for cells in arrays.values())]))
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder, "in.npz"), Path(folder, "out.npz")
            kept = None if keep is None else keep / f"{self.name}-{digest.hexdigest()[:16]}.npz"
            if kept is None or not kept.is_file():
                np.savez(given, **arrays)
                told = self._run([interpreter(environment), SCRIPTS / script, given, found, "--options", options])
                with np.load(found) as made:
                    written = {"samples": made["samples"], "told": np.array(told)}
                if kept is None:
                    kept = found
                kept.parent.mkdir(parents=True, exist_ok=True)
                draft = kept.with_suffix(f".{os.getpid()}.npz")
                np.savez(draft, **written)
                draft.replace(kept)
            with np.load(kept) as read:
                self.told = json.loads(str(read["told"]))
                return read["samples"]

    def _run(self, command: list) -> str:
        """Run another environment's Python, and return the last line that it prints."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=own, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            raise RuntimeError(f"{self.name} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
        return lines[-1]

    def mean(self, x: np.ndarray, n: int = 32) -> np.ndarray:
        """Return the mean of n samples."""
        return self.sample(jax.random.key(0), x, n).mean(axis=1)


def interpreter(environment: str) -> Path:
    """Return the Python of an environment.

    Raises
    ------
    FileNotFoundError
        If there is none; the message says how to make it.
    """
    folder = os.environ.get("SCGENOT_ENVIRONMENTS")
    found = Path(folder or "", environment, "bin", "python")
    if folder is None or not found.is_file():
        raise FileNotFoundError(
            f"there is no environment {environment!r} in $SCGENOT_ENVIRONMENTS ({folder or 'not set'}). Make it with "
            f"`benchmarks/environments.sh FOLDER {environment}`, and set the variable to FOLDER."
        )
    return found


def fit(
    key: jax.Array,
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    epsilon_b: float,
    name: str = "ott05",
    steps: int = 1000,
    **options: Any,
) -> Foreign:
    """Say what is to be trained; weights must be equal, since neither library draws cells by weight.

    Parameters
    ----------
    key, x, y, a, b
        As everywhere; the key gives the seed.
    epsilon_b
        Of the cost ``|x - y|^2 / 2``.
    name
        ``"ott05"`` or ``"cellflow"``.
    steps, options
        What the script takes: lengths (numbers of steps after which one training is sampled, instead of `steps`), batch_size, width,
        learning_rate; of CellFlow also solver.
    """
    if name not in KNOWN:
        raise ValueError(f"`name` must be one of {sorted(KNOWN)}, got {name!r}.")
    for argument, weights in (("a", a), ("b", b)):
        if weights is not None and not np.allclose(weights, np.mean(weights)):
            raise ValueError(
                f"`{argument}` must be equal weights: {name} draws cells evenly. Draw cells by weight first."
            )
    interpreter(KNOWN[name][0])
    seed = int(np.asarray(jax.random.key_data(key)).ravel()[-1]) % 2**31
    return Foreign(name, np.asarray(x), np.asarray(y), {"epsilon_b": epsilon_b, "steps": steps, "seed": seed} | options)
