"""A heat map of transitions between groups."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scgenot._messages import did_you_mean
from scgenot.pl._common import finish, holder

_MOST_NUMBERS = 400
# The standard error of a share is up to .16 with ten cells.
_FEW = 10


def transitions(
    adata: AnnData | MuData,
    *,
    key: str = "genot_transitions",
    annotate: bool | None = None,
    cmap: str = "Blues",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw which share of each group of source cells goes to each group of target cells.

    Rows say how many source cells they rest on; those of fewer than ten are grey.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scgenot.tl.transitions`; of a MuData, the modality that has it is read.
    key
        The `key_added` of the result.
    annotate
        Whether to write the shares into the fields; by default up to 400 of them.
    cmap
        Colour map.
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
    KeyError
        If there is no such result.

    Examples
    --------
    >>> scgenot.tl.transitions(adata, model, "cell_type")  # doctest: +SKIP
    >>> scgenot.pl.transitions(adata)  # doctest: +SKIP
    """
    adata = holder(adata, key, "transitions(mdata, model, source_key")
    if key not in adata.uns or "matrix" not in adata.uns[key]:
        raise KeyError(
            f"`key`={key!r}: there are no transitions of that name in this adata. Call `scgenot.tl.transitions(adata, "
            f"model, source_key, key_added={key!r})` first.{did_you_mean(key, adata.uns)}"
        )
    table, params = adata.uns[key]["matrix"], adata.uns[key]["params"]
    if ax is None:
        size = 2.2 + 0.42 * table.shape[1], 1.8 + 0.36 * table.shape[0]
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    values = table.to_numpy()
    image = ax.imshow(values, cmap=cmap, vmin=0.0, vmax=1.0 if params["normalize"] else None, aspect="auto")
    ax.set_xticks(
        np.arange(table.shape[1]), adata.uns[key].get("target_labels", table.columns), rotation=45, ha="right"
    )
    cells = adata.uns[key].get("n_cells")
    names = table.index if cells is None else [f"{name} ({n})" for name, n in zip(table.index, cells, strict=True)]
    ax.set_yticks(np.arange(table.shape[0]), names)
    for label, n in zip(ax.get_yticklabels(), [] if cells is None else cells, strict=False):
        if n < _FEW:
            label.set(color="grey", style="italic")
    ax.set(
        xlabel=f"{params['target']}: {params['target_key']}",
        ylabel=f"{params['source']}: {params['source_key']}" + ("" if cells is None else " (cells)"),
        title=f"{params['source']} → {params['target']}",
    )
    if annotate or (annotate is None and values.size <= _MOST_NUMBERS):
        for (row, column), value in np.ndenumerate(values):
            if value >= 0.005:
                color = "white" if value > 0.6 * image.norm.vmax else "black"
                ax.text(column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", color=color, fontsize=8)
    ax.figure.colorbar(image, ax=ax, shrink=0.7, label="share" if params["normalize"] else "mass")
    return finish(ax.figure, ax, show, save)
