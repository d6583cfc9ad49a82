"""Relaxed marginals between spaces that cannot be compared, and taus next to 0 and 1.

``snareseq``: chromatin to RNA of the same 1047 cells of four lines; one line is removed from RNA, each in turn. A fifth
of the cells is held out of both. `AUROC` tells the held-out chromatin profiles of the line without RNA from the others
by their growth, `rank` is the place of that line among the mean growths (1 is the lowest). FOSCTTM is that of the other
lines' transported means, held-out cells among themselves. Beside it stand that of training cells, and that of held-out cells
by a ridge regression that is given all true pairs of the training cells. Fused: one in ten of the cells that have a partner
is a known pair. Quadratic: nothing is known but the geometry of both populations. Settings are the defaults but for the two
taus, the network (that of ``benchmarks.modalities``) and, in half of the rows, the cost. All were chosen with labels or pairs
in view: the taus on 300 of these cells (.99, .9, .5 and .98 were tried), the others on another split of them.

``extreme``: 200 cells a side of four clusters, one of which the target lacks.
"""

from __future__ import annotations

import sys
import time
import warnings

import anndata as ad
import jax
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score

import scgenot
from benchmarks._common import data
from benchmarks._modalities import SETTINGS, STEPS
from scgenot.costs import Geodesic
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.metrics import foscttm

LINES = ("BJ", "GM", "H1", "K562")
SNARE_COSTS = {"euclidean": "euclidean", "heat": Geodesic(method="heat")}
SNARE_TAU = 0.98
KNOWN = 0.1


def snare_cells(removed: str, known: bool, held_out: bool, held: np.ndarray) -> ad.AnnData:
    """Return chromatin and RNA profiles as the two populations of one AnnData; RNA lacks a line."""
    atac, rna = (data(f"snareseq_celllines_{name}") for name in ("atac", "rna"))
    keep = held if held_out else ~held
    here, there = keep, keep & (rna.obs["cell_type"] != removed).to_numpy()
    obs = pd.concat([atac.obs[here], rna.obs[there]]).astype(str)
    obs.index = obs["modality"] + "-" + obs["pair_id"]
    if known:
        partners = rna.obs["pair_id"][there].astype(str).to_numpy()
        told = np.random.default_rng(0).choice(partners, round(KNOWN * len(partners)), replace=False)
        obs["known"] = obs["pair_id"].where(obs["pair_id"].isin(told))
    reps = {}
    for name, side, some in (("atac", atac, here), ("rna", rna, there)):
        values = side.X.toarray() if hasattr(side.X, "toarray") else np.asarray(side.X)
        rows = np.full((len(obs), values.shape[1]), np.nan, np.float32)
        rows[obs["modality"] == name] = (values / np.linalg.norm(values, axis=1, keepdims=True))[some]
        reps[name] = rows
    return ad.AnnData(obs=obs, obsm=reps)


def pairing(model, adata) -> float:
    """Return FOSCTTM of the cells that have a partner."""
    rna = adata.obs["modality"] == "rna"
    truth = pd.DataFrame(adata.obsm["rna"][rna], index=adata.obs["pair_id"][rna])
    mean = pd.DataFrame(model.get_transported_mean(adata), index=adata.obs["pair_id"][~rna])
    return foscttm(mean.loc[truth.index].to_numpy(), truth.to_numpy())


def ridge(train, test) -> float:
    """Return FOSCTTM of held-out cells by a regression that is told every pair of the training cells: what can be had."""
    sides = []
    for adata in (train, test):
        rna = adata.obs["modality"] == "rna"
        chromatin = pd.DataFrame(adata.obsm["atac"][~rna], index=adata.obs["pair_id"][~rna])
        sides.append((chromatin.loc[adata.obs["pair_id"][rna]].to_numpy(), adata.obsm["rna"][rna]))
    (x, y), (x_test, y_test) = sides
    return foscttm(RidgeCV(np.logspace(-3, 2, 12)).fit(x, y).predict(x_test), y_test)


def snareseq(options) -> tuple[pd.DataFrame, str]:
    """Remove each line from RNA in turn."""
    n = data("snareseq_celllines_rna").n_obs
    held = np.zeros(n, dtype=bool)
    held[np.random.default_rng(0).choice(n, n // 5, replace=False)] = True
    rows = {}
    for problem in ("fused", "quadratic"):
        for name, cost in SNARE_COSTS.items():
            for line in LINES:
                fused = problem == "fused"
                train, test = (snare_cells(line, fused and not some, some, held) for some in (False, True))
                setup = {"population_key": "modality", "source": "atac", "target": "rna", "source_rep": "atac"}
                setup |= {"target_rep": "rna"} | ({"pairs_key": "known"} if fused else {})
                scgenot.GENOT.setup_anndata(train, **setup)
                model = scgenot.GENOT(
                    train,
                    cost=cost,
                    tau_source=SNARE_TAU,
                    tau_target=SNARE_TAU,
                    landmarks=options.landmarks,
                    **SETTINGS,
                )
                model.train(max_steps=STEPS, validation_size=0.0, progress_bar=False)
                eta, lines = model.get_growth(test), test.obs["cell_type"][test.obs["modality"] == "atac"]
                means = pd.Series(eta, index=lines.to_numpy()).groupby(level=0).mean()
                summary = model.coupling_summary()
                row = rows[problem, name, line] = {
                    "AUROC": roc_auc_score(lines != line, eta),
                    "rank": means.rank()[line],
                    "growth of it": means[line],
                    "least of the others": means.drop(line).min(),
                    "FOSCTTM": pairing(model, test),
                    "training cells": pairing(model, train),
                    "ridge on all pairs": ridge(train, test),
                    "mass": summary["mass"].iloc[0],
                    "converged": float(summary["converged"].iloc[0]),
                }
                print(problem, name, line, {key: round(float(value), 3) for key, value in row.items()}, file=sys.stderr)
    title = f"SNARE-seq, one line removed from RNA, taus {SNARE_TAU:g}: growth and pairing at held-out cells"
    return pd.DataFrame(rows).T.rename_axis(["problem", "cost", "line removed"]), title


def extreme(options) -> tuple[pd.DataFrame, str]:
    """Couple clusters at taus next to 0 and 1."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 5)) * 3
    here, there = rng.choice(4, 200), rng.choice(3, 200)
    x = (centres[here] + rng.normal(size=(200, 5))).astype(np.float32)
    y = (centres[there] + rng.normal(size=(200, 5))).astype(np.float32)
    ties = {"linear": {}, "quadratic": {}, "fused": {"shared": (x[:, :2], y[:, :2])}}
    rows = {}
    for problem, tie in ties.items():
        spaces = (x, y) if problem == "linear" else (x, y[:, :4])
        for taus in ((1e-3, 1e-3), (0.999, 0.999), (1e-3, 0.999), (0.999, 1e-3), (1e-3, 1.0), (1.0, 0.999)):
            config = CouplingConfig(tau_source=taus[0], tau_target=taus[1])
            started = time.perf_counter()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = solve_coupling(jax.random.key(0), *spaces, **tie, problem=problem, config=config)
            summary, eta = found.diagnostics, np.asarray(found.source_marginal)
            rows[problem, f"{taus[0]:g} / {taus[1]:g}"] = {
                "converged": summary.converged,
                "iterations": summary.iterations,
                "violation": summary.marginal_violation,
                "mass": summary.mass,
                "finite": bool(np.isfinite(eta).all() and np.isfinite(np.asarray(found.target_marginal)).all()),
                "AUROC": roc_auc_score(here != 3, eta),
                "s": time.perf_counter() - started,
                "warning": "; ".join(str(one.message).split(".")[0] for one in said)[:90],
            }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["problem", "tau source / target"])
    return table, "Taus next to 0 and 1: 200 cells a side, one of four clusters missing in the target"
