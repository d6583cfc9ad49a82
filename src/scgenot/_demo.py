"""The demonstration: the same blood cells through two gene panels that share no gene, mapped onto each other."""

from __future__ import annotations

import contextlib
import time
import warnings
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from mudata import MuData
from scipy.stats import spearmanr
from sklearn.preprocessing import normalize

import scgenot
from scgenot._rng import RNG

LABELS, SOURCE, TARGET, REP = "bulk_labels", "panel A", "panel B", "X_pca_l2"
_HELD_OUT = 0.2
_COMPONENTS = 20
_STEPS = 1500
_SAMPLES = 30
_DRAWS = 500


def run_demo(out: Path, *, max_steps: int | None = None, rng: int = 0, progress_bar: bool = True) -> pd.DataFrame:
    """Map cells between two disjoint gene panels, print scores on held-out cells, and write an ``.h5mu`` and a picture.

    Parameters
    ----------
    out
        Directory for the results; created if missing.
    max_steps
        Training steps.
    rng
        Seed, of the split of genes and cells too.
    progress_bar
        Whether to show one.

    Returns
    -------
    The table of scores that is printed.
    """
    started = time.perf_counter()
    print(f"scgenot {scgenot.__version__}: which {TARGET} profile would a {SOURCE} cell have?\n")
    # MuData before 0.4 is about to change a default, and says so at every step; from 0.4 on this is the default.
    with mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else contextlib.nullcontext():
        cells = split_panels(rng)
        held = cells[SOURCE].obs["held_out"].to_numpy()
        train, test = _subset(cells, ~held), _subset(cells, held)
        widths = [cells[name].n_vars for name in (SOURCE, TARGET)]
        print(
            f"{cells.n_obs} blood cells (scanpy's pbmc68k_reduced); their genes are dealt into two panels of {widths[0]} "
            f"and {widths[1]}.\nNo gene is in both, and the model is not told which cells belong together. {held.sum()} "
            "cells are\nheld out of both panels, to judge by.\n"
        )
        scgenot.GENOT.setup_mudata(
            train, source_modality=SOURCE, target_modality=TARGET, source_rep=REP, target_rep=REP
        )
        model = scgenot.GENOT(train)
        model.train(max_steps=max_steps or _STEPS, validation_size=0.0, rng=rng, progress_bar=progress_bar)
        print(model, end="\n\n")
        _print_coupling(model)
        scores, found = _scores(train, test, model, rng)
        _print_scores(scores)
        _print_uncertainty(found, test)

        scgenot.tl.transport(cells, model, n_samples=_SAMPLES, rng=rng)
        scgenot.tl.transfer_labels(cells, model, LABELS, n_samples=_SAMPLES, rng=rng)
        out.mkdir(parents=True, exist_ok=True)
        cells.write_h5mu(out / "transported.h5mu")
    axes = scgenot.pl.modalities(cells, color=LABELS)
    axes[0].figure.savefig(out / "modalities.png", dpi=150)
    plt.close(axes[0].figure)
    print(
        f"wrote {out / 'transported.h5mu'} and {out / 'modalities.png'} ({time.perf_counter() - started:.0f} s in all)"
    )
    return scores


def split_panels(rng: RNG = 0) -> MuData:
    """Return the PBMCs that ship with scanpy as two modalities: their genes dealt at random into two panels.

    Each has 20 principal components of its own, each cell scaled to length 1, in ``obsm["X_pca_l2"]``, and a column
    ``obs["held_out"]`` that marks a fifth of the cells, the same in both.
    """
    with warnings.catch_warnings():
        # The file that ships with scanpy was written by an old version of it.
        warnings.simplefilter("ignore")
        whole = sc.datasets.pbmc68k_reduced()
    generator = np.random.default_rng(rng)
    panels = np.array_split(generator.permutation(whole.raw.n_vars), 2)
    held = np.zeros(whole.n_obs, dtype=bool)
    held[generator.choice(whole.n_obs, round(_HELD_OUT * whole.n_obs), replace=False)] = True
    # A slash in the name of a group is about to be forbidden in files.
    labels = whole.obs[LABELS].cat.rename_categories(lambda label: label.replace("/", " "))
    obs = labels.to_frame().assign(held_out=held)
    modalities = {}
    for name, genes in zip((SOURCE, TARGET), panels, strict=True):
        panel = AnnData(whole.raw.X[:, np.sort(genes)], obs=obs.copy())
        panel.var_names = whole.raw.var_names[np.sort(genes)]
        sc.pp.pca(panel, n_comps=_COMPONENTS)
        panel.obsm[REP] = normalize(panel.obsm["X_pca"])
        modalities[name] = panel
    return MuData(modalities)


def _subset(cells: MuData, mask: np.ndarray) -> MuData:
    return MuData({name: modality[mask].copy() for name, modality in cells.mod.items()})


def _print_coupling(model: scgenot.GENOT) -> None:
    table = model.coupling_summary()
    best = table.iloc[0]
    print(
        f"The coupling was solved from {len(table)} starts; the lowest objective is used. Each cell's mass is spread over\n"
        f"about {best['effective_targets']:.0f} cells of the other panel. The best starts:"
    )
    print(table[["objective", "iterations", "converged"]].head(3).to_string(), end="\n\n")


def _scores(train: MuData, test: MuData, model: scgenot.GENOT, rng: RNG) -> tuple[pd.DataFrame, scgenot.model.Summary]:
    """Return scores of held-out cells, next to what costs nothing, and what the model said of these cells."""
    truth, known = test[TARGET].obsm[REP], train[TARGET]
    found = model.summarize(test, n_samples=_SAMPLES, rng=rng, keep_samples=True)
    generator = np.random.default_rng(rng)
    # The plan itself ends with the training cells; its potentials tell what it would do with others.
    plan = model.coupling_.extend(test[SOURCE].obsm[REP], known.obsm[REP])
    drawn = np.asarray(plan.conditional(jax.random.key(0), np.arange(len(truth)), _DRAWS))
    candidates = {
        "chance: any panel B cell": known.obsm[REP][generator.integers(known.n_obs, size=len(truth))],
        "discrete plan, mean": known.obsm[REP][drawn].mean(axis=1),
        "scgenot, mean": found.mean,
        "scgenot, one sample": found.samples[:, 0],
        "the true panel B profile": truth,
    }
    labels = test[SOURCE].obs[LABELS].astype(str)
    reference = known.obsm[REP], known.obs[LABELS].astype(str)
    table = pd.DataFrame(index=pd.Index(candidates, name="held-out cells"))
    table["FOSCTTM"] = [scgenot.metrics.foscttm(one, truth) for one in candidates.values()]
    accuracy = scgenot.metrics.label_transfer_accuracy
    table["label transfer"] = [accuracy(one, labels, *reference) for one in candidates.values()]
    return table, found


def _print_scores(scores: pd.DataFrame) -> None:
    print(scores.to_string(float_format=lambda value: f"{value:.3f}"))
    print(
        "FOSCTTM: share of cells that lie closer to the predicted profile than its true partner (0 is perfect).\n"
        "Label transfer: share of cells whose 5 nearest panel B cells of training vote for the right type.\n"
    )


def _print_uncertainty(found: scgenot.model.Summary, test: MuData) -> None:
    error = np.linalg.norm(found.mean - test[TARGET].obsm[REP], axis=1)
    third = len(error) // 3
    order = np.argsort(found.uncertainty)
    sure, unsure = error[order[:third]].mean(), error[order[-third:]].mean()
    print(
        f"Uncertainty: the mean error is {sure:.2f} for the third of cells that scgenot is surest of, and {unsure:.2f} for "
        f"the\nthird that it is least sure of (rank correlation {spearmanr(found.uncertainty, error).statistic:.2f}).\n"
    )
