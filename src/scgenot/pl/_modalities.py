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

from scgenot._messages import did_you_mean
from scgenot.pl._common import GREY, bare, embedding, finish, places_amid, population_mask, result_params

_MOST_COLORS = 20


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

    From left to right: source cells by `color` (only if it is given), transported means among grey target cells in the
    colours of their source cells, and source cells by uncertainty. Without `color`, means have the colours of the
    uncertainty.

    Parameters
    ----------
    data
        MuData with both modalities, or AnnData with both populations, and a result of :func:`scgenot.tl.transport`.
    key
        The `key_added` of the result.
    color
        Column of ``obs`` of the source cells with groups, such as cell types.
    source_basis, target_basis
        Keys of ``obsm``, with or without ``X_``; the first two columns are drawn. By default the representations that
        the model maps. In the representation of the target, means lie where they are; on any other embedding they are
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
        If `axes` does not hold as many axes as there are panels, or an embedding has fewer than two columns.
    """
    source, target, params = _sides(data, key)
    if color is not None and color not in source.obs:
        raise KeyError(
            f"`color`={color!r} is no column of obs of the source cells.{did_you_mean(color, source.obs.columns)}"
        )
    source_basis, target_basis = source_basis or params["source_rep"], target_basis or params["target_rep"]
    uncertainty = source.obs[f"{key}_uncertainty"].to_numpy(dtype=np.float64)
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
    for ax, points in ((landing, background), (unsure, start)):
        ax.scatter(*points.T, s=size, color=GREY, linewidths=0, rasterized=True)
    drawn = unsure.scatter(*start[moved].T, s=1.4 * size, **by_value)
    unsure.figure.colorbar(drawn, ax=unsure, shrink=0.7, label="uncertainty (cos-var)")
    if color is None:
        landing.scatter(*places.T, s=1.4 * size, **by_value)
    else:
        groups = source.obs[color].iloc[moved]
        axes[0].scatter(*start.T, s=size, color=GREY, linewidths=0, rasterized=True)
        _by_group(axes[0], start[moved], groups, 1.4 * size)
        _by_group(landing, places, groups, 1.4 * size)
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
    holders = [data] if isinstance(data, AnnData) else [one for one in data.mod.values() if key in one.uns]
    if not holders:
        raise KeyError(
            f"`key`={key!r}: no modality has a result of that name. Call `scgenot.tl.transport(mdata, model, "
            f"key_added={key!r})` first."
        )
    source = holders[0]
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


def _coordinates(adata: AnnData, basis: str) -> Float[np.ndarray, "n 2"]:
    """Return the first two columns of an embedding, or of ``X``."""
    if basis != "X":
        return embedding(adata, basis)
    if adata.n_vars < 2:
        raise ValueError(f"X must have at least two columns to be drawn, got {adata.n_vars}. Name a basis.")
    cells = adata.X[:, :2]
    return np.asarray(cells.toarray() if hasattr(cells, "toarray") else cells, dtype=np.float64)


def _by_group(ax: Axes, points: Float[np.ndarray, "n 2"], groups: pd.Series, size: float) -> None:
    names = groups.astype(str).to_numpy()
    palette = plt.get_cmap("tab10" if len(np.unique(names)) <= 10 else "tab20")
    for number, name in enumerate(np.unique(names)):
        chosen = names == name
        shade = palette(number % _MOST_COLORS % palette.N)
        ax.scatter(*points[chosen].T, s=size, color=[shade], linewidths=0, label=name, rasterized=True)
