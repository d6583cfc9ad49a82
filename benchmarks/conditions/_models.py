"""GENOT as the benchmark trains it. All that knows how conditions are set up stands here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import anndata as ad
import numpy as np
import pandas as pd

import scgenot
from scgenot.flow import ConditionConfig, FlowConfig

CONTROL = "control"


@dataclass(frozen=True)
class Training:
    """The settings of all fits of a run."""

    steps: int = 1500
    batch_size: int = 512
    hidden: tuple[int, ...] = (128, 128, 128)
    epsilon: float = 0.05
    learning_rate: float = 1e-3
    injection: str = "film"
    start: str = "noise"
    n_models: int = 1

    def as_key(self) -> dict:
        # Results of before there were ensembles are found again.
        return {name: value for name, value in asdict(self).items() if (name, value) != ("n_models", 1)}


def adata_of(cells: np.ndarray, **columns: np.ndarray) -> ad.AnnData:
    """Return cells in ``obsm["X_rep"]`` with these columns of obs."""
    obs = pd.DataFrame(columns, index=np.arange(len(cells)).astype(str))
    return ad.AnnData(obs=obs, obsm={"X_rep": np.asarray(cells, np.float32)})


def fit(
    adata: ad.AnnData, training: Training, seed: int, *, setup: dict, scale_cost: float | None = None
) -> scgenot.GENOT:
    """Train a model on all cells that are there; `setup` says what columns mean."""
    scgenot.GENOT.setup_anndata(adata, source_rep="X_rep", **setup)
    options = {} if scale_cost is None else {"scale_cost": scale_cost}
    config = FlowConfig(
        hidden=training.hidden,
        conditions=ConditionConfig(injection=training.injection),
        start=training.start,
        n_models=training.n_models,
    )
    model = scgenot.GENOT(adata, epsilon=training.epsilon, flow_config=config, **options)
    model.train(
        max_steps=training.steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        validation_size=0.0,
        progress_bar=False,
        rng=seed,
    )
    return model


def perturbations(context: str) -> dict:
    """Return the setup of a screen: a perturbation each condition, controls from the same context.

    `context` says what the field knows of it: ``"seen"``, its name; ``"by controls"``, the mean of its controls, which stands in
    ``uns["controls"]``; ``"by responses"``, beside it the mean of its responses to the perturbations that training has of it, in
    ``uns["responses"]``; ``"not seen"``, nothing but the cell.
    """
    setup = {"population_key": "perturbation", "source": CONTROL, "target": None, "match_keys": ("context",)}
    if context != "not seen":
        setup["context_keys"] = ("context",)
    if context in ("by controls", "by responses"):
        setup["condition_reps"] = {"context": context.removeprefix("by ")}
    return setup


def describe_contexts(adata: ad.AnnData) -> None:
    """Write the mean of each context's controls to ``uns["controls"]``, and its responses beside it to ``uns["responses"]``.

    A response that training does not have is the mean of what other contexts answer to the perturbation.
    """
    cells = pd.DataFrame(adata.obsm["X_rep"], index=adata.obs_names)
    keys = [adata.obs[column].astype(str).to_numpy() for column in ("context", "perturbation")]
    means = cells.groupby(keys).mean()
    controls = means.xs(CONTROL, level=1)
    adata.uns["controls"] = controls
    parts = [controls]
    for name in sorted(set(keys[1]) - {CONTROL}):
        shifts = means.xs(name, level=1) - controls
        parts.append(shifts.fillna(shifts.mean()))
    adata.uns["responses"] = pd.concat(parts, axis=1, keys=range(len(parts)))
    adata.uns["responses"].columns = [f"{part}_{k}" for part, k in adata.uns["responses"].columns]


def one_perturbation(name: str, matched: bool = True) -> dict:
    """Return the setup of a single perturbation, for a model that knows no other."""
    match = {"match_keys": ("context",)} if matched else {}
    return {"population_key": "perturbation", "source": CONTROL, "target": name} | match


def predicted(
    model: scgenot.GENOT, adata: ad.AnnData, rows: Sequence[int], condition: str | None, n: int
) -> np.ndarray:
    """Return draws x cells x features."""
    asked = {} if condition is None else {"conditions": condition}
    samples = model.sample(adata, indices=np.asarray(rows), n_samples=n, **asked)
    return np.moveaxis(np.asarray(samples), 1, 0)
