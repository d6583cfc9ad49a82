"""What the plots share: embeddings, where cells land on them, and how a figure ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Float, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from mudata import MuData
from sklearn.neighbors import NearestNeighbors

from scgenot._messages import did_you_mean
from scgenot.data import category_mask

GREY = "#d9d9d9"
SOURCE_COLOR, TARGET_COLOR = "#3b6fb6", "#c9892b"
_NEIGHBORS = 5


def holder(data: AnnData | MuData, key: str, tool: str = "transport(mdata, model") -> AnnData:
    """Return the AnnData that a result stands in: `data`, or the modality that has it.

    Columns of the whole MuData are there as well, under their own name where the modality has none of that name.

    Raises
    ------
    TypeError
        If `data` is neither an AnnData nor a MuData.
    KeyError
        If no modality has a result of that name.
    """
    if isinstance(data, AnnData):
        return data
    if not isinstance(data, MuData):
        raise TypeError(f"`adata` must be an AnnData or a MuData, got {type(data).__name__}. Read the file first.")
    for modality in data.mod.values():
        if key in modality.uns:
            missing = [name for name in data.obs if name not in modality.obs]
            if not missing:
                return modality
            # Plots read; what is joined here is not written back.
            shallow = AnnData(
                X=modality.X, obs=modality.obs.join(data.obs[missing]), var=modality.var, uns=dict(modality.uns)
            )
            for name, value in modality.obsm.items():
                shallow.obsm[name] = value
            return shallow
    raise KeyError(
        f"`key`={key!r}: no modality has a result of that name. Call `scgenot.tl.{tool}, key_added={key!r})` first."
    )


def result_params(adata: AnnData, key: str) -> dict[str, Any]:
    """Return what :func:`scgenot.tl.transport` noted under `key`."""
    if key not in adata.uns or f"{key}_uncertainty" not in adata.obs:
        raise KeyError(
            f"`key`={key!r}: there is no result of that name in this adata. Call `scgenot.tl.transport(adata, model, "
            f"key_added={key!r})` first.{did_you_mean(key, adata.uns)}"
        )
    return adata.uns[key]["params"]


def measured(adata: AnnData, key: str, value: str) -> Float[np.ndarray, " n"]:
    """Return a measure of a result, NaN for cells that were not transported.

    Raises
    ------
    ValueError
        If the result has no such measure, or no cell has a value.
    """
    if f"{key}_{value}" not in adata.obs:
        raise ValueError(f"this result has no {value!r}. Call `scgenot.tl.transport` again with this version.")
    values = adata.obs[f"{key}_{value}"].to_numpy(dtype=np.float64)
    if np.isnan(values).all():
        raise ValueError(
            f"no cell has a {value!r}: one sample does not tell it. Call `scgenot.tl.transport` with `n_samples` of at "
            "least 2."
        )
    return values


def embedding(adata: AnnData, basis: str) -> Float[np.ndarray, "n 2"]:
    """Return the first two coordinates of an embedding; ``"umap"`` stands for ``"X_umap"``."""
    for name in (basis, f"X_{basis}"):
        if name in adata.obsm:
            coordinates = np.asarray(adata.obsm[name], dtype=np.float64)
            if coordinates.ndim != 2 or coordinates.shape[1] < 2:
                raise ValueError(f"`basis`={basis!r} must have at least two columns, got shape {coordinates.shape}.")
            return coordinates[:, :2]
    there = ", ".join(repr(name) for name in adata.obsm) or "none"
    raise KeyError(f"`basis`={basis!r} is no key of adata.obsm.{did_you_mean(basis, adata.obsm)} There are: {there}.")


def population_mask(adata: AnnData, params: dict[str, Any], side: str) -> Bool[np.ndarray, " n"]:
    """Return which cells belong to a population; none where `adata` has no such column.

    Between modalities no column tells populations apart: results stand with the source cells.
    """
    key = params.get("population_key")
    if key is None:
        return np.full(adata.n_obs, side == "source")
    if key not in adata.obs:
        return np.zeros(adata.n_obs, dtype=bool)
    if params.get("times") is not None:
        # Of a time course: what its steps lead to, or the time that was asked for.
        times, until = [str(one) for one in params["times"]], params.get("until")
        same = [one == until or text == str(until) for one, text in zip(params["times"], times, strict=True)]
        last = same.index(True) if until is not None else len(times) - 1
        chosen = times[:last] if side == "source" else times[last:] if "until" in params else times[1:]
        masks = [category_mask(adata.obs[key], one) for one in chosen]
        return np.logical_or.reduce(masks) if masks else np.zeros(adata.n_obs, dtype=bool)
    return category_mask(adata.obs[key], params[side])


def natural(name: object) -> list[tuple[int, float, str]]:
    """Sort key under which d8 stands before d16."""
    parts = re.split(r"(\d+(?:\.\d+)?)", str(name))
    return [(0, float(part), "") if number % 2 else (1, 0.0, part) for number, part in enumerate(parts) if part]


def group_names(column: pd.Series) -> list[str]:
    """Return the names of the groups that occur, in the order of their categories, or in natural order."""
    present = set(column.dropna().astype(str))
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(name) for name in column.cat.categories if str(name) in present]
    return sorted(present, key=natural)


def group_colors(adata: AnnData, key: str) -> dict[str, Any]:
    """Return the colour of each group of a column: those that scanpy keeps in ``uns``, or a palette's."""
    column = adata.obs[key]
    names = group_names(column)
    stored = adata.uns.get(f"{key}_colors")
    if stored is not None and isinstance(column.dtype, pd.CategoricalDtype):
        categories = [str(name) for name in column.cat.categories]
        if len(stored) >= len(categories) and all(is_color_like(color) for color in stored):
            of_all = dict(zip(categories, stored, strict=False))
            return {name: of_all[name] for name in names}
    palette = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    return {name: palette(number % palette.N) for number, name in enumerate(names)}


def paint(column: pd.Series, colors: dict[str, Any], other: Any = GREY) -> Float[np.ndarray, "n 4"]:
    """Return the colour of each cell, grey for cells of no group."""
    return np.array([to_rgba(colors.get(str(name), other)) for name in column.astype(object)]).reshape(-1, 4)


def obs_column(adata: AnnData, key: str, argument: str) -> pd.Series:
    """Return a column of ``obs``, or say which one may have been meant."""
    if key not in adata.obs:
        raise KeyError(f"`{argument}`={key!r} is no column of adata.obs.{did_you_mean(key, adata.obs.columns)}")
    return adata.obs[key]


def is_numeric(column: pd.Series) -> bool:
    """Whether a column is drawn by a colour map and not by groups."""
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def landing_places(
    adata: AnnData, params: dict[str, Any], transported: Float[np.ndarray, "n d"], coordinates: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 2"]:
    """Return where transported cells lie on an embedding: amid their nearest target cells.

    An embedding such as UMAP has no formula for new points. Of the five nearest target cells, nearest in the target
    representation, the most central one on the embedding is where a reader would look; their mean may lie in the void
    between two clusters.
    """
    target = np.flatnonzero(population_mask(adata, params, "target"))
    if len(target) == 0:
        raise ValueError(
            f"this adata has no {params['target']!r} cells to place transported cells among. "
            "Plot an AnnData with both populations."
        )
    return places_amid(adata[target], params["target_rep"], transported, coordinates[target])


def places_amid(
    target: AnnData, rep: str, transported: Float[np.ndarray, "n d"], coordinates: Float[np.ndarray, "m 2"]
) -> Float[np.ndarray, "n 2"]:
    """Return the place of transported cells on an embedding of target cells, as :func:`landing_places` does."""
    cells = target.X if rep == "X" else target.obsm[rep]
    cells = cells.toarray() if hasattr(cells, "toarray") else np.asarray(cells)
    search = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(cells))).fit(cells)
    nearest = search.kneighbors(transported, return_distance=False)
    places = coordinates[nearest]
    apart = np.linalg.norm(places[:, :, None] - places[:, None, :], axis=-1).sum(axis=2)
    return places[np.arange(len(places)), apart.argmin(axis=1)]


def new_axes(ax: Axes | None, *, size: tuple[float, float] = (5.2, 4.4)) -> Axes:
    """Return `ax`, or the axes of a new figure."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def log_scale(ax: Axes) -> None:
    """Make a vertical axis logarithmic, with ticks that are written as numbers: 2, 5, 10."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def bare(ax: Axes, basis: str, title: str) -> None:
    """Dress axes that show an embedding: coordinates of an embedding mean nothing, so no ticks."""
    name = basis.removeprefix("X_").upper()
    ax.set(xticks=[], yticks=[], xlabel=f"{name} 1", ylabel=f"{name} 2", title=title)
    ax.spines[["top", "right"]].set_visible(False)


def group_boxes(ax: Axes, values: Float[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"], label: str) -> None:
    """Draw a box for each group, in the order of their medians."""
    by_group = {name: values[groups == name] for name in np.unique(groups)}
    order = sorted(by_group, key=lambda name: np.median(by_group[name]))
    names = [f"{name} ({len(by_group[name])})" for name in order]
    drawn = ax.boxplot(
        [by_group[name] for name in order], orientation="horizontal", showfliers=False, patch_artist=True, widths=0.6
    )
    for box, line in zip(drawn["boxes"], drawn["medians"], strict=True):
        box.set(facecolor=SOURCE_COLOR, alpha=0.6, edgecolor="none")
        line.set_color("black")
    ax.set_yticks(np.arange(1, len(order) + 1), names)
    ax.set(xlabel=label, title="by group (cells)")
    ax.spines[["top", "right"]].set_visible(False)


def finish(figure: Figure, axes: Any, show: bool | None, save: str | Path | None) -> Any:
    """Save and show as asked; return the axes unless they were shown."""
    if save is not None:
        figure.savefig(save, dpi=200, bbox_inches="tight")
    if show:
        plt.show()
        return None
    return axes


def scan_of(scan: dict[str, Any], condition: str | None) -> tuple[dict[str, np.ndarray], str, int]:
    """Return the table of a scan of tau or epsilon, or of one of its conditions, why it suggests what, and the number of target cells.

    Raises
    ------
    ValueError
        If a condition is named where there are none, is not among them, or is needed: several are no one curve.
    """
    table = {name: np.asarray(column) for name, column in scan["table"].items()}
    if "conditions" not in scan:
        if condition is not None:
            raise ValueError(
                f"`condition`={condition!r} was given, but the scan is of one pair of populations. Leave it out."
            )
        return table, str(scan["why"]), int(scan["params"]["n_target"])
    told = scan["conditions"]
    names = [str(name) for name in told["condition"]]
    if condition is None and len(names) == 1:
        condition = names[0]
    if condition not in names:
        known = ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        raise ValueError(
            f"`condition` must name one of the {len(names)} that were scanned, got {condition!r}."
            f"{'' if condition is None else did_you_mean(condition, names)} There are: {known}."
        )
    place = names.index(condition)
    here = table.pop("condition").astype(str) == condition
    why = f"{condition}: {told['why'][place]}"
    return {name: column[here] for name, column in table.items()}, why, int(told["n_target"][place])
