"""Distances along neighbour graphs against dense graphs built from SciPy's distances, and against true arc lengths."""

import tracemalloc
import warnings

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.sparse.csgraph import connected_components, floyd_warshall
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from scgenot.costs import Geodesic, resolve_cost
from scgenot.datasets import swiss_roll_spiral


def edges(cells, k, metric="euclidean", hops=False):
    """Dense lengths of the union graph, inf where there is no edge; straight from the definition."""
    between = cdist(cells, cells, metric)
    if metric != "euclidean":
        between = np.arccos(np.clip(1.0 - between, -1.0, 1.0))
    ranked = between + np.diag(np.full(len(cells), np.inf))
    near = ranked <= np.sort(ranked, axis=1)[:, [k - 1]]
    return np.where(near | near.T, 1.0 if hops else between, np.inf)


def paths(cells, k, metric="euclidean", hops=False):
    lengths = edges(cells, k, metric, hops)
    # Floyd and Warshall, on the dense matrix: no sparse format, no Dijkstra.
    return floyd_warshall(np.where(np.eye(len(cells), dtype=bool), 0.0, lengths))


def every(cells):
    return np.arange(len(cells))


@pytest.fixture
def cells(rng):
    return rng.normal(size=(80, 4)).astype(np.float32)


@pytest.fixture
def islands(rng):
    """Two groups far apart, 30 and 20 cells."""
    return np.concatenate([rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) + 500.0]).astype(np.float32)


@pytest.mark.parametrize("lengths", ["distance", "hops"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_distances_are_those_of_the_dense_graph(cells, metric, lengths):
    expected = paths(cells.astype(np.float64), 6, metric, lengths == "hops")
    found = Geodesic(n_neighbors=6, metric=metric, lengths=lengths).fit(cells, every(cells))(cells)
    assert np.isfinite(expected).all() and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.diag(found), 0.0)


def test_anchors_are_columns_in_their_order(cells):
    anchors = np.array([7, 3, 7, 60])
    cost = Geodesic(n_neighbors=6)
    found = cost.fit(cells, anchors)(cells)
    np.testing.assert_array_equal(found, cost.fit(cells, every(cells))(cells)[:, anchors])


def test_complete_graph_gives_euclidean_distances(cells):
    # The direct way is never longer. Squared lengths would prefer detours; more neighbours than there are, are all.
    found = Geodesic(n_neighbors=1000).fit(cells, every(cells))(cells)
    np.testing.assert_allclose(found, cdist(cells, cells), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_default_follows_the_roll_and_the_spiral(seed):
    roll, spiral, roll_arc, spiral_arc = swiss_roll_spiral(500, seed)
    for cells, arc in ((roll, roll_arc), (spiral, spiral_arc)):
        along = np.abs(arc[:, None] - arc).ravel()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Geodesic().fit(cells, every(cells))(cells)
        assert spearmanr(found.ravel(), along).statistic > 0.98
        assert spearmanr(cdist(cells, cells).ravel(), along).statistic < 0.7


def test_default_takes_as_few_neighbours_as_keep_the_graph_together():
    cells = swiss_roll_spiral(400, 0).target
    anchors = np.arange(5)
    default = Geodesic().fit(cells, anchors)(cells)
    whole = [k for k in range(1, 20) if connected_components(np.isfinite(edges(cells, k)))[0] == 1]
    # From log n on.
    fewest = max(round(np.log(400)), whole[0])
    assert fewest > round(np.log(400))
    np.testing.assert_array_equal(default, Geodesic(n_neighbors=fewest).fit(cells, anchors)(cells))


def test_default_does_not_bridge_what_lies_apart(islands):
    # More neighbours would connect the two groups only by making each of them complete.
    with pytest.warns(UserWarning, match=r"50 cells has 2 components .* of 30, 20 cells"):
        found = Geodesic().fit(islands, every(islands))(islands)
    inside = found[:30, :30]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = Geodesic(n_neighbors=8).fit(islands[:30], every(islands[:30]))(islands[:30])
    assert np.all(inside >= few - 1e-3)


def test_new_cells_go_through_their_nearest_neighbours(cells, rng):
    new = rng.normal(size=(15, 4)).astype(np.float32)
    k, graph = 6, paths(cells.astype(np.float64), 6)
    anchors = np.arange(0, 80, 7)
    expected = np.empty((15, len(anchors)))
    for i, ways in enumerate(cdist(new, cells)):
        near = np.argsort(ways)[:k]
        expected[i] = np.min(ways[near, None] + graph[np.ix_(near, anchors)], axis=0)
    found = Geodesic(n_neighbors=k).fit(cells, anchors)(new)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("method", ["shortest_path", "heat"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_known_cells_have_their_own_distances_in_any_company(cells, metric, method, rng):
    fitted = Geodesic(n_neighbors=6, metric=metric, method=method).fit(cells, np.arange(9))
    all_of_them = fitted(cells)
    company = np.concatenate([rng.normal(size=(5, 4)).astype(np.float32), cells[[4, 50]]])
    np.testing.assert_array_equal(fitted(company)[5:], all_of_them[[4, 50]])
    np.testing.assert_array_equal(fitted(cells[33:34]), all_of_them[33:34])
    np.testing.assert_array_equal(fitted(np.asfortranarray(cells.astype(np.float64))), all_of_them)


def test_held_out_cells_follow_the_roll():
    cells, _, arc, _ = swiss_roll_spiral(1200, 1)
    found = Geodesic().fit(cells[:800], every(cells[:800]))(cells[800:])
    assert spearmanr(found.ravel(), np.abs(arc[800:, None] - arc[:800]).ravel()).statistic > 0.98


def test_disconnected_graph_warns_and_stays_finite(islands):
    cost = Geodesic(n_neighbors=5)
    with pytest.warns(UserWarning, match=r"50 cells has 2 components .* of 30, 20 cells.*Increase `n_neighbors`"):
        found = cost.fit(islands, every(islands))(islands)
    expected = paths(islands.astype(np.float64), 5)
    largest = expected[np.isfinite(expected)].max()
    expected[np.isinf(expected)] = largest
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_disconnected_graph_can_be_refused(islands):
    with pytest.raises(ValueError, match=r"50 cells has 2 components .* of 30, 20 cells.*Increase `n_neighbors`"):
        Geodesic(n_neighbors=5, disconnected="error").fit(islands, np.array([0]))


@pytest.mark.parametrize("method", ["shortest_path", "heat"])
def test_new_cell_near_one_island_is_as_far_from_the_other_one_as_can_be(islands, method):
    with pytest.warns(UserWarning, match="components"):
        fitted = Geodesic(n_neighbors=5, method=method).fit(islands, every(islands))
    known, new = fitted(islands), fitted(islands[:1] + 1e-3)
    np.testing.assert_allclose(new[0, 30:], known[0, 30:])
    np.testing.assert_allclose(new[0, 30:], known.max())
    assert (new[0, :30] <= known.max()).all()


@pytest.mark.parametrize("method", ["shortest_path", "heat"])
def test_copies_of_cells_change_nothing(cells, method):
    # With 20 copies of each cell and 6 neighbours, copies alone would fill all neighbourhoods.
    copies = np.repeat(cells, 20, axis=0)
    cost = Geodesic(n_neighbors=6, method=method)
    once, often = cost.fit(cells, every(cells))(cells), cost.fit(copies, every(copies))(copies)
    np.testing.assert_array_equal(often, np.repeat(np.repeat(once, 20, axis=0), 20, axis=1))


def test_population_beside_itself_is_the_population(cells):
    both = np.concatenate([cells, cells])
    once = Geodesic().fit(cells, np.arange(5))(cells)
    np.testing.assert_array_equal(Geodesic().fit(both, np.arange(5))(cells), once)


def test_cells_without_any_distance_stay_linked():
    # Multiples of one another: the angle is zero up to rounding, but they are not equal.
    ray = np.outer(np.arange(1.0, 8.0), [1.0, 2.0, 3.0])
    found = Geodesic(n_neighbors=2, metric="cosine").fit(ray, every(ray))(ray)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_cells_without_direction_are_finite(cells, metric):
    cells[[3, 50]] = 2.0 if metric == "correlation" else 0.0
    found = Geodesic(metric=metric).fit(cells, every(cells))(cells)
    assert np.isfinite(found).all() and found[3, 50] == 0.0 and found[3, 0] > 0.0


def test_many_new_cells_in_blocks(cells, rng, monkeypatch):
    from scgenot.costs import _geodesic, _graph

    new = rng.normal(size=(60, 4)).astype(np.float32)
    for method in ("shortest_path", "heat"):
        cost = Geodesic(method=method)
        whole = cost.fit(cells, np.arange(9))(new)
        with monkeypatch.context() as patch:
            for module in (_geodesic, _graph):
                patch.setattr(module, "rows_per_block", lambda entries: max(1, 300 // entries))
            np.testing.assert_allclose(cost.fit(cells, np.arange(9))(new), whole, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_extreme_scales(cells, metric, factor):
    cost = Geodesic(n_neighbors=6, metric=metric)
    expected = cost.fit(cells, every(cells))(cells) * (factor if metric == "euclidean" else 1.0)
    scaled = cells * np.float32(factor)
    np.testing.assert_allclose(cost.fit(scaled, every(cells))(scaled), expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_far_from_the_origin(cells):
    moved = cells + np.float32(1000.0)
    found = Geodesic(n_neighbors=6).fit(moved, every(cells))(moved)
    np.testing.assert_allclose(found, paths(moved.astype(np.float64), 6), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "cost", [Geodesic(), Geodesic(n_neighbors=3), Geodesic(method="heat"), Geodesic(lengths="hops")]
)
def test_tiny_populations(cost):
    one = np.array([[1.0, 2.0]])
    assert cost.fit(one, np.array([0]))(one) == 0.0
    np.testing.assert_array_equal(cost.fit(np.repeat(one, 4, axis=0), np.arange(4))(one), np.zeros((1, 4)))
    two = np.array([[0.0, 0.0], [3.0, 4.0]])
    found = cost.fit(two, np.arange(2))(two)
    if cost.method == "shortest_path":
        np.testing.assert_array_equal(found, (1.0 - np.eye(2)) * (1.0 if cost.lengths == "hops" else 5.0))
    else:
        # Two states that exchange their heat.
        decay = np.exp(-2 * cost.heat_time)
        kernel = np.array([[1 + decay, 1 - decay], [1 - decay, 1 + decay]]) / 2
        np.testing.assert_allclose(found, np.sqrt(-4 * cost.heat_time * np.log(kernel)), rtol=1e-5)


def test_distances_to_few_anchors_never_take_all_pairs(rng):
    cells = rng.normal(size=(6000, 2))
    tracemalloc.start()
    fitted = Geodesic().fit(cells, np.arange(10))
    fitted(cells[:2000])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 6000 * 6000 / 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_neighbors": 0}, "`n_neighbors` must be a whole number of at least 1, got 0"),
        ({"metric": "euclidian"}, "`metric` must be one of .*'euclidian'. Did you mean 'euclidean'"),
        ({"lengths": "hop"}, "`lengths` must be one of 'distance', 'hops', got 'hop'"),
        ({"method": "dijkstra"}, "`method` must be one of 'shortest_path', 'heat'"),
        ({"heat_time": 0.0}, "`heat_time` must be a finite number above 0"),
        ({"disconnected": "join"}, "`disconnected` must be one of 'max', 'error'"),
    ],
)
def test_wrong_settings_are_named(settings, message, plain_calls):
    with pytest.raises(ValueError, match=message):
        Geodesic(**settings)


def test_wrong_cells_are_named(cells):
    broken = cells.copy()
    broken[[3, 8], 1] = np.nan
    with pytest.raises(ValueError, match=r"`cells` must be finite, got NaN or inf in 2 rows \(first rows: 3, 8\)"):
        Geodesic().fit(broken, np.array([0]))
    fitted = Geodesic().fit(cells, np.array([0]))
    with pytest.raises(ValueError, match="`cells` must be finite"):
        fitted(broken)
    with pytest.raises(ValueError, match="`cells` must have the 4 columns .* got 3"):
        fitted(cells[:, :3])
    for anchors in (np.array([80]), np.array([-1]), np.array([], int)):
        with pytest.raises((ValueError, TypeCheckError), match="`anchors` must be numbers of rows, 0 to 79"):
            Geodesic().fit(cells, anchors)


def test_settings_are_a_value_with_a_name():
    assert resolve_cost("geodesic") == Geodesic() and Geodesic().name == "geodesic"
    own = Geodesic(n_neighbors=9, lengths="hops")
    assert own.name == "geodesic(n_neighbors=9, lengths='hops')"
    assert resolve_cost(own) is own and len({own, Geodesic(n_neighbors=9, lengths="hops")}) == 1
