"""Heat distances against the dense matrix exponential, their limits, and shortest paths."""

import warnings

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.sparse.csgraph import floyd_warshall
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from scgenot.costs import Geodesic
from scgenot.datasets import swiss_roll_spiral

K = 6


def affinities(cells, hops=False):
    between = cdist(cells, cells)
    ranked = between + np.diag(np.full(len(cells), np.inf))
    near = ranked <= np.sort(ranked, axis=1)[:, [K - 1]]
    near |= near.T
    return np.where(near, 1.0 if hops else np.exp(-(between**2) / (2.0 * np.mean(between[near] ** 2))), 0.0)


def laplacian(weights):
    degrees = weights.sum(axis=1)
    return np.eye(len(weights)) - weights / np.sqrt(degrees[:, None] * degrees)


@pytest.fixture
def cells(rng):
    return rng.normal(size=(60, 3)).astype(np.float32)


def heat(cells, time, **settings):
    fitted = Geodesic(n_neighbors=K, method="heat", heat_time=time, **settings).fit(cells, np.arange(len(cells)))
    return fitted(cells)


@pytest.mark.parametrize("time", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("lengths", ["distance", "hops"])
def test_distances_are_varadhans(cells, lengths, time):
    kernel = expm(-time * laplacian(affinities(cells.astype(np.float64), lengths == "hops")))
    expected = np.sqrt(-4.0 * time * np.log(kernel))
    np.testing.assert_allclose(heat(cells, time, lengths=lengths), expected, rtol=1e-4)


def test_longer_links_are_weaker():
    # A line: the middle cell is nearer to the first than to the last.
    line = np.array([[0.0], [1.0], [3.0]])
    found = Geodesic(n_neighbors=1, method="heat", heat_time=1.0).fit(line, np.arange(3))(line)
    assert found[1, 0] < found[1, 2] < found[0, 2]


def test_short_times_count_hops(cells):
    # As t goes to 0, H_t ~ t^hops, so that distance^2 / (-4 t log t) goes to the number of hops.
    hops = floyd_warshall(np.where(affinities(cells.astype(np.float64)) > 0, 1.0, np.inf))
    np.fill_diagonal(hops, 0.0)
    time = 1e-30
    found = heat(cells, time).astype(np.float64) ** 2 / (-4.0 * time * np.log(time))
    # What is left out is log(weights) / log(t).
    np.testing.assert_allclose(found, hops, atol=0.05 * hops.max())


def test_long_times_know_degrees_only(cells):
    degrees = affinities(cells.astype(np.float64)).sum(axis=1)
    time = 3000.0  # more than double precision's exponent: exp(-3000) is 0
    expected = np.sqrt(-4.0 * time * np.log(np.sqrt(degrees[:, None] * degrees) / degrees.sum()))
    np.testing.assert_allclose(heat(cells, time), expected, rtol=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_default_ranks_as_shortest_paths_do(seed):
    cells = swiss_roll_spiral(500, seed).source
    heat_, path = (Geodesic(method=m).fit(cells, np.arange(500))(cells) for m in ("heat", "shortest_path"))
    off = ~np.eye(500, dtype=bool)
    assert spearmanr(heat_[off], path[off]).statistic > 0.95


def test_heat_that_underflows_is_the_farthest():
    # Along a line of 400 links, t^j / j! leaves double precision on the way.
    line = np.arange(400.0)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Geodesic(n_neighbors=2, method="heat", heat_time=1e-3).fit(line, np.arange(400))(line)
    assert np.isfinite(found).all()
    assert (np.diff(found[0]) >= 0).all() and found[0, -1] == found.max() > found[0, 1]


@pytest.mark.parametrize("time", [1e-3, 0.5, 30.0])
def test_graph_without_odd_cycles(time):
    # Each gap is longer than the one before, so that every cell's neighbour is the previous one: a path.
    line = np.cumsum(np.arange(12.0))[:, None]
    between = cdist(line, line)
    linked = np.abs(np.subtract.outer(np.arange(12), np.arange(12))) == 1
    weights = np.where(linked, np.exp(-(between**2) / (2.0 * np.mean(between[linked] ** 2))), 0.0)
    # Far entries are tiny for short times: a series without cancellation, term by term, in dense algebra.
    kernel, term = np.eye(12), np.eye(12)
    for j in range(1, 300):
        term = time / j * ((np.eye(12) - laplacian(weights)) @ term)
        kernel += term
    expected = np.sqrt(-4.0 * time * (np.log(kernel) - time))
    found = Geodesic(n_neighbors=1, method="heat", heat_time=time).fit(line, np.arange(12))(line)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_an_outlier_among_many_stays_linked(rng):
    # Its links are 50 times the root mean square length: exp(-1250) is 0 in double precision.
    cells = np.concatenate([rng.normal(size=(4000, 2)), [[1e4, 1e4]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Geodesic(method="heat").fit(cells, np.array([0, 4000]))(cells)
    assert np.isfinite(found).all()
    assert found[4000, 0] > found[:4000, 0].max()


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_heat_has_no_unit(cells, factor):
    np.testing.assert_allclose(heat(cells * np.float32(factor), 10.0), heat(cells, 10.0), rtol=1e-4)


def test_new_cell_mixes_the_heat_of_its_neighbours(cells):
    fitted = Geodesic(n_neighbors=K, method="heat").fit(cells, np.arange(60))
    new = cells[:1] + np.float32(0.05)
    known = np.exp(-(fitted(cells).astype(np.float64) ** 2) / 40.0)
    between = cdist(cells, cells)
    ranked = between + np.diag(np.full(60, np.inf))
    near = ranked <= np.sort(ranked, axis=1)[:, [K - 1]]
    ways = cdist(new, cells)[0]
    nearest = np.argsort(ways)[:K]
    weights = np.exp(-(ways[nearest] ** 2) / (2.0 * np.mean(between[near | near.T] ** 2)))
    expected = np.sqrt(-40.0 * np.log(weights @ known[nearest] / weights.sum()))
    np.testing.assert_allclose(fitted(new)[0], expected, rtol=1e-4)


def test_an_outlier_stays_linked(cells):
    cells = np.concatenate([cells, np.full((1, 3), 1e5, np.float32)])
    found = heat(cells, 10.0)
    assert np.isfinite(found).all()
    assert found[-1, :-1].min() > found[:-1, :-1].max()
