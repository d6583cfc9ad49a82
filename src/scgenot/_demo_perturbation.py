"""The demonstration: monocytes to dendritic cells, on real cells that ship with scanpy."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

import scgenot
from scgenot._rng import RNG

KEY, SOURCE, TARGET = "bulk_labels", "CD14+ Monocyte", "Dendritic"
_HELD_OUT = 0.25
_STEPS = 2000
_SAMPLES = 30


def run_demo(out: Path, *, max_steps: int | None = None, rng: int = 0, progress_bar: bool = True) -> pd.DataFrame:
    """Train on blood monocytes and dendritic cells, print scores, and write an ``.h5ad`` and a picture.

    Parameters
    ----------
    out
        Directory for the results; created if missing.
    max_steps
        Training steps.
    rng
        Seed.
    progress_bar
        Whether to show one.

    Returns
    -------
    The table of scores that is printed.
    """
    started = time.perf_counter()
    print(f"scgenot {scgenot.__version__}: where would a {SOURCE} go among {TARGET.lower()} cells?")
    with warnings.catch_warnings():
        # The file that ships with scanpy was written by an old version of it.
        warnings.simplefilter("ignore")
        adata = sc.datasets.pbmc68k_reduced()
    train, held = _split(adata, rng)
    print(f"{adata.n_obs} blood cells of scanpy's pbmc68k_reduced; every fourth of the two populations is held out")

    scgenot.GENOT.setup_anndata(train, population_key=KEY, source=SOURCE, target=TARGET, source_rep="X_pca")
    model = scgenot.GENOT(train)
    model.train(max_steps=max_steps or _STEPS, validation_size=0.0, rng=rng, progress_bar=progress_bar)
    print(model, end="\n\n")

    scores = _scores(train, held, model, rng)
    print(scores.to_string(float_format=lambda value: f"{value:.3f}"), end="\n\n")
    scgenot.tl.transport(adata, model, n_samples=_SAMPLES, store_samples=True, rng=rng)
    out.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(out / "transported.h5ad")
    _picture(adata, out / "transport.png")
    print(
        f"wrote {out / 'transported.h5ad'} and {out / 'transport.png'} ({time.perf_counter() - started:.0f} s in all)"
    )
    return scores


def _split(adata: AnnData, rng: RNG) -> tuple[AnnData, AnnData]:
    """Return the two populations without and with their held-out cells."""
    generator = np.random.default_rng(rng)
    chosen = np.zeros(adata.n_obs, dtype=bool)
    both = np.zeros(adata.n_obs, dtype=bool)
    for category in (SOURCE, TARGET):
        rows = np.flatnonzero(adata.obs[KEY] == category)
        both[rows] = True
        chosen[generator.choice(rows, round(_HELD_OUT * len(rows)), replace=False)] = True
    return adata[both & ~chosen].copy(), adata[chosen].copy()


def _scores(train: AnnData, held: AnnData, model: scgenot.GENOT, rng: RNG) -> pd.DataFrame:
    """Compare transported held-out cells with held-out target cells, next to what costs nothing."""

    def cells(adata: AnnData, category: str) -> np.ndarray:
        return adata.obsm["X_pca"][adata.obs[KEY] == category]

    source, truth = cells(held, SOURCE), cells(held, TARGET)
    shift = cells(train, TARGET).mean(axis=0) - cells(train, SOURCE).mean(axis=0)
    samples = model.sample(held, n_samples=_SAMPLES, rng=rng)
    candidates = {
        "monocytes as they are": source,
        "monocytes + mean shift": source + shift,
        "scgenot": samples.reshape(-1, samples.shape[-1]),
        "dendritic cells of training (floor)": cells(train, TARGET),
    }
    table = pd.DataFrame(index=pd.Index(candidates, name="against held-out dendritic cells"))
    table["energy distance"] = [scgenot.metrics.energy_distance(x, truth) for x in candidates.values()]
    table["MMD"] = [scgenot.metrics.mmd_rbf(x, truth) for x in candidates.values()]
    return table


def _picture(adata: AnnData, path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(12.5, 5.0), layout="constrained")
    scgenot.pl.transport(adata, ax=axes[0], n_arrows=25)
    scgenot.pl.uncertainty(adata, ax=axes[1])
    axes[1].set_title("how sure that is")
    figure.savefig(path, dpi=150)
    plt.close(figure)
