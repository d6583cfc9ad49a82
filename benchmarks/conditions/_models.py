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

    def as_key(self) -> dict:
        return asdict(self)


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
        hidden=training.hidden, conditions=ConditionConfig(injection=training.injection), start=training.start
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
    ``uns["controls"]``; ``"not seen"``, nothing but the cell.
    """
    setup = {"population_key": "perturbation", "source": CONTROL, "target": None, "match_keys": ("context",)}
    if context != "not seen":
        setup["context_keys"] = ("context",)
    if context == "by controls":
        setup["condition_reps"] = {"context": "controls"}
    return setup


def add_control_means(adata: ad.AnnData) -> None:
    """Write the mean of each context's controls to ``uns["controls"]``."""
    cells = pd.DataFrame(adata.obsm["X_rep"], index=adata.obs_names)[(adata.obs["perturbation"] == CONTROL).to_numpy()]
    adata.uns["controls"] = cells.groupby(adata.obs.loc[cells.index, "context"].astype(str)).mean()


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
