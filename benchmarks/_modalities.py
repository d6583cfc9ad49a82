"""What the benchmark of modalities is made of: paired data with held-out cells, training, and scores of held-out cells."""

from __future__ import annotations

import dataclasses
import warnings

import anndata as ad
import jax.numpy as jnp
import numpy as np
import pandas as pd
from mudata import MuData

import scgenot
from benchmarks._common import data
from scgenot.costs import Geodesic
from scgenot.flow import FlowConfig
from scgenot.metrics import foscttm, label_transfer_accuracy

# For all data of two modalities; everything else is the default. The small network is smoother than the default one, as a
# thousand cells ask for, and quicker.
SETTINGS = {"flow_config": FlowConfig(hidden=(128, 128))}
# The default cost and another one, side by side wherever a bar or a failure is told.
COSTS = {"euclidean": None, "heat": Geodesic(method="heat")}
STEPS = 800


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two modalities of the same cells, row by row, and the labels of the cells."""

    source: np.ndarray
    target: np.ndarray
    labels: np.ndarray

    def some(self, rows: np.ndarray) -> Paired:
        return Paired(self.source[rows], self.target[rows], self.labels[rows])


def snareseq() -> Paired:
    """Chromatin topics and RNA components of four cell lines, rows L2-normalised (each cell for itself)."""
    atac, rna = (data(f"snareseq_celllines_{name}") for name in ("atac", "rna"))
    return Paired(_unit(atac.X), _unit(rna.X), rna.obs["cell_type"].to_numpy(str))


def scicar() -> Paired:
    """Chromatin and RNA components of one cell line at three times after treatment, rows L2-normalised."""
    atac, rna = (data(f"scicar_a549_{name}") for name in ("atac", "rna"))
    return Paired(_unit(atac.obsm["X_lsi"]), _unit(rna.obsm["X_pca"]), rna.obs["time"].to_numpy().astype(str))


def _unit(values) -> np.ndarray:
    values = np.asarray(values.toarray() if hasattr(values, "toarray") else values, np.float64)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Task:
    """Training cells of both sides, the target side in another order, and held-out cells row by row.

    Attributes
    ----------
    train, held
        Training and held-out cells, row by row.
    mdata
        The training cells as the model sees them: unpaired, but for the known pairs.
    """

    train: Paired
    held: Paired
    mdata: MuData


def task(paired: Paired, seed: int, known: float = 0.0) -> Task:
    """Hold out 20 % of the cells from both sides; make the share `known` of the training pairs known."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(paired.source))
    cut = round(0.2 * len(order))
    train, held = paired.some(order[cut:]), paired.some(order[:cut])
    shuffled = rng.permutation(len(train.source))
    names = pd.Series(np.arange(len(train.source)).astype(str), dtype=object)
    names[rng.permutation(len(names))[round(known * len(names)) :]] = None
    source = ad.AnnData(obs=pd.DataFrame({"pair": names.to_numpy()}, index=[f"s{i}" for i in range(len(names))]))
    target = ad.AnnData(
        obs=pd.DataFrame(
            {"pair": names.to_numpy()[shuffled], "label": train.labels[shuffled]},
            index=[f"t{i}" for i in range(len(names))],
        )
    )
    source.obsm["X_rep"], target.obsm["X_rep"] = train.source, train.target[shuffled]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Task(train, held, MuData({"source": source, "target": target}))


def trained(one: Task, seed: int, *, pairs: bool = False, **options) -> scgenot.GENOT:
    """Train on the training cells; `pairs` tells which of them are known to be partners."""
    scgenot.GENOT.setup_mudata(
        one.mdata,
        source_modality="source",
        target_modality="target",
        source_rep="X_rep",
        target_rep="X_rep",
        pairs_key="pair" if pairs else None,
    )
    model = scgenot.GENOT(one.mdata, **(SETTINGS | options))
    model.train(max_steps=STEPS, validation_size=0.0, progress_bar=False, rng=seed)
    return model


def held_samples(model: scgenot.GENOT, cells: np.ndarray, n_samples: int = 30) -> np.ndarray:
    return model.sample(source_cells(cells), indices=np.arange(len(cells)), n_samples=n_samples)


def source_cells(cells: np.ndarray) -> ad.AnnData:
    return ad.AnnData(obs=pd.DataFrame(index=[f"h{i}" for i in range(len(cells))]), obsm={"X_rep": cells})


def discrete(model: scgenot.GENOT, held: np.ndarray, train_target: np.ndarray) -> np.ndarray:
    """Return the conditional means of held-out cells over training cells, by the plan's potentials, without the network."""
    extended = model.coupling_.extend(held, train_target)
    geometry = extended.geometry
    costs = geometry.cost(jnp.asarray(geometry.x), jnp.asarray(geometry.y))
    logs = np.asarray(extended.potentials.v - geometry.inverse * costs, np.float64)
    plan = np.exp(logs - logs.max(axis=1, keepdims=True))
    return plan @ train_target / plan.sum(axis=1, keepdims=True)


def scores(cells: np.ndarray, one: Task, name: str) -> dict[str, float]:
    """Score predicted held-out cells: FOSCTTM among held-out cells, labels by 5 nearest training cells."""
    accuracy = label_transfer_accuracy(cells, one.held.labels, one.train.target, one.train.labels)
    return {f"FOSCTTM {name}": foscttm(cells, one.held.target), f"labels {name}": accuracy}


def all_scores(model: scgenot.GENOT, one: Task) -> dict[str, float]:
    """Score the conditional mean of 30 samples, one sample, and the discrete plan that was learned from.

    "labels, probable": the most probable label by what each sample's neighbours say, as `tl.transfer_labels` has it.
    """
    samples = held_samples(model, one.held.source)
    target = one.mdata["target"].obsm["X_rep"]
    rows = np.arange(len(samples))
    probabilities = model.get_label_probabilities(
        source_cells(one.held.source), label_key="label", target=one.mdata, indices=rows
    )
    probable = probabilities.columns.to_numpy()[probabilities.to_numpy().argmax(axis=1)]
    return (
        scores(samples.mean(axis=1), one, "mean")
        | {"labels, probable": float((probable == one.held.labels).mean())}
        | scores(samples[:, 0], one, "sample")
        | scores(discrete(model, one.held.source, target), one, "discrete")
    )
