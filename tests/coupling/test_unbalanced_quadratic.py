"""Relaxed marginals in quadratic problems: fixed points computed with POT, and the objective against its formula."""

import dataclasses

import jax
import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist
from tests.coupling.helpers import brute_force_cost, plan_of

from scgenot.coupling import CouplingConfig, solve_coupling

KEY = jax.random.key(0)
EPSILON = 0.1
A, B = np.full(24, 1 / 24), np.full(20, 1 / 20)
TAUS = [(0.9, 0.9), (0.5, 0.95), (0.8, 1.0), (1.0, 0.6)]


@pytest.fixture(scope="module")
def clouds():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(24, 3)), rng.normal(size=(20, 2)) * [1.0, 0.4]
    return np.float32(source), np.float32(target)


def costs(clouds):
    x, y = (cdist(one, one, "sqeuclidean") for one in clouds)
    return x / x.mean(), y / y.mean()


def solve(clouds, taus, **kwargs):
    config = CouplingConfig(cost="sqeuclidean", epsilon=EPSILON, tau_source=taus[0], tau_target=taus[1])
    return solve_coupling(KEY, *clouds, problem="quadratic", config=dataclasses.replace(config, **kwargs))


def objective(plan, clouds, taus):
    """The whole objective of a plan, or infinity where it misses a marginal that is to be kept."""
    mass = plan.sum()
    value = np.sum(brute_force_cost(*costs(clouds), plan) * plan) / mass
    value += EPSILON * (np.sum(plan * np.log(plan * 480 + 1e-300)) - mass + 1)
    for tau, weights, marginal in zip(taus, (A, B), (plan.sum(axis=1), plan.sum(axis=0)), strict=True):
        if tau < 1:
            divergence = np.sum(marginal * np.log(marginal / weights) - marginal + weights)
            value += EPSILON * tau / (1 - tau) * divergence
    return value


@pytest.mark.parametrize("taus", TAUS)
def test_the_plan_solves_the_linear_problem_that_it_defines(clouds, taus):
    """POT's unbalanced Sinkhorn on the derivative of the quadratic term, computed with all four indices."""
    plan = plan_of(solve(clouds, taus))
    share = plan / plan.sum()
    quadratic = brute_force_cost(*costs(clouds), share)
    cost = 2 * quadratic - np.sum(quadratic * share)
    strength = tuple(EPSILON * tau / (1 - tau) if tau < 1 else float("inf") for tau in taus)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        A, B, cost, EPSILON, strength, method="sinkhorn", reg_type="kl", numItermax=20_000, stopThr=1e-12
    )
    assert np.abs(plan - expected).sum() < 5e-3 * plan.sum()
    assert abs(plan.sum() - expected.sum()) < 2e-3 * expected.sum()


@pytest.mark.parametrize("taus", TAUS)
def test_diagnostics_tell_objective_and_mass_of_the_plan(clouds, taus):
    found = solve(clouds, taus)
    plan = plan_of(found)
    assert found.diagnostics.objective == pytest.approx(objective(plan, clouds, taus), rel=2e-3)
    assert found.diagnostics.mass == pytest.approx(plan.sum(), rel=1e-3)
    np.testing.assert_allclose(found.source_marginal, plan.sum(axis=1), rtol=1e-3)
    np.testing.assert_allclose(found.target_marginal, plan.sum(axis=0), rtol=1e-3)
    if taus[0] == 1.0:
        np.testing.assert_allclose(found.source_marginal, A, rtol=1e-3)


def test_no_plan_nearby_is_better(clouds):
    taus = (0.8, 0.7)
    plan = plan_of(solve(clouds, taus))
    rng = np.random.default_rng(1)
    best = objective(plan, clouds, taus)
    for factor in (0.9, 0.97, 1.03, 1.1):
        assert objective(plan * factor, clouds, taus) > best
    for _ in range(20):
        assert objective(plan * np.exp(0.1 * rng.normal(size=plan.shape)), clouds, taus) > best


def test_smaller_tau_carries_less_and_one_is_the_balanced_plan(clouds):
    masses = [solve(clouds, (tau, tau)).diagnostics.mass for tau in (0.2, 0.5, 0.9, 0.999)]
    assert masses == sorted(masses)
    near, balanced = plan_of(solve(clouds, (0.9999, 0.9999))), plan_of(solve(clouds, (1.0, 1.0)))
    assert np.abs(near / near.sum() - balanced).sum() < 0.02


@pytest.mark.parametrize("taus", [(1e-3, 1e-3), (0.999, 0.999), (1e-3, 1.0)])
@pytest.mark.parametrize("problem", ["quadratic", "fused"])
def test_extreme_taus_stay_finite(clouds, taus, problem):
    config = CouplingConfig(cost="euclidean", tau_source=taus[0], tau_target=taus[1])
    shared = {"shared": (clouds[0][:, :2], clouds[1])} if problem == "fused" else {}
    found = solve_coupling(KEY, *clouds, problem=problem, config=config, **shared)
    assert found.diagnostics.converged
    assert np.isfinite(plan_of(found)).all() and np.isfinite(found.diagnostics.objective)
    drawn = np.asarray(found.conditional(jax.random.key(1), np.arange(24), 8))
    assert drawn.min() >= 0 and drawn.max() < 20


def test_a_part_without_counterpart_gets_little_mass():
    """Three clumps against two of them: the third one has nowhere to go."""
    rng = np.random.default_rng(2)
    centres = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 7.0]])
    clump = rng.integers(0, 3, 60)
    source = centres[clump] + 0.3 * rng.normal(size=(60, 2))
    target = (centres[rng.integers(0, 2, 50)] + 0.3 * rng.normal(size=(50, 2))) @ [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    # One unit for both: means differ where a part is missing, and would stretch one population against the other.
    config = CouplingConfig(cost="euclidean", tau_source=0.8, tau_target=0.8, scale_cost=3.0)
    found = solve_coupling(KEY, np.float32(source), np.float32(target), problem="quadratic", config=config)
    growth = 60 * np.asarray(found.source_marginal)
    assert growth[clump == 2].mean() < 0.3 * growth[clump < 2].mean()


def test_swapped_is_the_transposed_plan(clouds):
    found = solve(clouds, (0.8, 0.95))
    other = found.swapped()
    np.testing.assert_allclose(plan_of(other), plan_of(found).T, rtol=1e-5)
    assert (other.config.tau_source, other.config.tau_target) == (0.95, 0.8)
    np.testing.assert_allclose(other.source_marginal, found.target_marginal, rtol=1e-4)
    reversed_solve = solve_coupling(KEY, *clouds[::-1], problem="quadratic", config=other.config)
    assert np.abs(plan_of(reversed_solve) - plan_of(found).T).sum() < 0.02 * found.diagnostics.mass
    extended = other.extend(clouds[1][:5], clouds[0][:7])
    again = found.extend(clouds[0][:7], clouds[1][:5])
    np.testing.assert_allclose(extended.potentials.u, again.potentials.v, rtol=1e-3, atol=1e-3)
