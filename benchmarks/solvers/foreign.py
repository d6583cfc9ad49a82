"""OTT 0.5's GENOT and CellFlow 0.0.9, run in environments of their own, which ``benchmarks/environments.sh`` makes.

They are found in the folder ``$SCGENOT_ENVIRONMENTS``. Another process trains, and samples the cells that are asked for first, so that a fit
trains at its first call of ``sample``, and again if other cells are asked for.
"""

from __future__ import annotations

import dataclasses
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
        JSON of the last run: seconds of training and sampling, versions, options.
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
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder, "in.npz"), Path(folder, "out.npz")
            np.savez(given, x=self.x, y=self.y, at=np.asarray(x, np.float32))
            options = json.dumps(self.options | {"n": int(n)})
            environment, script = KNOWN[self.name]
            command = [
                str(interpreter(environment)),
                str(SCRIPTS / script),
                str(given),
                str(found),
                "--options",
                options,
            ]
            own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            done = subprocess.run(command, capture_output=True, text=True, env=own, check=False)
            if done.returncode:
                raise RuntimeError(f"{self.name} failed: {done.stderr.strip()[-2000:]}")
            self.told = json.loads(done.stdout.strip().splitlines()[-1])
            with np.load(found) as arrays:
                return arrays["samples"]

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
        What the script takes: batch_size, width, learning_rate; of CellFlow also solver.
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
