"""Two spaces beside each other: source cells with their uncertainty, and where they land in the target space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from mudata import MuData

from scgenot.pl._common import (
    GREY,
    bare,
    embedding,
    finish,
    group_colors,
    holder,
    measured,
    obs_column,
    paint,
    places_amid,
    population_mask,
    result_params,
)


def modalities(
    data: MuData | AnnData,
    *,
    key: str = "genot",
    color: str | None = None,
    source_basis: str | None = None,
    target_basis: str | None = None,
    size: float | None = None,
    cmap: str = "viridis",
    axes: list[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Draw source cells in their space, and their transported means among the cells of the target space.

    From left to right: source cells by `color` (only if it is given), transported means in the colours of their source cells
    among target cells (pale, in the colours of their own groups where they have that column, otherwise grey), and source
    cells by uncertainty. Without `color`, means have the colours of the uncertainty.

    Parameters
    ----------
    data
        MuData with both modalities, or AnnData with both populations, and a result of :func:`scgenot.tl.transport`.
    key
        The `key_added` of the result.
    color
        Column of ``obs`` of the source cells with groups, such as cell types, in the order of its categories or in natural
        order, and in the colours of ``uns["<color>_colors"]`` where scanpy keeps some.
    source_basis, target_basis
        Keys of ``obsm``, with or without ``X_``; the first two columns are drawn. By default the representations that
        the model maps, or ``X_umap`` or ``X_pca`` where that is a wide ``X``. In the representation of the target, means lie where they are; on any other embedding they are
        placed amid their nearest target cells.
    size
        Area of the points; chosen from the number of cells if ``None``.
    cmap
        Colour map of the uncertainty.
    axes
        Axes to draw on: three with `color`, two without.
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
        If `axes` does not hold as many axes as there are panels, an embedding has fewer than two columns, or it is an ``X``
        of more than two, whose first two say nothing of the rest.

    Examples
    --------
    >>> scgenot.tl.transport(mdata, model)  # doctest: +SKIP
    >>> scgenot.pl.modalities(mdata, color="cell_type")  # doctest: +SKIP
    """
    source, target, params = _sides(data, key)
    if color is not None:
        obs_column(source, color, "color")
    source_basis = _basis(source, source_basis, params["source_rep"], "source_basis")
    target_basis = _basis(target, target_basis, params["target_rep"], "target_basis")
    uncertainty = measured(source, key, "uncertainty")
    moved = np.flatnonzero(~np.isnan(uncertainty))
    # The least certain cells are drawn last, on top.
    moved = moved[np.argsort(uncertainty[moved])]
    start, background = _coordinates(source, source_basis), _coordinates(target, target_basis)
    means = source.obsm[key][moved]
    if target_basis in (params["target_rep"], params["target_rep"].removeprefix("X_")):
        places = np.asarray(means[:, :2], dtype=np.float64)
    else:
        places = places_amid(target, params["target_rep"], means, background)

    panels = 2 if color is None else 3
    if axes is None:
        _, axes = plt.subplots(1, panels, figsize=(5.0 * panels, 4.6), layout="constrained")
    axes = list(np.ravel(axes))
    if len(axes) != panels:
        raise ValueError(f"`axes` must hold {panels} axes for these arguments, got {len(axes)}.")
    size = size or float(np.clip(12000 / max(source.n_obs, target.n_obs), 1, 18))
    values = uncertainty[moved]
    low, high = np.quantile(values, [0.02, 0.98])
    by_value = {"c": values, "cmap": cmap, "vmin": low, "vmax": high, "linewidths": 0, "rasterized": True}
    landing, unsure = axes[-2], axes[-1]
    if color is None:
        landing, unsure = axes[1], axes[0]
    colors = None if color is None else group_colors(source, color)
    known = colors is not None and color in target.obs
    pale = {"color": paint(target.obs[color], colors), "alpha": 0.25} if known else {"color": GREY}
    landing.scatter(*background.T, s=size, linewidths=0, rasterized=True, **pale)
    unsure.scatter(*start.T, s=size, color=GREY, linewidths=0, rasterized=True)
    drawn = unsure.scatter(*start[moved].T, s=1.4 * size, **by_value)
    unsure.figure.colorbar(drawn, ax=unsure, shrink=0.7, label="uncertainty")
    if color is None:
        landing.scatter(*places.T, s=1.4 * size, **by_value)
    else:
        groups = source.obs[color].iloc[moved]
        axes[0].scatter(*start.T, s=size, color=GREY, linewidths=0, rasterized=True)
        _by_group(axes[0], start[moved], groups, colors, 1.4 * size)
        _by_group(landing, places, groups, colors, 1.4 * size)
        handles, labels = landing.get_legend_handles_labels()
        axes[0].legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0, -0.05), ncols=2, frameon=False, fontsize="x-small"
        )
        bare(axes[0], source_basis, f"{params['source']} by {color}")
    bare(unsure, source_basis, f"{params['source']}: how sure that is")
    bare(landing, target_basis, f"{params['source']} → {params['target']}: transported means")
    return finish(axes[0].figure, axes, show, save)


def _sides(data: MuData | AnnData, key: str) -> tuple[AnnData, AnnData, dict[str, Any]]:
    """Return the AnnData that the result stands in, target cells, and what was noted with the result."""
    source = holder(data, key)
    params = result_params(source, key)
    if isinstance(data, AnnData):
        target = data
    elif params.get("target_modality") in data.mod:
        target = data.mod[params["target_modality"]]
    else:
        raise KeyError(f"the target modality {params.get('target_modality')!r} is not in mdata.")
    return source, target[_target_mask(target, params)], params


def _target_mask(target: AnnData, params: dict[str, Any]) -> Bool[np.ndarray, " n"]:
    key = params.get("population_key")
    if key is None or key not in target.obs:
        return np.ones(target.n_obs, dtype=bool)
    return population_mask(target, params, "target")


def _basis(adata: AnnData, basis: str | None, rep: str, argument: str) -> str:
    """Return what to draw; a wide ``X`` is no picture."""
    if basis is None and rep == "X" and adata.n_vars != 2:
        basis = next((name for name in ("X_umap", "X_pca") if name in adata.obsm), None)
    basis = basis or rep
    if basis == "X" and adata.n_vars != 2:
        raise ValueError(
            f"`{argument}`='X' has {adata.n_vars} columns, and only one of two can be drawn. Compute an embedding, for "
            "example with `scanpy.pp.pca` and `scanpy.tl.umap`, and name it."
        )
    return basis


def _coordinates(adata: AnnData, basis: str) -> Float[np.ndarray, "n 2"]:
    """Return the first two columns of an embedding, or of an ``X`` that has two."""
    if basis != "X":
        return embedding(adata, basis)
    cells = adata.X[:]
    return np.asarray(cells.toarray() if hasattr(cells, "toarray") else cells, dtype=np.float64)


def _by_group(
    ax: Axes, points: Float[np.ndarray, "n 2"], groups: pd.Series, colors: dict[str, Any], size: float
) -> None:
    names = groups.astype(object).astype(str).to_numpy()
    for name, shade in colors.items():
        chosen = names == name
        if chosen.any():
            ax.scatter(*points[chosen].T, s=size, color=[shade], linewidths=0, label=name, rasterized=True)
