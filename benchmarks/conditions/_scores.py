"""What is measured of one prediction, and the table over all that was left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

from scgenot.metrics import discrimination_score, effect_correlation, energy_distance


def score(draws: Sequence[np.ndarray], truth: np.ndarray, back: np.ndarray) -> dict:
    """Score draws of predicted cells; `back` takes means from the representation to features."""
    draws, truth = [np.asarray(cells, np.float64) for cells in draws], np.asarray(truth, np.float64)
    means = [cells.mean(axis=0) for cells in draws]
    # The noise of two sample means is no error of the prediction.
    noise = total_variance(truth) / len(truth)
    errors = [
        float(np.sum((mean - truth.mean(axis=0)) ** 2)) - total_variance(cells) / len(cells) - noise
        for mean, cells in zip(means, draws, strict=True)
    ]
    return {
        "energy": float(np.mean([energy_distance(cells, truth, unbiased=True) for cells in draws])),
        "error of means": float(np.mean(errors)),
        "variance": float(np.mean([total_variance(cells) for cells in draws])),
        "mean": (np.mean(means, axis=0) @ back).tolist(),
    }


def total_variance(cells: np.ndarray) -> float:
    return float(cells.astype(np.float64).var(axis=0, ddof=1).sum())


def table(folds: Sequence[dict]) -> pd.DataFrame:
    """Return one row a method, from folds as `screens.measured` makes them, one for each that was left out.

    A fold holds, in features, the mean of its controls and the mean treated cell that effects are also compared to, what was
    observed, and the scores of each method; methods that are not in all folds are left out.
    """
    names = [name for name in folds[0]["methods"] if all(name in fold["methods"] for fold in folds)]
    column = lambda name, key: np.array([fold["methods"][name][key] for fold in folds])
    observed, controls, treated = (
        np.array([fold[key] for fold in folds]) for key in ("observed", "controls", "treated")
    )
    variance = sum(fold["variance"] for fold in folds)
    contexts = np.array([fold["context"] for fold in folds])
    nothing = {key: column("nothing", key).sum() for key in ("energy", "error of means")}
    rows = {}
    for name in names:
        row = {f"{key}, %": 100 * column(name, key).sum() / total for key, total in nothing.items()}
        rows[name] = row
        if name == "replicate halves":
            continue
        means = column(name, "mean")
        row["Pearson, control"] = effect_correlation(means - controls, observed - controls)
        row["Pearson, treated"] = effect_correlation(means - treated, observed - treated)
        # Among one condition there is nothing to tell apart.
        if len(folds) > 1:
            row["discrimination"] = discrimination_score(means - controls, observed - controls).mean()
        within = [contexts == one for one in np.unique(contexts) if np.sum(contexts == one) > 1]
        if within:
            scores = [discrimination_score((means - controls)[one], (observed - controls)[one]) for one in within]
            row["within context"] = np.concatenate(scores).mean()
        row["variance ratio"] = column(name, "variance").sum() / variance
    return pd.DataFrame(rows).T.rename_axis("prediction")


def rank_correlations(folds: Sequence[dict], method: str) -> pd.DataFrame:
    """Return Spearman correlations of what predicts a method's error with its energy distances, over folds."""
    actual = [fold["methods"][method]["energy"] for fold in folds]
    names = [name for name in folds[0]["predictors"] if all(name in fold["predictors"] for fold in folds)]
    rows = {
        name: {
            "rank correlation": scipy.stats.spearmanr([fold["predictors"][name] for fold in folds], actual).statistic
        }
        for name in names
    }
    return pd.DataFrame(rows).T.rename_axis(f"predicts the error of {method}")
