"""What epsilon does to a coupling."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scgenot._messages import did_you_mean
from scgenot.coupling._epsilon_scan import AGREE, SPREAD
from scgenot.pl._common import GREY, SOURCE_COLOR, finish, log_scale, scan_of

_PANELS = {
    "effective_targets": "effective targets",
    "agreement": "agreement of two subsets",
    "gap": "gap to the next plan",
}


def epsilon_scan(
    adata: AnnData | MuData,
    *,
    key: str = "genot_epsilons",
    condition: str | None = None,
    axes: list[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Draw effective targets, agreement of subsets and, between spaces, the gap to the next plan over epsilon.

    Grey is where an epsilon is not suggested: mass that spreads over more than 5 % of the target cells, subsets that agree by
    less than .9. Filled dots are plans that have converged. The star marks what is suggested.

    Parameters
    ----------
    adata
        Object with a result of :func:`scgenot.tl.suggest_epsilon`.
    key
        The `key_added` of the result.
    condition
        Which one is drawn, where several were scanned: one of ``uns[key]["conditions"]["condition"]``. The star is what is suggested
        for all of them, the title what this one needs alone.
    axes
        Axes to draw on, as many as there are panels: two, or three where several starts led to several plans.
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
    >>> scgenot.tl.suggest_epsilon(
    ...     mdata, source_modality="atac", target_modality="rna", source_rep="X_lsi"
    ... )  # doctest: +SKIP
    >>> scgenot.pl.epsilon_scan(mdata)  # doctest: +SKIP
    """
    if key not in adata.uns or "agreement" not in adata.uns[key].get("table", {}):
        raise KeyError(
            f"`key`={key!r}: there is no scan of that name in this object. Call `scgenot.tl.suggest_epsilon(adata, "
            f"key_added={key!r}, ...)` first.{did_you_mean(key, adata.uns)}"
        )
    scan = adata.uns[key]
    table, why, n_target = scan_of(scan, condition)
    panels = [name for name in _PANELS if name != "gap" or np.isfinite(table["gap"]).any()]
    fresh = axes is None
    if fresh:
        _, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.6), layout="constrained")
    axes = list(np.ravel(axes))
    if len(axes) != len(panels):
        raise ValueError(f"`axes` must hold {len(panels)} axes for this scan, got {len(axes)}.")
    places = np.arange(len(table["epsilon"]))
    chosen = int(np.flatnonzero(table["epsilon"] == scan["epsilon"])[0])
    converged = table["converged"].astype(bool)
    for ax, name in zip(axes, panels, strict=True):
        values = np.where(np.isfinite(table[name]), table[name], np.nan)
        ax.plot(places, values, color=SOURCE_COLOR)
        for some, face in ((converged, SOURCE_COLOR), (~converged, "white")):
            ax.plot(places[some], values[some], "o", markerfacecolor=face, markeredgecolor=SOURCE_COLOR)
        ax.plot(chosen, values[chosen], "*", markersize=15, color=SOURCE_COLOR)
        ax.set_xticks(places, [f"{epsilon:g}" for epsilon in table["epsilon"]])
        ax.set(xlabel="epsilon", ylabel=_PANELS[name])
        ax.spines[["top", "right"]].set_visible(False)
    spread, agreement = axes[:2]
    log_scale(spread)
    top = max(n_target, spread.get_ylim()[1])
    spread.axhspan(min(max(SPREAD * n_target, 1.0), top), top, color=GREY, alpha=0.5, linewidth=0, zorder=0)
    spread.set_ylim(min(1.0, np.nanmin(table["effective_targets"])), top)
    spread.set_title(f"of {n_target} target cells", fontsize="medium")
    low = min(0.0, float(np.nanmin(table["agreement"])))
    agreement.axhspan(low, AGREE, color=GREY, alpha=0.5, linewidth=0, zorder=0)
    agreement.set_ylim(low, 1.02)
    if fresh:
        spread.figure.suptitle(textwrap.fill(why, 44 * len(panels)), fontsize="small")
    return finish(spread.figure, axes, show, save)
