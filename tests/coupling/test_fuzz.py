"""Whatever finite cells, weights and settings come: a finite plan with the marginals asked for, the right way round.

Compilation is nearly all of the time: few shapes, and few kinds of degeneracy, as these decide on the rank of the costs.
"""

import warnings

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.coupling.helpers import plan_of

from scgenot.coupling import CouplingConfig, solve_coupling

KEY = jax.random.key(0)
WIDTHS = {"linear": (2, 2), "quadratic": (3, 2), "fused": (3, 2)}
SHAPES = [(7, 5), (1, 6), (6, 1), (1, 1), (2, 9)]
KINDS = ["generic", "duplicates", "constant feature", "one point"]
many, few = (settings(max_examples=count, deadline=None, derandomize=True) for count in (25, 8))


@st.composite
def problems(draw, problem):
    """Two populations with weights, shared features where the problem has them, and a config."""
    n, m = draw(st.sampled_from(SHAPES if problem == "linear" else SHAPES[:3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    sides = [rng.gamma(2.0, size=(size, width)) for size, width in zip((n, m), WIDTHS[problem], strict=True)]
    kind = draw(st.sampled_from(KINDS))
    for cells in sides:
        if kind == "duplicates":
            cells[: (len(cells) + 1) // 2] = cells[0]
        elif kind == "constant feature":
            cells[:, 0] = 1.0
        elif kind == "one point":
            cells[:] = cells[0]
    scales = [draw(st.sampled_from([1e-6, 1.0, 1e6])) for _ in sides]
    if problem == "linear":
        scales[1] = scales[0]
    sides = [np.float32(scale * cells) for scale, cells in zip(scales, sides, strict=True)]
    given_ = {}
    if problem == "fused":
        given_["shared"] = tuple(np.float32(scales[0] * rng.normal(size=(size, 2))) for size in (n, m))
    for name, size in (("source_weights", n), ("target_weights", m)):
        if draw(st.booleans()):
            weights = rng.gamma(1.0, size=size)
            weights[1:][rng.random(size - 1) < 0.4] = 0.0
            given_[name] = weights
    taus = draw(st.sampled_from([(1.0, 1.0), (0.5, 1.0), (1.0, 0.9), (0.9, 0.2)]))
    epsilon = draw(st.sampled_from([None, 1e-6, 1e-3, 10.0]))
    config = CouplingConfig(epsilon=epsilon, tau_source=taus[0], tau_target=taus[1], max_iterations=200, n_draws=8)
    return sides, given_, config


def check(problem, sides, given_, config):
    n, m = map(len, sides)
    a, b = (
        np.full(size, 1 / size) if name not in given_ else given_[name] / given_[name].sum()
        for name, size in (("source_weights", n), ("target_weights", m))
    )
    before = [cells.copy() for cells in sides]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = solve_coupling(KEY, *sides, problem=problem, config=config, **given_)
    for cells, was in zip(sides, before, strict=True):
        np.testing.assert_array_equal(cells, was)
    summary = found.diagnostics
    complaints = [str(one.message) for one in told if issubclass(one.category, RuntimeWarning)]
    assert summary.converged == (not any("did not converge" in one for one in complaints)), complaints
    assert not any("invalid value" in one or "divide by zero" in one for one in complaints), complaints

    plan = plan_of(found)
    assert plan.shape == (n, m)
    # Single precision: logarithms of the plan are sums of numbers that grow as epsilon falls.
    costs = found.geometry.inverse * np.asarray(found.geometry.stored().matrix)
    finite = [np.abs(one[np.isfinite(one)]).max() for one in map(np.asarray, (*_potentials(found), costs))]
    rounding = np.finfo(np.float32).eps * sum(finite)
    assert np.isfinite(plan).all() and (plan >= 0).all()
    # With a tiny epsilon and a small tau, nearly all mass may be given up; but some draw is always possible.
    drawn = np.asarray(found.conditional(jax.random.key(1), np.arange(n), 8))
    assert drawn.shape == (n, 8) and drawn.min() >= 0 and drawn.max() < m
    assert (b[drawn] > 0).all()
    marginals = [np.asarray(found.source_marginal, np.float64), np.asarray(found.target_marginal, np.float64)]
    for axis, (marginal, prior, tau) in enumerate(
        zip(marginals, (a, b), (config.tau_source, config.tau_target), strict=True)
    ):
        assert marginal.shape == prior.shape and np.isfinite(marginal).all() and (marginal >= 0).all()
        assert (marginal[prior == 0] == 0).all()
        own = plan.sum(axis=1 - axis)
        if summary.converged:
            np.testing.assert_allclose(own, marginal, atol=3e-3 * plan.sum(), rtol=1e-3 + rounding)
            if tau == 1.0:
                assert np.abs(own - prior).sum() < 5e-3 + rounding
    assert np.isfinite([summary.objective, summary.marginal_violation, summary.mass, summary.scale]).all()
    assert 1 - 1e-2 <= summary.effective_targets <= m * (1 + 1e-2)
    other = found.swapped()
    np.testing.assert_allclose(plan_of(other), plan.T, rtol=1e-5)
    assert np.asarray(other.source_marginal).shape == (m,)


def _potentials(found):
    return found.potentials.u, found.potentials.v


@many
@given(problems("linear"))
def test_linear(given_problem):
    check("linear", *given_problem)


@few
@given(problems("quadratic"))
def test_quadratic(given_problem):
    check("quadratic", *given_problem)


@few
@given(problems("fused"))
def test_fused(given_problem):
    check("fused", *given_problem)


@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([1e-6, 1.0, 1e6]))
@example(seed=0, scale=1.0)
@pytest.mark.parametrize("problem", ["linear", "quadratic", "fused"])
def test_rows_and_columns_are_not_flipped(problem, seed, scale):
    """A copy in another order that is not its own inverse: a transposed plan would be wrong everywhere."""
    rng = np.random.default_rng(seed)
    n = 7
    source = rng.gamma(1.0, size=(n, 3)) * [4.0, 2.0, 1.0] + np.arange(n)[:, None] ** 1.5
    order = np.roll(np.arange(n), 2)
    turn = np.eye(3) if problem == "linear" else np.linalg.qr(rng.normal(size=(3, 3)))[0]
    target = (scale * source @ turn)[order]
    given_ = {"shared": (source[:, :1], source[order, :1])} if problem == "fused" else {}
    found = solve_coupling(
        KEY, scale * source, target, problem=problem, config=CouplingConfig(epsilon=1e-3, max_iterations=5000), **given_
    )
    np.testing.assert_array_equal(plan_of(found).argmax(axis=1), np.argsort(order))
    drawn = np.asarray(found.conditional(KEY, np.arange(n), 4))
    np.testing.assert_array_equal(np.median(drawn, axis=1), np.argsort(order))
