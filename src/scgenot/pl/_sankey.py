"""The flow of groups of cells over all times of a course."""

from __future__ import annotations

import dataclasses
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from scgenot._rng import RNG
from scgenot.data import text_of_time
from scgenot.pl._common import finish, group_colors, group_names, new_axes, obs_column
from scgenot.tl._fates import check_course
from scgenot.tl._transitions import transition_matrix
from scgenot.tl._writing import sent_mass

if TYPE_CHECKING:
    from scgenot.model import GENOT

_BAR, _GAP, _NAMED = 0.06, 0.015, 0.03


@dataclasses.dataclass(frozen=True)
class Flows:
    """Groups of cells at each time, and what flows between them.

    Attributes
    ----------
    times
        The times.
    groups
        Names of the groups.
    shares
        Share of each group at each time, times x groups.
    moved
        Mass that goes from each group to each group from one time to the next, of 1 in all.
    """

    times: tuple[Any, ...]
    groups: list[str]
    shares: Float[np.ndarray, "t g"]
    moved: list[Float[np.ndarray, "g g"]]


def sankey(
    adata: AnnData,
    model: GENOT,
    label_key: str,
    *,
    n_samples: int = 10,
    n_neighbors: int = 5,
    min_share: float = 0.005,
    rng: RNG = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | FilePath | None = None,
) -> Axes | None:
    """Draw how groups of cells flow into each other over all times of a course.

    Bars are the groups' observed shares of the cells of each time, bands what goes from one to another: as wide as it is of what
    its group sends at the left end, and of what its group gets at the right end.

    Parameters
    ----------
    adata
        Cells of all times.
    model
        A trained model of a time course, in either direction.
    label_key
        Column of ``obs`` with groups of cells at all times. Cells without one are left out.
    n_samples
        Samples a cell.
    n_neighbors
        Cells of the next time that each sample asks for their group.
    min_share
        Bands of less than this share of all cells are left out.
    rng
        Seed or generator.
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
    ValueError
        If the model has no times, or a time has no cell with a group.
    KeyError
        If there is no such column.

    Examples
    --------
    >>> scgenot.pl.sankey(adata, model, "cell_type")  # doctest: +SKIP
    """
    check_course(model)
    column = obs_column(adata, label_key, "label_key")
    flows = group_flows(adata, model, label_key, n_samples=n_samples, n_neighbors=n_neighbors, rng=rng)
    ax = new_axes(ax, size=(2.2 + 1.9 * len(flows.times), 4.6))
    colors = group_colors(adata, label_key)
    bottoms = [_bottoms(share) for share in flows.shares]
    for step, moved in enumerate(flows.moved):
        _bands(ax, step, moved, flows, bottoms, colors, min_share)
    for number, (share, bottom) in enumerate(zip(flows.shares, bottoms, strict=True)):
        for group, height, y in zip(flows.groups, share, bottom, strict=True):
            if height == 0:
                continue
            ax.add_patch(Rectangle((number - _BAR / 2, y), _BAR, height, color=colors[group], linewidth=0))
            if height >= _NAMED:
                last = number == len(flows.times) - 1
                x = number + (_BAR if last else -_BAR)
                ax.text(x, y + height / 2, group, va="center", ha="left" if last else "right", fontsize=8)
    top = max(bottom.max() + share[bottom.argmax()] for share, bottom in zip(flows.shares, bottoms, strict=True))
    ax.set(xlim=(-0.65, len(flows.times) - 0.35), ylim=(top + 0.02, -0.02), yticks=[])
    ax.set_xticks(np.arange(len(flows.times)), [text_of_time(time) for time in flows.times])
    ax.set(xlabel=model.describe()["population_key"], title=f"{column.name}: shares of cells")
    ax.spines[["top", "right", "left"]].set_visible(False)
    return finish(ax.figure, ax, show, save)


def group_flows(
    adata: AnnData, model: GENOT, label_key: str, *, n_samples: int = 10, n_neighbors: int = 5, rng: RNG = 0
) -> Flows:
    """Return the groups of cells at each time of a course, and what goes from each to each."""
    column = obs_column(adata, label_key, "label_key")
    times, key = model.times, model.describe()["population_key"]
    at = [(adata.obs[key] == time).to_numpy() & column.notna().to_numpy() for time in times]
    if not all(one.any() for one in at):
        empty = times[[one.any() for one in at].index(False)]
        raise ValueError(f"`label_key`={label_key!r}: no cell at the time {text_of_time(empty)} has a group.")
    groups = [name for name in group_names(column) if (column[np.logical_or.reduce(at)].astype(str) == name).any()]
    numbers = pd.Categorical(column.astype(object).map(str), categories=groups).codes
    shares = np.stack([np.bincount(numbers[one], minlength=len(groups)) / one.sum() for one in at])
    moved = []
    for step, after in enumerate(times[1:]):
        rows = np.flatnonzero(at[step])
        found = model.get_label_probabilities(
            adata,
            label_key=label_key,
            target=adata,
            indices=rows,
            until=after,
            n_samples=n_samples,
            n_neighbors=n_neighbors,
            rng=rng,
        )
        found = found.rename(columns=str).reindex(columns=groups, fill_value=0.0)
        mass = sent_mass(model, adata, rows, growth=model.knows_growth(), until=after)
        matrix = np.zeros((len(groups), len(groups)))
        part = transition_matrix(found.to_numpy(), numbers[rows].astype(int), mass)
        matrix[: len(part)] = part
        moved.append(matrix / matrix.sum())
    return Flows(times, groups, shares, moved)


def _bottoms(share: Float[np.ndarray, " g"]) -> Float[np.ndarray, " g"]:
    """Return where the bars of one time begin, with a gap after each that is there."""
    return np.concatenate([[0.0], np.cumsum(share + _GAP * (share > 0))[:-1]])


def _bands(
    ax: Axes,
    step: int,
    moved: Float[np.ndarray, "g g"],
    flows: Flows,
    bottoms: list[np.ndarray],
    colors: dict[str, Any],
    min_share: float,
) -> None:
    left, right = flows.shares[step], flows.shares[step + 1]
    sent, got = moved.sum(axis=1, keepdims=True), moved.sum(axis=0, keepdims=True)
    leaves = np.divide(moved, sent, out=np.zeros_like(moved), where=sent > 0) * left[:, None]
    arrives = np.divide(moved, got, out=np.zeros_like(moved), where=got > 0) * right[None]
    y0 = bottoms[step][:, None] + np.cumsum(leaves, axis=1) - leaves
    y1 = bottoms[step + 1][None] + np.cumsum(arrives, axis=0) - arrives
    x0, x1 = step + _BAR / 2, step + 1 - _BAR / 2
    middle = (x0 + x1) / 2
    for a, b in zip(*np.nonzero(np.maximum(leaves, arrives) >= min_share), strict=True):
        low, high = (y0[a, b], y1[a, b]), (y0[a, b] + leaves[a, b], y1[a, b] + arrives[a, b])
        points = [
            *[(x0, low[0]), (middle, low[0]), (middle, low[1]), (x1, low[1])],
            *[(x1, high[1]), (middle, high[1]), (middle, high[0]), (x0, high[0]), (x0, low[0])],
        ]
        curve = [Path.CURVE4] * 3
        codes = [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY]
        color = colors[flows.groups[a]]
        ax.add_patch(PathPatch(Path(points, codes), facecolor=color, alpha=0.45, linewidth=0))
