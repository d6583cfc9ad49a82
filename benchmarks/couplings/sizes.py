"""Large problems: seconds and peak memory, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import jax
import numpy as np

from benchmarks._common import peak_memory_gib
from benchmarks.couplings._common import Tables, against_bars, table
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.metrics import foscttm

_SCORED = 2000


def run(linear_cells: int, quadratic_cells: int) -> Tables:
    rows = {
        ("linear", linear_cells): apart("linear", linear_cells),
        ("quadratic", quadratic_cells): apart("quadratic", quadratic_cells),
    }
    claims = [
        (f"{name}, {n} x {n} cells: peak memory, GiB", row["peak GiB"], "<=", 6.0) for (name, n), row in rows.items()
    ]
    return {
        "linear 50-d, quadratic 30-d to 20-d with landmarks, default settings": table(
            rows, ["problem", "cells a side"]
        ),
        "sizes, against the bar": against_bars(*claims),
    }


def apart(name: str, n: int) -> dict[str, float]:
    """Measure in a fresh process: peak memory is that of a whole process, and never falls."""
    command = [sys.executable, "-m", "benchmarks.couplings.sizes", name, str(n)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def linear(n: int) -> dict[str, float]:
    """Twenty clusters; those of the target are shifted."""
    rng = np.random.default_rng(0)
    centres = 2.0 * rng.normal(size=(20, 50))
    source, target = (
        np.float32(centres[rng.integers(0, 20, n)] + shift + rng.normal(size=(n, 50))) for shift in (0.0, 0.5)
    )
    return solved(source, target, "linear")


def quadratic(n: int) -> dict[str, float]:
    source, paired, order = two_spaces(0, n)
    return solved(source, paired, "quadratic", order=order)


def two_spaces(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clusters of unequal size and spread in three latent dimensions, turned into 30 and 20 noisy ones; and a random order."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, 9) / 36
    clusters = rng.choice(8, n, p=shares)
    latent = (3.0 * rng.gamma(1.0, size=(8, 3)))[clusters] + rng.normal(size=(n, 3)) * (0.2 + 0.1 * clusters[:, None])
    turns = [np.linalg.qr(rng.normal(size=(d, d)))[0][:3] for d in (30, 20)]
    source, paired = (np.float32(latent @ turn + 0.05 * rng.normal(size=(n, turn.shape[1]))) for turn in turns)
    return source, paired, rng.permutation(n)


def solved(source: np.ndarray, target: np.ndarray, problem: str, order: np.ndarray | None = None) -> dict[str, float]:
    """Solve and draw for every source cell; where row i of both is the same cell, score a subset of them."""
    data_gib = peak_memory_gib()
    shuffled = target if order is None else target[order]
    started = time.perf_counter()
    found = solve_coupling(jax.random.key(0), source, shuffled, problem=problem, config=CouplingConfig())
    jax.block_until_ready(found.potentials)
    solve_seconds = time.perf_counter() - started
    started = time.perf_counter()
    drawn = np.asarray(found.conditional(jax.random.key(1), np.arange(len(source)), found.config.n_draws))
    draw_seconds = time.perf_counter() - started
    score = float("nan")
    if order is not None:
        some = np.linspace(0, len(source) - 1, min(len(source), _SCORED)).round().astype(int)
        score = foscttm(shuffled[drawn[some]].mean(axis=1), target[some])
    summary = found.diagnostics
    return {
        "s, solve": solve_seconds,
        "s, a pass of draws": draw_seconds,
        "peak GiB": peak_memory_gib(),
        "GiB before solving": data_gib,
        "converged": float(summary.converged),
        "iterations": summary.iterations,
        "marginals off by": summary.marginal_violation,
        "effective targets": summary.effective_targets,
        "FOSCTTM of some": score,
    }


if __name__ == "__main__":
    print(json.dumps({"linear": linear, "quadratic": quadratic}[sys.argv[1]](int(sys.argv[2]))))
