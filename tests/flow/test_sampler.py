"""Samples: exact where the flow is known, the same whatever is asked along with them, compiled once."""

import dataclasses

import jax
import numpy as np
import pytest

from scgenot.flow import ODEConfig, TrainConfig
from scgenot.flow import _sampler as sampler
from scgenot.methods import GENOTSolver

N = 64


@pytest.fixture(scope="module")
def cells():
    return np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def solver(cells):
    """A flow that bends: trained on a one-to-one map."""
    from scgenot.coupling import CouplingConfig
    from scgenot.flow import FlowConfig

    target = (np.sin(2 * cells) * [5.0, 2.0] + [100.0, 0.0]).astype(np.float32)
    return GENOTSolver.fit(
        0,
        cells,
        target,
        coupling_config=CouplingConfig(epsilon=0.02),
        flow_config=FlowConfig(hidden=(32, 32), time_frequencies=4),
        train_config=TrainConfig(max_steps=300, batch_size=64, check_every=20, learning_rate=1e-2),
        progress_bar=False,
    )[0]


def test_shape_and_type(solver, cells):
    samples = solver.sample(0, cells[:5], 7)
    assert samples.shape == (5, 7, 2) and samples.dtype == np.float32
    assert np.isfinite(samples).all()


def test_samples_are_in_the_users_units(solver, cells):
    assert 90 < solver.sample(0, cells, 5)[..., 0].mean() < 110


@pytest.mark.parametrize("method", ["midpoint", "heun", "euler"])
def test_fixed_steps_converge_to_the_adaptive_solution(solver, cells, method):
    careful = solver.sample(0, cells[:20], 4, ode=ODEConfig(solver="tsit5", rtol=1e-6, atol=1e-6))
    unit = np.asarray(solver.weights.target_units.scale)
    error = lambda steps: np.abs(
        (solver.sample(0, cells[:20], 4, ode=ODEConfig(solver=method, n_steps=steps)) - careful) / unit
    ).max()
    coarse, fine = error(32), error(128)
    # Four times as many steps: an error 4 times smaller at order 1, 16 times at order 2; half of that leaves room for
    # higher orders and float32 (1e-5 of standardised units, 100 away from the origin).
    assert fine < max(coarse / (2 if method == "euler" else 8), 2e-4)
    assert fine < (0.1 if method == "euler" else 5e-3)


def test_default_steps_are_good_enough(solver, cells):
    careful = solver.sample(0, cells, 4, ode=ODEConfig(solver="tsit5", rtol=1e-6, atol=1e-6))
    unit = np.asarray(solver.weights.target_units.scale)
    # Far below the width of a conditional law, and of what training leaves: a few per cent of a standard deviation.
    assert np.sqrt(np.mean(((solver.sample(0, cells, 4) - careful) / unit) ** 2)) < 0.03


def test_steps_that_are_not_given_differ_by_what_they_are_for():
    assert ODEConfig().for_samples == ODEConfig(n_steps=8) and ODEConfig().for_density == ODEConfig(n_steps=16)
    # Densities are of the trained field, however samples are taken.
    assert ODEConfig("distilled").for_samples.n_steps == 1
    assert ODEConfig("distilled", n_steps=2).for_density == ODEConfig(n_steps=16)
    for given in (ODEConfig("heun", n_steps=5), ODEConfig("tsit5", n_steps=3)):
        assert given.for_samples == given.for_density == given


@pytest.mark.parametrize("ode", [ODEConfig(), ODEConfig(solver="tsit5")], ids=["fixed", "adaptive"])
def test_same_seed_same_samples_bit_for_bit(solver, cells, ode):
    first, again, other = (solver.sample(seed, cells, 3, ode=ode) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.99


def test_kinds_of_seeds(solver, cells):
    key = solver.sample(jax.random.key(5), cells[:3], 2)
    np.testing.assert_array_equal(key, solver.sample(5, cells[:3], 2))
    np.testing.assert_array_equal(key, solver.sample(np.int64(5), cells[:3], 2))
    generator = np.random.default_rng(0)
    first, second = solver.sample(generator, cells[:3], 2), solver.sample(generator, cells[:3], 2)
    np.testing.assert_array_equal(first, solver.sample(np.random.default_rng(0), cells[:3], 2))
    assert (first != second).any()
    assert (solver.sample(None, cells[:3], 2) != solver.sample(None, cells[:3], 2)).any()


@pytest.mark.parametrize("ode", [ODEConfig(), ODEConfig(solver="tsit5")], ids=["fixed", "adaptive"])
def test_a_cells_samples_do_not_depend_on_the_others(solver, cells, ode):
    ids = np.arange(N)
    whole = solver.sample(0, cells, 6, cell_ids=ids, ode=ode)
    some = np.array([40, 3, 17])
    np.testing.assert_array_equal(solver.sample(0, cells[some], 6, cell_ids=ids[some], ode=ode), whole[some])
    np.testing.assert_array_equal(solver.sample(0, cells[::-1], 6, cell_ids=ids[::-1], ode=ode), whole[::-1])


def test_more_samples_begin_with_the_same_ones(solver, cells):
    np.testing.assert_array_equal(solver.sample(0, cells, 9)[:, :4], solver.sample(0, cells, 4))


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_rows_at_once_change_nothing(solver, cells, rows):
    # Matrix products of other sizes may round otherwise: float32 near 100.
    expected = solver.sample(0, cells[:12], 5)
    np.testing.assert_allclose(solver.sample(0, cells[:12], 5, rows=rows), expected, rtol=1e-5, atol=1e-3)


def test_cells_with_equal_features_have_samples_of_their_own(solver, cells):
    samples = solver.sample(0, np.repeat(cells[:1], 4, axis=0), 3)
    assert len(np.unique(samples.reshape(-1, 2), axis=0)) == 12


def test_blocks_cover_all_cells_in_order(solver, cells):
    whole = solver.sample(0, cells, 5, rows=32)
    places, blocks = zip(*solver.sample_blocks(0, cells, 5, rows=32), strict=True)
    assert [(p.start, p.stop) for p in places[:2]] == [(0, 6), (6, 12)]
    assert places[-1].stop == N
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_other_numbers_of_cells_and_samples_compile_nothing(solver, cells):
    solver.sample(0, cells, 3)
    before = sampler._solve_rows._cache_size()
    for count, n_samples in ((1, 1), (17, 30), (64, 100), (2, 3000)):
        assert solver.sample(count, cells[:count], n_samples).shape == (count, n_samples, 2)
    assert sampler._solve_rows._cache_size() == before


def test_other_weights_compile_nothing(solver, cells):
    solver.sample(0, cells, 3)
    before = sampler._solve_rows._cache_size()
    doubled = jax.tree.map(lambda leaf: 2 * leaf, solver.weights)
    dataclasses.replace(solver, weights=doubled).sample(0, cells, 3)
    assert sampler._solve_rows._cache_size() == before


def test_noise_is_standard_normal(cells):
    # With a velocity of zero, which an untrained network has, samples are the noise in the target's units.
    from scgenot.flow import FlowConfig, FlowWeights, Standardizer

    template = GENOTSolver(2, 2, FlowConfig(hidden=(8,)))
    from flax import nnx

    from scgenot.flow import VelocityField

    params = nnx.split(VelocityField(2, 2, template.config, rngs=nnx.Rngs(0)))[1]
    unit = Standardizer.fit(cells, np.ones(N), "none")
    solver = dataclasses.replace(template, weights=FlowWeights(params, unit, unit))
    noise = solver.sample(0, cells, 500).astype(np.float64)
    # 32,000 draws: standard errors .0056 of a mean, .008 of a variance, 1/sqrt(500) = .045 of one cell's mean.
    np.testing.assert_allclose(noise.reshape(-1, 2).mean(0), 0, atol=5 * 0.0056)
    np.testing.assert_allclose(np.cov(noise.reshape(-1, 2).T), np.eye(2), atol=5 * 0.008)
    assert np.abs(noise.mean(1)).max() < 5 * 0.045
    # Cells are independent of one another: correlations between two cells of 1000 numbers.
    correlations = np.corrcoef(noise.reshape(N, -1)) - np.eye(N)
    assert np.abs(correlations).max() < 5.5 / np.sqrt(1000)


def test_wrong_width(solver, plain_calls):
    with pytest.raises(ValueError, match=r"`x` must be cells x 2 features, as in training, got shape \(3, 5\)"):
        solver.sample(0, np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match=r"got shape \(2,\)"):
        solver.sample(0, np.zeros(2, np.float32))


@pytest.mark.parametrize("n_samples", [0, -1])
def test_wrong_number_of_samples(solver, cells, n_samples):
    with pytest.raises(ValueError, match="`n_samples` must be a whole number of at least 1"):
        solver.sample(0, cells, n_samples)


@pytest.mark.parametrize("seed", ["zero", 1.5, True])
def test_wrong_seed(solver, cells, seed, plain_calls):
    with pytest.raises(TypeError, match="`rng` must be an int, a numpy.random.Generator or None"):
        solver.sample(seed, cells)


def test_solver_without_weights(cells):
    from scgenot.flow import FlowConfig

    with pytest.raises(RuntimeError, match="no weights yet"):
        GENOTSolver(2, 2, FlowConfig()).sample(0, cells)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "tsit"}, "`solver` must be one of .* Did you mean 'tsit5'"),
        ({"n_steps": 0}, "`n_steps` must be a whole number"),
        ({"rtol": 0.0}, "`rtol` must be a finite number above 0"),
        ({"atol": -1.0}, "`atol` must be a finite number above 0"),
    ],
)
def test_wrong_ode_options(options, message, plain_calls):
    with pytest.raises(ValueError, match=message):
        ODEConfig(**options)
