"""Arrows from source cells to where they go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from scgenot.pl._common import (
    GREY,
    SOURCE_COLOR,
    TARGET_COLOR,
    bare,
    embedding,
    finish,
    landing_places,
    new_axes,
    population_mask,
    result_params,
)


def transport(
    adata: AnnData,
    *,
    basis: str = "X_umap",
    key: str = "genot",
    n_arrows: int = 100,
    size: float | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw where source cells go, on an embedding of both populations.

    Arrows lead from source cells to the place of their transported mean: the most central one of its five nearest target
    cells. Their colour is the uncertainty.

    Parameters
    ----------
    adata
        Both populations, with a result of :func:`scgenot.tl.transport`.
    basis
        Key of ``adata.obsm``, with or without ``X_``.
    key
        The `key_added` of the result.
    n_arrows
        How many arrows; the cells are chosen so that they spread over the source population.
    size
        Area of the points; chosen from the number of cells if ``None``.
    cmap
        Colour map of the uncertainty.
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
        If there is no such result or embedding.
    ValueError
        If `adata` has no target cells.
    """
    params = result_params(adata, key)
    coordinates = embedding(adata, basis)
    moved = np.flatnonzero(~np.isnan(adata.obs[f"{key}_uncertainty"].to_numpy()))
    chosen = _spread_out(coordinates[moved], n_arrows)
    places = landing_places(adata, params, adata.obsm[key][moved[chosen]], coordinates)
    start = coordinates[moved[chosen]]
    uncertainty = adata.obs[f"{key}_uncertainty"].to_numpy()[moved[chosen]]

    ax = new_axes(ax, size=(6.4, 4.8))
    size = size or float(np.clip(12000 / adata.n_obs, 1, 18))
    ax.scatter(*coordinates.T, s=size, color=GREY, linewidths=0, rasterized=True)
    for side, color in (("target", TARGET_COLOR), ("source", SOURCE_COLOR)):
        mask = population_mask(adata, params, side)
        label = f"{params[side]} ({side})"
        ax.scatter(*coordinates[mask].T, s=size, color=color, alpha=0.45, linewidths=0, label=label, rasterized=True)
    step = places - start
    arrows = ax.quiver(
        *start.T, *step.T, uncertainty, angles="xy", scale_units="xy", scale=1, cmap=cmap, width=0.0028, headwidth=4.5
    )
    arrows.set_clim(*np.quantile(uncertainty, [0.02, 0.98]))
    ax.figure.colorbar(arrows, ax=ax, shrink=0.7, label="uncertainty (cos-var)")
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2, frameon=False, markerscale=2)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    bare(ax, basis, f"{params['source']} → {params['target']}")
    return finish(ax.figure, ax, show, save)


def _spread_out(coordinates: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` rows, each far from those before it: farthest-point order, the same for the same cells."""
    if len(coordinates) <= count:
        return np.arange(len(coordinates))
    chosen = [int(np.argmin(np.linalg.norm(coordinates - np.median(coordinates, axis=0), axis=1)))]
    distance = np.full(len(coordinates), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(coordinates - coordinates[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(distance)))
    return np.asarray(chosen)
