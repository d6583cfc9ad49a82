"""The harness of the benchmarks: what a table must have, runs that go on, and the page that is made of results."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import types

import jax
import numpy as np
import pandas as pd
import pytest
from benchmarks import _registry, _results, _solvers, report, run, solvers_table
from benchmarks.__main__ import main
from benchmarks._registry import BENCHMARKS, Benchmark
from benchmarks._tables import Plot, Row, Table, from_columns, from_frame, from_names, measured

from scgenot.datasets import gaussian_mixture

pytestmark = pytest.mark.once
FLOOR = Row({"solver": "truth"}, {"error": 0.1}, "floor")
NOTHING = Row({"solver": "nothing"}, {"error": 4.0}, "baseline")


def solver(error: float, seconds: float = 2.0) -> Row:
    return Row({"solver": "ours"}, {"error": np.float32(error)}, seconds=seconds)


@pytest.fixture
def tiny(monkeypatch):
    """A registry of one benchmark, and one that fails; the calls they got."""
    calls = []
    module = types.ModuleType("tiny_benchmark")

    def rows(seed, quick, what="all"):
        calls.append((seed, quick, what))
        if what == "wrong":
            raise RuntimeError("no cells")
        yield Table("Errors", [FLOOR, NOTHING, solver(1.0 + seed)], plot=Plot("seconds", "error", "solver"))

    module.rows = rows
    monkeypatch.setitem(sys.modules, "tiny_benchmark", module)
    found = {
        name: Benchmark(name, "tiny_benchmark", "Does it run?", {"what": name} if name == "wrong" else {})
        for name in ("wrong", "tiny")
    }
    # The page is in the registry's order too.
    for holder in (_registry, report):
        monkeypatch.setattr(holder, "BENCHMARKS", found)
    return calls


@pytest.mark.parametrize(
    ("rows", "excuses", "message"),
    [
        ([NOTHING, solver(1)], {}, "no row whose role is 'floor'. Add one, or say in `no_floor`"),
        ([FLOOR, solver(1)], {}, "no row whose role is 'baseline'. Add one, or say in `no_baseline`"),
        ([FLOOR, solver(1)], {"no_baseline": " "}, "no row whose role is 'baseline'"),
        ([FLOOR, NOTHING], {"no_floor": "none"}, "`no_floor` says that it has none"),
        ([FLOOR, NOTHING, solver(1), solver(2)], {}, "two rows with the labels {'solver': 'ours'}"),
        ([], {}, "has no rows"),
    ],
)
def test_tables_that_do_not_say_what_to_compare_with_are_refused(rows, excuses, message):
    with pytest.raises(ValueError, match="the table 'Errors'.*" + message.replace("{", r"\{").replace(".", r"\.")):
        Table("Errors", rows, **excuses)


def test_roles_from_frames():
    frame = pd.DataFrame({"error": [0.1, 2.0, np.nan]}, index=pd.Index(["truth (floor)", "nothing", "ours"], name="p"))
    found = from_frame(frame, "t", floor="floor", baseline="nothing")
    assert [row.role for row in found.rows] == ["floor", "baseline", "solver"]
    assert found.rows[2].values == {"error": None}

    wide = pd.DataFrame({"floor": [1.0], "ours": [2.0], "none": [3.0], "s": [9.0]}, index=pd.Index([8], name="d"))
    roles = {"floor": "floor", "ours": "solver", "none": "baseline"}
    found = from_columns(wide, "t", "error", roles, seconds={"ours": "s"})
    assert [(row.labels["prediction"], row.values["error"], row.seconds) for row in found.rows] == [
        ("floor", 1.0, None),
        ("ours", 2.0, 9.0),
        ("none", 3.0, None),
    ]

    names = {"r, ours": 0.5, "r to treated, ours": 0.4, "other, ours": 1.0}
    found = from_names(names, "t", ["r", "r to treated"], {}, ends={"r": (1.0, 0.0)})
    assert found.rows[0].values == {"r": 0.5, "r to treated": 0.4}
    assert [row.role for row in found.rows] == ["solver", "floor", "baseline"]


def test_runs_go_on_and_tell_what_failed(tiny, tmp_path, capsys, monkeypatch):
    words = ["run", "--seeds", "0", "1", "--out", str(tmp_path)]
    assert main(words) == 1
    # A seed after the other; one that fails stops nothing.
    assert tiny == [(0, False, "wrong"), (0, False, "all"), (1, False, "wrong"), (1, False, "all")]
    assert "wrong, seed 1: no cells" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-seed0.json", "tiny-seed1.json"]

    saved = json.loads((tmp_path / "tiny-seed1.json").read_text())
    assert saved["seed"] == 1 and saved["commit"] and saved["machine"]["cores"] >= 1
    assert {"python", "jax", "scgenot"} <= set(saved["versions"])
    assert saved["tables"][0]["seconds"] >= 0 and saved["peak_gib"] > 0.01

    # What is there, of the same code, is not computed again; half a file, and the file of other code, are.
    tiny.clear()
    (tmp_path / "tiny-seed0.json").write_text("{")
    assert main(["run", "tiny", *words[1:]]) == 0
    assert tiny == [(0, False, "all")]
    tiny.clear()
    monkeypatch.setattr(run, "surroundings", lambda: _results.surroundings() | {"code": "other"})
    main(["run", "tiny", *words[1:]])
    assert tiny == [(0, False, "all"), (1, False, "all")]
    tiny.clear()
    main(["run", "tiny", "--quick", "--again", "--out", str(tmp_path)])
    main(["run", "tiny", "--quick", "--out", str(tmp_path)])
    assert tiny == [(0, True, "all")]
    assert main(["run", "none", "--out", str(tmp_path)]) == 2
    assert "there is no benchmark 'none'; there are wrong, tiny" in capsys.readouterr().err


def test_page_is_made_of_results(tiny, tmp_path, capsys):
    results, docs = tmp_path / "results", tmp_path / "docs"
    docs.mkdir()
    words = ["report", "--out", str(results), "--docs", str(docs)]
    assert main(words) == 2
    assert "Run `python -m benchmarks run` first" in capsys.readouterr().err

    main(["run", "tiny", "--quick", "--out", str(results)])
    assert main(words) == 0
    page = (docs / "benchmarks.md").read_text()
    assert "From a quick run" in page and "| ours |  | 1.00 |" in page

    # Full results take the place of quick ones; seeds become a mean and its spread.
    main(["run", "tiny", "--seeds", "0", "2", "--out", str(results)])
    main(words)
    page = (docs / "benchmarks.md").read_text()
    assert "From a quick run" not in page and "## tiny" in page and "Does it run?" in page
    assert "| ours |  | 2.00 ± 1.4 | 2.00 ± 0 |" in page
    assert "| *truth* | *floor* | *0.100 ± 0* |  |" in page
    assert "Seeds 0, 2; commit" in page
    picture = docs / "_static" / "benchmarks" / "tiny-errors.png"
    assert f"]({picture.relative_to(docs).as_posix()})" in page
    first = picture.read_bytes()
    assert first[:4] == b"\x89PNG" and 3_000 < len(first) < 150_000
    # The same results, the same files.
    main(words)
    assert (docs / "benchmarks.md").read_text() == page and picture.read_bytes() == first

    path = results / "tiny-seed0.json"
    bare = json.loads(path.read_text())
    bare["tables"][0]["rows"] = bare["tables"][0]["rows"][1:]
    path.write_text(json.dumps(bare))
    assert main(words) == 2
    assert "no row whose role is 'floor'" in capsys.readouterr().err


def test_all_benchmarks_have_rows():
    for one in BENCHMARKS.values():
        tree = ast.parse(open(importlib.util.find_spec(one.module).origin).read())
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "rows"]
        assert len(found) == 1, one.module
        assert [arg.arg for arg in found[0].args.args] == ["seed", "quick", *one.options]


def test_epsilon_of_modules_belongs_to_half_the_squared_distance(monkeypatch):
    module = types.ModuleType("some_solver")
    module.fit = lambda key, x, y, a=None, b=None, *, epsilon_b, steps=9, width=1: (epsilon_b, steps, width, a.sum())
    monkeypatch.setitem(sys.modules, "some_solver", module)
    cells = _solvers.Cells(np.zeros((4, 2)), np.zeros((5, 2)), epsilon=3.0, steps=7)
    assert _solvers.of_module("some_solver", width=2)(jax.random.key(0), cells) == (1.5, 7, 2, 1.0)


def test_table_of_solvers_from_command_to_page(monkeypatch, tmp_path):
    sizes = solvers_table.Sizes(cells=512, steps=300, test_cells=40, samples=40, lengths=(20, 300))
    monkeypatch.setattr(solvers_table, "QUICK", sizes)
    some = [one for one in _solvers.SOLVERS if one.name in ("LightSB", "discrete plan", "entropic map")]
    monkeypatch.setattr(solvers_table, "SOLVERS", some)
    assert main(["run", "solvers_2", "--quick", "--out", str(tmp_path / "results")]) == 0
    laws = _results.read(tmp_path / "results" / "solvers_2-quick-seed0.json").tables
    assert [table.title.split(",")[0] for table in laws] == ["Gaussian to a mixture", "Gaussian to a curve"]
    for table in laws:
        error = {row.labels["solver"]: row.values["cBW-UVP, %"] for row in table.rows}
        assert max(error["truth (floor)"], error["LightSB"], error["discrete plan"]) < 6.0
        assert error["independent"] > 50.0 and error["entropic map"] is None
        assert all(row.seconds and row.peak_gib for row in table.rows if row.role == "solver")
    monkeypatch.setattr(solvers_table, "SOLVERS", some[:1])
    (table,) = solvers_table.rows(0, True, "time", 2)
    errors = [(row.labels["steps"], row.values["mean, %"]) for row in table.rows if row.labels["solver"] == "LightSB"]
    assert [steps for steps, _ in errors] == [20, 300, 20, 300] and len(dict(errors)) < len({*errors})
    (tmp_path / "docs").mkdir()
    assert main(["report", "--out", str(tmp_path / "results"), "--docs", str(tmp_path / "docs")]) == 0
    assert len(list((tmp_path / "docs").rglob("*.png"))) == 2


def test_memory_of_a_block_is_its_own():
    with measured() as first:
        np.ones(60_000_000).sum()
    with measured() as second:
        pass
    assert first.core_seconds > 0 and first.peak_gib > second.peak_gib + 0.3


@pytest.mark.parametrize(("d", "epsilon_b", "there"), [(2, 1.0, True), (2, 0.9, False), (3, 1.0, False)])
def test_solvers_are_left_out_where_they_would_take_hours(d, epsilon_b, there):
    sizes = solvers_table.Sizes(cells=16, test_cells=4, samples=4)
    posed = solvers_table.Posed(gaussian_mixture(d, epsilon_b=epsilon_b), sizes, 0)
    posed.solved = lambda solver, steps: ({"mean, %": 1.0}, 1.0, 1.0)
    slow = _solvers.Solver("slow", lambda *given: None, stochastic=False, most_features=2, least_epsilon=1.0)
    quick = _solvers.Solver("quick", lambda *given: None, stochastic=False)
    found = solvers_table.compared(posed, {}, (slow, quick), sizes, solvers_table.Store(None))
    names = [row.labels["solver"] for row in found if row.role == "solver"]
    assert names == (["slow", "quick"] if there else ["quick"])
