"""Time courses: fates of barcoded clones (LARRY), a day that was left out (reprogramming), and CellRank on our couplings.

LARRY (Weinreb et al. 2020), days 2, 4 and 6 in one model. Clones with cells on day 6 and on an earlier one are split into five; the
early cells of a fifth are left out of training, and their fates are the types of their clone's day 6 cells. `own fates` is the share
of the mass of a cell that lands among types that its clone has (`decided`: without undifferentiated cells on both sides),
`log-likelihood` the mean over the clone's day 6 cells of the logarithm of the probability of their type, after a tenth of the
marginal fates was mixed into all predictions alike. `plan, extended`: potentials give left-out cells a row of the first plan, and plans
are multiplied. `plan, neighbours`: the mean row of the five nearest training cells. `same type`: the mean fates of training clones with
a cell of the same type and day: the truth itself, which no other row has seen. `marginal`: types of day 6.

Reprogramming (Schiebinger et al. 2019): day 10.5 left out, cells between days 10 and 11 against a half of its cells; the other half is
the floor. All candidates have as many cells as that half.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

import scgenot
from benchmarks._common import data, parser, report
from benchmarks._tables import Table, from_frame
from scgenot.metrics import energy_distance, wasserstein

DAYS, FOLDS, UNDECIDED = (2.0, 4.0, 6.0), 5, "undiff"
NEIGHBOURS, MIXED, DRAWS = 5, 0.1, 400
# Cells of day 6 that each sample asks for their type; `tl.fates` asks 5.
ASKED = (1, 5)
# "source" is the default of a time course.
# With 30 of each, ranks of rare fates are those of their draws: mast cells from day 2 have .68 to .75, with 200 .89 to .92.
_CELLRANK_SAMPLES = 200
FLOW = {"noise": scgenot.flow.FlowConfig(start="noise"), "source": scgenot.flow.FlowConfig(start="source")}


def training(options) -> dict:
    """Return how models are trained."""
    steps = {"max_steps": options.max_steps, "batch_size": options.batch_size}
    return steps | {"validation_size": 0.0, "progress_bar": False}


def rows_of_plan(plan, n_targets: int, key: jax.Array) -> np.ndarray:
    """Return the conditional laws of a plan, source x target cells, from draws of each row."""
    drawn = np.asarray(plan.conditional(key, np.arange(len(plan.source_marginal)), DRAWS))
    counts = np.zeros((len(drawn), n_targets))
    np.add.at(counts, (np.repeat(np.arange(len(drawn)), DRAWS), drawn.ravel()), 1.0 / DRAWS)
    return counts


def scores(found: np.ndarray, truth: np.ndarray, marginal: np.ndarray, undecided: int) -> dict[str, float]:
    """Score predicted fates, cells x types, against shares of clones."""
    mixed = (1 - MIXED) * found + MIXED * marginal
    row = {
        "own fates": (found * (truth > 0)).sum(axis=1).mean(),
        "log-likelihood": (truth * np.log(np.maximum(mixed, 1e-12))).sum(axis=1).mean(),
    }
    left, clear = np.delete(found, undecided, axis=1), np.delete(truth, undecided, axis=1)
    mass, decided = left.sum(axis=1), clear.sum(axis=1)
    some = (mass > 0) & (decided > 0)
    row["own fates, decided"] = np.average(
        (left[some] * (clear[some] > 0)).sum(axis=1) / mass[some], weights=mass[some]
    )
    return row


def larry(options) -> pd.DataFrame:
    """Compare fates of left-out clones."""
    adata = data("larry_clonal_subset")
    day, clone = adata.obs["time"].to_numpy(), adata.obs["clone"].to_numpy()
    types = adata.obs["cell_type"].astype(str)
    late = day == DAYS[-1]
    names = pd.Index(sorted(types[late].unique()))
    undecided = names.get_loc(UNDECIDED)
    fates = pd.crosstab(clone[late], types[late], normalize="index").reindex(columns=names, fill_value=0.0)
    known = ~late & np.isin(clone, fates.index)
    rows = []
    for seed in options.seeds:
        clones = np.random.default_rng(seed).permutation(np.unique(clone[known]))
        collected: dict[tuple, list] = {}
        for fold in range(FOLDS):
            test = known & np.isin(clone, clones[fold::FOLDS])
            train = adata[~test].copy()
            scgenot.GENOT.setup_anndata(train, time_key="time")
            for name in options.starts:
                model = scgenot.GENOT(train, flow_config=FLOW[name])
                model.train(rng=seed, **training(options))
                for start in DAYS[:-1]:
                    asked = np.flatnonzero(test & (day == start))
                    if not len(asked):
                        continue
                    for near in ASKED:
                        found = model.get_label_probabilities(
                            adata, label_key="cell_type", indices=asked, until=DAYS[-1], n_neighbors=near, target=train
                        )
                        found = found.rename(columns=str).reindex(columns=names, fill_value=0.0).to_numpy()
                        label = f"scgenot, from {name}, {near} asked"
                        collected.setdefault((start, label), []).append((asked, found))
            for start, label, asked, found in baselines(adata, train, model, test, fates, names):
                collected.setdefault((start, label), []).append((asked, found))
        marginal = types[late].value_counts(normalize=True).reindex(names, fill_value=0.0).to_numpy()
        for (start, label), parts in collected.items():
            asked, found = (np.concatenate(one) for one in zip(*parts, strict=True))
            truth = fates.loc[clone[asked]].to_numpy()
            rows.append(
                {"from": start, "fates": label, "cells": len(asked)} | scores(found, truth, marginal, undecided)
            )
    table = pd.DataFrame(rows).groupby(["from", "fates"])
    return table.mean().join(table["own fates, decided"].std().rename("sd over seeds"))


def baselines(adata, train, model, test: np.ndarray, fates: pd.DataFrame, names: pd.Index):
    """Yield what plans, types and marginal fates say of left-out cells, by day."""
    day, types, clone = adata.obs["time"].to_numpy(), adata.obs["cell_type"].astype(str), adata.obs["clone"].to_numpy()
    own = train.obs["time"].to_numpy()
    x = {time: train.obsm["X_pca"][own == time] for time in DAYS}
    onehot = pd.get_dummies(train.obs["cell_type"].astype(str)[own == DAYS[-1]]).reindex(columns=names, fill_value=0)
    ends, keys = onehot.to_numpy(float), jax.random.split(jax.random.key(0), 4)
    plans = [part.coupling for part in model.coupling_.parts]
    steps = [
        rows_of_plan(plan, int(np.asarray(plan.target_marginal).shape[0]), key)[: len(x[a]), : len(x[b])]
        for plan, key, a, b in zip(plans, keys[:2], DAYS[:-1], DAYS[1:], strict=True)
    ]
    onwards = {DAYS[1]: steps[1] @ ends, DAYS[0]: steps[0] @ steps[1] @ ends}
    after = {DAYS[1]: ends, DAYS[0]: onwards[DAYS[1]]}
    for number, start in enumerate(DAYS[:-1]):
        asked = np.flatnonzero(test & (day == start))
        if not len(asked):
            continue
        cells = adata.obsm["X_pca"][asked]
        beyond = plans[number].extend(cells, x[DAYS[number + 1]])
        yield start, "plan, extended", asked, rows_of_plan(beyond, len(after[start]), keys[2]) @ after[start]
        near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(x[start]).kneighbors(cells, return_distance=False)
        yield start, "plan, neighbours", asked, onwards[start][near].mean(axis=1)
        trained = ~test & (day == start) & np.isin(clone, fates.index)
        of_type = [trained & (types == one).to_numpy() for one in types.iloc[asked]]
        told = [fates.loc[clone[one if one.any() else trained]].to_numpy().mean(axis=0) for one in of_type]
        yield start, "same type (sees clones)", asked, np.stack(told)
        yield start, "marginal", asked, np.tile(ends.mean(axis=0), (len(asked), 1))


def reprogramming(options) -> pd.DataFrame:
    """Compare cells in between days 10 and 11 with those of day 10.5."""
    adata = data("schiebinger_serum_d10_d11")
    time, cells = adata.obs["time"].to_numpy(), adata.obsm["X_pca"]
    x, truth, y = (cells[time == one] for one in (10.0, 10.5, 11.0))
    scgenot.GENOT.setup_anndata(adata, time_key="time", times=(10.0, 11.0))
    rows = []
    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(truth))
        half, other = truth[order[: len(order) // 2]], truth[order[len(order) // 2 :]]
        n = len(half)
        candidates = {}
        for tau in options.taus:
            for name in options.starts:
                model = scgenot.GENOT(adata, tau_source=tau, tau_target=tau, flow_config=FLOW[name])
                model.train(rng=seed, **training(options))
                between = scgenot.tl.interpolate(adata, model, 10.5, n_samples=2, rng=seed)
                candidates[f"scgenot, from {name}, tau {tau:g}"] = between.X
            i, j = next(model.coupling_.pairs(jax.random.key(seed), batch_size=1024, steps=1))[:2]
            i, j = np.asarray(i).ravel(), np.asarray(j).ravel()
            candidates[f"plan, linear, tau {tau:g}"] = (x[i] + y[j]) / 2
        candidates |= {
            "both ends pooled": np.concatenate([x, y]),
            "day 10": x,
            "day 11": y,
            "other half (floor)": other,
        }
        # How much of an error is that the day's mean does not lie between those of its neighbours: no interpolation knows it.
        for name in [one for one in candidates if one.startswith(("scgenot", "both"))]:
            given = candidates[name]
            candidates[f"{name}, mean given"] = given + half.mean(axis=0) - given.mean(axis=0)
        for name, some in candidates.items():
            # Several draws of as many cells, so that choosing them adds no noise of its own.
            drawn = [some[rng.permutation(len(some))[:n]] for _ in range(5)]
            rows.append(
                {
                    "cells": name,
                    "W1": np.mean([wasserstein(one, half[: len(one)], p=1) for one in drawn]),
                    "energy distance": np.mean([energy_distance(one, half, unbiased=True) for one in drawn]),
                }
            )
    table = pd.DataFrame(rows).groupby("cells", sort=False)
    return table.mean().join(table["W1"].std().rename("W1, sd"))


def cellrank(options) -> pd.DataFrame | None:
    """Correlate absorption probabilities of CellRank, on our couplings, with our fates."""
    try:
        from cellrank.estimators import GPCCA
        from cellrank.kernels import RealTimeKernel
    except ImportError:
        return None
    adata = data("larry_clonal_subset")
    adata.obs["time"] = adata.obs["time"].astype("category")
    late = (adata.obs["time"] == DAYS[-1]).to_numpy()
    counts = adata.obs["cell_type"][late].value_counts()
    ends = [str(name) for name in counts.index[counts >= 20]]
    rows = []
    for seed in options.seeds:
        scgenot.GENOT.setup_anndata(adata, time_key="time")
        model = scgenot.GENOT(adata)
        model.train(rng=seed, **training(options))
        scgenot.tl.fates(adata, model, "cell_type", rng=seed, n_samples=_CELLRANK_SAMPLES)
        # Samples of their own: with the same ones, both would agree on the last step by construction.
        found = scgenot.tl.couplings(adata, model, rng=seed + 1000, n_samples=_CELLRANK_SAMPLES)
        kernel = RealTimeKernel(adata, time_key="time", couplings=found)
        kernel.compute_transition_matrix(threshold=None, self_transitions="diagonal")
        estimator = GPCCA(kernel)
        # All cells of day 6 stay where they are, so each must be in an end: rare types are one together.
        types = adata.obs["cell_type"].astype(str)
        terminal = types.where(types.isin(ends), "other").where(late)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.set_terminal_states(terminal.astype("category"))
            estimator.compute_fate_probabilities(solver="direct", use_petsc=False)
        absorbed = estimator.fate_probabilities
        for time in DAYS[:-1]:
            here = (adata.obs["time"] == time).to_numpy()
            ours = adata.obsm["genot_fates"].loc[here, ends].to_numpy()
            theirs = pd.DataFrame(np.asarray(absorbed.X), columns=list(map(str, absorbed.names)))[ends].to_numpy()[here]
            for k, name in enumerate(ends):
                rho = spearmanr(ours[:, k], theirs[:, k]).statistic
                rows.append({"from": time, "type": name, "cells": int(here.sum()), "Spearman": rho})
    return pd.DataFrame(rows).groupby(["from", "type"]).mean()


def options_of(words: list[str] | None = None):
    """Return what the command line says; an empty list: the defaults."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--max-steps", type=int, default=None, help="the model's default if not given")
    arguments.add_argument("--batch-size", type=int, default=1024)
    arguments.add_argument("--starts", nargs="+", default=["noise", "source"], choices=list(FLOW))
    arguments.add_argument("--taus", type=float, nargs="+", default=[1.0, 0.9])
    arguments.add_argument(
        "--parts",
        nargs="+",
        default=["larry", "reprogramming", "cellrank"],
        choices=["larry", "reprogramming", "cellrank"],
    )
    return arguments.parse_args(words)


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness."""
    small = "--max-steps 50 --batch-size 128 --starts source --taus 1.0" if quick else ""
    options = options_of([*small.split(), "--seeds", str(seed + 1)])
    yield from_frame(
        reprogramming(options).drop(columns="W1, sd"),
        "Reprogramming, day 10.5 left out, against half of its cells",
        floor="^other half",
        baseline="^(both ends pooled|day.*)$",
        reference="mean given",
    )
    if quick:
        return
    yield from_frame(
        larry(options).drop(columns="sd over seeds"),
        "LARRY, fates on day 6 of cells of left-out clones",
        baseline="marginal",
        reference="same type",
        no_floor="how much of a clone's fate is in its early cells is not known; 'same type' has seen other clones' fates",
    )
    found = cellrank(options)
    if found is not None:
        agreement = "two estimates are compared: 1 if they are the same, 0 if they have nothing in common"
        title = "LARRY, absorption probabilities of CellRank against fates"
        yield from_frame(found, title, no_floor=agreement, no_baseline=agreement)


def main() -> None:
    options = options_of()
    if "larry" in options.parts:
        report(larry(options), "LARRY, fates on day 6 of cells of left-out clones", options.json)
    if "reprogramming" in options.parts:
        report(reprogramming(options), "Reprogramming, day 10.5 left out, against half of its cells", options.json)
    if "cellrank" in options.parts:
        found = cellrank(options)
        if found is None:
            print("CellRank is not installed: pip install 'scgenot[cellrank]'")
        else:
            report(found, "LARRY, absorption probabilities of CellRank against scgenot's fates", options.json)


if __name__ == "__main__":
    main()
