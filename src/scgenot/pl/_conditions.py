"""How large the effects of conditions are, predicted against observed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float
from matplotlib.axes import Axes

from scgenot._rng import RNG
from scgenot.pl._common import finish

if TYPE_CHECKING:
    from scgenot.model import GENOT

_MOST_LABELS = 40


def conditions(
    adata: AnnData,
    model: GENOT,
    *,
    kind: str = "predicted",
    n_samples: int = 10,
    cmap: str = "viridis",
    rng: RNG = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw how far each condition moves cells: predicted against observed, or a heat map over perturbations and contexts.

    The effect is the distance between the mean of a condition's cells and that of its controls, in units of the
    representation.

    Parameters
    ----------
    adata
        Controls and cells of the conditions.
    model
        A trained model of conditions in one space.
    kind
        ``"predicted"``: one point a condition, those that training did not see in another colour, beside the diagonal.
        ``"heatmap"``: predicted effects, perturbations x contexts.
    n_samples
        Samples a control.
    cmap
        Colour map of the heat map.
    rng
        Seed or generator.
    ax
        Axes to draw on.
    show
        Whether to show the figure.
    save
        Path to write the figure to.

    Returns
    -------
    The axes, or ``None`` if shown.

    Raises
    ------
    ValueError
        If the model has no conditions, or `kind` is neither.
    """
    from scgenot.model import condition_effects

    if kind not in ("predicted", "heatmap"):
        raise ValueError(f"`kind` must be 'predicted' or 'heatmap', got {kind!r}.")
    table = condition_effects(model, adata, n_samples=n_samples, rng=rng)
    if ax is None:
        ax = plt.subplots(figsize=(4.5, 4.2), layout="constrained")[1]
    if kind == "heatmap":
        _heatmap(table, ax, cmap)
    else:
        _against_observed(table, ax)
    return finish(ax.figure, ax, show, save)


def _against_observed(table: pd.DataFrame, ax: Axes) -> None:
    both = table[["observed", "predicted"]].to_numpy()
    for trained, color, label in ((True, "C0", "trained"), (False, "C3", "not seen in training")):
        some = table["trained"].to_numpy() == trained
        if some.any():
            ax.scatter(*both[some].T, s=22, color=color, label=label)
    top = 1.05 * np.nanmax(both)
    ax.plot([0, top], [0, top], color="grey", linewidth=0.8)
    if len(table) <= _MOST_LABELS:
        for name, (x, y) in zip(table.index, both, strict=True):
            ax.annotate(name, (x, y), fontsize=7, xytext=(3, 2), textcoords="offset points")
    ax.set(xlabel="observed effect", ylabel="predicted effect", xlim=(0, top), ylim=(0, top))
    ax.legend(frameon=False)


def _heatmap(table: pd.DataFrame, ax: Axes, cmap: str) -> None:
    contexts = table["context"].unique()
    names = table["condition"].unique()
    values: Float[np.ndarray, "p c"] = np.full((len(names), len(contexts)), np.nan)
    for _, row in table.iterrows():
        values[np.flatnonzero(names == row["condition"])[0], np.flatnonzero(contexts == row["context"])[0]] = row[
            "predicted"
        ]
    image = ax.imshow(values, cmap=cmap, vmin=0.0, aspect="auto")
    ax.set_xticks(np.arange(len(contexts)), contexts, rotation=45, ha="right")
    ax.set_yticks(np.arange(len(names)), names)
    ax.figure.colorbar(image, ax=ax, shrink=0.7, label="predicted effect")
