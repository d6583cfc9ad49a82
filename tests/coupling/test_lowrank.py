"""Low-rank couplings: clumps, where rank is no loss, and answers to what they cannot do."""

import jax
import numpy as np
import pytest

from scgenot.coupling import CouplingConfig, solve_coupling

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def clumps():
    """Three clumps of different size and distance, and their copy in another space and order."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 9.0]])
    label = np.repeat([0, 1, 2], [60, 30, 20])
    source = centres[label] + 0.2 * rng.normal(size=(110, 2))
    order = rng.permutation(110)
    target = (centres[label] + 0.2 * rng.normal(size=(110, 2)))[order] @ np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]
    return np.float32(source), np.float32(target), label, label[order]


def test_clumps_find_each_other(clumps):
    source, target, label, target_label = clumps
    config = CouplingConfig(rank=6)
    found = solve_coupling(KEY, source, target, problem="quadratic", kind="low_rank", config=config)
    drawn = np.asarray(found.conditional(jax.random.key(1), np.arange(110), 16))
    assert (target_label[drawn] == label[:, None]).mean() > 0.9
    assert "low rank (6)" in found.diagnostics.kind
    objectives = [start.objective for start in found.diagnostics.starts]
    # The best start is the one that is used, and is told first.
    assert found.diagnostics.objective == objectives[0] == min(objectives) and len(objectives) > 1
    # Some of each clump, in another order, and with weights of their own.
    some = np.r_[95:105, 0:5, 65:75]
    again = found.extend(source[some], target, source_weights=np.r_[np.zeros(1), np.ones(24)])
    drawn = np.asarray(again.conditional(jax.random.key(1), np.arange(25), 16))
    assert (target_label[drawn] == label[some, None]).mean() > 0.9
    assert float(again.source_marginal[0]) == 0.0


def test_one_cell_gets_an_answer(clumps):
    with pytest.raises(ValueError, match="low-rank couplings need at least 2 cells a side, got 1 in `source`"):
        solve_coupling(KEY, clumps[0][:1], clumps[1], problem="quadratic", kind="low_rank")


def test_relaxed_marginals_get_an_answer(clumps, plain_calls):
    with pytest.raises(ValueError, match="low-rank couplings are balanced"):
        config = CouplingConfig(tau_source=0.9)
        solve_coupling(KEY, *clumps[:2], problem="quadratic", kind="low_rank", config=config)
