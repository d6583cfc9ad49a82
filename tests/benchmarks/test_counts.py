"""What benchmarks count: the part of a program that devices do not share, violations and dual gaps of potentials."""

import numpy as np
import pytest
from benchmarks import semidiscrete, sharing

from scgenot.coupling import Global

pytestmark = pytest.mark.once


def test_part_that_is_not_shared():
    # Of one device of eight: an eighth of what is shared, and all of what is not.
    shared = {"nothing": 100.0, "all": 12.5, "half": 50 + 50 / 8}
    found = sharing.compared(dict.fromkeys(shared, 100.0), shared)["not shared"]
    assert found.to_dict() == pytest.approx({"nothing": 1.0, "all": 0.0, "half": 0.5}, abs=1e-12)


def test_programs_tell_what_they_took(monkeypatch):
    for holder, name in sharing.PROGRAMS.values():
        monkeypatch.setattr(f"{holder}.{name}", getattr(__import__(holder, fromlist=["_"]), name))
    found = sharing.core_seconds(sharing.Sizes(cells=1024, steps=2, sampled=40))
    assert list(found.index) == [sharing.EXTENDED, sharing.GLOBAL, sharing.TRAINING, sharing.LARGER, sharing.SAMPLING]
    # Each job was in a shared program, and not only there.
    assert (found["core s, shared"] > 0).all() and found["not shared"].between(0, 1, inclusive="neither").all()
    np.testing.assert_allclose(found["8 devices"], 8 / (1 + 7 * found["not shared"]))


def test_potentials_are_measured_alike():
    problem = semidiscrete.problem_of(0, 512)
    exact, took = semidiscrete.ours(0, problem, Global(tolerance=1e-5))
    best = problem.measured(exact)
    rough = exact + np.random.default_rng(0).normal(scale=0.1, size=512)
    off, at_start = problem.measured(rough), problem.measured(np.zeros(512))
    assert took > 0 and best[0] < 1e-3 < off[0] < at_start[0]
    # The dual is concave: what leaves the marginals off lies below, and more so from further away.
    assert best[1] > off[1] > at_start[1]
    found = list(semidiscrete.stochastic(0, problem, [0.05, 0.5], 0.3, "constant", 64))
    steps, spent, duals = zip(*((steps, spent, problem.measured(v)[1]) for steps, spent, v in found), strict=True)
    assert steps[0] < steps[1] and spent[0] < spent[1]
    assert at_start[1] < duals[0] < duals[1] < best[1] + 1e-3
