"""How sure the model is of each source cell."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scgenot._messages import one_of
from scgenot.pl._common import (
    GREY,
    bare,
    embedding,
    finish,
    group_boxes,
    holder,
    measured,
    new_axes,
    obs_column,
    result_params,
)

_LABELS = {
    "uncertainty": "uncertainty",
    "cos_var": "cos-var",
    "variance": "variance of the samples",
}


def uncertainty(
    adata: AnnData | MuData,
    *,
    basis: str = "X_umap",
    key: str = "genot",
    value: Literal["uncertainty", "cos_var", "variance"] = "uncertainty",
    groupby: str | None = None,
    size: float | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | list[Axes] | None:
    """Draw the uncertainty of transported cells on an embedding and, if wanted, by group.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scgenot.tl.transport`; of a MuData, the modality that has it is drawn.
    basis
        Key of ``adata.obsm``, with or without ``X_``.
    key
        The `key_added` of the result.
    value
        Which measure: see :meth:`scgenot.GENOT.get_uncertainty`. Only ``"uncertainty"`` compares groups; cos-var is measured
        from the origin of the representation, and the variance is large where the target population is spread out.
    groupby
        Column of ``adata.obs``: adds a box plot by group, from the most certain to the least certain one.
    size
        Area of the points.
    cmap
        Colour map.
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
        If `value` is not one of these or was not written, no cell has a value (one sample), or both `ax` and `groupby` are given.

    Examples
    --------
    >>> scgenot.tl.transport(adata, model)  # doctest: +SKIP
    >>> scgenot.pl.uncertainty(adata, groupby="cell_type")  # doctest: +SKIP
    """
    if value not in _LABELS:
        raise ValueError(one_of("value", value, _LABELS))
    if groupby is not None and ax is not None:
        raise ValueError("`groupby` draws two panels on a figure of its own; leave `ax` out.")
    adata = holder(adata, key)
    groups = None if groupby is None else obs_column(adata, groupby, "groupby")
    params = result_params(adata, key)
    coordinates = embedding(adata, basis)
    values = measured(adata, key, value)
    moved = np.flatnonzero(~np.isnan(values))
    # The least certain cells are drawn last, on top.
    moved = moved[np.argsort(values[moved])]
    boxes = None
    if groupby is None:
        ax = new_axes(ax)
    else:
        _, (ax, boxes) = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained", width_ratios=(1.25, 1))
    size = size or float(np.clip(12000 / adata.n_obs, 1, 18))
    ax.scatter(*coordinates.T, s=size, color=GREY, linewidths=0, rasterized=True)
    low, high = np.quantile(values[moved], [0.02, 0.98])
    points = ax.scatter(
        *coordinates[moved].T,
        c=values[moved],
        s=1.4 * size,
        cmap=cmap,
        vmin=low,
        vmax=high,
        linewidths=0,
        rasterized=True,
    )
    ax.figure.colorbar(points, ax=ax, shrink=0.7, label=_LABELS[value])
    bare(ax, basis, f"{params['source']} → {params['target']}")
    if boxes is None:
        return finish(ax.figure, ax, show, save)
    group_boxes(boxes, values[moved], groups.iloc[moved].astype(str).to_numpy(), _LABELS[value])
    return finish(ax.figure, [ax, boxes], show, save)
