"""Couplings with costs that need the whole population: precomputed ones, and distances along neighbour graphs."""

import dataclasses
import warnings

import jax
import numpy as np
import ot
import pytest
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist
from sklearn.neighbors import kneighbors_graph
from tests.coupling.helpers import plan_of

from scgenot.costs import Geodesic
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.coupling.quadratic import _sides

KEY = jax.random.key(0)
N, M, NEIGHBOURS = 40, 30, 6
GEODESIC = CouplingConfig(cost=Geodesic(n_neighbors=NEIGHBOURS), epsilon=0.05)


def arcs(n, m):
    """Two populations along one arc, noisy, not in order; the second one is denser at one end."""
    rng = np.random.default_rng(0)
    cells = []
    for angle in (rng.uniform(0, 1.5 * np.pi, n), 1.5 * np.pi * rng.beta(1.0, 1.5, m)):
        arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        cells.append(np.float32(arc + 0.03 * rng.normal(size=arc.shape)))
    return cells


def along_graph(cells):
    """Lengths of shortest paths, by scikit-learn and SciPy."""
    graph = kneighbors_graph(cells.astype(np.float64), NEIGHBOURS, mode="distance")
    return shortest_path(graph.maximum(graph.T), directed=False)


def sinkhorn(cost, epsilon):
    a, b = (np.full(size, 1 / size) for size in cost.shape)
    return ot.sinkhorn(a, b, cost / cost.mean(), epsilon, method="sinkhorn_log", numItermax=20_000, stopThr=1e-10)


@pytest.fixture(scope="module")
def clouds():
    rng = np.random.default_rng(1)
    return np.float32(rng.gamma(1.5, size=(N, 3)) * [2, 1, 0.5]), np.float32(rng.gamma(1.5, size=(M, 2)) * [1, 0.4])


@pytest.mark.parametrize("which", ["both", "source", "target"])
def test_quadratic_precomputed_is_the_cost_itself(clouds, which):
    config = CouplingConfig(cost="euclidean", epsilon=0.02)
    expected = solve_coupling(KEY, *clouds, problem="quadratic", config=config)
    named, cells = ["euclidean", "euclidean"], list(clouds)
    for side in range(2) if which == "both" else [("source", "target").index(which)]:
        named[side], cells[side] = "precomputed", cdist(clouds[side], clouds[side])
    config = dataclasses.replace(config, cost=tuple(named))
    found = solve_coupling(KEY, *cells, problem="quadratic", config=config)
    assert np.abs(plan_of(found) - plan_of(expected)).sum() < 2e-3
    assert found.diagnostics.objective == pytest.approx(expected.diagnostics.objective, rel=1e-4)


def test_linear_precomputed_are_rows_of_the_joint_matrix():
    """Costs from source to target differ from those back, so that a transposed or misplaced block is far off."""
    rng = np.random.default_rng(2)
    joint = rng.uniform(0.2, 2.0, (N + M, N + M))
    config = CouplingConfig(cost="precomputed", epsilon=0.1, tolerance=1e-5)
    found = solve_coupling(KEY, joint[:N], joint[N:], config=config)
    plan = plan_of(found)
    assert plan.shape == (N, M)
    assert np.abs(plan - sinkhorn(joint[:N, N:], 0.1)).sum() < 1e-3
    assert np.abs(plan - sinkhorn(joint[N:, :N].T, 0.1)).sum() > 0.3
    assert found.diagnostics.scale == pytest.approx(joint[:N, N:].mean(), rel=1e-5)


def test_linear_precomputed_must_be_square():
    rows = np.random.default_rng(0).uniform(size=(N + M, N + M - 1))
    with pytest.raises(ValueError, match="with the cost 'precomputed', `cells` must be square"):
        solve_coupling(KEY, rows[:N], rows[N:], config=CouplingConfig(cost="precomputed"))


def test_linear_geodesic_is_over_the_joint_graph():
    source, target = arcs(N, M)
    found = solve_coupling(KEY, source, target, config=dataclasses.replace(GEODESIC, tolerance=1e-5))
    expected = along_graph(np.concatenate([source, target]))[:N, N:]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(np.asarray(found.geometry.matrix) * found.diagnostics.scale, expected, rtol=1e-4)
    assert np.abs(plan_of(found) - sinkhorn(expected, 0.05)).sum() < 1e-3
    # Across the gap of the arc, straight lines are shortcuts: this is another problem.
    assert np.abs(plan_of(found) - sinkhorn(cdist(source, target), 0.05)).sum() > 0.1


def test_extension_of_a_linear_geodesic_coupling():
    source, target = arcs(N, M)
    found = solve_coupling(KEY, source, target, config=GEODESIC)
    again = found.extend(source, target)
    lifted = np.asarray(again.geometry.stored().matrix)
    assert np.abs(lifted - np.asarray(found.geometry.matrix)).max() < 0.06 * 0.05
    assert np.abs(plan_of(again) - plan_of(found)).sum() < 0.02
    order = np.random.default_rng(3).permutation(N)
    turned = found.extend(source[order], target)
    np.testing.assert_allclose(plan_of(turned), plan_of(again)[order], rtol=1e-3, atol=1e-7)
    new = found.extend(*arcs(7, 5))
    assert plan_of(new).shape == (7, 5) and np.isfinite(plan_of(new)).all()


def test_few_landmarks_of_a_linear_geodesic_coupling_are_close():
    source, target = arcs(300, 200)
    # Paths through dense samples, so that a graph over all cells and its landmarks tell the same lengths.
    config = dataclasses.replace(GEODESIC, cost=Geodesic(n_neighbors=12), epsilon=0.1)
    exact = solve_coupling(KEY, source, target, config=config)
    few = solve_coupling(KEY, source, target, config=dataclasses.replace(config, landmarks=60))
    assert few.geometry.matrix is None or few.geometry.x.shape[1] <= 120
    difference = np.abs(plan_of(few) - plan_of(exact)).sum()
    assert difference < 0.1 * np.abs(plan_of(exact) - 1 / (300 * 200)).sum()
    np.testing.assert_allclose(plan_of(few).sum(axis=0), 1 / 200, rtol=0.02)


@pytest.mark.parametrize("landmarks", [2048, 25])
def test_quadratic_geodesic_is_within_each_population(landmarks, monkeypatch):
    """As precomputed path lengths; with landmarks too, which are chosen by the same key."""
    # Cells and rows of lengths need not be alike in the same order, by which landmarks are drawn.
    monkeypatch.setattr(_sides, "alike", lambda cells, parts: np.arange(len(cells)))
    source, target = arcs(N, M)
    config = CouplingConfig(epsilon=0.01, landmarks=landmarks)
    found = solve_coupling(
        KEY, source, target, problem="quadratic", config=dataclasses.replace(config, cost=GEODESIC.cost)
    )
    expected = solve_coupling(
        KEY,
        along_graph(source),
        along_graph(target),
        problem="quadratic",
        config=dataclasses.replace(config, cost="precomputed"),
    )
    assert np.abs(plan_of(found) - plan_of(expected)).sum() < 5e-3
    assert found.diagnostics.scale == pytest.approx(expected.diagnostics.scale, rel=1e-4)


@pytest.mark.parametrize("problem", ["linear", "quadratic"])
def test_graphs_in_pieces(problem):
    rng = np.random.default_rng(4)
    clumps = [np.float32(rng.normal(size=(size, 2)) + shift) for size, shift in ((12, 0), (10, 0), (8, 500), (9, 500))]
    source, target = np.concatenate(clumps[::2]), np.concatenate(clumps[1::2])
    with pytest.warns(UserWarning, match="2 components without a path between them.*Increase `n_neighbors`"):
        found = solve_coupling(
            KEY, source, target, problem=problem, config=CouplingConfig(cost=Geodesic(n_neighbors=4), epsilon=0.05)
        )
    assert np.isfinite(plan_of(found)).all()
    np.testing.assert_allclose(plan_of(found).sum(axis=1), 1 / 20, rtol=0.02)
    strict = CouplingConfig(cost=Geodesic(n_neighbors=4, disconnected="error"))
    with pytest.raises(ValueError, match="2 components without a path"):
        solve_coupling(KEY, source, target, problem=problem, config=strict)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        solve_coupling(KEY, *arcs(N, M), problem=problem, config=dataclasses.replace(GEODESIC, epsilon=0.05))


def test_effective_targets_come_from_the_costs_that_were_solved():
    """Features keep few directions of the path lengths; at a small epsilon what they leave out counts for much."""
    source, target = arcs(300, 200)
    rng = np.random.default_rng(5)
    cells = [one + 0.3 * rng.normal(size=one.shape) for one in (source, target)]
    config = CouplingConfig(cost="geodesic", epsilon=5e-4, max_iterations=200, n_draws=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a small epsilon may need more iterations
        found = solve_coupling(KEY, *cells, config=config)
    rows = plan_of(found)
    rows /= rows.sum(axis=1, keepdims=True)
    entropy = -np.sum(rows * np.log(np.maximum(rows, 1e-300)), axis=1)
    assert found.diagnostics.effective_targets == pytest.approx(np.exp(entropy.mean()), rel=0.05)
