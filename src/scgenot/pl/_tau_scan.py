"""What tau and epsilon do to a coupling."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from scgenot._messages import did_you_mean
from scgenot.pl._common import GREY, finish, log_scale, scan_of

_PANELS = {
    "mass": "transported mass",
    "effective_targets": "effective targets",
    "purity": "mass between equal labels",
}


def tau_scan(
    adata: AnnData,
    *,
    key: str = "genot_taus",
    condition: str | None = None,
    axes: list[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Draw transported mass, effective targets and, with labels, type purity over tau, a line for each epsilon.

    Dotted lines in the first panel are the mass that two random halves of one population keep: what the solid line
    lies below is a difference between the populations. A star marks what is suggested.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scgenot.tl.suggest_tau`.
    key
        The `key_added` of the result.
    condition
        Which one is drawn, where several were scanned: one of ``uns[key]["conditions"]["condition"]``. The star is what is suggested
        for all of them, the title what this one needs alone.
    axes
        Axes to draw on, as many as there are panels: two, or three with labels.
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
    ValueError
        If `condition` is none of those that were scanned, or `axes` does not hold as many axes as there are panels.

    Examples
    --------
    >>> scgenot.tl.suggest_tau(
    ...     adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    ... )  # doctest: +SKIP
    >>> scgenot.pl.tau_scan(adata)  # doctest: +SKIP
    """
    if key not in adata.uns or "table" not in adata.uns[key]:
        raise KeyError(
            f"`key`={key!r}: there is no scan of that name in this adata. Call `scgenot.tl.suggest_tau(adata, "
            f"key_added={key!r}, ...)` first.{did_you_mean(key, adata.uns)}"
        )
    scan = adata.uns[key]
    table, why, _ = scan_of(scan, condition)
    panels = [name for name in _PANELS if name in table]
    fresh = axes is None
    if fresh:
        _, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.6), layout="constrained", squeeze=False)
    axes = list(np.ravel(axes))
    if len(axes) != len(panels):
        raise ValueError(f"`axes` must hold {len(panels)} axes for this scan, got {len(axes)}.")
    # Taus crowd towards 1: each gets the same room.
    taus = np.unique(table["tau"])[::-1]
    epsilons = np.unique(table["epsilon"])[::-1]
    colors = plt.get_cmap("viridis")(np.linspace(0.1, 0.8, len(epsilons)))
    for ax, name in zip(axes, panels, strict=True):
        ax.axvline(np.flatnonzero(taus == scan["tau"])[0], color=GREY, zorder=0)
        for epsilon, color in zip(epsilons, colors, strict=True):
            here = np.flatnonzero(table["epsilon"] == epsilon)
            here = here[np.argsort(-table["tau"][here])]
            ax.plot(table[name][here], color=color, marker=".", label=f"{epsilon:g}")
            if name == "mass":
                ax.plot(table["kept"][here], color=color, linestyle=":")
            if epsilon == scan["epsilon"]:
                place = int(np.flatnonzero(table["tau"][here] == scan["tau"])[0])
                ax.plot(place, table[name][here][place], marker="*", markersize=13, color=color, linestyle="none")
        ax.set_xticks(np.arange(len(taus)), [f"{tau:g}" for tau in taus])
        ax.set(xlabel="tau", ylabel=_PANELS[name])
        ax.spines[["top", "right"]].set_visible(False)
    log_scale(axes[panels.index("effective_targets")])
    axes[0].plot([], [], color="grey", linestyle=":", label="halves of one")
    axes[0].legend(title="epsilon", frameon=False)
    if fresh:
        axes[0].figure.suptitle(textwrap.fill(why, 44 * len(panels)), fontsize="small")
    return finish(axes[0].figure, axes, show, save)
