"""Make docs/benchmarks.md and its pictures from the results: ``python -m benchmarks report [--out DIR]``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks._registry import BENCHMARKS
from benchmarks._results import FOLDER, ROOT, Result, read
from benchmarks._tables import Row, Table, Value

DOCS = ROOT / "docs"
PICTURES = "_static/benchmarks"
_NAMES = {"floor": "floor", "baseline": "trivial baseline", "reference": "reference", "solver": ""}
_INTRO = """\
# Benchmarks

<!-- Written by `python -m benchmarks report`. Change the benchmarks, not this page. -->

Every table has the floor of its metric (the truth itself, drawn anew at the same sizes) and a trivial baseline (what takes no
learning), or says why it has none. Figures of several seeds are means ± standard deviations over them. Seconds are wall time, compilation
included; memory is the peak of the process while a row, or a table, was made. How to repeat them: `benchmarks/README.md` in the repository.
"""
_QUICK = """\
```{warning}
From a quick run: sizes so small that they only show that everything runs. Compare nothing by these figures.
```
"""


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Add the options of ``report``."""
    arguments.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    arguments.add_argument(
        "--docs", type=Path, default=DOCS, help="folder that the page and its pictures are written into"
    )


def main(options: argparse.Namespace) -> int:
    """Write the page and its pictures."""
    results = results_of(options.out)
    if not results:
        raise ValueError(f"there are no results in {options.out}. Run `python -m benchmarks run` first.")
    note = options.out / "note.md"
    (options.docs / "benchmarks.md").write_text(page(results, note.read_text() if note.is_file() else ""))
    for name, table, rows in pictures(results):
        draw(options.docs / PICTURES / name, table, rows)
    return 0


def results_of(folder: Path) -> list[Result]:
    """Read all results of a folder: of each benchmark the full ones, or the quick ones where there are no others."""
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    full = {one.benchmark for one in found if not one.quick}
    return [one for one in found if one.quick == (one.benchmark not in full)]


def by_benchmark(results: Iterable[Result]) -> list[tuple[str, list[Result]]]:
    """Return results of the same benchmark, by seed; benchmarks in the order of the registry."""
    groups: dict[str, list[Result]] = {}
    for one in results:
        groups.setdefault(one.benchmark, []).append(one)
    known = {name: number for number, name in enumerate(BENCHMARKS)}
    names = sorted(groups, key=lambda name: (known.get(name, len(known)), name))
    return [(name, sorted(groups[name], key=lambda one: one.seed)) for name in names]


def page(results: Sequence[Result], note: str = "") -> str:
    """Return the page: the same text for the same results; `note` is what no file of results knows, as what else the machine did."""
    parts = [_INTRO, note] if note else [_INTRO]
    for name, group in by_benchmark(results):
        parts.append(f"## {name}\n")
        if name in BENCHMARKS:
            parts.append(f"{BENCHMARKS[name].question} `{BENCHMARKS[name].module}`\n")
        if group[0].quick:
            parts.append(_QUICK)
        parts += [_made(group)]
        for title, tables in by_title(group):
            parts.append(_table(name, title, tables, len(group)))
    return "\n".join(parts)


def by_title(group: Sequence[Result]) -> list[tuple[str, list[Table]]]:
    """Return the tables of several seeds that have one title."""
    tables: dict[str, list[Table]] = {}
    for one in group:
        for table in one.tables:
            tables.setdefault(table.title, []).append(table)
    return list(tables.items())


def pictures(results: Sequence[Result]) -> list[tuple[str, Table, list[list[Row]]]]:
    """Return file names, tables and rows of all pictures."""
    found = []
    for name, group in by_benchmark(results):
        for title, tables in by_title(group):
            if tables[0].plot is not None:
                found.append((_file(name, title), tables[0], merged(tables)))
    return found


def merged(tables: Sequence[Table]) -> list[list[Row]]:
    """Return the rows of several seeds that have the same labels, in the order of their first."""
    rows: dict[tuple, list[Row]] = {}
    for table in tables:
        for row in table.rows:
            rows.setdefault(tuple(row.labels.items()), []).append(row)
    return list(rows.values())


def _made(group: Sequence[Result]) -> str:
    """Return a sentence on what made these results; machines and versions that differ are all told."""
    seeds = ", ".join(str(one.seed) for one in group)
    commits = sorted({f"`{one.commit[:10]}`" + (" with changes" if one.dirty else "") for one in group})
    machines = sorted(
        {
            f"{one.machine['processor']}, {one.machine['cores']} cores, {one.machine['memory_gib']:g} GiB"
            for one in group
        }
    )
    versions = sorted({", ".join(f"{name} {one.versions[name]}" for name in ("jax", "ott-jax", "scvi-tools") if name in one.versions) for one in group})  # fmt: skip
    seconds = np.mean([one.seconds for one in group])
    word = "Seeds" if len(group) > 1 else "Seed"
    return (
        f"{word} {seeds}; commit {' and '.join(commits)}; {' and '.join(machines)}; {' and '.join(versions)}; {number(seconds)} s "
        "and at most " + f"{number(max(one.peak_gib for one in group))} GiB a seed.\n"
    )


def _table(benchmark: str, title: str, tables: Sequence[Table], seeds: int) -> str:
    rows = merged(tables)
    labels = list(dict.fromkeys(name for row in rows for name in row[0].labels))
    values = list(dict.fromkeys(name for row in rows for one in row for name in one.values))
    own = {
        what: any(getattr(one, name) is not None for row in rows for one in row)
        for name, what in (("seconds", "s"), ("peak_gib", "peak GiB"))
    }
    head = [*labels, "", *values, *(what for what, there in own.items() if there)]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        first = row[0]
        # Numbers of other kinds of rows are set in italics, so that the eye finds solvers.
        form = str if first.role == "solver" else lambda text: f"*{text}*" if text else ""
        cells = [form(told(first.labels.get(name))) for name in labels]
        cells.append(form(_NAMES[first.role]))
        cells += [form(_spread([one.values.get(name) for one in row])) for name in values]
        for name, what in (("seconds", "s"), ("peak_gib", "peak GiB")):
            if own[what]:
                cells.append(form(_spread([getattr(one, name) for one in row])))
        lines.append(_line(cells))
    parts = [f"### {title}\n", "\n".join(lines) + "\n"]
    if tables[0].plot is not None:
        parts.append(f"![{title}]({PICTURES}/{_file(benchmark, title)})\n")
    said = [tables[0].note] if tables[0].note else []
    said += [
        f"No {what}: {why}"
        for what, why in (("floor", tables[0].no_floor), ("trivial baseline", tables[0].no_baseline))
        if why
    ]
    if len(tables) < seeds:
        said.append(f"Of {len(tables)} of {seeds} seeds.")
    took = [table.seconds for table in tables if table.seconds is not None]
    if took:
        peak = max(table.peak_gib for table in tables if table.peak_gib is not None)
        said.append(f"{number(float(np.mean(took)))} s and {number(peak)} GiB a seed.")
    return "\n".join([*parts, " ".join(f"{one.rstrip('.')}." for one in said) + "\n"])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _spread(values: Sequence[Value]) -> str:
    """Return mean ± standard deviation of numbers, and words as they are."""
    numbers = [one for one in values if isinstance(one, int | float)]
    if not numbers:
        return ", ".join(sorted({one for one in values if isinstance(one, str)}))
    if len(numbers) == 1:
        return number(numbers[0])
    return f"{number(float(np.mean(numbers)))} ± {number(float(np.std(numbers, ddof=1)), 2)}"


def told(value: Value) -> str:
    """Return a label: numbers as they are written in Python, without needless digits."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def number(value: float, digits: int = 3) -> str:
    """Return a number with some significant digits, without an exponent where it can be read without."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{decimals}f}"


def _file(benchmark: str, title: str) -> str:
    return f"{benchmark}-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')[:60]}.png"


def draw(path: Path, table: Table, rows: Sequence[Sequence[Row]]) -> None:
    """Write the picture of a table."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    plot = table.plot
    means = [(row[0], _mean(row, plot.x), _mean(row, plot.y)) for row in rows]
    panels = list(dict.fromkeys(first.labels.get(plot.panels) for first, _, _ in means)) if plot.panels else [None]
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    # Without a canvas of pyplot, so that no window and no setting of the user's is in play.
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    solvers = list(dict.fromkeys(first.labels.get(plot.by) for first, _, _ in means if first.role == "solver"))
    for axis, panel in zip(axes, panels, strict=True):
        here = [one for one in means if plot.panels is None or one[0].labels.get(plot.panels) == panel]
        for colour, name in enumerate(solvers):
            points = sorted((x, y) for first, x, y in here if first.role == "solver" and first.labels.get(plot.by) == name and x is not None and y is not None)  # fmt: skip
            if points:
                axis.plot(*zip(*points, strict=True), "o-", color=f"C{colour % 10}", label=str(name), markersize=4)
        for first, _, y in here:
            if first.role in ("floor", "baseline") and y is not None:
                style = "--" if first.role == "floor" else ":"
                axis.axhline(
                    y, color="0.3", linestyle=style, linewidth=1, label=str(first.labels.get(plot.by, first.role))
                )
        numbers = [value for _, x, y in here for value in (y,) if value is not None]
        if numbers and min(numbers) > 0:
            axis.set_yscale("log")
        across = [x for _, x, _ in here if x is not None]
        if across and min(across) > 0:
            axis.set_xscale("log")
            # Ranges of less than a decade would have their minor ticks labelled, one over the other.
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(plot.x)
        axis.set_title("" if panel is None else f"{plot.panels} = {told(panel)}", fontsize="medium")
    axes[0].set_ylabel(plot.y)
    axes[-1].legend(fontsize="x-small", frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The library's version would make another file of the same picture.
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _mean(row: Sequence[Row], name: str) -> float | None:
    values = [one.seconds if name == "seconds" else one.values.get(name, one.labels.get(name)) for one in row]
    numbers = [one for one in values if isinstance(one, int | float)]
    return float(np.mean(numbers)) if numbers else None
