"""Which genes change: dots with intervals, and what was predicted against what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scgenot._messages import check_count, did_you_mean, one_of
from scgenot.pl._common import GREY, SOURCE_COLOR, TARGET_COLOR, finish, holder

_MOST_COLUMNS = 4
_LABELLED = 8


def response(
    adata: AnnData | MuData,
    *,
    key: str = "genot_response",
    kind: str = "genes",
    groups: str | Sequence[str] | None = None,
    condition: str | None = None,
    n_genes: int = 10,
    axes: Sequence[Axes] | Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Draw what :func:`scgenot.tl.response` found, one panel a group.

    Parameters
    ----------
    adata
        Object with the result.
    key
        Its key in ``uns``.
    kind
        ``"genes"``: the genes that change most, with the interval of the group's mean change, and what was observed as a diamond.
        ``"observed"``: each gene's predicted change against the observed one, with the interval of what is observed; genes outside of it
        are coloured. The panel says how well both are correlated, how well two halves of the observed cells are, and what a perfect
        prediction would reach: the square root of the reliability of the observed changes, which follows from the halves.
    groups
        Which groups, in this order; by default all.
    condition
        Which condition, of a result for several.
    n_genes
        How many genes of each group to draw (``"genes"``), or to name at most (``"observed"``; never more than 8).
    axes
        As many axes as groups to draw on.
    show
        Whether to show the figure.
    save
        Path to write the figure to.

    Returns
    -------
    The axes, or ``None`` if shown. Groups of fewer than 10 cells say so in their title, and are pale.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If a group or condition is none of the result, nothing was observed, or there are not as many axes as groups.

    Examples
    --------
    >>> scgenot.tl.response(adata, model, groupby="cell_type")  # doctest: +SKIP
    >>> scgenot.pl.response(adata, kind="observed")  # doctest: +SKIP
    """
    if kind not in ("genes", "observed"):
        raise ValueError(one_of("kind", kind, ["genes", "observed"]))
    check_count("n_genes", n_genes)
    parts = _parts(_table(holder(adata, key, "response(mdata, model"), key, condition), groups)
    if kind == "observed":
        unseen = [name for name, part in parts.items() if part["observed"].isna().all()]
        if unseen:
            raise ValueError(
                f"nothing was observed of {', '.join(map(repr, unseen))}: there were no target cells of that group in the adata of "
                "`scgenot.tl.response`. Name others with `groups`, or draw `kind='genes'`."
            )
    panels = _panels(axes, len(parts), (3.0, 0.22 * n_genes + 1.3) if kind == "genes" else (3.2, 3.3))
    for panel, (name, part) in zip(panels, parts.items(), strict=True):
        if kind == "genes":
            _genes(panel, part, n_genes, legend=panel is panels[0])
        else:
            _against_observed(panel, part, n_genes)
        panel.set_title(f"{name} ({_cells(part)})", fontsize="medium", loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    return finish(panels[0].figure, panels, show, save)


def _cells(part: pd.DataFrame) -> str:
    source, target = int(part["cells"].iloc[0]), int(part["observed_cells"].iloc[0])
    few = ": few" if part["few_cells"].iloc[0] else ""
    return f"{source} → {target} cells{few}" if target else f"{source} cells{few}"


def _genes(ax: Axes, part: pd.DataFrame, n_genes: int, legend: bool) -> None:
    top = part.iloc[:n_genes].iloc[::-1]
    places = np.arange(len(top))
    pale = 0.4 if top["few_cells"].iloc[0] else 1.0
    ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
    ax.hlines(places, top["lower"], top["upper"], color=SOURCE_COLOR, linewidth=2.0, alpha=pale)
    ax.scatter(top["change"], places, s=26, color=SOURCE_COLOR, alpha=pale, label="predicted, with interval", zorder=3)
    if top["observed"].notna().any():
        ax.scatter(
            top["observed"],
            places,
            s=24,
            marker="D",
            facecolor="none",
            edgecolor=TARGET_COLOR,
            alpha=pale,
            label="observed",
            zorder=4,
        )
    if legend:
        ax.legend(frameon=False, fontsize="x-small")
    ax.set_yticks(places, top["names"], fontsize="small")
    ax.set_xlabel("mean change")


def _against_observed(ax: Axes, part: pd.DataFrame, n_genes: int) -> None:
    seen, predicted = part["observed"].to_numpy(), part["change"].to_numpy()
    outside = (seen < part["expected_lower"]) | (seen > part["expected_upper"])
    pale = 0.4 if part["few_cells"].iloc[0] else 1.0
    named = part.iloc[: min(n_genes, _LABELLED)]
    ax.hlines(named["change"], named["expected_lower"], named["expected_upper"], color=GREY, linewidth=1.0, zorder=0)
    for here, color, label in (
        (~outside.to_numpy(), SOURCE_COLOR, "in its interval"),
        (outside.to_numpy(), TARGET_COLOR, "outside"),
    ):
        share = 100 * here.mean()
        ax.scatter(
            seen[here],
            predicted[here],
            s=7,
            color=color,
            alpha=0.7 * pale,
            linewidths=0,
            label=f"{label}: {share:.0f} %",
            rasterized=True,
        )
    reach = 1.08 * max(np.abs(seen).max(), np.abs(predicted).max(), 1e-9)
    ax.plot([-reach, reach], [-reach, reach], color="grey", linewidth=0.8, zorder=0)
    for row in _apart(named, 0.12 * reach).itertuples():
        ax.annotate(row.names, (row.observed, row.change), fontsize=6, xytext=(3, 2), textcoords="offset points")
    ax.set(xlabel="observed change", ylabel="predicted change", xlim=(-reach, reach), ylim=(-reach, reach))
    ax.text(0.03, 0.97, _agreement(part), transform=ax.transAxes, va="top", fontsize="x-small")
    ax.legend(frameon=False, fontsize="x-small", loc="lower right", markerscale=1.5)


def _apart(named: pd.DataFrame, distance: float) -> pd.DataFrame:
    """Return genes whose names do not lie over those of genes before them."""
    kept: list[int] = []
    for row, height in enumerate(named["change"]):
        if all(abs(height - named["change"].iloc[other]) > distance for other in kept):
            kept.append(row)
    return named.iloc[kept]


def _agreement(part: pd.DataFrame) -> str:
    """Return how well changes agree, beside halves of the cells and what a perfect prediction would reach."""
    lines = [f"r = {_correlation(part['change'], part['observed']):.2f}"]
    halves = _correlation(part["half_1"], part["half_2"])
    if np.isfinite(halves):
        lines.append(f"two halves of the cells: {halves:.2f}")
    if halves > 0:
        # Spearman and Brown: the reliability of the whole from that of its halves; a truth without noise has its square root.
        lines.append(f"a perfect prediction: {np.sqrt(2 * halves / (1 + halves)):.2f}")
    return "\n".join(lines)


def _correlation(one: pd.Series, other: pd.Series) -> float:
    known = one.notna() & other.notna()
    if known.sum() < 3 or one[known].std() == 0 or other[known].std() == 0:
        return np.nan
    return float(np.corrcoef(one[known], other[known])[0, 1])


def _table(adata: AnnData, key: str, condition: str | None) -> pd.DataFrame:
    result = adata.uns.get(key)
    if not hasattr(result, "keys") or "table" not in result or "few_cells" not in result["table"]:
        raise KeyError(
            f"`key`={key!r}: there is no response of that name in this adata. Call `scgenot.tl.response(adata, model, "
            f"key_added={key!r})` first.{did_you_mean(key, adata.uns)}"
        )
    table = result["table"]
    if "condition" not in table:
        if condition is not None:
            raise ValueError(f"`condition`={condition!r}, but this result is of one condition. Leave it out.")
        return table
    names = list(dict.fromkeys(table["condition"].astype(str)))
    if condition not in names:
        raise ValueError(one_of("condition", condition, names))
    return table[table["condition"].astype(str) == condition]


def _parts(table: pd.DataFrame, groups: str | Sequence[str] | None) -> dict[str, pd.DataFrame]:
    names = list(dict.fromkeys(table["group"].astype(str)))
    wanted = names if groups is None else [groups] if isinstance(groups, str) else [str(name) for name in groups]
    for name in wanted:
        if name not in names:
            raise ValueError(one_of("groups", name, names))
    return {name: table[table["group"].astype(str) == name].reset_index(drop=True) for name in wanted}


def _panels(axes: Sequence[Axes] | Axes | None, n: int, size: tuple[float, float]) -> list[Axes]:
    if axes is not None:
        given = [axes] if isinstance(axes, Axes) else list(np.ravel(np.asarray(axes, dtype=object)))
        if len(given) != n:
            raise ValueError(f"`axes` must hold {n} axes, one for each group, got {len(given)}.")
        return given
    columns = min(n, _MOST_COLUMNS)
    rows = -(-n // columns)
    _, made = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained", squeeze=False
    )
    flat = list(made.ravel())
    for unused in flat[n:]:
        unused.remove()
    return flat[:n]
