"""The landscape of a time course on an embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from scgenot._messages import check_count, did_you_mean
from scgenot.pl._common import GREY, bare, embedding, finish, new_axes, places_amid


def potential(
    adata: AnnData,
    *,
    basis: str = "X_umap",
    key: str = "genot_potential",
    n_arrows: int = 60,
    size: float | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw the potential of cells on an embedding, with arrows where they are driven.

    An arrow leads to the most central one of the five cells nearest to where a cell is ``ahead``: after the time that
    :func:`scgenot.tl.potential` was asked for. Without it, there are no arrows.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scgenot.tl.potential`.
    basis
        Key of ``adata.obsm``, with or without ``X_``.
    key
        The `key_added` of the result.
    n_arrows
        At most so many arrows, of cells spread evenly over the rows; 0 for none.
    size
        Area of the points; chosen from the number of cells if ``None``.
    cmap
        Colour map of the potential.
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
        If `n_arrows` is below 0.

    Examples
    --------
    >>> scgenot.tl.potential(adata, model, ahead=2.0)  # doctest: +SKIP
    >>> scgenot.pl.potential(adata, basis="umap")  # doctest: +SKIP
    """
    check_count("n_arrows", n_arrows, minimum=0)
    if key not in adata.obs or "fit" not in adata.uns.get(key, {}):
        raise KeyError(
            f"`key`={key!r}: there is no potential of that name. Call `scgenot.tl.potential(adata, model, key_added={key!r})` "
            f"first.{did_you_mean(key, adata.uns)}"
        )
    coordinates, params = embedding(adata, basis), adata.uns[key]["params"]
    values = adata.obs[key].to_numpy(np.float64)
    known = np.flatnonzero(~np.isnan(values))
    ax = new_axes(ax)
    size = size or float(np.clip(12000 / adata.n_obs, 1, 18))
    ax.scatter(*coordinates.T, s=size, color=GREY, linewidths=0, rasterized=True)
    # A potential grows without bound away from the cells: a few of them would take all colours.
    low, high = np.quantile(values[known], [0.01, 0.99]) if len(known) else (0.0, 1.0)
    points = ax.scatter(
        *coordinates[known].T,
        c=values[known],
        s=1.4 * size,
        cmap=cmap,
        vmin=low,
        vmax=high,
        linewidths=0,
        rasterized=True,
    )
    ax.figure.colorbar(points, ax=ax, shrink=0.7, label="potential")
    ahead = adata.obsm.get(f"{key}_ahead")
    if ahead is not None and n_arrows and len(known):
        drawn = known[np.unique(np.linspace(0, len(known) - 1, n_arrows).round().astype(int))]
        end = places_amid(adata[known], params["source_rep"], np.asarray(ahead)[drawn], coordinates[known])
        start = coordinates[drawn]
        ax.quiver(
            *start.T, *(end - start).T, angles="xy", scale_units="xy", scale=1, width=0.004, color="black", alpha=0.7
        )
    bare(ax, basis, f"{100 * adata.uns[key]['fit']['held_out']:.0f} % of velocities explained")
    return finish(ax.figure, ax, show, save)
