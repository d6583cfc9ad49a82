"""The quadratic global coupling: closed forms, POT, known matches, and the report of its starts."""

import contextlib
import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist
from tests.coupling.helpers import brute_force_cost, plan_of

from scgenot._progress import Progress
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.coupling._global_quadratic import quadratic_coupling
from scgenot.coupling.quadratic._problem import in_shape, quadratic_cost, quadratic_problem
from scgenot.coupling.quadratic._search import best_state, search
from scgenot.datasets import quadratic_gaussian
from scgenot.metrics import foscttm

EUCLIDEAN = CouplingConfig(cost="euclidean", epsilon=2e-3)


def solve(source, target, config=EUCLIDEAN, *, key=0, **kwargs):
    return solve_coupling(jax.random.key(key), source, target, problem="quadratic", config=config, **kwargs)


@pytest.fixture
def clouds():
    """Two unrelated clouds, in three and two dimensions, small enough for four indices."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 3)).astype(np.float32), (rng.normal(size=(20, 2)) * [1.0, 0.4]).astype(np.float32)


@pytest.fixture
def compiled():
    """Names of the programs that are compiled in a block."""

    @contextlib.contextmanager
    def listen():
        names = []

        class Heard(logging.Handler):
            def emit(self, record):
                if record.getMessage().startswith("Finished XLA compilation of"):
                    names.append(record.getMessage().split()[4])

        logger, heard = logging.getLogger("jax._src.dispatch"), Heard()
        level, propagate = logger.level, logger.propagate
        logger.addHandler(heard)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        try:
            yield names
        finally:
            logger.removeHandler(heard)
            logger.setLevel(level)
            logger.propagate = propagate

    return listen


@pytest.fixture
def shape_and_copy():
    """A lopsided cloud, and the same cells rotated, reflected, shifted, in another order, in more dimensions."""
    rng = np.random.default_rng(1)
    source = (rng.gamma(1.5, size=(80, 3)) * [2.0, 1.0, 0.5]).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0][:3]
    order = rng.permutation(80)
    return source, ((source @ turn) * -1 + 3)[order].astype(np.float32), np.argsort(order)


def test_the_plan_solves_the_linear_problem_that_it_defines(clouds):
    """The fixed point, computed with POT and four indices: it pins epsilon and the factor 2 of the gradient."""
    source, target = clouds
    config = CouplingConfig(cost="sqeuclidean", epsilon=0.1)
    plan = plan_of(solve(source, target, config))
    x, y = cdist(source, source, "sqeuclidean"), cdist(target, target, "sqeuclidean")
    x, y = x / x.mean(), y / y.mean()
    a, b = np.full(24, 1 / 24), np.full(20, 1 / 20)
    expected = ot.sinkhorn(
        a, b, 2 * brute_force_cost(x, y, plan), 0.1, method="sinkhorn_log", numItermax=5000, stopThr=1e-10
    )
    # The plan stands still to 1e-3 in L1 by construction.
    assert np.abs(plan - expected).sum() < 5e-3
    without_two = ot.sinkhorn(a, b, brute_force_cost(x, y, plan), 0.1, method="sinkhorn_log", numItermax=5000)
    assert np.abs(plan - without_two).sum() > 0.05


def test_the_objective_is_that_of_the_plan(clouds):
    source, target = clouds
    found = solve(source, target, CouplingConfig(cost=("euclidean", "sqeuclidean"), epsilon=0.05))
    plan = plan_of(found)
    x, y = cdist(source, source), cdist(target, target, "sqeuclidean")
    quadratic = brute_force_cost(x / x.mean(), y / y.mean(), plan)
    entropy = np.sum(plan * np.log(plan * 24 * 20 + 1e-300))
    assert found.diagnostics.objective == pytest.approx(np.sum(quadratic * plan) + 0.05 * entropy, rel=1e-3)


def test_not_worse_than_pot(clouds):
    source, target = clouds
    x, y = cdist(source, source), cdist(target, target)
    x, y = x / x.mean(), y / y.mean()
    a, b = np.full(24, 1 / 24), np.full(20, 1 / 20)
    # POT's linearised cost has the factor 2, so its epsilon is ours.
    theirs = ot.gromov.entropic_gromov_wasserstein(x, y, a, b, "square_loss", epsilon=0.01, max_iter=500, solver="PPA")
    ours = solve(source, target, CouplingConfig(cost="euclidean", epsilon=0.01)).diagnostics.objective
    value = np.sum(brute_force_cost(x, y, theirs) * theirs) + 0.01 * np.sum(theirs * np.log(theirs * 480 + 1e-300))
    assert ours <= value + 1e-3 * abs(value)


@pytest.mark.parametrize("seed", [0, 1])
def test_gaussians_with_inner_products(seed):
    """Cross-covariance and value of the closed form, for samples whose second moments are exactly those of the laws."""
    problem = quadratic_gaussian()
    rng = np.random.default_rng(seed)

    def exact(cov, n=512):
        cells = rng.normal(size=(n, len(cov)))
        cells -= cells.mean(axis=0)
        return cells @ np.linalg.inv(np.linalg.cholesky(np.cov(cells.T, bias=True))).T @ np.linalg.cholesky(cov).T

    source, target = exact(problem.source_cov), exact(problem.target_cov)
    found = solve(source, target, CouplingConfig(cost="inner_product", epsilon=problem.epsilon, scale_cost=1.0))
    singular = np.linalg.svd(source.T @ plan_of(found) @ target, compute_uv=False)
    # Moments are exact but 512 cells are no Gaussian; the small value is the more sensitive one.
    np.testing.assert_allclose(singular[: len(problem.cross_singular_values)][0], 1.6583, rtol=0.03)
    np.testing.assert_allclose(singular[1], 0.5916, rtol=0.08)
    assert found.diagnostics.objective == pytest.approx(3.3402, rel=0.03)


def test_a_turned_and_shuffled_copy_is_found(shape_and_copy):
    source, target, partner = shape_and_copy
    plan = plan_of(solve(source, target))
    np.testing.assert_array_equal(plan.argmax(axis=1), partner)
    drawn = np.asarray(solve(source, target).conditional(jax.random.key(1), np.arange(80), 8))
    assert (drawn == partner[:, None]).mean() > 0.9


def test_target_order_does_not_matter(shape_and_copy):
    source, target, _ = shape_and_copy
    order = np.random.default_rng(2).permutation(80)
    first, second = plan_of(solve(source, target)), plan_of(solve(source, target[order]))
    assert np.abs(first[:, order] - second).sum() < 0.02


def test_starts_are_reported_best_first(shape_and_copy):
    source, target, _ = shape_and_copy
    coupling = solve(source, target)
    found = coupling.diagnostics
    polished = [start for start in found.starts if start.polished]
    assert found.converged and polished[0].converged
    assert [start.objective for start in polished] == sorted(start.objective for start in polished)
    # Of the plan that is returned, not only of the first in the list.
    plan = plan_of(coupling)
    x, y = (cdist(one, one) / cdist(one, one).mean() for one in (source, target))
    value = np.sum(brute_force_cost(x, y, plan) * plan) + 0.002 * np.sum(plan * np.log(plan * 6400 + 1e-300))
    assert polished[0].objective == pytest.approx(value, rel=1e-3)
    assert polished[0].objective == min(start.objective for start in polished)
    assert {start.start for start in found.starts} >= {"product", "profiles", "components +++", "components -+-"}
    assert polished[0].overlap == 1.0 and all(0.0 <= start.overlap <= 1.0 + 1e-6 for start in polished)
    assert all(np.isnan(start.overlap) for start in found.starts if not start.polished)
    # They do differ: reflections of a lopsided cloud are worse optima.
    assert max(start.objective for start in found.starts) > 1.2 * found.objective


def test_extension_is_the_formula_for_any_pair(clouds):
    source, target = clouds
    found = solve(source, target, CouplingConfig(cost="sqeuclidean", epsilon=0.1))
    plan = plan_of(found)
    rng = np.random.default_rng(5)
    new_source, new_target = rng.normal(size=(7, 3)), rng.normal(size=(6, 2))
    x_unit = cdist(source, source, "sqeuclidean").mean()
    y_unit = cdist(target, target, "sqeuclidean").mean()
    x, y = cdist(new_source, source, "sqeuclidean") / x_unit, cdist(new_target, target, "sqeuclidean") / y_unit
    expected = 2 * np.einsum("ijkl,kl->ij", (x[:, None, :, None] - y[None, :, None, :]) ** 2, plan)
    within = cdist(source, source, "sqeuclidean") / x_unit, cdist(target, target, "sqeuclidean") / y_unit
    # The constant is the value of the quadratic term, by which a plan's mass is worth having.
    expected -= np.sum(brute_force_cost(*within, plan) * plan)
    lifted = np.asarray(found.lift[0](new_source) @ found.lift[1](new_target).T)
    np.testing.assert_allclose(lifted, expected, rtol=1e-3, atol=1e-3 * expected.max())
    # Squared Euclidean costs are sums of d + 2 products, and two more features hold the squares. The others only fill up.
    features = np.asarray(found.geometry.x)
    assert np.linalg.matrix_rank(features) <= 3 + 2 + 2 and features.shape[1] == 8 + 2
    np.testing.assert_allclose(
        found.extend(source, target).conditional(jax.random.key(0), np.arange(24), 4),
        found.conditional(jax.random.key(0), np.arange(24), 4),
    )


def test_landmarks_reach_the_other_cells(shape_and_copy):
    source, target, partner = shape_and_copy
    rng = np.random.default_rng(3)
    many = rng.integers(0, 80, 480)
    jitter = lambda cells: cells[many] + 0.02 * rng.normal(size=(480, cells.shape[1]))
    left, right = jitter(source), jitter(target[partner])
    config = dataclasses.replace(EUCLIDEAN, landmarks=80, coarse_limit=10_000)
    found = solve(left, right, config)
    drawn = np.asarray(found.conditional(jax.random.key(1), np.arange(480), 16))
    assert "landmarks" in found.diagnostics.kind
    # Row i of both is the same cell: chance is 0.5.
    assert foscttm(right[drawn].mean(axis=1), right) < 0.05


def test_same_key_same_plan(clouds):
    np.testing.assert_array_equal(plan_of(solve(*clouds)), plan_of(solve(*clouds)))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scales_do_not_matter(shape_and_copy, scale):
    source, target, partner = shape_and_copy
    np.testing.assert_array_equal(plan_of(solve(source * scale, target)).argmax(axis=1), partner)


@pytest.mark.parametrize("kind", ["constant", "duplicates", "two cells"])
def test_degenerate_populations_give_finite_plans(kind):
    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(24, 2)).astype(np.float32), rng.normal(size=(20, 3)).astype(np.float32)
    if kind == "constant":
        source[:] = 1.0
    elif kind == "duplicates":
        source[:12] = source[0]
    else:
        source = source[:2]
    plan = plan_of(solve(source, target, CouplingConfig(cost="euclidean", epsilon=0.05)))
    assert np.isfinite(plan).all()
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 20, rtol=0.02)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / len(source), rtol=0.02)


def test_what_is_not_there_gets_an_answer(clouds, plain_calls):
    with pytest.raises(ValueError, match="`coupling` must be one of 'global'.*got 'local'"):
        solve(*clouds, kind="local")
    with pytest.raises(ValueError, match="`shared` belongs to fused problems, got problem='quadratic'"):
        solve(*clouds, shared=clouds)
    with pytest.raises(ValueError, match="needs `shared` features or known `pairs`.*neither"):
        solve_coupling(jax.random.key(0), *clouds, problem="fused")
    with pytest.raises(ValueError, match="`alpha` must lie in"):
        CouplingConfig(alpha=1.0)
    with pytest.raises(ValueError, match="inner_product.*within a population"):
        solve_coupling(jax.random.key(0), clouds[0], clouds[0], config=CouplingConfig(cost="inner_product"))


def test_starts_are_chosen_at_a_small_epsilon_and_followed_to_a_large_one(shape_and_copy):
    source, target, partner = shape_and_copy
    less, soft = (solve(source, target, dataclasses.replace(EUCLIDEAN, epsilon=one)) for one in (0.02, 0.05))
    polished = [start for start in soft.diagnostics.starts if start.polished]
    assert polished[0].sharp == min(start.sharp for start in polished)
    # Where they are chosen does not depend on what is asked for.
    assert polished[0].sharp == pytest.approx(less.diagnostics.starts[0].sharp, rel=1e-4)
    assert soft.diagnostics.objective > less.diagnostics.objective > polished[0].sharp and soft.diagnostics.converged
    plan = plan_of(soft)
    assert foscttm(plan @ target / plan.sum(axis=1, keepdims=True), target[partner]) < 0.1
    assert soft.diagnostics.effective_targets > 1.5 * less.diagnostics.effective_targets


def test_limits_act(shape_and_copy):
    source, target, _ = shape_and_copy
    limited = lambda **limits: solve(source, target, dataclasses.replace(EUCLIDEAN, **limits))
    with pytest.warns(RuntimeWarning, match="did not converge in 1 linearisations"):
        brief = limited(max_iterations=10)
    assert brief.diagnostics.iterations == 1 and not brief.diagnostics.converged
    loose, tight = limited(), limited(tolerance=1e-4, max_iterations=5000)
    assert tight.diagnostics.starts[0].plan_change < 1e-4 < loose.diagnostics.starts[0].plan_change
    assert tight.diagnostics.iterations > loose.diagnostics.iterations
    blocked = limited(dense_limit=1000)
    assert blocked.geometry.matrix is None and loose.geometry.matrix is not None
    drawn = [np.asarray(one.conditional(jax.random.key(1), np.arange(80), 16)) for one in (loose, blocked)]
    assert (drawn[0].min(axis=1) == drawn[1].min(axis=1)).mean() > 0.8


def test_other_data_of_the_same_shape_compile_nothing(shape_and_copy, compiled):
    source, target, _ = shape_and_copy
    rng = np.random.default_rng(7)
    solve(source, target)
    with compiled() as programs:
        solve(
            np.float32(source * rng.gamma(2.0, size=source.shape)), np.float32(target + rng.normal(size=target.shape))
        )
        solve(source, target, dataclasses.replace(EUCLIDEAN, epsilon=0.01, tolerance=2e-3))
    # Following to a larger epsilon takes what choosing at the small one took.
    assert len(programs) <= 1, programs


def test_cells_that_fill_up_a_shape_change_nothing(clouds):
    within = [np.float32(cdist(one, one) / cdist(one, one).mean()) for one in clouds]
    a, b = np.linspace(1, 2, 24, dtype=np.float32), np.linspace(2, 1, 20, dtype=np.float32)
    problem = quadratic_problem(*within, a / a.sum(), b / b.sum(), 0.05)
    whole, _ = in_shape(problem)
    # 24 is a size of its own, 20 is not.
    assert whole.shared.shape == (24, 24)
    found, state = search(problem, shared=False), best_state(problem, None)[0]
    assert np.asarray(found.state.plan)[:, 20:].max() == 0 and state.plan.shape == (24, 20)
    expected = np.asarray(quadratic_cost(problem, state.plan))
    np.testing.assert_allclose(np.asarray(quadratic_cost(whole, found.state.plan))[:, :20], expected, rtol=1e-4)
    np.testing.assert_allclose(state.plan.sum(axis=1), problem.a, rtol=2e-2)


def test_progress_tells_stages_and_what_remains(clouds):
    class Heard(Progress):
        stages, steps = [], 0

        def stage(self, name, total=None):
            self.stages.append((name, total))

        def advance(self, steps=1, **seen):
            self.steps += steps

    heard = Heard()
    a, b = jnp.full(24, 1 / 24), jnp.full(20, 1 / 20)
    config = CouplingConfig(epsilon=0.05).resolved("quadratic")
    found = quadratic_coupling(jax.random.key(0), *map(jnp.asarray, clouds), a, b, config, progress=heard)
    names = [name for name, _ in heard.stages]
    assert names == ["starts", "polishing the best starts", "following to the epsilon asked for"]
    polished = sum(start.polished for start in found.starts)
    assert heard.stages[1][1] == polished and heard.steps == len(found.starts) + 2 * polished


@pytest.mark.slow
def test_split_panels_of_real_cells_find_each_other():
    """Two disjoint gene panels of the same 700 cells; from the product plan alone this split ends at .23."""
    import scanpy as sc
    from sklearn.decomposition import PCA

    genes = sc.datasets.pbmc68k_reduced().raw.X.toarray()
    rng = np.random.default_rng(0)
    order = rng.permutation(genes.shape[1])
    half = len(order) // 2
    first, second = (PCA(20, random_state=0).fit_transform(genes[:, some]) for some in (order[:half], order[half:]))
    shuffle = rng.permutation(700)
    found = solve(first, second[shuffle], CouplingConfig(cost="euclidean", epsilon=1e-3, scale_cost="max"))
    plan = plan_of(found)
    transported = plan @ second[shuffle] / plan.sum(axis=1, keepdims=True)
    assert foscttm(transported, second) < 0.08
    by_name = {start.start: start.objective for start in found.diagnostics.starts}
    assert found.diagnostics.objective < by_name["product"]
    # The optimum of most starts is another one, and worse.
    others = [start.objective for start in found.diagnostics.starts if start.polished and start.overlap < 0.8]
    assert others and found.diagnostics.objective < min(others)
    assert jnp.isfinite(found.diagnostics.effective_targets)
