"""Arrows from source cells to where they go."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from mudata import MuData

from scgenot._messages import check_count
from scgenot.pl._common import (
    GREY,
    SOURCE_COLOR,
    TARGET_COLOR,
    bare,
    embedding,
    finish,
    group_colors,
    group_names,
    holder,
    is_numeric,
    landing_places,
    measured,
    new_axes,
    obs_column,
    paint,
    population_mask,
    result_params,
)

# Bundling asks for the landing places of this many cells at most; a bundle of 30 stands on some hundred cells then.
_MOST_CELLS = 3000


def transport(
    adata: AnnData | MuData,
    *,
    basis: str = "X_umap",
    key: str = "genot",
    color: str | None = None,
    groupby: str | None = None,
    n_arrows: int = 30,
    size: float | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw where source cells go, on an embedding of both populations.

    Arrows lead from source cells to the place of their transported mean: the most central one of its five nearest target
    cells. Cells that start and land together are bundled: one arrow, that of the cell amid the bundle, with a dot at its
    start whose area tells how many cells it stands for. Arrows have the colour of the bundle's mean uncertainty.

    Parameters
    ----------
    adata
        Both populations, with a result of :func:`scgenot.tl.transport`. Modalities of a MuData have no embedding in common:
        use :func:`scgenot.pl.modalities` for results between them.
    basis
        Key of ``adata.obsm``, with or without ``X_``.
    key
        The `key_added` of the result.
    color
        Column of ``adata.obs``. With groups, cells of both populations have the colours of theirs, those of
        ``uns["<color>_colors"]`` where scanpy keeps some, and arrows that of the bundle's commonest group. With numbers,
        arrows have the bundle's mean of them instead of its uncertainty.
    groupby
        Column of ``adata.obs``: one arrow per group of source cells, and two where they part, instead of bundles by place.
    n_arrows
        How many arrows; at least as many as source cells draws each cell. Not with `groupby`.
    size
        Area of the points; chosen from the number of cells if ``None``.
    cmap
        Colour map of the uncertainty, or of `color`.
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
        If there is no such result, embedding or column.
    ValueError
        If `adata` has no target cells, the result is one between modalities, or `n_arrows` is below 1.

    Examples
    --------
    >>> scgenot.tl.transport(adata, model)  # doctest: +SKIP
    >>> scgenot.pl.transport(adata, basis="X_umap", color="cell_type")  # doctest: +SKIP
    """
    check_count("n_arrows", n_arrows)
    adata = holder(adata, key)
    params = result_params(adata, key)
    if "population_key" not in params:
        raise ValueError(
            "this result is one between two modalities, whose cells have no embedding in common. Use "
            "`scgenot.pl.modalities`."
        )
    coordinates = embedding(adata, basis)
    groups = None if groupby is None else obs_column(adata, groupby, "groupby")
    shown = None if color is None else obs_column(adata, color, "color")
    numeric = shown is None or is_numeric(shown)
    values = measured(adata, key, "uncertainty") if shown is None else shown
    moved = np.flatnonzero(~np.isnan(adata.obsm[key][:, 0]))
    if len(moved) > _MOST_CELLS:
        moved = np.sort(np.random.default_rng(0).choice(moved, _MOST_CELLS, replace=False))
    places = landing_places(adata, params, adata.obsm[key][moved], coordinates)
    bundles = _bundles(coordinates[moved], places, n_arrows, None if groups is None else groups.iloc[moved])

    ax = new_axes(ax, size=(6.4, 4.8))
    size = size or float(np.clip(12000 / adata.n_obs, 1, 18))
    colors = None if numeric else group_colors(adata, color)
    _cells(ax, adata, params, coordinates, size, None if numeric else paint(shown, colors), colors)
    start, end = coordinates[moved[bundles.amid]], places[bundles.amid]
    if numeric:
        found = np.asarray(values, np.float64)[moved]
        how: tuple[Any, ...] = (bundles.means(found),)
        style = {"cmap": cmap}
    else:
        how, style = (), {"color": [colors.get(name, GREY) for name in bundles.commonest(shown.iloc[moved])]}
    ax.scatter(*start.T, s=size * (1 + 12 * bundles.share), color="black", alpha=0.5, linewidths=0)
    arrows = ax.quiver(
        *start.T, *(end - start).T, *how, angles="xy", scale_units="xy", scale=1, width=0.0045, headwidth=4.5, **style
    )
    if numeric:
        arrows.set_clim(*np.nanquantile(found, [0.02, 0.98]))
        ax.figure.colorbar(arrows, ax=ax, shrink=0.7, label="uncertainty" if color is None else color)
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2, frameon=False, markerscale=2)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    bare(ax, basis, f"{params['source']} → {params['target']}")
    return finish(ax.figure, ax, show, save)


def _cells(ax: Axes, adata: AnnData, params, coordinates, size: float, painted, colors) -> None:
    """Draw all cells: by population, or, where they are painted, by group."""
    ax.scatter(*coordinates.T, s=size, color=GREY, linewidths=0, rasterized=True)
    for side, shade in (("target", TARGET_COLOR), ("source", SOURCE_COLOR)):
        mask = population_mask(adata, params, side)
        how = {"color": shade, "label": f"{params[side]} ({side})"} if painted is None else {"color": painted[mask]}
        ax.scatter(*coordinates[mask].T, s=size, alpha=0.45, linewidths=0, rasterized=True, **how)
    for name, shade in (colors or {}).items():
        ax.scatter([], [], s=size, color=[shade], label=name)


@dataclasses.dataclass(frozen=True)
class _Bundles:
    """Cells that one arrow stands for.

    Attributes
    ----------
    member
        The bundle of each cell, -1 for none.
    amid
        The cell amid each bundle, whose arrow is drawn.
    """

    member: Int[np.ndarray, " n"]
    amid: Int[np.ndarray, " b"]

    @property
    def share(self) -> Float[np.ndarray, " b"]:
        return np.bincount(self.member[self.member >= 0], minlength=len(self.amid)) / max((self.member >= 0).sum(), 1)

    def means(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " b"]:
        """Return the mean of each bundle, over the cells that have a value."""
        of = pd.Series(values[self.member >= 0]).groupby(self.member[self.member >= 0]).mean()
        return of.reindex(np.arange(len(self.amid))).to_numpy()

    def commonest(self, groups: pd.Series) -> list[str]:
        names = groups.astype(object).astype(str).to_numpy()
        return [pd.Series(names[self.member == bundle]).mode().iloc[0] for bundle in range(len(self.amid))]


def _bundles(
    start: Float[np.ndarray, "n 2"], end: Float[np.ndarray, "n 2"], count: int, groups: pd.Series | None
) -> _Bundles:
    """Bundle cells by where they start and land: k-means on both, or, within each group, on where they land."""
    both = np.concatenate([start, end], axis=1)
    if groups is None:
        return _amid(both, _clusters(both, count))
    names, member, number = groups.astype(object).astype(str).to_numpy(), np.full(len(both), -1), 0
    for name in group_names(groups):
        of = np.flatnonzero(names == name)
        parts = _clusters(end[of], 2)
        # Two arrows where a fifth or more goes elsewhere, farther than cells of either part lie from each other.
        if not _parted(end[of], parts):
            parts[:] = 0
        member[of] = number + parts
        number += parts.max() + 1
    return _amid(both, member)


def _clusters(points: Float[np.ndarray, "n d"], count: int) -> Int[np.ndarray, " n"]:
    from sklearn.cluster import KMeans

    distinct = len(np.unique(points, axis=0))
    if count >= len(points):
        return np.arange(len(points))
    labels = KMeans(min(count, distinct), n_init=1, random_state=0).fit(points).labels_
    return np.unique(labels, return_inverse=True)[1]


def _parted(points: Float[np.ndarray, "n 2"], parts: Int[np.ndarray, " n"]) -> bool:
    share = np.bincount(parts) / len(parts)
    if len(share) < 2 or share.min() < 0.2:
        return False
    first, second = points[parts == 0], points[parts == 1]
    spread = max(np.sqrt(one.var(axis=0).sum()) for one in (first, second))
    return bool(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)) > 3 * spread)


def _amid(points: Float[np.ndarray, "n d"], member: Int[np.ndarray, " n"]) -> _Bundles:
    amid = []
    for bundle in range(member.max() + 1):
        of = np.flatnonzero(member == bundle)
        amid.append(of[np.linalg.norm(points[of] - points[of].mean(axis=0), axis=1).argmin()])
    return _Bundles(member, np.array(amid))
