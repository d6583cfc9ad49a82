"""Real populations with held-out cells, and what is measured of predictions for them: of the table of solvers on real data."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from benchmarks._common import data
from benchmarks._modalities import Task, snareseq, task
from benchmarks.conditions._scores import score
from benchmarks.conditions.screens import Screen
from benchmarks.genes import split
from benchmarks.perturbation import DRAWS, SOURCE, TARGET, cells
from scgenot.costs import cost_scale, resolve_cost
from scgenot.flow import TargetRegions, conditional_variance, reference_rows
from scgenot.metrics import energy_distance, mmd_rbf

# The package's default, in units of the mean cost.
EPSILON = 0.05
# Neighbours that tell the type of a predicted cell, as `label_transfer_accuracy` asks them.
VOTES = 5
# Ways to halve the held-out target cells.
SPLITS = 20
# Unbiased all of them (U-statistics), but for one: it is never negative, and counts the noise of finite samples as distance.
BIASED = "energy distance (V)"
DISTANCES = ("energy distance", BIASED, "MMD", "error of means")


@dataclasses.dataclass(frozen=True)
class Problem:
    """Two populations in one space, and held-out cells of both.

    Attributes
    ----------
    name
        What tables call it.
    x, y
        Training cells of both sides.
    test, truth
        Held-out source cells, and held-out target cells, which are no partners of them.
    types
        Of the training target cells; ``None`` where cells have none.
    truth_types
        Of the held-out target cells.
    right
        Which types are right for each held-out source cell, test cells x `names`.
    names
        The types.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    test: np.ndarray
    truth: np.ndarray
    types: np.ndarray | None = None
    truth_types: np.ndarray | None = None
    right: np.ndarray | None = None
    names: np.ndarray | None = None

    def some(self, n: int, n_test: int) -> Problem:
        """Return the problem with the first cells of each part."""
        first = {name: getattr(self, name)[:n] for name in ("x", "y")}
        first |= {name: getattr(self, name)[:n_test] for name in ("test", "truth")}
        if self.right is not None:
            first |= {"types": self.types[:n], "truth_types": self.truth_types[:n_test], "right": self.right[:n_test]}
        return dataclasses.replace(self, **first)

    @functools.cached_property
    def epsilon(self) -> float:
        """The package's default epsilon, in units of ``|x - y|^2``."""
        x, y = (jax.device_put(side) for side in (self.x, self.y))
        return EPSILON * float(cost_scale(resolve_cost("sqeuclidean"), x, y, "mean"))

    @functools.cached_property
    def shift(self) -> np.ndarray:
        """Difference of the means of the training cells."""
        return self.y.mean(axis=0) - self.x.mean(axis=0)

    @functools.cached_property
    def widths(self) -> list[float]:
        """Bandwidths of the MMD, the same for all predictions: the median heuristic over the held-out cells."""
        median = float(np.median(pdist(np.concatenate([self.test, self.truth]))))
        return [0.5 * median, median, 2.0 * median]

    @functools.cached_property
    def nothing(self) -> dict[str, float]:
        """The distances that doing nothing leaves."""
        return self.distances([self.test], self.truth)

    @functools.cached_property
    def regions(self) -> TargetRegions:
        """Regions of the training target cells, by which the package measures uncertainty."""
        return TargetRegions.of(self.y[reference_rows(len(self.y), np.random.default_rng(0))])

    def distances(self, draws, truth: np.ndarray) -> dict[str, float]:
        """Return distances of populations, means over draws."""
        found = score(draws, truth, np.eye(truth.shape[1]))
        biased = np.mean([energy_distance(one, truth) for one in draws])
        mmd = np.mean([mmd_rbf(one, truth, self.widths, unbiased=True) for one in draws])
        return dict(zip(DISTANCES, (found["energy"], float(biased), float(mmd), found["error of means"]), strict=True))

    def voted(self, predicted: np.ndarray) -> np.ndarray:
        """Return the type of predicted cells, by their nearest training target cells."""
        return KNeighborsClassifier(VOTES).fit(self.y, self.types).predict(predicted)

    def is_right(self, predicted: np.ndarray) -> np.ndarray:
        """Return whether the type of each predicted cell is right for its source cell."""
        return self.right[np.arange(len(predicted)), np.searchsorted(self.names, self.voted(predicted))]

    def scores(self, samples: np.ndarray, stochastic: bool) -> dict[str, float]:
        """Score samples of the held-out source cells, cells x samples x features; of maps, one sample."""
        samples = np.asarray(samples, np.float32)
        draws = [samples[:, number] for number in range(min(DRAWS, samples.shape[1]))]
        found = self._percent(self.distances(draws, self.truth))
        if self.right is None:
            return found
        right = self.is_right(samples.mean(axis=1, dtype=np.float64))
        found |= {"types, mean": right.mean(), "types, draw": np.mean([self.is_right(one).mean() for one in draws])}
        # It takes wrong cells and right ones to rank them.
        if stochastic and 0 < right.sum() < len(right):
            found["AUROC, uncertainty"] = roc_auc_score(~right, self.regions.entropy(samples))
            found["AUROC, variance"] = roc_auc_score(~right, conditional_variance(samples).sum(axis=1))
        return found

    def floor(self) -> dict[str, float]:
        """Score halves of the held-out target cells against each other, and how often a true target cell's type is read right.

        Over all ways to halve them the mean of an unbiased distance is 0: what is told is its root mean square.
        """
        rng, found = np.random.default_rng(0), []
        for _ in range(SPLITS):
            order = rng.permutation(len(self.truth))
            half = len(order) // 2
            found.append(self.distances([self.truth[order[:half]]], self.truth[order[half:]]))
        row = self._percent({name: float(np.sqrt(np.mean([one[name] ** 2 for one in found]))) for name in found[0]})
        # Halves have fewer cells than predictions have, so more of the noise that this one counts as distance.
        del row[f"{BIASED}, %"]
        if self.right is not None:
            read = float(np.mean(self.voted(self.truth) == self.truth_types))
            row |= {"types, mean": read, "types, draw": read}
        return row

    def trivial(self, rng: np.random.Generator, n: int) -> dict[str, dict[str, float]]:
        """Score what takes no learning, by name."""
        drawn = self.y[rng.integers(len(self.y), size=(len(self.test), n))]
        return {
            "nothing": self.scores(self.test[:, None], False),
            "mean shift": self.scores((self.test + self.shift)[:, None], False),
            # The right population, whatever the cell is: only types and errors of cells tell it from a good solver.
            "independent": self.scores(drawn, True),
        }

    def _percent(self, distances: dict[str, float]) -> dict[str, float]:
        return {f"{name}, %": 100 * value / self.nothing[name] for name, value in distances.items()}


def kang(seed: int) -> Problem:
    """Control to stimulated blood cells, a fifth of both held out; a cell is to keep its type."""
    train, held = split(data("kang_ifnb_pbmc"), seed)
    label = lambda one, condition: one.obs["cell_type"][one.obs["condition"] == condition].to_numpy(str)
    types, own = label(train, TARGET), label(held, SOURCE)
    names = np.unique(types)
    sides = [cells(one, side).astype(np.float32) for one in (train, held) for side in (SOURCE, TARGET)]
    return Problem("Kang", *sides, types, label(held, TARGET), own[:, None] == names, names)


def gbm(seed: int) -> Problem:
    """Treated glioblastoma cells of a patient whom training never saw: another patient for each seed."""
    screen = Screen.read("gbm")
    fold = list(screen.folds("fit"))[seed % len(screen.contexts)]
    controls = screen.perturbation == "control"
    other = screen.context != fold.context
    sides = [fold.cells[rows] for rows in (controls & other, ~controls & other)]
    return Problem("GBM", *(one.astype(np.float32) for one in (*sides, fold.controls, fold.truth)))


def larry(seed: int) -> Problem:
    """Blood progenitors from day 4 to 6: half of the clones that have cells on both are left out, and are to get types that they have."""
    adata = data("larry_clonal_subset")
    day, clone = adata.obs["time"].to_numpy(), adata.obs["clone"].to_numpy()
    kind, places = adata.obs["cell_type"].to_numpy(str), np.asarray(adata.obsm["X_pca"], np.float32)
    early, late = day == 4.0, day == 6.0
    both = np.intersect1d(clone[early], clone[late])
    left = np.isin(clone, np.random.default_rng(seed).permutation(both)[: len(both) // 2])
    names = np.unique(kind[late & ~left])
    fates = pd.crosstab(clone[late & left], kind[late & left]).reindex(columns=names, fill_value=0)
    right = fates.loc[clone[early & left]].to_numpy() > 0
    sides = [places[rows] for rows in (early & ~left, late & ~left, early & left, late & left)]
    return Problem("LARRY", *sides, kind[late & ~left], kind[late & left], right, names)


def modalities(seed: int, n_cells: int | None = None) -> tuple[Task, Problem]:
    """Chromatin to RNA of four cell lines, a fifth held out: the task, and what is measured in RNA's space.

    "Nothing" is the centre of the training cells of that space, since source cells are in none.
    """
    pairs = snareseq()
    if n_cells is not None:
        pairs = pairs.some(np.random.default_rng(seed).permutation(len(pairs.source))[:n_cells])
    one = task(pairs, seed)
    train, held = one.train, one.held
    centre = np.repeat(train.target.mean(axis=0, keepdims=True), len(held.source), axis=0)
    names = np.unique(train.labels)
    right = held.labels[:, None] == names
    sides = (train.source, train.target, centre, held.target)
    return one, Problem("SNARE-seq", *sides, train.labels, held.labels, right, names)
