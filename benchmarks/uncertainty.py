"""Which uncertainty ranks wrong cells, over all cells and within cell types, and which follows what is truly unknown.

Kang (control to stimulated, epsilon .05; half of the cells train) and SNARE-seq (chromatin to RNA): AUROC for cells whose mean
lies amid target cells of another type. Gene panels: rank correlation with the distance of the mean to the true partner.
Mixtures: rank correlation with the entropy of the true conditional law. 50 samples per held-out cell. "within": median over
types with at least five wrong and five right cells. What was chosen (20 regions, ten clusterings, three neighbours; the
exponent .75 for labels) was settled on seeds 0 and 1; seeds 2 to 4 were looked at once: the default .86 over all Kang cells (worst
seed .83) and .67 within types, where cos-var has .65 and .57, the variance .81 and .37; with labels .90 and .84.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from benchmarks._common import parser, report
from benchmarks._tables import Table, from_frame
from benchmarks._uncertainty_data import CASES, Case, case
from scgenot.flow import TargetRegions, conditional_variance, cosine_variance, label_uncertainty, reference_rows
from scgenot.flow._summaries import entropy, shares

FEWEST = 5
_TYPED = ("kang", "snareseq")


def candidates(one: Case) -> dict[str, np.ndarray]:
    """Return each uncertainty of the held-out cells; those that begin with "labels" use labels of target cells."""
    samples, target = one.samples, one.target
    mean = samples.mean(axis=1, dtype=np.float64)
    reference = target[reference_rows(len(target), np.random.default_rng(0))]
    search = NearestNeighbors(n_neighbors=5).fit(target)
    nearest = search.kneighbors(samples.reshape(-1, samples.shape[2]), return_distance=False)
    found = {
        "regions (default)": TargetRegions.of(reference).entropy(samples),
        "cos-var": cosine_variance(samples),
    }
    if one.one_space:
        found["cos-var of displacements"] = cosine_variance(samples, one.source)
    found |= {
        "variance": conditional_variance(samples).sum(axis=1),
        "variance, features standardised": (conditional_variance(samples) / target.var(axis=0)).mean(axis=1),
        "log-volume": log_volume(samples - mean[:, None], target),
        "entropy over target cells": entropy(shares(nearest.reshape(len(samples), -1), len(target))),
        "spread over distance between targets": relative_spread(samples, target, nearest),
        "mean off the targets": search.kneighbors(mean)[0].mean(axis=1),
    }
    if len(one.target_labels):
        labels, codes = np.unique(one.target_labels, return_inverse=True)
        probabilities = shares(codes[nearest].reshape(len(samples), -1), len(labels))
        frequencies = np.bincount(codes) / len(codes)
        found |= {
            "labels: label uncertainty": label_uncertainty(probabilities, frequencies),
            "labels: entropy": entropy(probabilities),
            "labels: 1 - largest": 1 - probabilities.max(axis=1),
        }
    return found


def log_volume(centred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the log-determinant of the samples' covariance, a tenth of the target's mean variance added."""
    cov = np.einsum("nsd,nse->nde", centred, centred) / (centred.shape[1] - 1)
    ridge = 0.1 * target.var(axis=0).mean()
    return np.linalg.slogdet(cov + ridge * np.eye(cov.shape[1]))[1]


def relative_spread(samples: np.ndarray, target: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Return the samples' standard deviation over the usual distance of targets there to their 15th neighbour."""
    between = NearestNeighbors(n_neighbors=16).fit(target).kneighbors(target)[0][:, -1]
    local = np.median(between[nearest].reshape(len(samples), -1), axis=1)
    return np.sqrt(conditional_variance(samples).sum(axis=1)) / local


def score(name: str, one: Case, uncertainty: np.ndarray) -> tuple[float, float]:
    """Return how well an uncertainty ranks all cells, and the median within types."""
    if name not in _TYPED:
        return spearmanr(one.truth, uncertainty).statistic, np.nan
    within = []
    for label in np.unique(one.source_labels):
        wrong = one.truth[one.source_labels == label]
        if min(wrong.sum(), (1 - wrong).sum()) >= FEWEST:
            within.append(roc_auc_score(wrong, uncertainty[one.source_labels == label]))
    return roc_auc_score(one.truth, uncertainty), np.median(within) if within else np.nan


def table(names: list[str], seeds: list[int], keep: Path | None) -> pd.DataFrame:
    """Return candidates x data, means over seeds."""
    rows = []
    for name in names:
        for seed in seeds:
            one = case(name, seed, keep)
            for measure, values in candidates(one).items():
                whole, within = score(name, one, values)
                rows.append((measure, name, whole))
                if name == "kang":
                    rows += [(measure, "kang, worst", whole), (measure, "kang, within", within)]
    long = pd.DataFrame(rows, columns=["uncertainty", "data", "score"])
    wide = long.pivot_table("score", "uncertainty", "data", aggfunc="mean", sort=False)
    worst = long.pivot_table("score", "uncertainty", "data", aggfunc="min", sort=False)
    if "kang, worst" in wide:
        wide["kang, worst"] = worst["kang, worst"]
    return wide


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the table for the harness; seeds begin with 2, since 0 and 1 served for choices."""
    names = ["mixture"] if quick else list(CASES)
    found = table(names, [seed + 2], None).drop(columns="kang, worst", errors="ignore")
    ends = {name: (1.0, 0.5 if name.startswith(_TYPED) else 0.0) for name in found}
    yield from_frame(found, "Ranking of cells: AUROC, or rank correlation", ends=ends)


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--data", nargs="*", choices=list(CASES), default=list(CASES))
    options.add_argument("--seeds", type=int, nargs="*", default=[2, 3, 4])
    options.add_argument("--keep", type=Path, default=None, help="folder that keeps samples between runs")
    chosen = options.parse_args()
    title = f"Ranking of cells (AUROC, or rank correlation), mean over seeds {chosen.seeds}"
    report(table(chosen.data, chosen.seeds, chosen.keep), title, chosen.json)


if __name__ == "__main__":
    main()
