"""Growth of source cells on an embedding and by group."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from mudata import MuData

from scgenot.pl._common import (
    GREY,
    bare,
    embedding,
    finish,
    group_boxes,
    holder,
    new_axes,
    obs_column,
    result_params,
)

_LABEL = "growth (log2)"
# Growth below this is drawn as this: a cell that sends a millionth of its mass is dead.
_TINY = 1e-6


def growth(
    adata: AnnData | MuData,
    *,
    basis: str = "X_umap",
    key: str = "genot",
    groupby: str | None = None,
    size: float | None = None,
    cmap: str = "RdBu_r",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | list[Axes] | None:
    """Draw how much mass source cells send, on an embedding and, if wanted, by group.

    The colour is the logarithm of growth, white at its mean, since the plan as a whole may send less mass than there is and
    cells differ from that; a line in the colour bar and in the box plot marks 0, where a cell keeps its mass.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scgenot.tl.transport` by a model with relaxed marginals; of a MuData, the modality that
        has it is drawn.
    basis
        Key of ``adata.obsm``, with or without ``X_``.
    key
        The `key_added` of the result.
    groupby
        Column of ``adata.obs``: adds a box plot by group, from the most shrinking to the most growing one.
    size
        Area of the points.
    cmap
        Colour map, diverging.
    ax
        Axes to draw the embedding on; not with `groupby`.
    show
        Whether to show the figure.
    save
        Path to write the figure to.

    Returns
    -------
    The axes (two with `groupby`), or ``None`` if shown.

    Raises
    ------
    KeyError
        If there is no such result, embedding or column.
    ValueError
        If both `ax` and `groupby` are given.

    Examples
    --------
    >>> scgenot.tl.transport(adata, model)  # doctest: +SKIP
    >>> scgenot.pl.growth(adata, groupby="cell_type")  # doctest: +SKIP
    """
    if groupby is not None and ax is not None:
        raise ValueError("`groupby` draws two panels on a figure of its own; leave `ax` out.")
    adata = holder(adata, key)
    groups = None if groupby is None else obs_column(adata, groupby, "groupby")
    params = result_params(adata, key)
    if f"{key}_growth" not in adata.obs:
        raise KeyError(
            f"`key`={key!r}: this result has no growth, since minibatch couplings do not tell it. "
            "Train with coupling='global'."
        )
    coordinates = embedding(adata, basis)
    values = np.log2(np.maximum(adata.obs[f"{key}_growth"].to_numpy(dtype=np.float64), _TINY))
    moved = np.flatnonzero(~np.isnan(values))
    center = float(np.log2(np.maximum(np.mean(2.0 ** values[moved]), _TINY)))
    # The cells that differ most are drawn last, on top.
    moved = moved[np.argsort(np.abs(values[moved] - center))]
    boxes = None
    if groupby is None:
        ax = new_axes(ax)
    else:
        _, (ax, boxes) = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained", width_ratios=(1.25, 1))
    size = size or float(np.clip(12000 / adata.n_obs, 1, 18))
    ax.scatter(*coordinates.T, s=size, color=GREY, linewidths=0, rasterized=True)
    reach = max(float(np.quantile(np.abs(values[moved] - center), 0.98)), 0.1)
    points = ax.scatter(
        *coordinates[moved].T,
        c=values[moved],
        s=1.4 * size,
        cmap=cmap,
        norm=CenteredNorm(center, reach),
        linewidths=0,
        rasterized=True,
    )
    bar = ax.figure.colorbar(points, ax=ax, shrink=0.7, label=_LABEL)
    marks = {0.0: "kept (0)"} if abs(center) < 0.05 * reach else {0.0: "kept (0)", center: f"mean ({center:.2f})"}
    for place, label in marks.items():
        if abs(place - center) <= reach:
            bar.ax.axhline(place, color="black", linewidth=1.2, linestyle="-" if place == 0.0 else ":")
            bar.ax.annotate(
                label, (0, place), (-3, 0), textcoords="offset points", ha="right", va="center", fontsize="x-small"
            )
    bare(ax, basis, f"{params['source']} → {params['target']}")
    if boxes is None:
        return finish(ax.figure, ax, show, save)
    group_boxes(boxes, values[moved], groups.iloc[moved].astype(str).to_numpy(), _LABEL)
    boxes.axvline(0.0, color="black", linewidth=0.8)
    boxes.axvline(center, color="black", linewidth=0.8, linestyle=":")
    return finish(ax.figure, [ax, boxes], show, save)
