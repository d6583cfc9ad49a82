"""A quadratic problem searched on some of the cells and followed on all, against the search on all."""

import dataclasses

import jax
import numpy as np
import pytest
from tests.coupling.helpers import brute_force_cost

from scgenot.coupling import CouplingConfig, Extended, _global_quadratic, solve_coupling
from scgenot.coupling.quadratic import _coarse
from scgenot.coupling.quadratic._coarse import search_coarsely
from scgenot.coupling.quadratic._problem import quadratic_problem
from scgenot.coupling.quadratic._race import overlap, value
from scgenot.coupling.quadratic._search import search
from scgenot.metrics import foscttm

pytestmark = pytest.mark.once
N, COARSE = 240, 64


def shapes(seed=1):
    """A lopsided cloud and a noisy turned copy, row by row."""
    rng = np.random.default_rng(seed)
    source = rng.gamma(1.5, size=(N, 3)) * [2.0, 1.0, 0.5]
    return source, source @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + rng.normal(0.0, 0.1, size=source.shape)


def between(source, target, a=None, **given):
    within = [np.linalg.norm(one[:, None] - one[None], axis=-1).astype(np.float32) for one in (source, target)]
    a = jax.device_put(np.full(N, 1 / N, np.float32) if a is None else np.float32(a))
    return quadratic_problem(*(one / one.mean() for one in within), a, a, **({"epsilon": 5e-3} | given))


def posed(*, weights=None, taus=(1.0, 1.0), alpha=1.0, epsilon=5e-3):
    source, target = shapes()
    given = {}
    if alpha < 1.0:
        # What is known of the cells directly: one of the source's directions, blurred.
        rng = np.random.default_rng(3)
        own, other = source[:, :1], source[:, :1] + rng.normal(0.0, 0.5, size=(N, 1))
        given = {"shared": np.float32(np.square(own - other.T) / 4.0), "alpha": alpha}
    return between(source, target, weights, epsilon=epsilon, taus=taus, **given)


@pytest.mark.parametrize("options", [{}, {"weights": True}, {"alpha": 0.8}, {"taus": (0.95, 0.9)}])
def test_the_plan_is_that_of_a_search_on_all(options):
    if "weights" in options:
        # Some cells weigh four times as much as the others.
        weights = np.where(np.arange(N) < 40, 4.0, 1.0)
        options = {"weights": weights / weights.sum()}
    problem = posed(**options)
    whole = search(problem, shared="alpha" in options)
    found = search_coarsely(np.random.default_rng(0), problem, COARSE, shared="alpha" in options)
    assert value(found.state) == pytest.approx(value(whole.state), rel=2e-3)
    assert overlap(found.state, whole.state) > 0.97
    first = found.starts[0]
    assert first.converged and first.polished and first.objective == value(found.state)
    assert len(found.starts) == len(whole.starts)
    # It was found on some of the cells, and only followed on all.
    assert first.iterations > whole.starts[0].iterations or first.sharp != whole.starts[0].sharp


def test_where_some_cells_cannot_tell_starts_apart_all_are_asked():
    """A cloud of nearly one width: on 64 of its cells four orientations are worth the same, and the best of them is a wrong one."""
    rng = np.random.default_rng(1)
    source = rng.normal(size=(N, 3)) * [2.0, 1.8, 1.6] + 0.4 * rng.gamma(1.0, size=(N, 3))
    target = source @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + rng.normal(0.0, 0.1, size=source.shape)
    problem = between(source, target)
    rows = np.sort(rng.permutation(N)[:COARSE]), np.sort(rng.permutation(N)[:COARSE])
    few = search(_coarse._between(problem, [(side, np.full(COARSE, 1 / COARSE)) for side in rows]), shared=False)
    assert not _coarse._is_clear(few, COARSE)
    whole, found = (
        search(problem, shared=False),
        search_coarsely(np.random.default_rng(0), problem, COARSE, shared=False),
    )
    assert value(found.state) == pytest.approx(value(whole.state), rel=1e-4)
    assert len(found.starts) == len(whole.starts) and found.starts[0].start == whole.starts[0].start


def test_the_start_is_optimal_for_the_linearised_cost_of_the_coarse_plan():
    problem, rng = posed(epsilon=0.2), np.random.default_rng(0)
    rows, columns = np.sort(rng.permutation(N)[:12]), np.sort(rng.permutation(N)[:10])
    plan = rng.dirichlet(np.ones(120)).reshape(12, 10)
    start = np.asarray(_coarse._implied(problem, plan, rows, columns), np.float64)
    within = np.asarray(problem.within_source, np.float64), np.asarray(problem.within_target, np.float64)
    # Costs of all cells at the plan, by four indices: those of some cells among a plan that is zero elsewhere.
    spread = np.zeros((N, N))
    spread[np.ix_(rows, columns)] = plan
    few = np.r_[0:8, rows], np.r_[100:107, columns]
    small = spread[np.ix_(*few)] * (np.arange(len(few[0])) >= 8)[:, None] * (np.arange(len(few[1])) >= 7)[None, :]
    expected = 2.0 * brute_force_cost(within[0][np.ix_(few[0], few[0])], within[1][np.ix_(few[1], few[1])], small)
    # A plan that is optimal for a cost is exp(u + v - cost / epsilon): crossed ratios of entries tell the cost.
    logs = np.log(start[np.ix_(*few)])
    crossed = lambda one: one[1:, 1:] - one[1:, :1] - one[:1, 1:] + one[0, 0]
    np.testing.assert_allclose(crossed(logs) * -0.2, crossed(expected), atol=2e-3)


def test_a_given_plan_is_one_start_more():
    problem = posed()
    found = search_coarsely(np.random.default_rng(0), problem, COARSE, shared=False, given=np.eye(N) / N)
    assert "given" in {start.start for start in found.starts}


@pytest.mark.parametrize("kind", ["global", Extended(n_cells=200, landmarks=128, tolerance=1.0)])
def test_problems_with_landmarks_are_searched_coarsely(monkeypatch, kind):
    monkeypatch.setattr(_global_quadratic, "_SEARCHED", 48)
    asked = []

    def spy(rng, problem, n_coarse, **given):
        found = search_coarsely(rng, problem, n_coarse, **given)
        asked.append((n_coarse, len(problem.a), found))
        return found

    monkeypatch.setattr(_global_quadratic, "search_coarsely", spy)
    source, target = (np.float32(one) for one in shapes())
    config = CouplingConfig(cost="euclidean", epsilon=0.02)
    if kind == "global":
        config = dataclasses.replace(config, landmarks=128)
    found = solve_coupling(jax.random.key(0), source, target, problem="quadratic", kind=kind, config=config)
    ((n_coarse, size, inner),) = asked
    assert (n_coarse, size) == (48, 128) and inner.starts == found.diagnostics.starts
    # Row i of both is the same cell; chance is .5.
    assert foscttm(np.asarray(found.barycentric(target)), target) < 0.06
    # Where all cells are landmarks, starts are compared on all.
    solve_coupling(jax.random.key(0), source[:100], target[:100], problem="quadratic", config=CouplingConfig())
    assert len(asked) == 1
