"""The global linear coupling against POT, OTT and the closed form."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from ott.geometry import geometry as ott_geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn
from scipy.spatial.distance import cdist

from scgenot.costs import resolve_cost
from scgenot.coupling import CouplingConfig, Diagnostics, available_couplings, solve_coupling
from scgenot.datasets import gaussian_pair
from scgenot.sinkhorn._geometry import Geometry, _soft_min_rows, soft_min_rows

N, M = 40, 30
TIGHT = CouplingConfig(epsilon=0.05, tolerance=1e-5, max_iterations=5000)


def plan_of(coupling) -> np.ndarray:
    """Return ``a_i b_j exp(u_i + v_j - C_ij / eps)`` in float64, with costs computed by SciPy."""
    x, y = (np.asarray(points, np.float64) for points in (coupling.geometry.x, coupling.geometry.y))
    a, b, u, v = (
        np.asarray(one, np.float64) for one in (coupling.a, coupling.b, coupling.potentials.u, coupling.potentials.v)
    )
    used_rows, used_columns = a > 0, b > 0
    plan = np.zeros((len(x), len(y)))
    logits = u[:, None] + v[None, :] - cdist(x, y, "sqeuclidean") / coupling.scale / coupling.config.epsilon
    plan[np.ix_(used_rows, used_columns)] = np.exp(logits[np.ix_(used_rows, used_columns)])
    return a[:, None] * b[None, :] * plan


@pytest.fixture
def clouds(rng):
    return rng.normal(size=(N, 3)).astype(np.float32), (rng.normal(size=(M, 3)) * 0.7 + 0.5).astype(np.float32)


@pytest.fixture
def weights(rng):
    """Marginals that are far from uniform, with cells that weigh nothing."""
    a, b = rng.uniform(0.1, 3.0, N), rng.uniform(0.1, 3.0, M)
    a[[0, 7]], b[[3, M - 1]] = 0.0, 0.0
    return a / a.sum(), b / b.sum()


def pot_plan(a, b, cost, epsilon):
    """POT's balanced plan; it has no answer for cells without weight, which have no mass."""
    rows, columns = a > 0, b > 0
    plan = np.zeros(cost.shape)
    plan[np.ix_(rows, columns)] = ot.sinkhorn(
        a[rows],
        b[columns],
        cost[np.ix_(rows, columns)],
        epsilon,
        method="sinkhorn_log",
        stopThr=1e-12,
        numItermax=100000,
    )
    return plan


def scaled(x, y):
    cost = cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean")
    return cost / cost.mean()


def objective(plan, cost, a, b, epsilon, tau_a=1.0, tau_b=1.0):
    """The problem as it is written down, term by term."""

    def kl(p, q):
        support = p > 0
        return np.sum(p[support] * np.log(p[support] / q[support])) - p.sum() + q.sum()

    value = np.sum(plan * cost) + epsilon * kl(plan, np.outer(a, b))
    for tau, marginal, wanted in ((tau_a, plan.sum(1), a), (tau_b, plan.sum(0), b)):
        if tau < 1:
            value += epsilon * tau / (1 - tau) * kl(marginal, wanted)
    return value


def close_in_mass(found, expected, tolerance):
    """Compare plans by total variation times two: the unit that `tolerance` has."""
    assert np.abs(found - expected).sum() < tolerance


# The tolerance stops solving when the marginals are off by 1e-5. How far the plan is off then depends on the linear
# rate r of Sinkhorn, about 1e-5 / (1 - r); rates here are up to .98. float32 potentials of size 50 add 1e-5.
PLAN = 1e-3


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 1.0])
def test_uniform_plan_is_pots(clouds, epsilon):
    coupling = solve_coupling(
        jax.random.key(0), *clouds, config=dataclasses.replace(TIGHT, epsilon=epsilon, tolerance=2e-5)
    )
    cost, a, b = scaled(*clouds), np.full(N, 1 / N), np.full(M, 1 / M)
    expected = pot_plan(a, b, cost, epsilon)
    close_in_mass(plan_of(coupling), expected, PLAN)
    assert coupling.diagnostics.objective == pytest.approx(objective(expected, cost, a, b, epsilon), rel=1e-4)


def test_weighted_plan_with_zero_weights_is_pots(clouds, weights):
    coupling = solve_coupling(
        jax.random.key(0), *clouds, source_weights=10 * weights[0], target_weights=weights[1], config=TIGHT
    )
    cost = scaled(*clouds)
    expected = pot_plan(*weights, cost, 0.05)
    close_in_mass(plan_of(coupling), expected, PLAN)
    np.testing.assert_allclose(coupling.source_marginal, weights[0], atol=1e-6)
    np.testing.assert_allclose(coupling.target_marginal, weights[1], atol=1e-6)
    assert coupling.diagnostics.objective == pytest.approx(objective(expected, cost, *weights, 0.05), rel=1e-4)
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.arange(N), 500))
    assert not np.isin(drawn, [3, M - 1]).any()


@pytest.mark.parametrize("taus", [(0.9, 0.9), (0.95, 0.8), (1.0, 0.9), (0.9, 1.0)])
def test_unbalanced_plan_is_pots(clouds, weights, taus):
    a, b = (np.where(one > 0, one, 1e-3) for one in weights)
    a, b = a / a.sum(), b / b.sum()
    config = dataclasses.replace(TIGHT, epsilon=0.1, tau_source=taus[0], tau_target=taus[1], tolerance=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 1e-6 is about what float32 reaches
        coupling = solve_coupling(jax.random.key(0), *clouds, source_weights=a, target_weights=b, config=config)
    cost = scaled(*clouds)
    strength = tuple(float("inf") if tau == 1 else 0.1 * tau / (1 - tau) for tau in taus)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        a,
        b,
        cost,
        reg=0.1,
        reg_m=strength,
        reg_type="kl",
        method="sinkhorn_stabilized" if min(taus) == 1 else "sinkhorn",
        stopThr=1e-13,
        numItermax=100000,
    )
    close_in_mass(plan_of(coupling), expected, PLAN)
    np.testing.assert_allclose(coupling.source_marginal, expected.sum(1), atol=PLAN / N)
    np.testing.assert_allclose(coupling.target_marginal, expected.sum(0), atol=PLAN / M)
    assert coupling.diagnostics.mass == pytest.approx(expected.sum(), rel=1e-3)
    value = objective(expected, cost, a, b, 0.1, *taus)
    assert coupling.diagnostics.objective == pytest.approx(value, rel=1e-3)


def test_marginals_of_the_plan_are_those_it_reports(clouds, weights):
    config = dataclasses.replace(TIGHT, tau_source=0.8, tau_target=0.9)
    coupling = solve_coupling(
        jax.random.key(0), *clouds, source_weights=weights[0], target_weights=weights[1], config=config
    )
    plan = plan_of(coupling)
    np.testing.assert_allclose(coupling.source_marginal, plan.sum(1), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(coupling.target_marginal, plan.sum(0), rtol=1e-3, atol=1e-6)
    assert coupling.diagnostics.mass < 0.99  # unbalanced: mass is given up, so this can fail


def test_epsilon_is_the_factor_of_kl_as_in_pot_and_ott(clouds):
    # Our convention: eps multiplies KL(P | a b') after division by the mean cost; |x - y|^2 without 1/2. POT and OTT take
    # the same number for the same matrix: factor 1 exactly. A convention off by 2 must be far away.
    epsilon, factor = 0.1, 1.0
    coupling = solve_coupling(jax.random.key(0), *clouds, config=dataclasses.replace(TIGHT, epsilon=epsilon))
    ours, cost = plan_of(coupling), scaled(*clouds)
    a, b = np.full(N, 1 / N), np.full(M, 1 / M)
    close_in_mass(ours, pot_plan(a, b, cost, factor * epsilon), PLAN)
    for wrong in (0.5, 2.0):
        assert np.abs(ours - pot_plan(a, b, cost, wrong * epsilon)).sum() > 100 * PLAN
    problem = linear_problem.LinearProblem(
        ott_geometry.Geometry(cost_matrix=jnp.asarray(cost, jnp.float32), epsilon=factor * epsilon)
    )
    theirs = ott_sinkhorn.Sinkhorn(threshold=1e-5, max_iterations=10000)(problem)
    close_in_mass(ours, np.asarray(theirs.matrix, np.float64), PLAN)


def test_epsilon_in_the_convention_with_one_half(clouds):
    # Schroedinger-bridge papers: 1/2 |x - y|^2 with eps_b; ours is 2 eps_b.
    eps_b = 1.0
    config = dataclasses.replace(TIGHT, epsilon=2 * eps_b, scale_cost=1.0)
    coupling = solve_coupling(jax.random.key(0), *clouds, config=config)
    half = 0.5 * cdist(*(one.astype(np.float64) for one in clouds), "sqeuclidean")
    close_in_mass(plan_of(coupling), pot_plan(np.full(N, 1 / N), np.full(M, 1 / M), half, eps_b), PLAN)


def test_scale_of_the_data_does_not_matter(clouds):
    first = solve_coupling(jax.random.key(0), *clouds, config=TIGHT)
    second = solve_coupling(jax.random.key(0), *(1000 * one for one in clouds), config=TIGHT)
    close_in_mass(plan_of(first), plan_of(second), PLAN)
    assert second.diagnostics.scale == pytest.approx(1e6 * first.diagnostics.scale, rel=1e-5)


@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.9, 0.8)])
def test_blocked_is_dense(taus, rng):
    # More than one block of 1024 on both sides, the last one nearly empty: its padding must not count.
    x, y = rng.normal(size=(1030, 2)).astype(np.float32), rng.normal(size=(1100, 2)).astype(np.float32)
    config = CouplingConfig(epsilon=1.0, tau_source=taus[0], tau_target=taus[1], tolerance=1e-5)
    dense = solve_coupling(jax.random.key(0), x, y, config=config)
    blocked = solve_coupling(jax.random.key(0), x, y, config=dataclasses.replace(config, dense_limit=1))
    assert dense.geometry.matrix is not None and blocked.geometry.matrix is None
    close_in_mass(plan_of(dense), plan_of(blocked), PLAN)
    assert blocked.diagnostics.objective == pytest.approx(dense.diagnostics.objective, rel=1e-4)
    rows = jnp.asarray([0, 500, 1029])
    same_key = [one.conditional(jax.random.key(3), rows, 64) for one in (dense, blocked)]
    # Same quantiles of rows that differ in rounding: nearly always the same cell.
    assert np.mean(np.asarray(same_key[0]) == np.asarray(same_key[1])) > 0.95


def test_blocked_is_dense_far_from_the_origin(rng):
    # Representations such as counts or coordinates need not be centred. Differences of float32 coordinates of size
    # 1000 are good to 6e-5, so costs of size 1 are good to 1e-3 in any order of computation.
    x = (rng.normal(size=(1030, 2)) + 1000).astype(np.float32)
    y = (rng.normal(size=(1100, 2)) + 1000).astype(np.float32)
    cost, h = resolve_cost("sqeuclidean"), jnp.zeros(len(y))
    blocked = soft_min_rows(Geometry(jnp.asarray(x), jnp.asarray(y), 1.0, cost), h)
    matrix = cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean")
    expected = np.log(np.exp(-matrix).sum(1))
    np.testing.assert_allclose(blocked, expected, atol=1e-3)


def test_coarse_to_fine_reaches_the_same_plan(rng):
    x, y = rng.normal(size=(2500, 2)).astype(np.float32), (rng.normal(size=(2000, 2)) * 0.5).astype(np.float32)
    config = CouplingConfig(epsilon=0.2, tolerance=1e-4)
    direct = solve_coupling(jax.random.key(0), x, y, config=config)
    coarse = solve_coupling(jax.random.key(0), x, y, config=dataclasses.replace(config, coarse_limit=2**22))
    assert coarse.diagnostics.converged
    assert coarse.diagnostics.objective == pytest.approx(direct.diagnostics.objective, rel=1e-3)
    # Marginals of each are off by at most 1e-4; at this large an epsilon the rate of Sinkhorn is about .7.
    close_in_mass(plan_of(direct), plan_of(coarse), 1e-2)


@pytest.mark.parametrize("sizes", [(40, 30), (3000, 3)])
def test_small_coarse_limit_still_ends(sizes, rng):
    # However small the limit is, subsets must stop shrinking, or stop being asked for.
    x, y = (rng.normal(size=(size, 3)).astype(np.float32) for size in sizes)
    config = CouplingConfig(epsilon=0.2, tolerance=1e-4)
    direct = solve_coupling(jax.random.key(0), x, y, config=config)
    coarse = solve_coupling(jax.random.key(0), x, y, config=dataclasses.replace(config, coarse_limit=100))
    close_in_mass(plan_of(direct), plan_of(coarse), 1e-2)


def test_memory_stays_far_below_n_times_m(plain_calls):
    n = m = 20000
    geometry = Geometry(jnp.zeros((n, 10)), jnp.zeros((m, 10)), 1.0, resolve_cost("sqeuclidean"))
    compiled = _soft_min_rows.lower(geometry, jnp.zeros(m)).compile()  # compiled only: nothing is computed
    analysis = compiled.memory_analysis()
    if analysis is None:
        pytest.skip("this backend does not report memory")
    # A few blocks of 1024 x 1024 (4 MiB each) and padded copies of the cells, against 1.6 GB for n x m.
    assert analysis.temp_size_in_bytes < n * m * 4 / 20


def test_above_the_limit_no_matrix_is_kept(rng, monkeypatch):
    x, y = rng.normal(size=(300, 2)).astype(np.float32), rng.normal(size=(200, 2)).astype(np.float32)

    stored = Geometry.stored

    def refuse(self):
        # The mean cost is measured between a few cells.
        if self.shape == (300, 200):
            raise AssertionError("a matrix above dense_limit")
        return stored(self)

    monkeypatch.setattr(Geometry, "stored", refuse)
    coupling = solve_coupling(jax.random.key(0), x, y, config=CouplingConfig(epsilon=0.5, dense_limit=300 * 200 - 1))
    assert coupling.geometry.matrix is None
    coupling.extend(x, y)
    next(coupling.pairs(jax.random.key(0), batch_size=4, steps=1))
    numbers = [value for value in dataclasses.astuple(coupling.diagnostics) if isinstance(value, bool | int | float)]
    # Of the others, some belong to quadratic problems and are `None`.
    assert len(numbers) == 11 and np.isfinite(numbers).all()
    with pytest.raises(AssertionError, match="above dense_limit"):
        solve_coupling(jax.random.key(0), x, y, config=CouplingConfig(epsilon=0.5, dense_limit=300 * 200))


def test_gaussian_objective_is_the_closed_forms(rng):
    # Entropic transport cost between samples of 3000 is off by about 1/sqrt(n), 2 %, for variances of size 1.
    problem = gaussian_pair(2, epsilon_fraction=0.2, rng=0)
    x, y = problem.sample_source(1, 3000).astype(np.float32), problem.sample_target(2, 3000).astype(np.float32)
    config = CouplingConfig(epsilon=problem.epsilon, scale_cost=1.0, tolerance=1e-4)
    coupling = solve_coupling(jax.random.key(0), x, y, config=config)
    assert coupling.diagnostics.objective == pytest.approx(problem.value, rel=0.06)
    plan = plan_of(coupling)
    # Entries of the cross-covariance are sums over 3000 cells of products of size 1: standard error .02.
    np.testing.assert_allclose(x.T @ plan @ y, problem.cross_cov, atol=5 * 0.03)


def test_diagnostics_say_what_happened(clouds):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=TIGHT)
    found = coupling.diagnostics
    assert isinstance(found, Diagnostics)
    assert found.kind == "linear, global"
    assert found.epsilon == 0.05
    assert found.converged and found.marginal_violation <= 1e-5
    assert 0 < found.iterations <= 5000
    assert found.mass == pytest.approx(1, abs=1e-5)
    plan = plan_of(coupling)
    rows = plan / plan.sum(1, keepdims=True)
    entropy = -np.sum(rows * np.log(np.where(rows > 0, rows, 1)), 1).mean()
    # Estimated from 32 systematic draws in each of 40 rows: a few per cent.
    assert found.effective_targets == pytest.approx(np.exp(entropy), rel=0.1)
    assert np.abs(plan.sum(1) - 1 / N).sum() < 1e-4 and np.abs(plan.sum(0) - 1 / M).sum() < 1e-4


def test_reported_violation_is_not_smaller_than_the_real_one(clouds):
    config = CouplingConfig(epsilon=0.01, max_iterations=10, tolerance=1e-6)
    with pytest.warns(RuntimeWarning):
        coupling = solve_coupling(jax.random.key(0), *clouds, config=config)
    plan = plan_of(coupling)
    real = max(np.abs(plan.sum(1) - 1 / N).sum(), np.abs(plan.sum(0) - 1 / M).sum())
    assert coupling.diagnostics.marginal_violation >= real - 1e-5


def test_effective_targets_of_an_independent_plan_is_their_number(clouds):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=1e4))
    assert coupling.diagnostics.effective_targets == pytest.approx(M, rel=1e-3)


def test_no_convergence_warns_and_says_what_to_do(clouds):
    config = CouplingConfig(epsilon=0.002, max_iterations=3, tolerance=1e-7)
    with pytest.warns(RuntimeWarning, match="did not converge.* 3 iterations.*larger `epsilon` .got 0.002.*`max_iter"):
        coupling = solve_coupling(jax.random.key(0), *clouds, config=config)
    assert not coupling.diagnostics.converged
    assert coupling.diagnostics.iterations == 3


def test_convergence_does_not_warn(clouds):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve_coupling(jax.random.key(0), *clouds)


def test_same_key_same_coupling(clouds):
    first, second = (solve_coupling(jax.random.key(0), *clouds) for _ in range(2))
    np.testing.assert_array_equal(first.potentials.u, second.potentials.u)
    np.testing.assert_array_equal(first.potentials.v, second.potentials.v)


def test_kinds_are_listed():
    assert available_couplings("linear") == ["global", "extended", "minibatch"]
