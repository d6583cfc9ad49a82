"""How large the effects of conditions are, predicted against observed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float
from matplotlib.axes import Axes

from scgenot._messages import one_of
from scgenot._rng import RNG
from scgenot.pl._common import finish

if TYPE_CHECKING:
    from scgenot.model import GENOT

KINDS = ("predicted", "heatmap", "doses")
_MOST_LABELS = 40
_INSIDE = 5


def conditions(
    adata: AnnData,
    model: GENOT,
    *,
    kind: Literal["predicted", "heatmap", "doses"] = "predicted",
    doses: Sequence[float] | None = None,
    n_samples: int = 10,
    cmap: str = "viridis",
    rng: RNG = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw how far each condition moves cells: predicted against observed, over perturbations and contexts, or over doses.

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
        ``"heatmap"``: predicted effects, perturbations x contexts. ``"doses"``: the predicted effect of each perturbation that
        stands alone as a curve over its dose, its mean over contexts, and a point for each condition that was measured.
    doses
        Doses that curves go through; by default from 0 to the largest one that was seen.
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
        If the model has no conditions, `kind` is none of these, or there are no doses.

    Examples
    --------
    >>> scgenot.pl.conditions(adata, model, kind="heatmap")  # doctest: +SKIP
    """
    from scgenot.model import condition_effects, dose_effects

    if kind not in KINDS:
        raise ValueError(one_of("kind", kind, KINDS))
    if kind != "doses" and doses is not None:
        raise ValueError(f"`doses` are those of curves, got kind={kind!r}. Use kind='doses', or leave them out.")
    options = {"n_samples": n_samples, "rng": rng}
    table = (
        dose_effects(model, adata, doses=doses, **options)
        if kind == "doses"
        else condition_effects(model, adata, **options)
    )
    if ax is None:
        size = 4.5, 4.2
        if kind == "heatmap":
            size = 2.6 + 0.4 * table["context"].nunique(), 1.6 + 0.3 * table["condition"].nunique()
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    if kind == "heatmap":
        _heatmap(table, ax, cmap)
    elif kind == "doses":
        _curves(table, ax)
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
    ax.set(xlabel="observed effect", ylabel="predicted effect", xlim=(0, top), ylim=(0, top))
    ax.legend(frameon=False, fontsize=8)
    _name(ax, table, both)


def _name(ax: Axes, table: pd.DataFrame, both: Float[np.ndarray, "c 2"]) -> None:
    """Name conditions that training has not seen, then those furthest from the diagonal, as long as names find room."""
    off = np.nan_to_num(np.abs(both[:, 0] - both[:, 1]))
    order = np.lexsort([-off, table["trained"].to_numpy(dtype=bool)])
    taken = [ax.get_legend().get_window_extent()]
    for number in order[:_MOST_LABELS]:
        if np.isnan(both[number]).any():
            continue
        text = ax.annotate(table.index[number], both[number], fontsize=7, xytext=(3, 2), textcoords="offset points")
        box = text.get_window_extent()
        right = box.x1 > ax.get_window_extent().x1
        if right:
            text.set(horizontalalignment="right", position=(-3, 2))
            box = text.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)


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


def _curves(table: pd.DataFrame, ax: Axes) -> None:
    palette = plt.get_cmap("tab10" if table["perturbation"].nunique() <= 10 else "tab20")
    for number, (name, rows) in enumerate(table.groupby("perturbation", sort=False)):
        color = palette(number % palette.N)
        mean = rows.groupby("dose")["predicted"].mean()
        ax.plot(mean.index, mean, color=color, label=name)
        measured = rows.dropna(subset="observed")
        ax.scatter(
            measured["dose"], measured["observed"], s=22, color=color, edgecolor="white", linewidth=0.5, zorder=3
        )
    ax.set(xlabel="dose", ylabel="effect (line: predicted, points: observed)", xlim=(0, None), ylim=(0, None))
    # Beside the curves where it would lie on them.
    outside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if table["perturbation"].nunique() > _INSIDE else {}
    ax.legend(frameon=False, fontsize=8, **outside)
