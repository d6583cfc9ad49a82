"""Whatever finite cells come: finite potentials, valid draws."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scgenot.coupling import CouplingConfig, solve_coupling

# One size, so that everything is compiled once.
N, M, D = 12, 9, 2


@st.composite
def populations(draw):
    """Two populations at any scale and place, with duplicated cells and constant features."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    scale = 10.0 ** draw(st.integers(-6, 6))
    x, y = rng.normal(size=(N, D)), rng.normal(size=(M, D)) + draw(st.sampled_from([0.0, 3.0, 100.0]))
    for cells in (x, y):
        for feature in draw(st.lists(st.integers(0, D - 1), max_size=D)):
            cells[:, feature] = 1.0
        if draw(st.booleans()):
            cells[: draw(st.integers(1, len(cells)))] = cells[0]
    if draw(st.booleans()):
        y[:] = x[:M]
    return (scale * x).astype(np.float32), (scale * y).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    cells=populations(),
    epsilon=st.sampled_from([1e-3, 0.05, 1.0, 100.0]),
    tau=st.sampled_from([1.0, 0.9]),
    dense=st.booleans(),
)
def test_potentials_are_finite_and_draws_valid(cells, epsilon, tau, dense):
    config = CouplingConfig(epsilon=epsilon, tau_source=tau, max_iterations=50, dense_limit=2**24 if dense else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a small epsilon may need more iterations
        coupling = solve_coupling(jax.random.key(0), *cells, config=config)
    assert np.isfinite(coupling.potentials.u).all() and np.isfinite(coupling.potentials.v).all()
    marginal = np.asarray(coupling.source_marginal)
    assert np.isfinite(marginal).all() and (marginal >= 0).all() and marginal.sum() > 0
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.arange(N), 16))
    assert ((drawn >= 0) & (drawn < M)).all()
    found = coupling.diagnostics
    assert np.isfinite([found.objective, found.marginal_violation, found.mass, found.effective_targets]).all()
    assert 1 - 1e-3 <= found.effective_targets <= M * (1 + 1e-3) or tau < 1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_any_unit_gives_the_same_plan(rng, scale):
    x, y = rng.normal(size=(N, D)), rng.normal(size=(M, D))
    rows = []
    for factor in (1.0, scale):
        cells = ((factor * one).astype(np.float32) for one in (x, y))
        drawn = solve_coupling(jax.random.key(0), *cells).conditional(jax.random.key(1), jnp.arange(N), 1000)
        rows.append(np.stack([np.bincount(row, minlength=M) for row in np.asarray(drawn)]))
    # Systematic draws of equal rows differ by rounding only: a count or two of 1000.
    assert np.abs(rows[0] - rows[1]).max() <= 2


def test_duplicated_cells_share_their_targets(rng):
    x, y = np.repeat(rng.normal(size=(3, D)), 4, axis=0).astype(np.float32), rng.normal(size=(M, D)).astype(np.float32)
    coupling = solve_coupling(jax.random.key(0), x, y)
    u = np.asarray(coupling.potentials.u).reshape(3, 4)
    np.testing.assert_allclose(u, u[:, :1].repeat(4, 1), rtol=1e-5)


def test_one_cell_on_each_side():
    one = np.ones((1, D), np.float32)
    coupling = solve_coupling(jax.random.key(0), one, 2 * one)
    np.testing.assert_array_equal(coupling.conditional(jax.random.key(0), jnp.arange(1), 3), 0)
    assert coupling.diagnostics.effective_targets == pytest.approx(1)
