"""One model of all conditions of CyTOF against one for each: error at cells that were held out, and time."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas as pd

from benchmarks.conditions import _models
from benchmarks.conditions._models import CONTROL
from benchmarks.conditions.screens import DRAWS, Screen
from scgenot.metrics import energy_distance

HELD_OUT = 0.3


def run(options) -> dict[str, pd.DataFrame]:
    screen = Screen.read("cytof")
    rows = {}
    for seed in options.seeds:
        for name, row in one_seed(screen, options, seed).items():
            rows[seed, name] = row
    found = pd.DataFrame(rows).T.rename_axis(["seed", "model"])
    compared = found.groupby("model", sort=False).sum()
    nothing = compared.loc["nothing", "energy"]
    compared["energy, % of nothing"] = 100 * compared["energy"] / nothing
    compared["energy / separate models'"] = compared["energy"] / compared.loc["a model each", "energy"]
    compared["time / separate models'"] = compared["seconds"] / compared.loc["a model each", "seconds"]
    count = options.max_folds or len(screen.perturbations) * len(screen.contexts)
    return {f"one model of {count} conditions, sums over them and {len(options.seeds)} seed(s)": compared}


def one_seed(screen: Screen, options, seed: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    train = np.ones(len(screen.context), dtype=bool)
    strata = list(itertools.product(screen.perturbations, screen.contexts))[: options.max_folds]
    for perturbation, context in itertools.product([CONTROL, *screen.perturbations], screen.contexts):
        cells = np.flatnonzero(screen.cells(perturbation, context))
        train[rng.choice(cells, round(HELD_OUT * len(cells)), replace=False)] = False
    used = np.logical_or.reduce([screen.cells(*one) for one in strata]) | (screen.perturbation == CONTROL)
    adata = _models.adata_of(screen.features, perturbation=screen.perturbation, context=screen.context)
    energies = {"nothing": 0.0, "one model": 0.0, "a model each": 0.0, "training cells (floor)": 0.0}
    seconds = dict.fromkeys(energies, 0.0)

    def timed(kept: np.ndarray, setup: dict):
        started = time.perf_counter()
        model = _models.fit(adata[kept].copy(), options.training, seed, setup=setup)
        return model, time.perf_counter() - started

    shared, seconds["one model"] = timed(train & used, _models.perturbations("seen"))
    for perturbation, context in strata:
        here = screen.cells(CONTROL, context) | screen.cells(perturbation, context)
        own, spent = timed(train & here, _models.one_perturbation(perturbation, matched=False))
        seconds["a model each"] += spent
        left = adata[here & ~train].copy()
        controls = np.flatnonzero(left.obs["perturbation"] == CONTROL)
        truth = screen.features[screen.cells(perturbation, context) & ~train]
        candidates = {
            "nothing": left.obsm["X_rep"][controls][None],
            "one model": _models.predicted(shared, left, controls, perturbation, DRAWS),
            "a model each": _models.predicted(own, left, controls, None, DRAWS),
            "training cells (floor)": screen.features[screen.cells(perturbation, context) & train][None],
        }
        for name, draws in candidates.items():
            energies[name] += float(np.mean([energy_distance(cells, truth, unbiased=True) for cells in draws]))
    return {name: {"energy": energies[name], "seconds": seconds[name]} for name in energies}
