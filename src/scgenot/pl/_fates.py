"""Fates of cells: on an embedding, or group by group."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from scgenot._messages import did_you_mean
from scgenot.data import text_of_time
from scgenot.pl._common import GREY, bare, embedding, finish, group_names, obs_column

_FEW = 10
_COLUMNS = 4


def fates(
    adata: AnnData,
    *,
    key: str = "genot_fates",
    groupby: str | None = None,
    basis: str | None = None,
    cmap: str = "viridis",
    size: float = 8.0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | np.ndarray | None:
    """Draw the probabilities of fates, as bars of groups of cells or on an embedding.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scgenot.tl.fates` or :func:`scgenot.tl.ancestors`.
    key
        The `key_added` of the result.
    groupby
        Column of ``obs``: one bar per group, with the mean probability of each fate. Groups of fewer than ten cells are grey. By
        default the times.
    basis
        Instead: an embedding, such as ``"umap"``, with one panel per fate.
    cmap
        Colour map of the panels.
    size
        Size of the points of the panels.
    ax
        Axes to draw bars on.
    show
        Whether to show the figure.
    save
        Path to write the figure to.

    Returns
    -------
    The axes (of the panels, an array of them), or ``None`` if shown.

    Raises
    ------
    KeyError
        If there is no such result, column or embedding.
    ValueError
        If `basis` is given with `groupby` or `ax`.

    Examples
    --------
    >>> scgenot.tl.fates(adata, model, "cell_type", until=6)  # doctest: +SKIP
    >>> scgenot.pl.fates(adata, groupby="cell_type")  # doctest: +SKIP
    """
    if key not in adata.uns or key not in adata.obsm:
        raise KeyError(
            f"`key`={key!r}: there are no fates of that name in this adata. Call `scgenot.tl.fates(adata, model, label_key, "
            f"key_added={key!r})` first.{did_you_mean(key, adata.obsm)}"
        )
    if basis is not None and (groupby is not None or ax is not None):
        raise ValueError("`basis` draws one panel per fate on a figure of its own: leave `groupby` and `ax` out.")
    table, params = adata.obsm[key], adata.uns[key]["params"]
    labels = [str(one) for one in adata.uns[key].get("labels", table.columns)]
    if basis is not None:
        return _panels(adata, table, labels, basis, cmap, size, params, show, save)
    groupby = params["population_key"] if groupby is None else groupby
    column = obs_column(adata, groupby, "groupby")
    known = table.notna().all(axis=1).to_numpy()
    groups = column[known].astype(object).map(str)
    names = [
        name for name in group_names(column.astype(str) if _is_plain(column) else column) if (groups == name).any()
    ]
    means = np.stack([table[known].to_numpy()[(groups == name).to_numpy()].mean(axis=0) for name in names])
    if ax is None:
        ax = plt.subplots(figsize=(5.6, 1.2 + 0.36 * len(names)), layout="constrained")[1]
    left = np.zeros(len(names))
    for number, (label, color) in enumerate(zip(labels, _colors(adata, key, labels), strict=True)):
        ax.barh(np.arange(len(names)), means[:, number], left=left, color=color, label=label, height=0.72)
        left += means[:, number]
    counts = [int((groups == name).sum()) for name in names]
    written = [text_of_time(float(name)) for name in names] if _is_float(column) else names
    ax.set_yticks(np.arange(len(names)), [f"{name} ({n})" for name, n in zip(written, counts, strict=True)])
    for tick, n in zip(ax.get_yticklabels(), counts, strict=True):
        if n < _FEW:
            tick.set(color="grey", style="italic")
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="probability", ylabel=f"{groupby} (cells)", title=_title(params))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    return finish(ax.figure, ax, show, save)


def _panels(
    adata: AnnData,
    table: pd.DataFrame,
    labels: list[str],
    basis: str,
    cmap: str,
    size: float,
    params: dict[str, Any],
    show: bool | None,
    save: str | Path | None,
) -> np.ndarray | None:
    places = embedding(adata, basis)
    columns = min(_COLUMNS, len(labels))
    lines = math.ceil(len(labels) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(2.9 * columns + 0.6, 2.7 * lines), layout="constrained", squeeze=False
    )
    known = table.notna().all(axis=1).to_numpy()
    for number, ax in enumerate(axes.flat):
        if number >= len(labels):
            ax.set_axis_off()
            continue
        values = table.to_numpy()[known, number]
        order = np.argsort(values)
        ax.scatter(*places[~known].T, s=size, color=GREY, linewidths=0)
        drawn = ax.scatter(
            *places[known][order].T, s=size, c=values[order], cmap=cmap, vmin=0.0, vmax=1.0, linewidths=0
        )
        bare(ax, basis, labels[number])
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="probability")
    figure.suptitle(_title(params))
    return finish(figure, axes, show, save)


def _title(params: dict[str, Any]) -> str:
    return f"{params['label_key']} at {params['population_key']} {text_of_time(params['until'])}"


def _is_float(column: pd.Series) -> bool:
    """Whether groups are numbers such as 2.0, of which readers know 2."""
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    return pd.api.types.is_float_dtype(values.dtype)


def _is_plain(column: pd.Series) -> bool:
    return not isinstance(column.dtype, pd.CategoricalDtype)


def _colors(adata: AnnData, key: str, labels: list[str]) -> list[Any]:
    stored = adata.uns[key].get("colors", adata.uns.get(f"{key}_colors"))
    if stored is not None and len(stored) == len(labels):
        return list(stored)
    palette = plt.get_cmap("tab10" if len(labels) <= 10 else "tab20")
    return [palette(number % palette.N) for number in range(len(labels))]
