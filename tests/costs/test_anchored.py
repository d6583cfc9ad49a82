"""Costs to anchors: plain costs, precomputed ones, and what the two share."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scgenot.costs import (
    Anchored,
    AnchoredCost,
    Cost,
    Geodesic,
    Precomputed,
    available_costs,
    matrix_scale,
    register_cost,
    resolve_cost,
    resolve_cost_pair,
)


@pytest.fixture
def cells(rng):
    return rng.normal(size=(30, 5)).astype(np.float32)


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean", "cosine", "pearson", "inner_product"])
def test_plain_cost_to_anchors_is_the_cost(name, cells):
    anchors = np.array([4, 29, 4])
    fitted = resolve_cost(name).fit(cells, anchors)
    assert isinstance(fitted, Anchored)
    expected = resolve_cost(name)(jnp.asarray(cells), jnp.asarray(cells[anchors]))
    found = fitted(cells)
    assert isinstance(found, np.ndarray) and found.shape == (30, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fitted(jnp.asarray(cells[:2])), found[:2], rtol=1e-5, atol=1e-5)


def test_plain_cost_in_blocks(rng, monkeypatch):
    from scgenot.costs import _cost

    monkeypatch.setattr(_cost, "rows_per_block", lambda entries: 7)
    cells = rng.normal(size=(40, 3)).astype(np.float32)
    found = resolve_cost("euclidean").fit(cells, np.arange(40))(cells)
    np.testing.assert_allclose(found, cdist(cells, cells), atol=1e-3)


def test_equal_costs_are_compiled_once(cells, monkeypatch):
    from scgenot.costs import _cost

    traced = []

    def manhattan(x, y):
        traced.append(1)
        return jnp.abs(x - y).sum()

    monkeypatch.setattr(_cost, "rows_per_block", lambda entries: 8)
    for cost in (resolve_cost(manhattan), resolve_cost(manhattan)):
        found = cost.fit(cells, np.arange(6))(cells)
        np.testing.assert_allclose(found, cdist(cells, cells[:6], "cityblock"), rtol=1e-5)
    # 30 cells are three blocks of 8 and one of 6, filled up.
    assert len(traced) == 1


def test_plain_cost_keeps_the_anchors_only(cells):
    own = cells.copy()
    fitted = resolve_cost("euclidean").fit(own, np.array([1]))
    own[:] = 0.0
    np.testing.assert_allclose(fitted(cells), cdist(cells, cells[[1]]), atol=1e-3)
    with pytest.raises(ValueError, match="`cells` must have the 5 columns .* got 2"):
        fitted(cells[:, :2])
    with pytest.raises(ValueError, match="`anchors` must be numbers of rows, 0 to 29"):
        resolve_cost("euclidean").fit(cells, np.array([30]))


def test_precomputed_gives_columns(rng):
    costs = rng.normal(size=(12, 12))  # not symmetric, not positive
    anchors = np.array([3, 0, 11])
    fitted = resolve_cost("precomputed").fit(costs, anchors)
    np.testing.assert_array_equal(fitted(costs[[5, 2]]), costs[np.ix_([5, 2], anchors)].astype(np.float32))


def test_precomputed_says_what_is_wrong(rng):
    costs = rng.uniform(size=(12, 12))
    with pytest.raises(ValueError, match=r"`cells` must be square.*got shape \(12, 7\)"):
        Precomputed().fit(costs[:, :7], np.array([0]))
    fitted = Precomputed().fit(costs, np.array([0]))
    with pytest.raises(ValueError, match="`cells` must have the 12 columns .* got 7"):
        fitted(costs[:, :7])
    costs[4, 4] = np.inf
    with pytest.raises(ValueError, match=r"`cells` must be finite.*rows: 4\)"):
        Precomputed().fit(costs, np.array([0]))


def test_precomputed_distances_are_the_distances(cells):
    cost, anchors = resolve_cost("geodesic"), np.arange(0, 30, 4)
    whole = cost.fit(cells, np.arange(30))(cells)
    np.testing.assert_array_equal(Precomputed().fit(whole, anchors)(whole), cost.fit(cells, anchors)(cells))


def test_names():
    assert {"geodesic", "precomputed"} <= set(available_costs())
    assert resolve_cost_pair(("geodesic", "euclidean")) == (Geodesic(), resolve_cost("euclidean"))
    assert resolve_cost_pair("precomputed") == (Precomputed(), Precomputed())
    assert Precomputed().name == "precomputed"
    with pytest.raises(ValueError, match="Did you mean 'geodesic'"):
        resolve_cost("geodesics")


def test_a_new_anchored_cost_is_one_registration(cells):
    @register_cost("test_rank")
    class Rank(AnchoredCost):
        name = "test_rank"

        def fit(self, cells, anchors):
            return Precomputed().fit(np.abs(np.arange(len(cells))[:, None] - np.arange(len(cells))) * 1.0, anchors)

    try:
        assert isinstance(resolve_cost("test_rank"), Rank)
    finally:
        from scgenot import costs

        del costs._COSTS["test_rank"]
    with pytest.raises(TypeError, match="abstract"):
        AnchoredCost()


def test_scale_of_a_matrix(rng):
    costs = rng.normal(size=(40, 9))
    assert matrix_scale(costs) == pytest.approx(np.abs(costs).mean())
    assert matrix_scale(costs, "max") == pytest.approx(np.abs(costs).max())
    assert matrix_scale(jnp.asarray(costs, jnp.float32)) == pytest.approx(np.abs(costs).mean(), rel=1e-5)
    assert matrix_scale(costs, 2.5) == 2.5
    assert matrix_scale(1e-6 * costs) == pytest.approx(1e-6 * np.abs(costs).mean())
    assert matrix_scale(np.zeros((3, 3))) == 1.0
    assert isinstance(resolve_cost("euclidean"), Cost)


def test_scale_of_a_matrix_in_blocks(rng, monkeypatch):
    from scgenot.costs import _scale

    costs = rng.normal(size=(40, 9))
    monkeypatch.setattr(_scale, "rows_per_block", lambda entries: 63 // entries)
    assert matrix_scale(costs) == pytest.approx(np.abs(costs).mean())


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scale_of_a_matrix_that_is_not_finite(wrong):
    costs = np.ones((4, 4))
    costs[2, 1] = wrong
    for kind in ("mean", "max"):
        with pytest.raises(ValueError, match="`costs` has entries that are not finite"):
            matrix_scale(costs, kind)
