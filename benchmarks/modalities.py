"""Cells across modalities: how near the model brings cells that it never saw to their true partners.

Everything is scored on 20 % of the cells, held out from both sides. Pairings and labels serve for scores only, but for the
known pairs of the section ``pairs`` and the ridge regression, which is given all pairs of the training cells. FOSCTTM is
measured among held-out cells (chance .5), labels by the 5 nearest training cells of the target modality. "mean" is the mean of
30 samples, "sample" one sample, "discrete" the mean over training cells by the plan that the network learns from.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV

from benchmarks._common import parser, report
from benchmarks._modalities import (
    COSTS,
    STEPS,
    Task,
    all_scores,
    discrete,
    held_samples,
    scicar,
    scores,
    snareseq,
    source_cells,
    task,
    trained,
)
from benchmarks._spatial import drosophila
from benchmarks._tables import Row, Table, from_names
from scgenot.metrics import foscttm

LEVELS = (0.5, 0.8, 0.9, 0.95)


@functools.cache
def snareseq_model(seed: int, cost: str = "euclidean"):
    one = task(snareseq(), seed)
    return one, trained(one, seed, cost=COSTS[cost])


def unpaired(seeds: Sequence[int], cost: str) -> pd.DataFrame:
    """SNARE-seq, nothing known."""
    rows = {}
    for seed in seeds:
        one, model = snareseq_model(seed, cost)
        rows[f"seed {seed}"] = all_scores(model, one) | ridge(one)
    table = pd.DataFrame(rows).T
    worst = {name: table[name].max() if name.startswith("FOSCTTM") else table[name].min() for name in table}
    table.loc["mean"], table.loc["worst"] = table.mean(), pd.Series(worst)
    table.loc["bar, every seed"] = pd.Series({"FOSCTTM mean": 0.155, "labels mean": 0.93})
    return table.rename_axis(f"SNARE-seq, {cost}")


def known_pairs(seeds: Sequence[int]) -> pd.DataFrame:
    """SNARE-seq with some of the training pairs known, on the same held-out cells.

    "training": the plan's conditional means of the training cells, those with a known partner among them; so published
    figures of other methods are measured.
    """
    rows = {}
    for seed in seeds:
        for share in (0.0, 0.1, 0.3):
            one = task(snareseq(), seed, known=share)
            model = trained(one, seed, pairs=True) if share else snareseq_model(seed)[1]
            means = discrete(model, one.train.source, one.mdata["target"].obsm["X_rep"])
            found = all_scores(model, one) | {"FOSCTTM training": foscttm(means, one.train.target)}
            kept = ("FOSCTTM mean", "FOSCTTM training", "labels mean")
            row = rows.setdefault(f"seed {seed}", {})
            row |= {f"{name}, {100 * share:.0f} %": found[name] for name in kept}
    table = pd.DataFrame(rows).T
    table = table[sorted(table, key=lambda name: name.split(",")[0])]
    table.loc["mean"] = table.mean()
    return table.rename_axis("pairs known")


def ridge(one: Task) -> dict[str, float]:
    """Score a regression on all true pairs of the training cells."""
    fitted = RidgeCV(np.geomspace(1e-3, 1e3, 13)).fit(one.train.source, one.train.target)
    return scores(fitted.predict(one.held.source), one, "ridge, supervised")


def beside_ridge(paired, seeds: Sequence[int], cells: int | None = None, **options) -> pd.DataFrame:
    """Beside the discrete plan and a ridge regression on all true pairs of training cells."""
    rows = {}
    for seed in seeds:
        few = paired
        if cells is not None:
            few = paired.some(np.random.default_rng(1000 + seed).choice(len(paired.source), cells, replace=False))
        one = task(few, seed)
        rows[f"seed {seed}"] = all_scores(trained(one, seed, **options), one) | ridge(one)
    table = pd.DataFrame(rows).T
    table.loc["mean"] = table.mean()
    return table.rename_axis(f"{len(one.train.source)} + {len(one.held.source)} cells")


def coverage(samples: np.ndarray, truth: np.ndarray, k: int = 5) -> np.ndarray:
    """Return at which level of the samples' law each true partner lies.

    A point of low density is far from its k-th nearest neighbour. The partner is ranked by that distance among the samples,
    all with the same neighbours: were it one more draw from the law, its rank would be uniform.
    """
    levels = np.empty(len(truth))
    for i, (drawn, partner) in enumerate(zip(samples, truth, strict=True)):
        points = np.concatenate([drawn, partner[None]])
        distances = np.sort(np.linalg.norm(points[:, None] - points[None], axis=-1), axis=1)[:, k]
        levels[i] = (distances <= distances[-1]).mean()
    return levels


def uncertainty(seeds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """SNARE-seq: does uncertainty go with error, and how often do samples surround the true partner."""
    ranks, covered = {}, {}
    for seed in seeds:
        one, model = snareseq_model(seed)
        samples = held_samples(model, one.held.source, 100)
        error = np.linalg.norm(samples[:, :30].mean(axis=1) - one.held.target, axis=1)
        found = model.get_uncertainty(source_cells(one.held.source), indices=np.arange(len(error)))
        row = {name: spearmanr(found[name], error).statistic for name in ("cos_var", "variance")}
        within = [
            spearmanr(found["cos_var"][of], error[of]).statistic
            for of in (one.held.labels == label for label in np.unique(one.held.labels))
        ]
        ranks[f"seed {seed}"] = row | {"cos_var, mean within cell lines": np.mean(within)}
        levels = coverage(samples, one.held.target)
        covered[f"seed {seed}"] = {f"nominal {level:.2f}": (levels <= level).mean() for level in LEVELS}
    tables = pd.DataFrame(ranks).T, pd.DataFrame(covered).T
    for table in tables:
        table.loc["mean"] = table.mean()
    tables[0].loc["bar"] = pd.Series({"cos_var": 0.3})
    return tables[0].rename_axis("Spearman with error"), tables[1].rename_axis("share of partners covered")


def size(cells: int) -> pd.DataFrame:
    """Train in a fresh process, so that its peak memory is that of this job alone."""
    command = [sys.executable, "-m", "benchmarks._modalities_size", str(cells)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    table = pd.DataFrame({"figure": json.loads(done.stdout.splitlines()[-1])})
    table["bar"] = pd.Series({"peak memory, GiB": 4.0})
    return table.rename_axis("what")


SECTIONS = ("snareseq", "pairs", "small", "scicar", "drosophila", "uncertainty", "size")


_ENDS = {"FOSCTTM": (0.0, 0.5)}


def _scored(scores: dict[str, float], title: str, labels: dict[str, float], note: str = "") -> Table:
    """Return the table of scores that `all_scores` and `ridge` name; `labels` counts true labels, for the chance of one."""
    likeliest = max(labels.values()) / sum(labels.values())
    told = {name.replace("labels,", "labels"): value for name, value in scores.items()}
    roles = {"ridge, supervised": "reference"}
    ends = _ENDS | {"labels": (1.0, likeliest)}
    return from_names(told, title, ["FOSCTTM", "labels"], roles, separator=" ", ends=ends, note=note)


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness: of held-out cells, by mean, sample, discrete plan, and a regression on all true pairs."""
    pairs = snareseq()
    counts = dict(zip(*np.unique(pairs.labels, return_counts=True), strict=True))
    for name in ["euclidean"] if quick else COSTS:
        one, model = snareseq_model(seed, name)
        yield _scored(all_scores(model, one) | ridge(one), f"SNARE-seq, unpaired, {name}", counts)
    if quick:
        return
    known = known_pairs([seed]).loc["mean"]
    found: dict[str, dict] = {}
    for name, value in known.items():
        measure, share = name.split(", ")
        found.setdefault(share, {})[measure] = value
    made = [Row({"pairs known": share}, values) for share, values in found.items()]
    # By the names of the columns of `known_pairs`.
    best = {"FOSCTTM mean": 0.0, "FOSCTTM training": 0.0, "labels mean": 1.0}
    chance = {"FOSCTTM mean": 0.5, "FOSCTTM training": 0.5, "labels mean": max(counts.values()) / sum(counts.values())}
    made += [Row({"pairs known": "best possible"}, best, "floor"), Row({"pairs known": "chance"}, chance, "baseline")]
    yield Table("SNARE-seq, some pairs of training cells known", made)
    for name, cost in COSTS.items():
        few = beside_ridge(pairs, [seed], cells=180, cost=cost).loc["mean"].to_dict()
        yield _scored(few, f"SNARE-seq, 180 cells, {name}", counts)
    far = drosophila([seed]).loc["mean"].drop("fused / quadratic").to_dict()
    roles = {"nearest by markers": "reference", "centre of the embryo": "baseline"}
    yield Table(
        "Drosophila embryo, expression to position",
        [Row({"prediction": name}, {"distance, µm": value}, roles.get(name, "solver")) for name, value in far.items()],
        no_floor="the true position, 0",
    )


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS))
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--cells", type=int, default=50_000, help="cells a side of the section `size`")
    options = arguments.parse_args()
    seeds = range(options.seeds)
    for section in options.only:
        if section == "snareseq":
            for cost in COSTS:
                title = f"SNARE-seq, chromatin to RNA, unpaired, {cost}, {STEPS} steps"
                report(unpaired(seeds, cost), title, options.json)
        elif section == "pairs":
            report(known_pairs(seeds), "SNARE-seq, some pairs of training cells known", options.json)
        elif section == "small":
            title = "small data: 180 cells of SNARE-seq (a stand-in for scGEM, which has 177)"
            for name, cost in COSTS.items():
                report(beside_ridge(snareseq(), seeds, cells=180, cost=cost), f"{title}, {name}", options.json)
        elif section == "scicar":
            for name, cost in COSTS.items():
                found = beside_ridge(scicar(), seeds[:2], landmarks=500, cost=cost)
                report(found, f"sci-CAR, weak signal, {name}", options.json)
        elif section == "drosophila":
            report(drosophila(seeds), "Drosophila embryo, expression to position; distances in µm", options.json)
        elif section == "uncertainty":
            for table in uncertainty(seeds):
                report(table, "SNARE-seq, uncertainty of held-out cells", options.json)
        else:
            report(size(options.cells), f"{options.cells} cells a side, landmarks", options.json)


if __name__ == "__main__":
    main()
