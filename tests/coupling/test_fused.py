"""Fused problems: fixed points computed with POT, shared features and known pairs that settle what distances leave open."""

import jax
import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist
from tests.coupling.helpers import brute_force_cost, plan_of

from scgenot.coupling import CouplingConfig, solve_coupling

KEY = jax.random.key(0)


@pytest.fixture
def clouds():
    """Two clouds in three and two dimensions, with two features that both have."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(24, 3)), rng.normal(size=(20, 2)) * [1.0, 0.4]
    shared = rng.normal(size=(24, 2)), rng.normal(size=(20, 2)) + 0.3
    return [np.float32(one) for one in (source, target, *shared)]


@pytest.fixture
def mirrored():
    """A cloud that is its own mirror image, so that distances alone cannot tell a cell from its reflection."""
    rng = np.random.default_rng(1)
    half = rng.gamma(2.0, size=(30, 2)) * [1.0, 0.6] + [0.2, 0.0]
    cells = np.concatenate([half, half * [-1, 1]]).astype(np.float32)
    order = rng.permutation(60)
    return cells, cells[order] @ np.float32([[0.6, 0.8], [-0.8, 0.6]]), np.argsort(order), np.sign(cells[:, :1]), order


def solve(source, target, *, config, **kwargs):
    return solve_coupling(KEY, source, target, problem="fused", config=config, **kwargs)


@pytest.mark.parametrize("alpha", [0.2, 0.8])
def test_the_plan_solves_the_linear_problem_that_it_defines(clouds, alpha):
    """Pins the weights of both terms: POT, all four indices, the factor 2 on the quadratic term alone."""
    source, target, *shared = clouds
    config = CouplingConfig(cost="sqeuclidean", epsilon=0.1, alpha=alpha)
    plan = plan_of(solve(source, target, shared=tuple(shared), config=config))
    x, y = cdist(source, source, "sqeuclidean"), cdist(target, target, "sqeuclidean")
    across = cdist(*shared, "sqeuclidean")
    cost = 2 * alpha * brute_force_cost(x / x.mean(), y / y.mean(), plan) + (1 - alpha) * across / across.mean()
    a, b = np.full(24, 1 / 24), np.full(20, 1 / 20)
    expected = ot.sinkhorn(a, b, cost, 0.1, method="sinkhorn_log", numItermax=5000, stopThr=1e-10)
    assert np.abs(plan - expected).sum() < 5e-3


def test_objective_is_not_above_that_of_pot(clouds):
    source, target, *shared = clouds
    config = CouplingConfig(cost="euclidean", epsilon=0.05, alpha=0.5, scale_cost=1.0)
    ours = solve(source, target, shared=tuple(shared), config=config).diagnostics.objective
    x, y, across = cdist(source, source), cdist(target, target), cdist(*shared, "sqeuclidean")
    a, b = np.full(24, 1 / 24), np.full(20, 1 / 20)
    theirs = ot.gromov.entropic_fused_gromov_wasserstein(
        across, x, y, a, b, "square_loss", epsilon=0.05, alpha=0.5, max_iter=1000
    )
    quadratic = np.sum(brute_force_cost(x, y, theirs) * theirs)
    entropy = np.sum(theirs * np.log(theirs * 480 + 1e-300))
    assert ours <= 0.5 * quadratic + 0.5 * np.sum(across * theirs) + 0.05 * entropy + 1e-3


def test_shared_features_tell_a_cell_from_its_mirror_image(mirrored):
    source, target, partner, side, order = mirrored
    config = CouplingConfig(cost="euclidean", epsilon=1e-3, alpha=0.9)
    found = solve(source, target, shared=(side, side[order]), config=config)
    assert (plan_of(found).argmax(axis=1) == partner).mean() > 0.95
    # Both optima cost the same without the shared feature; with the wrong sign it picks the other one.
    other = solve(source, target, shared=(-side, side[order]), config=config)
    assert (plan_of(other).argmax(axis=1) == partner).mean() < 0.05


def test_optima_that_tie_are_both_followed(mirrored):
    """Without the shared feature a cell's mirror image is as good as the cell: both plans are found, and neither is dropped."""
    source, target, partner, _, _ = mirrored
    config = CouplingConfig(cost="euclidean", epsilon=1e-3)
    found = solve_coupling(KEY, source, target, problem="quadratic", config=config)
    first, second = (start for start in found.diagnostics.starts[:2])
    assert first.polished and second.polished and second.overlap < 0.1
    assert second.objective == pytest.approx(first.objective, rel=1e-3)
    match = plan_of(found).argmax(axis=1)
    # The reflection of row i is row i + 30.
    share = (match == partner).mean(), (match == partner[(np.arange(60) + 30) % 60]).mean()
    assert max(share) > 0.95 and min(share) < 0.05


@pytest.mark.parametrize("flip", [False, True])
def test_few_known_pairs_do_the_same(mirrored, flip):
    source, target, partner, _, _ = mirrored
    known = np.array([0, 7, 40])
    # The mirror image of row i is row i + 30: pairs that all name mirror images mean the other optimum.
    partners = partner[(known + 30) % 60 if flip else known]
    found = solve(
        source, target, pairs=np.stack([known, partners], axis=1), config=CouplingConfig(cost="euclidean", epsilon=1e-3)
    )
    right = partner[(np.arange(60) + 30) % 60] if flip else partner
    assert (plan_of(found).argmax(axis=1) == right).mean() > 0.9


def test_known_partners_are_coupled_where_costs_cannot_tell_them_from_others():
    rng = np.random.default_rng(0)
    source, order = rng.normal(size=(300, 3)), rng.permutation(300)
    target = (source + 0.3 * rng.normal(size=(300, 3)))[order]
    # More pairs than a code has entries; half of the cells have no partner.
    known = rng.permutation(300)[:150]
    pairs = np.stack([known, np.argsort(order)[known]], axis=1)
    plan = plan_of(solve(source, target, pairs=pairs, config=CouplingConfig(epsilon=0.02)))
    rows = plan / plan.sum(axis=1, keepdims=True)
    assert rows[pairs[:, 0], pairs[:, 1]].min() > 0.9
    others = np.setdiff1d(np.arange(300), known)
    assert rows[np.ix_(others, pairs[:, 1])].sum(axis=1).max() < 0.1


def test_extension_reproduces_the_coupling_and_reaches_new_cells(clouds):
    source, target, *shared = clouds
    found = solve(source, target, shared=tuple(shared), config=CouplingConfig(epsilon=0.05))
    again = found.extend(source, target, shared=tuple(shared))
    lifted = np.asarray(again.geometry.cost(again.geometry.x, again.geometry.y))
    np.testing.assert_allclose(lifted, np.asarray(found.geometry.matrix), atol=5e-3)
    some = found.extend(source[3:9], target[2:7], shared=(shared[0][3:9], shared[1][2:7]))
    lifted_some = np.asarray(some.geometry.cost(some.geometry.x, some.geometry.y))
    np.testing.assert_allclose(lifted_some, lifted[3:9, 2:7], atol=1e-3)


def test_landmarks_with_shared_features(mirrored):
    source, target, partner, side, _ = mirrored
    rng = np.random.default_rng(3)
    many = rng.integers(0, 60, 500)
    left, right = source[many], target[partner[many]]
    config = CouplingConfig(cost="euclidean", epsilon=2e-3, alpha=0.9, landmarks=60, coarse_limit=10_000)
    found = solve(left, right, shared=(side[many], side[many]), config=config)
    drawn = np.asarray(found.conditional(jax.random.key(1), np.arange(500), 16))
    assert "fused, global, 60 x 60 landmarks" in found.diagnostics.kind
    apart = np.linalg.norm(right[drawn].mean(axis=1) - right, axis=1)
    assert np.median(apart) < 0.1 * np.median(cdist(right, right))
