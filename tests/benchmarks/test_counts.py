"""What the benchmark of devices counts: the part of a program, and of a job, that they do not share."""

import numpy as np
import pytest
from benchmarks import sharing

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
