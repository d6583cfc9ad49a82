"""Whether regions hold what they say."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scgenot._messages import did_you_mean
from scgenot.pl._common import GREY, SOURCE_COLOR, TARGET_COLOR, finish, new_axes


def calibration(
    adata: AnnData | MuData,
    *,
    key: str = "genot_calibration",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw how many known targets regions hold, against how many they should, before and after calibration.

    Below the diagonal, raw regions promise too much. "After" each fifth of the cells is judged by regions that the other four
    calibrated. The band tells between which shares the coverage of other cells of the same kind lies in 90 % of cases: narrow only with many
    known targets.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scgenot.tl.calibrate`.
    key
        The `key_added` of the result.
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
        If there is no such result.

    Examples
    --------
    >>> scgenot.pl.calibration(adata)  # doctest: +SKIP
    """
    if key not in adata.uns or "table" not in adata.uns[key] or "scores" not in adata.uns[key]:
        raise KeyError(
            f"`key`={key!r}: there is no calibration of that name in this adata. Call `scgenot.tl.calibrate(adata, model, "
            f"key_added={key!r}, ...)` first.{did_you_mean(key, adata.uns)}"
        )
    found = adata.uns[key]
    table = found["table"]
    ax = new_axes(ax, size=(4.2, 4.0))
    ax.fill_between(
        table["level"], table["low"], table["high"], color=GREY, alpha=0.6, linewidth=0, label="other cells, 90 %"
    )
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    for name, color, marker in (("before", SOURCE_COLOR, "o"), ("after", TARGET_COLOR, "s")):
        ax.plot(table["level"], table[name], color=color, marker=marker, markersize=3.5, label=f"{name} calibration")
    what = "partners" if found["kind"] == "points" else "labels"
    ax.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="nominal level", ylabel=f"share of known {what} in the region")
    ax.set_title(f"{int(found['n_cells'])} known {what}")
    ax.set_aspect("equal")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)
    return finish(ax.figure, ax, show, save)
