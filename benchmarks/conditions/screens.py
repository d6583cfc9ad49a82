"""Real screens: a perturbation in a context is left out, each in turn, beside all baselines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from benchmarks._common import data
from benchmarks.conditions import _models
from benchmarks.conditions._models import CONTROL, Training
from benchmarks.conditions._scores import rank_correlations, score, table, total_variance
from benchmarks.conditions._store import Store
from benchmarks.solvers import conditional_monge_gap

DRAWS = 10
# Pairs of random halves: one pair alone moves the floor by some tenths of a per cent.
HALVES = 5
MAP = "conditional Monge gap"
# Of the solver's 10,000: a fold of GBM then takes some 45 seconds on two cores.
MAP_STEPS = 1000
NAMES = {
    "cytof": ("cytof_stim_chi11", "condition", "cell_type"),
    "gbm": ("gbm_panobinostat", "condition", "patient"),
    "kang": ("kang_ifnb_pbmc", "condition", "cell_type"),
}


@dataclass(frozen=True)
class Screen:
    """Cells under perturbations in contexts. ``pcs`` of 0: the 30 markers are taken as they are."""

    name: str
    features: np.ndarray
    perturbation: np.ndarray
    context: np.ndarray
    given: np.ndarray
    back: np.ndarray
    pcs: int

    @classmethod
    def read(cls, name: str) -> Screen:
        file, perturbation, context = NAMES[name]
        adata = data(file)
        if "highly_variable" in adata.var:
            adata = adata[:, adata.var["highly_variable"]].copy()
        features = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
        labels = adata.obs[perturbation].astype(str).replace({"ctrl": CONTROL}).to_numpy()
        pcs = 0 if name == "cytof" else 50
        given, back = (features, np.eye(features.shape[1])) if not pcs else (adata.obsm["X_pca"], adata.varm["PCs"].T)
        return cls(name, features, labels, adata.obs[context].astype(str).to_numpy(), given, np.asarray(back), pcs)

    @cached_property
    def perturbations(self) -> list[str]:
        return sorted(set(self.perturbation) - {CONTROL})

    @cached_property
    def contexts(self) -> list[str]:
        return sorted(set(self.context))

    def cells(self, perturbation: str, context: str) -> np.ndarray:
        return (self.perturbation == perturbation) & (self.context == context)

    def folds(self, pcs: str) -> Iterator[Fold]:
        for perturbation, context in itertools.product(self.perturbations, self.contexts):
            yield Fold(self, perturbation, context, pcs)


@dataclass(frozen=True)
class Fold:
    """A perturbation in a context that is left out, in a representation that was fitted without it."""

    screen: Screen
    perturbation: str
    context: str
    pcs: str

    @cached_property
    def left(self) -> np.ndarray:
        return self.screen.cells(self.perturbation, self.context)

    @cached_property
    def _fitted(self) -> tuple[np.ndarray, np.ndarray]:
        # Double precision: the effect of doing nothing is zero then, and not a rounding error that correlates with something.
        if self.pcs == "file" or not self.screen.pcs:
            return self.screen.given.astype(np.float64), self.screen.back.astype(np.float64)
        found = PCA(self.screen.pcs, random_state=0).fit(self.screen.features[~self.left])
        return found.transform(self.screen.features).astype(np.float64), found.components_.astype(np.float64)

    @property
    def cells(self) -> np.ndarray:
        return self._fitted[0]

    @property
    def back(self) -> np.ndarray:
        """Linear map from the representation to features."""
        return self._fitted[1]

    @cached_property
    def controls(self) -> np.ndarray:
        return self.cells[self.screen.cells(CONTROL, self.context)]

    @cached_property
    def truth(self) -> np.ndarray:
        return self.cells[self.left]

    @cached_property
    def shifts(self) -> dict[tuple[str, str], np.ndarray]:
        """Difference of means to controls of the same context, of all strata that were not left out."""
        return {
            (perturbation, context): self.cells[self.screen.cells(perturbation, context)].mean(axis=0)
            - self.cells[self.screen.cells(CONTROL, context)].mean(axis=0)
            for perturbation, context in itertools.product(self.screen.perturbations, self.screen.contexts)
            if (perturbation, context) != (self.perturbation, self.context)
        }


def baselines(fold: Fold) -> dict[str, np.ndarray]:
    """Return what each baseline adds to the controls of the context that was left out."""
    shifts, own = fold.shifts, fold.context
    contexts = [one for one in fold.screen.contexts if one != own]
    others = [one for one in fold.screen.perturbations if one != fold.perturbation]
    centre = fold.controls.mean(axis=0)
    away = lambda one: np.sum((fold.cells[fold.screen.cells(CONTROL, one)].mean(axis=0) - centre) ** 2)
    mean = lambda names: np.mean([shifts[name] for name in names], axis=0)
    shift = mean([(fold.perturbation, one) for one in contexts])
    found = {
        "nothing": np.zeros_like(shift),
        "mean shift": shift,
        "nearest context, controls": shifts[fold.perturbation, min(contexts, key=away)],
    }
    if others:
        same = mean([(one, own) for one in others])
        # The least-squares fit of a perturbation's and a context's effect to a table with one hole.
        found["two-way additive"] = shift + same - mean(itertools.product(others, contexts))
        found["same context, other perturbations"] = same
        unlike = lambda one: sum(np.sum((shifts[other, one] - shifts[other, own]) ** 2) for other in others)
        found["nearest context, responses"] = shifts[fold.perturbation, min(contexts, key=unlike)]
    return found | {"true shift (oracle)": fold.truth.mean(axis=0) - centre}


def treated_mean(fold: Fold) -> np.ndarray:
    """Return the mean treated cell of training: of this context, or, where it has none, controls plus the mean effect."""
    here = [shift for (_, context), shift in fold.shifts.items() if context == fold.context]
    return fold.controls.mean(axis=0) + np.mean(here or list(fold.shifts.values()), axis=0)


def halves(fold: Fold) -> dict:
    """Score half of the cells that were left out as a prediction of the other half."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(fold.truth)) for _ in range(HALVES)]
    cut = len(fold.truth) // 2
    scores = [score([fold.truth[order[:cut]]], fold.truth[order[cut:]], fold.back) for order in orders]
    return {key: np.mean([one[key] for one in scores], axis=0).tolist() for key in scores[0]}


def condition_vector(fold: Fold, perturbation: str, context: str) -> np.ndarray:
    """Return the perturbation, one-hot, and its context: one-hot where training sees it treated, else the mean of its controls."""
    screen = fold.screen
    if len(screen.perturbations) > 1:
        described = np.array(screen.contexts) == context
    else:
        described = fold.cells[screen.cells(CONTROL, context)].mean(axis=0)
    return np.concatenate([np.array(screen.perturbations) == perturbation, described])


def images(fold: Fold, steps: int, seed: int) -> np.ndarray:
    """Train the conditional Monge gap on all other pairs; return one image, as it is deterministic, of each control of the one left out.

    Steps are `MAP_STEPS` at most in place of 10,000, and epsilons .05 of the mean cost, as ours: the solver's own are .001 of it in 50
    dimensions, where 120 steps took more than 28 core seconds. All else are its defaults.
    """
    cells, screen, given = fold.cells, fold.screen, list(fold.shifts)
    pairs = [(cells[screen.cells(CONTROL, context)], cells[screen.cells(name, context)]) for name, context in given]
    vectors = np.array([condition_vector(fold, *one) for one in given])
    # Cells have a mean variance of 1 there.
    epsilons = dict.fromkeys(("fit_epsilon", "gap_epsilon"), 0.05 * 2 * cells.shape[1])
    fitted = conditional_monge_gap.fit(jax.random.key(seed), pairs, vectors, steps=steps, **epsilons)
    return fitted.mean(fold.controls, condition_vector(fold, fold.perturbation, fold.context))


def predictions(fold: Fold, training: Training, seed: int, kind: str) -> np.ndarray:
    """Train one model, return draws x cells x features; `kind` says on which cells, and what it knows of conditions."""
    screen = fold.screen
    if kind == MAP:
        return images(fold, min(training.steps, MAP_STEPS), seed)[None]
    if kind == "ceiling":
        # The one model here that has seen what it is asked for, and nothing else.
        kept = fold.left | screen.cells(CONTROL, fold.context)
    else:
        kept = ~fold.left
        if kind == "GENOT, this perturbation alone":
            kept &= np.isin(screen.perturbation, (CONTROL, fold.perturbation))
    adata = _models.adata_of(fold.cells, perturbation=screen.perturbation, context=screen.context)
    if kind.startswith("GENOT, all"):
        setup, condition = _models.perturbations(kind.removeprefix("GENOT, all, context ")), fold.perturbation
    else:
        setup, condition = _models.one_perturbation(fold.perturbation, matched=kind != "ceiling"), None
    train = adata[kept].copy()
    _models.describe_contexts(train)
    model = _models.fit(train, training, seed, setup=setup)
    rows = np.flatnonzero((train.obs["perturbation"] == CONTROL) & (train.obs["context"] == fold.context))
    return _models.predicted(model, train, rows, condition, DRAWS)


def model_scores(fold: Fold, training: Training, seed: int, kind: str) -> dict:
    """Train one model and score it at what was left out."""
    draws = predictions(fold, training, seed, kind)
    found = score(list(draws), fold.truth, fold.back)
    if kind == MAP or kind.startswith("GENOT, all"):
        move = draws.mean(axis=(0, 1)) - fold.controls.mean(axis=0)
        found["halfway"] = score(list(draws + (baselines(fold)["mean shift"] - move) / 2), fold.truth, fold.back)
    if kind != MAP:
        # Half the samples against the other half would be noise: how far samples of one cell lie from its mean.
        found["spread of samples"] = float(draws.astype(np.float64).var(axis=0, ddof=1).sum(axis=-1).mean())
    return found


def kinds(screen: Screen) -> tuple[str, ...]:
    """Return the models that are trained; a context is shown by its name only where training sees it treated."""
    seen = ("GENOT, all, context seen", "GENOT, all, context not seen") if len(screen.perturbations) > 1 else ()
    if seen:
        seen = (*seen, "GENOT, all, context by responses")
    return (*seen, "GENOT, all, context by controls", "GENOT, this perturbation alone", "ceiling")


def measured(fold: Fold, training: Training, seeds: Sequence[int], fitted: tuple[str, ...], store: Store) -> dict:
    """Return the scores of all predictions of a fold, means over seeds, and what predicts their errors."""
    methods = {"replicate halves": halves(fold)}
    methods |= {name: score([fold.controls + shift], fold.truth, fold.back) for name, shift in baselines(fold).items()}
    responses = np.array([shift for (name, _), shift in fold.shifts.items() if name == fold.perturbation])
    predictors = {
        "spread of responses over other contexts": float(responses.var(axis=0, ddof=1).sum()),
        "size of the mean shift": float(np.sum(responses.mean(axis=0) ** 2)),
    }
    for kind in fitted:
        runs = []
        for seed in seeds:
            key = {"case": fold.screen.name, "kind": kind, "left out": [fold.perturbation, fold.context]}
            # Of the settings, the map has the steps only.
            settings = {"steps": min(training.steps, MAP_STEPS)} if kind == MAP else training.as_key()
            key |= {"pcs": fold.pcs, "seed": seed, "training": settings}
            runs.append(store.get(key, lambda kind=kind, seed=seed: model_scores(fold, training, seed, kind)))
        # Results that were kept before there was one have none.
        halfway = [run.pop("halfway", None) for run in runs]
        methods[kind] = _means(runs)
        if all(halfway):
            methods[f"{kind}, halfway to the mean shift"] = _means(halfway)
        means = np.array([run["mean"] for run in runs])
        predictors[f"{kind}: size of the effect"] = float(
            np.sum((means.mean(axis=0) - fold.controls.mean(axis=0) @ fold.back) ** 2)
        )
        if kind != MAP:
            predictors[f"{kind}: spread of samples"] = methods[kind]["spread of samples"]
        if len(runs) > 1:
            predictors[f"{kind}: spread over seeds"] = float(means.var(axis=0, ddof=1).sum())
    return {
        "perturbation": fold.perturbation,
        "context": fold.context,
        "observed": fold.truth.mean(axis=0) @ fold.back,
        "controls": fold.controls.mean(axis=0) @ fold.back,
        "treated": treated_mean(fold) @ fold.back,
        "variance": total_variance(fold.truth),
        "methods": methods,
        "predictors": predictors,
    }


def _means(runs: Sequence[dict]) -> dict:
    return {name: np.mean([run[name] for run in runs], axis=0).tolist() for name in runs[0]}


def run(name: str, options) -> dict[str, pd.DataFrame]:
    """Return the tables of a screen."""
    screen = Screen.read(name)
    folds = list(screen.folds(options.pcs))
    # Settings are chosen on a quarter of the folds, so that the others can say what they are worth.
    order = np.random.default_rng(0).permutation(len(folds))
    cut = len(folds) // 4
    numbers = {"all": np.arange(len(folds)), "tuning": np.sort(order[:cut]), "report": np.sort(order[cut:])}[
        options.folds
    ]
    chosen = [folds[number] for number in numbers[: options.max_folds]]
    asked = options.kinds or kinds(screen)
    fitted = () if options.baselines else tuple(one for one in (*kinds(screen), MAP) if one in asked)
    found = [measured(fold, options.training, options.seeds, fitted, options.store) for fold in chosen]
    title = f"{name}, {len(found)} left out in turn ({options.folds}), % of doing nothing"
    tables = {title: table(found)}
    for kind in [one for one in fitted if one != "ceiling"] if len(found) > 2 else ():
        tables[f"{name}, predicted against actual error: {kind}"] = rank_correlations(found, kind)
    return tables
