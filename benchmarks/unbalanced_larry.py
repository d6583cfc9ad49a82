"""Day 4 to day 6 of barcoded blood progenitors (Weinreb et al. 2020): clones say what became of a cell's sisters.

The clones that have cells on both days are the truth; no clone is shown to a coupling or a model. Of the mass that a
cell sends, `own fates` lands among the types that its clone's day 6 cells have; `overlap` is the sum over types of the
smaller of the two shares, which also asks for the right proportions. Progenitors that are still undifferentiated hide
much of that: `decided` leaves them out on both sides, of the mass and of the clone. The type of a sample is that of the
nearest day 6 cell; a plan's is known. `same type's clones` gives each cell the mean fates of the other
clones' cells of its type: what the type on day 4 alone can tell, from the truth itself.

Growth is compared, by Spearman correlation over clones, with the logarithm of how many times larger a clone is on day 6.
Clones have one to three sampled cells on day 4, so their sizes are mostly noise.
"""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import scgenot
from benchmarks._common import data

POPULATIONS = {"population_key": "time", "source": 4.0, "target": 6.0, "source_rep": "X_pca"}
UNDECIDED = "undiff"


def fates_of(types: pd.Series, clones: pd.Series, names: pd.Index) -> pd.DataFrame:
    """Return which share of a clone's cells has which type, clones in rows."""
    return pd.crosstab(clones, types, normalize="index").reindex(columns=names, fill_value=0.0)


def scores(found: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Return shares of mass, cells weighted by what they send."""
    return {
        "own fates": np.average((found * (truth > 0)).sum(axis=1), weights=weights),
        "overlap": np.average(np.minimum(found, truth).sum(axis=1), weights=weights),
    }


def judged(found: np.ndarray, truth: np.ndarray, weights: np.ndarray, undecided: int) -> dict[str, float]:
    """Score fates, and fates of those cells whose clone has decided."""
    row = scores(found, truth, weights)
    left, clear = np.delete(found, undecided, axis=1), np.delete(truth, undecided, axis=1)
    mass, decided = left.sum(axis=1), clear.sum(axis=1)
    some = (mass > 0) & (decided > 0)
    only = scores(left[some] / mass[some, None], clear[some] / decided[some, None], (weights * mass)[some])
    return row | {f"{name}, decided": value for name, value in only.items()}


def larry(options) -> tuple[pd.DataFrame, str]:
    """Compare balanced, unbalanced and independent couplings, discrete and learned."""
    adata = data("larry_clonal_subset")
    early, late = ((adata.obs["time"] == day).to_numpy() for day in (4.0, 6.0))
    types = adata.obs["cell_type"].astype(str)
    names = pd.Index(sorted(types[late].unique()))
    undecided = names.get_loc(UNDECIDED)
    own = fates_of(types[late], adata.obs["clone"][late], names)
    clones = adata.obs["clone"][early]
    known = clones.isin(own.index).to_numpy()
    truth = own.loc[clones[known]].to_numpy()
    late_types = pd.get_dummies(types[late])[names].to_numpy(float)
    sizes = pd.crosstab(adata.obs["clone"], adata.obs["time"])

    def expansion(eta: np.ndarray) -> dict[str, float]:
        mean = pd.Series(eta, index=clones.to_numpy()).groupby(level=0).mean()
        n4, n6 = sizes.loc[mean.index, 4.0], sizes.loc[mean.index, 6.0]
        both = (n6 > 0).to_numpy()
        return {
            "growth, clones on both days": spearmanr(mean[both], np.log((n6 / n4)[both])).statistic,
            "growth, all clones of day 4": spearmanr(mean, np.log((n6 + 0.5) / n4)).statistic,
        }

    rows = {
        ("", "independent", ""): judged(
            np.tile(late_types.mean(0), (known.sum(), 1)), truth, np.ones(known.sum()), undecided
        )
    }
    rows["", "same type's clones", ""] = judged(*same_type(types[early][known], clones[known], truth), undecided)
    for cost in ("sqeuclidean", "cosine"):
        chosen = scgenot.tl.suggest_tau(adata, **POPULATIONS, cost=cost, copy=True).uns["genot_taus"]
        for name, tau in (("balanced", 1.0), ("unbalanced", chosen["tau"])):
            scgenot.GENOT.setup_anndata(adata, **POPULATIONS)
            plan, learned = [], []
            for seed in options.seeds:
                model = scgenot.GENOT(adata, cost=cost, epsilon=chosen["epsilon"], tau_source=tau, tau_target=tau)
                model.train(max_steps=options.max_steps, validation_size=0.0, progress_bar=False, rng=seed)
                if not plan:
                    drawn = np.asarray(model.coupling_.conditional(jax.random.key(0), np.arange(early.sum()), 200))
                    eta = np.asarray(model.coupling_.source_marginal) * early.sum()
                    plan.append(judged(late_types[drawn].mean(axis=1)[known], truth, eta[known], undecided))
                    plan[-1] |= expansion(eta) if tau < 1 else {}
                found = model.get_label_probabilities(label_key="cell_type", n_neighbors=1)
                found = found.reindex(columns=names, fill_value=0.0).to_numpy()
                eta = model.get_growth()
                learned.append(judged(found[known], truth, eta[known], undecided))
                learned[-1] |= expansion(eta) if tau < 1 else {}
            for which, some in (("plan", plan), ("scgenot", learned)):
                rows[cost, f"{name}, {which}", f"{tau:g} / {chosen['epsilon']:g}"] = pd.DataFrame(some).mean()
    title = f"LARRY, day 4 to day 6: {known.sum()} cells of {clones[known].nunique()} clones with known fates"
    return pd.DataFrame(rows).T.rename_axis(["cost", "coupling", "tau / epsilon"]), title


def same_type(types: pd.Series, clones: pd.Series, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for cells that have one, the mean fates of the other clones' cells of their type; the truth; weights."""
    other = (clones.to_numpy()[:, None] != clones.to_numpy()) & (types.to_numpy()[:, None] == types.to_numpy())
    some = other.any(axis=1)
    share = other[some] / other[some].sum(axis=1, keepdims=True)
    return share @ truth, truth[some], np.ones(some.sum())
