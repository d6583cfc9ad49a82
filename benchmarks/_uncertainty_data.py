"""Samples of held-out cells whose errors are known: what the benchmark of uncertainty ranks."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from pathlib import Path

import mudata
import numpy as np
from scipy.special import logsumexp

import scgenot
from benchmarks._common import data, two_populations
from benchmarks._modalities import held_samples, snareseq, source_cells, task, trained
from scgenot._demo import LABELS, REP, SOURCE, TARGET, split_panels
from scgenot.datasets import gaussian_mixture

SAMPLES = 50
# Enough that held-out energy distances have settled, and minutes on two cores.
STEPS, BATCH = 1000, 256
MIXTURE_CELLS, MIXTURE_TEST, MIXTURE_DIM = 1000, 300, 4
MIXTURE_ROUGH = (0.25, 4.0)


@dataclasses.dataclass(frozen=True)
class Case:
    """Held-out source cells, their samples, and what is known of them.

    Attributes
    ----------
    source, samples
        Held-out source cells (n, dx) and their samples (n, 50, dy).
    target
        Training cells of the target population (m, dy).
    source_labels, target_labels
        Their labels, or empty.
    truth
        What a good uncertainty grows with: 1 for a wrong cell and 0 for a right one, or a number (the distance to the true
        partner, the true conditional entropy).
    one_space
        Whether source and target have one space.
    """

    source: np.ndarray
    samples: np.ndarray
    target: np.ndarray
    source_labels: np.ndarray
    target_labels: np.ndarray
    truth: np.ndarray
    one_space: bool


def kang(seed: int) -> Case:
    """Half of the control and stimulated cells train, the other controls are judged: wrong is a mean amid another type."""
    adata = data("kang_ifnb_pbmc")
    rng = np.random.default_rng(seed)
    judged = np.zeros(adata.n_obs, dtype=bool)
    for condition in ("control", "stimulated"):
        rows = np.flatnonzero((adata.obs["condition"] == condition).to_numpy())
        judged[rng.permutation(rows)[: len(rows) // 2]] = True
    train, held = adata[~judged].copy(), adata[judged & (adata.obs["condition"] == "control").to_numpy()].copy()
    scgenot.GENOT.setup_anndata(
        train, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    )
    model = scgenot.GENOT(train, epsilon=0.05)
    model.train(max_steps=STEPS, batch_size=BATCH, validation_size=0.0, progress_bar=False, rng=seed)
    samples = model.sample(held, n_samples=SAMPLES)
    stimulated = train[(train.obs["condition"] == "stimulated").to_numpy()]
    return labelled(
        np.asarray(held.obsm["X_pca"], np.float32),
        samples,
        np.asarray(stimulated.obsm["X_pca"], np.float32),
        held.obs["cell_type"].to_numpy(str),
        stimulated.obs["cell_type"].to_numpy(str),
        one_space=True,
    )


def snare(seed: int) -> Case:
    """Chromatin to RNA of four cell lines: wrong is a mean amid another line."""
    one = task(snareseq(), seed)
    samples = held_samples(trained(one, seed), one.held.source, SAMPLES)
    return labelled(one.held.source, samples, one.train.target, one.held.labels, one.train.labels, one_space=False)


def panels(seed: int) -> Case:
    """Blood cells through two gene panels: the truth is the distance of the mean to the true partner."""
    with mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else contextlib.nullcontext():
        cells = split_panels(seed)
    held = cells[SOURCE].obs["held_out"].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train = mudata.MuData({name: cells[name][~held].copy() for name in (SOURCE, TARGET)})
    scgenot.GENOT.setup_mudata(train, source_modality=SOURCE, target_modality=TARGET, source_rep=REP, target_rep=REP)
    model = scgenot.GENOT(train)
    model.train(max_steps=STEPS, batch_size=BATCH, validation_size=0.0, progress_bar=False, rng=seed)
    source, partner = (np.asarray(cells[name].obsm[REP][held], np.float32) for name in (SOURCE, TARGET))
    names = source_cells(source)
    names.obsm[REP] = names.obsm.pop("X_rep")
    samples = model.sample(names, indices=np.arange(len(source)), n_samples=SAMPLES)
    labels = cells[SOURCE].obs[LABELS].to_numpy(str)
    error = np.linalg.norm(samples.mean(axis=1) - partner, axis=1)
    target = np.asarray(train[TARGET].obsm[REP], np.float32)
    return Case(source, samples, target, labels[held], labels[~held], error, one_space=False)


def mixture(seed: int) -> Case:
    """A Gaussian to a mixture with several modes: the truth is the entropy of the true conditional law, in nats."""
    problem = gaussian_mixture(MIXTURE_DIM, rng=seed)
    rng = np.random.default_rng(seed)
    source, target = problem.sample_source(rng, MIXTURE_CELLS), problem.sample_target(rng, MIXTURE_CELLS)
    adata = two_populations(source, target)
    scgenot.GENOT.setup_anndata(
        adata, population_key="population", source="source", target="target", source_rep="X_rep"
    )
    model = scgenot.GENOT(adata, epsilon=float(problem.epsilon), scale_cost=1.0)
    model.train(max_steps=STEPS, batch_size=BATCH, validation_size=0.0, progress_bar=False, rng=seed)
    test = problem.sample_source(rng, MIXTURE_TEST).astype(np.float32)
    samples = held_samples(model, test, SAMPLES)
    none = np.empty(0, str)
    return Case(test, samples, target.astype(np.float32), none, none, entropy(problem, test, rng), one_space=True)


def entropy(problem, x: np.ndarray, rng: np.random.Generator, draws: int = 2000) -> np.ndarray:
    """Return the entropy of the true conditional law of each cell, by Monte Carlo over its density."""
    weights, means, cov = problem.conditional(x)
    variance, d = cov[0, 0], x.shape[1]
    drawn = problem.sample_conditional(rng, x, draws)
    squares = ((drawn[:, :, None, :] - means[:, None]) ** 2).sum(-1)
    logs = np.log(weights)[:, None] - squares / (2 * variance) - d / 2 * np.log(2 * np.pi * variance)
    return -logsumexp(logs, axis=2).mean(axis=1)


def labelled(source, samples, target, source_labels, target_labels, *, one_space: bool) -> Case:
    """Return a case whose truth is whether the five targets next to the mean vote for another label."""
    from sklearn.neighbors import KNeighborsClassifier

    vote = KNeighborsClassifier(5).fit(target, target_labels).predict(samples.mean(axis=1))
    return Case(source, samples, target, source_labels, target_labels, (vote != source_labels).astype(float), one_space)


CASES = {"kang": kang, "snareseq": snare, "panels": panels, "mixture": mixture}


def case(name: str, seed: int, keep: Path | None = None) -> Case:
    """Train and sample, or read what was kept under `keep`."""
    path = None if keep is None else keep / f"{name}-{seed}.npz"
    if path is not None and path.is_file():
        with np.load(path) as stored:
            return Case(
                **{key: stored[key] for key in stored.files if key != "one_space"}, one_space=bool(stored["one_space"])
            )
    found = CASES[name](seed)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **dataclasses.asdict(found))
    return found
