"""Expression to positions in the Drosophila embryo, with and without marker genes."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd

import scgenot
from benchmarks._common import data

MARKERS = 10
# Enough for a smooth map, and quick.
STEPS, LANDMARKS = 800, 500


def drosophila(seeds: Sequence[int]) -> pd.DataFrame:
    """Two disjoint halves of the cells: expression of one, positions of the other; markers are measured in both.

    Markers are drawn at random. A fifth of the first half is held out; distances are those of held-out cells.
    """
    embryo = data("drosophila_bdtnp")
    genes, positions = np.asarray(embryo.X, np.float32), np.asarray(embryo.obsm["spatial"], np.float32)
    rows = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(genes))
        held, dissociated, placed = np.split(order, [len(order) // 10, len(order) // 2])
        markers = np.sort(rng.choice(genes.shape[1], MARKERS, replace=False))
        found = {}
        for problem in ("quadratic", "fused"):
            model = _trained(problem, genes, positions, markers, dissociated, placed, seed)
            samples = model.sample(_expression(genes[held]), indices=np.arange(len(held)), n_samples=30)
            found[problem] = _distance(samples.mean(axis=1), positions[held])
            found[f"{problem}, one sample"] = _distance(samples[:, 0], positions[held])
        nearest = np.linalg.norm(genes[held][:, None, markers] - genes[placed][None, :, markers], axis=-1).argmin(
            axis=1
        )
        found["nearest by markers"] = _distance(positions[placed][nearest], positions[held])
        found["centre of the embryo"] = _distance(positions[placed].mean(axis=0), positions[held])
        found["fused / quadratic"] = found["fused"] / found["quadratic"]
        rows[f"seed {seed}"] = found
    table = pd.DataFrame(rows).T
    table.loc["mean"] = table.mean()
    table.loc["bar"] = pd.Series({"fused / quadratic": 0.5})
    return table.rename_axis("mean distance to the true position")


def _trained(problem: str, genes, positions, markers, dissociated, placed, seed: int) -> scgenot.GENOT:
    names = np.repeat(["expression", "position"], [len(dissociated), len(placed)])
    cells = ad.AnnData(obs=pd.DataFrame({"seen": pd.Categorical(names)}, index=np.arange(len(names)).astype(str)))
    cells.obsm["genes"] = np.full((len(names), genes.shape[1]), np.nan, np.float32)
    cells.obsm["genes"][names == "expression"] = genes[dissociated]
    cells.obsm["positions"] = np.full((len(names), 3), np.nan, np.float32)
    cells.obsm["positions"][names == "position"] = positions[placed]
    cells.obsm["markers"] = genes[np.concatenate([dissociated, placed])][:, markers]
    scgenot.GENOT.setup_anndata(
        cells,
        population_key="seen",
        source="expression",
        target="position",
        source_rep="genes",
        target_rep="positions",
        shared_rep="markers" if problem == "fused" else None,
    )
    model = scgenot.GENOT(cells, landmarks=LANDMARKS)
    model.train(max_steps=STEPS, validation_size=0.0, progress_bar=False, rng=seed)
    return model


def _expression(genes: np.ndarray) -> ad.AnnData:
    return ad.AnnData(obs=pd.DataFrame(index=np.arange(len(genes)).astype(str)), obsm={"genes": genes})


def _distance(places: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(places - truth, axis=1).mean())
