"""What is drawn from a coupling follows its plan, row by row, in the order of the cells."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import chi2

from scgenot._random import random_bits, uniform
from scgenot.costs import resolve_cost
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import gaussian_pair
from scgenot.sinkhorn import Geometry, draw_rows
from scgenot.sinkhorn._draws import _draw_rows

LIMITS = pytest.mark.parametrize("limits", [{}, {"dense_limit": 1}], ids=["dense", "blocked"])


def rows_of(coupling) -> np.ndarray:
    """Return the plan's rows, each summing to 1, in float64."""
    x, y = (np.asarray(points, np.float64) for points in (coupling.geometry.x, coupling.geometry.y))
    with np.errstate(divide="ignore"):
        log_b = np.log(np.asarray(coupling.b, np.float64))
    logits = log_b + np.asarray(coupling.potentials.v, np.float64)
    logits = logits[None] - cdist(x, y, "sqeuclidean") / coupling.scale / coupling.config.epsilon
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def chi_square(counts, expected):
    """Return the statistic and its 1e-6 quantile; cells expected less than 5 times are thrown together."""
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    assert counts[~kept].sum() == 0
    statistic = np.sum((counts[kept] - expected[kept]) ** 2 / expected[kept])
    return statistic, chi2.ppf(1 - 1e-6, max(kept.sum() - 1, 1))


@pytest.fixture
def clouds(rng):
    return rng.normal(size=(20, 2)).astype(np.float32), rng.normal(size=(300, 2)).astype(np.float32)


@pytest.fixture
def far_apart(rng):
    """Cells on a grid: at a small epsilon each is coupled with itself alone."""
    x = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(-1, 2).astype(np.float32)
    return rng.permutation(x)


SHARP = CouplingConfig(epsilon=0.002, tolerance=1e-3)


@LIMITS
def test_draws_of_a_row_follow_the_row(clouds, limits):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=0.1, **limits))
    rows, k = rows_of(coupling), 2000
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.arange(20), k))
    assert drawn.shape == (20, k) and drawn.dtype == np.int32
    for row, draws in zip(rows, drawn, strict=True):
        counts = np.bincount(draws, minlength=300)
        # Systematic: an interval of mass p of the running sum gets k p draws, rounded down or up. Rounding in float32
        # may move a quantile that lies within 1e-6 of a boundary, which costs one more.
        assert np.abs(counts - k * row).max() < 2


@LIMITS
def test_single_draws_follow_the_row(clouds, limits):
    # One draw at a time has no help from evenly spaced quantiles: a plain multinomial sample.
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=0.1, **limits))
    rows, repeats = rows_of(coupling), 3000
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.repeat(jnp.arange(4), repeats), 1))
    for row, draws in zip(rows, drawn.reshape(4, repeats), strict=False):
        statistic, limit = chi_square(np.bincount(draws, minlength=300), repeats * row)
        assert statistic < limit


def test_weights_of_the_target_enter_once(rng):
    # Costs that do not tell targets apart: a row is the target's weights, here far from uniform.
    x, y = np.zeros((5, 2), np.float32), np.zeros((50, 2), np.float32)
    b = rng.uniform(0.0, 1.0, 50) ** 3
    coupling = solve_coupling(jax.random.key(0), x, y, target_weights=b)
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.arange(5), 5000))
    frequencies = np.stack([np.bincount(one, minlength=50) / 5000 for one in drawn])
    np.testing.assert_allclose(frequencies, np.tile(b / b.sum(), (5, 1)), atol=2 / 5000)


@LIMITS
def test_every_row_has_a_key_of_its_own(rng, limits):
    # On a uniform plan one draw a row gives 256 (1 - 1/e) = 162 distinct targets with a standard deviation of 5; one
    # key for all rows gives 1.
    n = 256
    cells = np.zeros((n, 2), np.float32)
    coupling = solve_coupling(jax.random.key(0), cells, cells, config=CouplingConfig(**limits))
    for seed in range(3):
        drawn = np.asarray(coupling.conditional(jax.random.key(seed), jnp.arange(n), 1))
        assert abs(len(np.unique(drawn)) - n * (1 - (1 - 1 / n) ** n)) < 5 * 5


def test_every_row_of_the_pool_has_a_key_of_its_own():
    n = 256
    cells = np.zeros((n, 2), np.float32)
    coupling = solve_coupling(jax.random.key(0), cells, cells, config=CouplingConfig(n_draws=1))
    _, j = next(coupling.pairs(jax.random.key(0), batch_size=n, steps=1))
    assert abs(len(np.unique(j)) - n * (1 - 1 / np.e)) < 5 * 5


def test_every_row_of_a_minibatch_has_a_key_of_its_own():
    # Targets of a batch are themselves drawn with replacement: of 256, 162 differ; of these draws hit 1 - exp(-1)...
    # in all 256 (1 - exp(exp(-1) - 1)) = 120 distinct ones, and again one with a shared key.
    n = 256
    cells = np.zeros((n, 2), np.float32)
    coupling = solve_coupling(jax.random.key(0), cells, cells, kind="minibatch")
    _, j = next(coupling.pairs(jax.random.key(0), batch_size=n, steps=1))
    assert abs(len(np.unique(j)) - n * (1 - np.exp(np.exp(-1) - 1))) < 5 * 6


def test_a_cell_asked_for_twice_gets_other_draws(clouds):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=10.0))
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.asarray([3, 3]), 20))
    assert (drawn[0] != drawn[1]).any()


def test_same_key_same_draws_other_key_other_draws(clouds):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=1.0))
    first, again, other = (np.asarray(coupling.conditional(jax.random.key(k), jnp.arange(20), 8)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(
    ("kind", "limits"),
    [("global", {}), ("global", {"dense_limit": 1}), ("minibatch", {})],
    ids=["dense", "blocked", "batch"],
)
def test_source_and_target_indices_belong_together(far_apart, kind, limits, rng):
    # At a small epsilon a cell draws itself. After the targets are shuffled it must draw where it went: a coupling
    # with its columns in another order than the target cells fails.
    n = len(far_apart)
    order = rng.permutation(n)
    place = np.argsort(order)  # target cell order[k] is source cell k's twin: source i sits at place[i]
    config = dataclasses.replace(SHARP, **limits)
    coupling = solve_coupling(jax.random.key(0), far_apart, far_apart[order], kind=kind, config=config)
    i, j = map(np.asarray, next(coupling.pairs(jax.random.key(1), batch_size=n * 4, steps=2)))
    if kind == "global":
        np.testing.assert_array_equal(j, place[i])
        drawn = np.asarray(coupling.conditional(jax.random.key(2), jnp.arange(n)[::-1], 3))
        np.testing.assert_array_equal(drawn, np.tile(place[::-1, None], 3))
    else:
        # A batch draws cells with replacement, so some have no twin in it, and pass their neighbours on; but most of
        # 256 cells do. At random 1 in 64 would agree.
        assert (j == place[i]).mean() > 0.4


def test_source_indices_are_taken_in_the_order_asked(clouds):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=0.05))
    rows, asked = rows_of(coupling), np.array([17, 2, 9])
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.asarray(asked), 2000))
    for source, draws in zip(asked, drawn, strict=True):
        assert np.abs(np.bincount(draws, minlength=300) - 2000 * rows[source]).max() < 2


def test_pairs_follow_both_marginals(rng):
    x, y = rng.normal(size=(12, 2)).astype(np.float32), rng.normal(size=(9, 2)).astype(np.float32)
    a, b = rng.uniform(0.2, 2.0, 12), rng.uniform(0.2, 2.0, 9)
    a[4], b[2] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    config = CouplingConfig(epsilon=0.2, tolerance=1e-5)
    coupling = solve_coupling(jax.random.key(0), x, y, source_weights=a, target_weights=b, config=config)
    batches = coupling.pairs(jax.random.key(1), batch_size=64, steps=100)
    rounds = [next(batches) for _ in range(8)]
    i, j = (np.concatenate([np.asarray(r[k]).ravel() for r in rounds]) for k in (0, 1))
    total = len(i)
    # Pairs of a batch share quantiles and pairs of a round share the pool, so counts vary less (source) or a little
    # more (target: 32 draws a cell are shared by 6400 pairs) than independent ones. 51,200 pairs: 5 standard errors of
    # the pools, 12 * 32 * 8 = 3072 draws.
    np.testing.assert_allclose(np.bincount(i, minlength=12) / total, a, atol=5 * np.sqrt(0.25 / total))
    np.testing.assert_allclose(np.bincount(j, minlength=9) / total, b, atol=5 * np.sqrt(0.25 / 3072))
    assert 4 not in i and 2 not in j
    joint = np.zeros((12, 9))
    np.add.at(joint, (i, j), 1 / total)
    assert np.abs(joint - a[:, None] * rows_of(coupling)).max() < 5 * np.sqrt(0.05 / 3072)


def test_each_batch_spreads_over_the_source_cells(clouds):
    i, _ = next(solve_coupling(jax.random.key(0), *clouds).pairs(jax.random.key(1), batch_size=40, steps=5))
    for batch in np.asarray(i):
        # Two of each; a systematic sample is off by one at most.
        assert np.abs(np.bincount(batch, minlength=20) - 2).max() <= 1


def test_unbalanced_pairs_follow_the_mass_that_is_sent(rng):
    # Half of the source cells have no counterpart: their mass is given up, and training sees them less.
    near, far = rng.normal(size=(10, 2)), rng.normal(size=(10, 2)) + 6
    source, target = np.concatenate([near, far]).astype(np.float32), rng.normal(size=(300, 2)).astype(np.float32)
    config = CouplingConfig(epsilon=0.1, tau_source=0.6)
    coupling = solve_coupling(jax.random.key(0), source, target, config=config)
    i, _ = next(coupling.pairs(jax.random.key(1), batch_size=100, steps=100))
    wanted = np.asarray(coupling.source_marginal, np.float64)
    wanted /= wanted.sum()
    found = np.bincount(np.asarray(i).ravel(), minlength=20) / np.size(i)
    np.testing.assert_allclose(found, wanted, atol=5 * np.sqrt(0.25 / np.size(i)))
    assert found[10:].sum() < 0.2


def test_pool_is_drawn_afresh(clouds):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=10.0, n_draws=1))
    batches = coupling.pairs(jax.random.key(1), batch_size=20, steps=1)
    # One target a cell and 20 pairs a round use the pool up: the next round must bring others.
    assert len({tuple(np.asarray(next(batches)[1][0])) for _ in range(5)}) == 5
    seen = {int(one) for _ in range(30) for one in np.asarray(next(batches)[1]).ravel()}
    assert len(seen) > 100


def test_pool_size_bounds_what_a_round_sees(clouds):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=10.0, n_draws=2))
    i, j = next(coupling.pairs(jax.random.key(1), batch_size=20, steps=50))
    for source in range(20):
        assert len(np.unique(np.asarray(j)[np.asarray(i) == source])) <= 2


@LIMITS
def test_extending_to_the_same_cells_reproduces_the_plan(clouds, limits):
    config = CouplingConfig(epsilon=0.1, tolerance=1e-5, **limits)
    coupling = solve_coupling(jax.random.key(0), *clouds, config=config)
    extended = coupling.extend(*clouds)
    # The soft c-transforms of converged potentials are these potentials, up to the tolerance.
    np.testing.assert_allclose(rows_of(extended), rows_of(coupling), atol=1e-4)
    u, v = extended.potentials.u, extended.potentials.v
    np.testing.assert_allclose(
        np.asarray(u)[:, None] + np.asarray(v),
        np.asarray(coupling.potentials.u)[:, None] + np.asarray(coupling.potentials.v),
        atol=1e-3,
    )


def test_extending_an_unbalanced_coupling_reproduces_it(clouds):
    config = CouplingConfig(epsilon=0.1, tau_source=0.8, tau_target=0.9, tolerance=1e-6, max_iterations=500)
    coupling = solve_coupling(jax.random.key(0), *clouds, config=config)
    extended = coupling.extend(*clouds)
    np.testing.assert_allclose(extended.source_marginal, coupling.source_marginal, rtol=1e-3)
    np.testing.assert_allclose(rows_of(extended), rows_of(coupling), atol=1e-4)


def test_extending_leaves_weightless_cells_out(clouds, rng):
    a, b = np.ones(20), np.ones(300)
    a[:10], b[:200] = 0.0, 0.0
    coupling = solve_coupling(jax.random.key(0), *clouds, source_weights=a, target_weights=b)
    alone = solve_coupling(
        jax.random.key(0), clouds[0][10:], clouds[1][200:], config=CouplingConfig(scale_cost=coupling.scale)
    )
    new = rng.normal(size=(20, 2)).astype(np.float32), rng.normal(size=(300, 2)).astype(np.float32)
    # Default tolerance 1e-3 on both sides.
    np.testing.assert_allclose(rows_of(coupling.extend(*new)), rows_of(alone.extend(*new)), atol=5e-3)


def test_extended_gaussian_plan_has_the_closed_forms_conditional_means(rng):
    problem = gaussian_pair(2, epsilon_fraction=0.1, rng=1)
    x, y = problem.sample_source(1, 2000).astype(np.float32), problem.sample_target(2, 2000).astype(np.float32)
    coupling = solve_coupling(jax.random.key(0), x, y, config=CouplingConfig(epsilon=problem.epsilon, scale_cost=1.0))
    new_x, new_y = problem.sample_source(3, 200).astype(np.float32), problem.sample_target(4, 2000).astype(np.float32)
    found = rows_of(coupling.extend(new_x, new_y)) @ new_y
    means, covariance = problem.conditional(new_x)
    # A conditional mean is an average over the cells within the conditional's width, some per cent of 2000: its
    # standard error is about sqrt(tr cov / 100), and the independent plan is off by tr(K' A^-1 K).
    error = np.mean(np.sum((found - means) ** 2, 1))
    independent = np.mean(np.sum(means**2, 1))
    assert error < np.trace(covariance) / 50
    assert error < independent / 20


def test_draws_never_leave_the_targets(rng):
    # 130 targets: two bins of 128, the second nearly empty. All of the mass on the last cell.
    x, y = np.zeros((3, 1), np.float32), np.zeros((130, 1), np.float32)
    geometry = Geometry(jnp.asarray(x), jnp.asarray(y), 1.0, resolve_cost("sqeuclidean"))
    for last in (0, 127, 128, 129):
        h = jnp.full(130, -jnp.inf).at[last].set(0.0)
        drawn = draw_rows(geometry, h, jax.random.key(0), jnp.arange(3), 50)
        np.testing.assert_array_equal(drawn, last)


def test_the_last_quantile_stays_among_cells_with_mass():
    # Of 32 quantiles the last is 1 where the row's own number is within 2^-20 of it: single precision has no number between.
    key, ids = jax.random.key(0), np.arange(2**22, dtype=np.uint32)
    near = ids[np.asarray(uniform(random_bits(key, ids, 0)[0])) > 1 - 2**-21]
    assert len(near) >= 1
    # 1024 targets in 8 bins; of the last ones, which fill a size up, none has mass.
    geometry = Geometry(jnp.zeros((len(near), 1)), jnp.zeros((1024, 1)), 1.0, resolve_cost("sqeuclidean"))
    h = jnp.where(jnp.arange(1024) < 700, 0.0, -jnp.inf)
    drawn = np.asarray(draw_rows(geometry, h, key, jnp.asarray(near, jnp.int32), 32))
    assert drawn.max() == 699
    assert len(np.unique(drawn[0])) == 32


def test_draws_skip_bins_without_mass(rng):
    # 1000 targets with mass in every third bin of 128 only.
    geometry = Geometry(jnp.zeros((40, 1)), jnp.zeros((1000, 1)), 1.0, resolve_cost("sqeuclidean"))
    used = (np.arange(1000) // 128) % 3 == 1
    h = jnp.where(jnp.asarray(used), 0.0, -jnp.inf)
    drawn = np.asarray(draw_rows(geometry, h, jax.random.key(0), jnp.arange(40), 200))
    assert used[drawn].all()
    # Draws of a row are systematic: none of the equal cells is drawn twice. Over rows a cell's count is binomial, but counts of
    # neighbours go together (200 quantiles pass 360 cells in steps of 9 / 5), so that no chi-square holds for all of them.
    counts = np.stack([np.bincount(row, minlength=1000)[used] for row in drawn])
    assert counts.max() == 1
    share = 200 / used.sum()
    np.testing.assert_allclose(counts.sum(axis=0), 40 * share, atol=5.5 * np.sqrt(40 * share * (1 - share)))


def test_memory_of_draws_does_not_grow_with_their_number(plain_calls):
    geometry = Geometry(jnp.zeros((1000, 2)), jnp.zeros((1000, 2)), 1.0, resolve_cost("sqeuclidean"))
    held = []
    for n_draws in (64, 2048):
        arguments = geometry, jnp.zeros(1000), jax.random.key(0), jnp.arange(1000)
        analysis = _draw_rows.lower(*arguments, n_draws=n_draws).compile().memory_analysis()
        if analysis is None:
            pytest.skip("this backend does not report memory")
        held.append(analysis.temp_size_in_bytes)
    # 1000 rows x 2048 draws x (a quantile and an index, in and out of order): 8 MB each; a bin of weights for each is 1 GB.
    assert held[1] - held[0] < 100e6


def test_many_draws_follow_the_row(clouds):
    coupling = solve_coupling(jax.random.key(0), *clouds, config=CouplingConfig(epsilon=0.1))
    # No multiple of the draws that are looked up at once.
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.arange(20), 2001))
    for row, draws in zip(rows_of(coupling), drawn, strict=True):
        assert np.abs(np.bincount(draws, minlength=300) - 2001 * row).max() < 2
