"""The table of solvers on real cells: what is measured of predictions, how peers are run, and a quick run of the whole."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from benchmarks import _registry, _results, _solvers, solvers_real
from benchmarks.__main__ import main
from benchmarks._real import BIASED, Problem
from benchmarks.solvers import foreign

pytestmark = pytest.mark.once
DATA = Path(os.environ.get("SCGENOT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
ENERGY = "energy distance, %"


@pytest.fixture
def problem() -> Problem:
    """Two types, far from each other, that move up; of target cells three of four are of the first one."""
    rng = np.random.default_rng(0)
    names = np.array(["left", "right"])

    def cells(types: np.ndarray, up: float) -> np.ndarray:
        places = np.stack([np.where(types == "left", -5.0, 5.0), np.full(len(types), up)], axis=1)
        return (places + rng.normal(size=(len(types), 2))).astype(np.float32)

    here, there = (np.repeat(names, counts) for counts in ((30, 30), (90, 30)))
    sides = cells(here, 0.0), cells(there, 8.0), cells(here, 0.0), cells(there, 8.0)
    return Problem("simulated", *sides, there, there, here[:, None] == names, names)


def test_right_predictions_have_no_distance_and_wrong_ones_no_types(problem):
    rng = np.random.default_rng(1)
    drawn = problem.truth[rng.integers(len(problem.truth), size=(60, 30))]
    ignores = problem.scores(drawn, True)
    # Populations alone do not show that it ignores the cell; types do.
    assert abs(ignores[ENERGY]) < 3.0 and abs(ignores["MMD, %"]) < 3.0 and ignores["types, draw"] < 0.6
    assert ignores[f"{BIASED}, %"] > ignores[ENERGY]

    up = problem.test + np.array([0.0, 8.0], np.float32)
    own = problem.scores(up[:, None], False)
    assert own["types, mean"] == own["types, draw"] == 1.0
    # It knows every cell, and not that there are more of one type.
    assert 2.0 < own[ENERGY] < 60.0
    flipped = problem.scores((up * np.array([-1.0, 1.0], np.float32))[:, None], False)
    assert flipped["types, mean"] == 0.0
    nothing = problem.trivial(rng, 5)["nothing"]
    assert all(abs(nothing[f"{name}, %"] - 100.0) < 1e-9 for name in ("energy distance", "MMD", "error of means"))
    floor = problem.floor()
    assert 0.0 < floor[ENERGY] < 5.0 and floor["types, mean"] == 1.0


def test_spread_where_cells_are_wrong_ranks_them(problem):
    up = problem.test + np.array([0.0, 8.0], np.float32)
    wrong = np.arange(60) % 3 == 0
    centre = np.where(wrong[:, None], up * np.array([-1.0, 1.0]), up)
    noise = np.random.default_rng(2).normal(size=(60, 30, 2))
    across = np.where(wrong, 3.0, 0.1)[:, None, None] * noise
    found = problem.scores(centre[:, None] + across - across.mean(axis=1, keepdims=True), True)
    assert found["types, mean"] == pytest.approx(2 / 3) and found["AUROC, variance"] == 1.0
    assert found["AUROC, uncertainty"] > 0.9
    assert "AUROC, variance" not in problem.scores(up[:, None], False)


def test_part_of_a_problem_has_its_types(problem):
    some = problem.some(100, 40)
    assert [len(one) for one in (some.x, some.y, some.test, some.truth)] == [60, 100, 40, 40]
    assert len(some.types) == 100 and len(some.truth_types) == 40
    assert some.scores(some.test[:, None] + np.float32([0.0, 8.0]), False)["types, mean"] == 1.0


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment of this Python, with a script that moves cells by as many steps as it was trained."""
    scripts, counted = tmp_path / "scripts", tmp_path / "counted"
    scripts.mkdir()
    (scripts / "_arrays.py").write_bytes((foreign.SCRIPTS / "_arrays.py").read_bytes())
    script = scripts / "ott05_genot.py"
    script.write_text(
        textwrap.dedent(f"""
        from _arrays import Stages, main

        def run(x, y, at, *, epsilon_b, steps=1, lengths=(), n=1, seed=0):
            open({str(counted)!r}, "a").write("x")
            stages = Stages(steps, lengths)
            for step in range(1, stages.lengths[-1] + 1):
                stages.step(step)
            return *stages.sampled(lambda step: (at + step)[:, None].repeat(n, 1)), {{"epsilon_b": epsilon_b}}

        main(run)
        """)
    )
    (tmp_path / "ott05" / "bin").mkdir(parents=True)
    # Not a link: a virtual environment's Python finds its packages by its own place.
    python = tmp_path / "ott05" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("SCGENOT_ENVIRONMENTS", str(tmp_path))
    monkeypatch.setattr(foreign, "SCRIPTS", scripts)
    return script, counted


def test_stages_of_peers_are_kept_until_something_of_theirs_changes(environment, tmp_path):
    script, counted = environment
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    fit = lambda **options: foreign.fit(jax.random.key(0), x, x, epsilon_b=2.0, **options)
    fitted = fit(lengths=(2, 5))
    found = fitted.stages(x, 4, keep=tmp_path / "kept")
    np.testing.assert_array_equal(found, np.stack([(x + step)[:, None].repeat(4, 1) for step in (2, 5)]))
    first, last = fitted.told["stages"]
    assert (first["steps"], last["steps"]) == (2, 5) and last["seconds"] >= first["seconds"] > 0
    assert fitted.told["epsilon_b"] == 2.0 and fitted.told["peak_gib"] > 0.001

    again = fit(lengths=(2, 5))
    np.testing.assert_array_equal(again.stages(x, 4, keep=tmp_path / "kept"), found)
    assert again.told == fitted.told and counted.read_text() == "x"
    # Other cells, other options, another text of the script, and nothing kept.
    fit(lengths=(2, 5)).stages(x + 1, 4, keep=tmp_path / "kept")
    fit(lengths=(2, 6)).stages(x, 4, keep=tmp_path / "kept")
    script.write_text(script.read_text() + "# another one\n")
    fit(lengths=(2, 5)).stages(x, 4, keep=tmp_path / "kept")
    np.testing.assert_array_equal(fit(steps=3).sample(jax.random.key(1), x, 2), (x + 3)[:, None].repeat(2, 1))
    assert counted.read_text() == "x" * 5


def test_peers_without_an_environment_are_left_out(problem, monkeypatch):
    monkeypatch.delenv("SCGENOT_ENVIRONMENTS", raising=False)
    assert list(solvers_real.peers(problem, 0)) == []


def test_registered_parts_are_those_that_exist():
    parts = [
        one.options.get("part", "solvers")
        for one in _registry.BENCHMARKS.values()
        if one.module == solvers_real.__name__
    ]
    assert sorted(parts) == sorted(solvers_real.PARTS)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the data sets in $SCGENOT_DATA or {DATA}")
def test_quick_run_of_real_cells_yields_tables(monkeypatch, tmp_path):
    some = [one for one in _solvers.SOLVERS if one.name in ("GENOT", "LightSB", "discrete plan", "entropic map")]
    monkeypatch.setattr(solvers_real, "SOLVERS", some)
    assert main(["run", "solvers_real", "--quick", "--out", str(tmp_path)]) == 0
    tables = _results.read(tmp_path / "solvers_real-quick-seed0.json").tables
    assert [table.title.split(",")[0] for table in tables] == ["Kang", "GBM", "LARRY", "SNARE-seq"]
    for table in tables[:3]:
        rows = {row.labels["solver"]: row for row in table.rows}
        assert {row.role for row in table.rows} == {"floor", "baseline", "solver"}
        assert rows["nothing"].values[ENERGY] == pytest.approx(100.0)
        assert rows["halves of the truth (floor)"].values[ENERGY] < 100.0
        assert {one.name for one in some} <= set(rows) and rows["GENOT"].labels["steps"] == 20
        assert all(row.values["core s"] > 0 and row.peak_gib > 0 for row in table.rows if row.role == "solver")
    kang = {row.labels["solver"]: row.values for row in tables[0].rows}
    # The plan keeps types better than draws that ignore the cell, though distances of both are small.
    assert kang["discrete plan"]["types, draw"] > kang["independent"]["types, draw"] + 0.1
    assert kang["discrete plan"][ENERGY] < 30.0 and kang["entropic map"].get("AUROC, variance") is None
    pairs = {row.labels["solver"]: row.values for row in tables[3].rows}
    assert pairs["GENOT, quadratic"]["FOSCTTM"] < pairs["independent"]["FOSCTTM"]
    for name in ("LightSB", "EntropicMap", "OTCFM"):
        assert "works within one space" in pairs[name]["refuses"]
