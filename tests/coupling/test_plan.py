"""Sums over a plan that is not stored, against the plan."""

import jax
import numpy as np
import pytest
from tests.coupling.helpers import plan_of

from scgenot.coupling import CouplingConfig, _plan, solve_coupling


@pytest.fixture(scope="module", params=[{}, {"dense_limit": 1}], ids=["dense", "blocked"])
def solved(request):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)).astype(np.float32), rng.normal(size=(300, 2)).astype(np.float32)
    a, b = rng.uniform(0.5, 2.0, 20), rng.uniform(0.5, 2.0, 300)
    a[3], b[7] = 0.0, 0.0
    config = CouplingConfig(epsilon=0.1, tau_source=0.7, **request.param)
    found = solve_coupling(jax.random.key(0), x, y, source_weights=a, target_weights=b, config=config)
    return found, plan_of(found), y


@pytest.fixture
def blocks(monkeypatch):
    """Many small blocks instead of one."""
    monkeypatch.setattr(_plan, "_ROWS", 7)
    monkeypatch.setattr(_plan, "_COLUMNS", 64)
    for compiled in (_plan._row_sums, _plan._largest):
        compiled.clear_cache()


def test_sums_over_rows_and_columns(solved, blocks):
    found, plan, y = solved
    rng = np.random.default_rng(1)
    ones, values = rng.normal(size=20).astype(np.float32), rng.normal(size=(20, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(found.push(ones), plan.T @ ones, atol=1e-6)
    np.testing.assert_allclose(found.push(values), np.einsum("ij,ikl->jkl", plan, values), atol=1e-6)
    np.testing.assert_allclose(found.pull(y), plan @ y, atol=1e-6)
    np.testing.assert_allclose(found.pull(np.ones(300)), found.source_marginal, atol=1e-6)
    rows = plan[found.a > 0]
    projected = np.asarray(found.barycentric(y))[np.asarray(found.a) > 0]
    np.testing.assert_allclose(projected, rows @ y / rows.sum(1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("k", [1, 5, 500])
def test_largest_entries(solved, blocks, k):
    found, plan, _ = solved
    sparse = found.top_k(k)
    kept = np.sort(plan, axis=1)[:, ::-1][:, :k]
    assert sparse.shape == (20, 300) and sparse.has_sorted_indices
    np.testing.assert_allclose(np.sort(sparse.toarray(), axis=1)[:, ::-1][:, :k], kept, rtol=1e-3, atol=1e-9)
    dense = sparse.toarray()
    np.testing.assert_allclose(dense[dense > 0], plan[dense > 0], rtol=1e-3)


def test_objective_is_the_sum_of_its_parts(solved):
    found, plan, _ = solved
    told = found.diagnostics
    assert told.cost + told.epsilon * told.kl + told.penalty == pytest.approx(told.objective, abs=2e-3)
    assert told.penalty > 0.01 * told.objective


def test_what_has_another_number_of_rows_gets_an_answer(solved, plain_calls):
    with pytest.raises(ValueError, match=r"`values` must hold one row for each of the 300 cells, got shape \(20,\)"):
        solved[0].pull(np.ones(20))
    with pytest.raises(ValueError, match="`k` must be a whole number of at least 1, got 0"):
        solved[0].top_k(0)
