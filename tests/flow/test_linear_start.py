"""Flows that start around a linear prediction: what is predicted, and that the law is that of the coupling whatever it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scgenot.flow import FlowConfig, NoiseAroundMean, ODEConfig, TrainConfig
from scgenot.methods import FitData, GENOTSolver, OTCFMSolver

SLOPE = np.array([[0.5, 0.2], [-0.3, 0.8], [0.0, 0.4]])
SHIFT = np.array([1.0, -0.5, 0.2])
SPREAD = np.array([[0.7, 0, 0], [0.3, 0.6, 0], [-0.2, 0.1, 0.4]])


@pytest.fixture(scope="module")
def gaussian():
    """Pairs of a Gaussian law between two spaces."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 2)) @ np.array([[1.0, 0.0], [0.6, 0.5]]) + 3.0
    return x, x @ SLOPE.T + SHIFT + rng.normal(size=(20_000, 3)) @ SPREAD.T


def test_a_linear_law_is_found(gaussian):
    path = NoiseAroundMean.fit(*gaussian, len(gaussian[0]))
    np.testing.assert_allclose(path.slope, SLOPE, atol=0.03)
    np.testing.assert_allclose(path.slope @ np.full(2, 3.0) + path.shift, SLOPE @ np.full(2, 3.0) + SHIFT, atol=0.02)
    np.testing.assert_allclose(path.spread @ path.spread.T, SPREAD @ SPREAD.T, atol=0.02)
    z = jnp.asarray(np.random.default_rng(1).normal(size=(50, 3)), jnp.float32)
    x = jnp.asarray(gaussian[0][:50], jnp.float32)
    np.testing.assert_allclose(path.noise(path.start(z, x), x), z, atol=1e-4)
    np.testing.assert_allclose(path.log_volume(), np.linalg.slogdet(np.asarray(path.spread, float))[1], atol=1e-5)


def test_few_cells_do_not_make_a_slope():
    # 30 cells of 20 features that have nothing to do with their targets: least squares would explain two thirds of them.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 20)), rng.normal(size=(30, 1))
    x, y = np.tile(x, (100, 1)), np.tile(y, (100, 1))
    exact = np.linalg.lstsq(x - x.mean(axis=0), y - y.mean(axis=0), rcond=None)[0]
    path = NoiseAroundMean.fit(x, y, 30)
    assert np.linalg.norm(path.slope) < 0.6 * np.linalg.norm(exact)


def test_what_is_left_without_spread_has_a_start_all_the_same(gaussian):
    x = gaussian[0]
    path = NoiseAroundMean.fit(x, np.concatenate([x, np.zeros((len(x), 1))], axis=1), len(x))
    assert np.isfinite(path.log_volume()) and np.diag(path.spread).min() > 1e-4


def _learned(gaussian, fixed_coupling, steps, start):
    cells = tuple(side[:1000].astype(np.float32) for side in gaussian)
    solver = GENOTSolver(2, 3, FlowConfig(hidden=(16,), time_frequencies=2, start=start))
    schedule = TrainConfig(max_steps=steps, batch_size=512, check_every=20)
    data = FitData(*cells, fixed_coupling(np.arange(1000)))
    return solver.learn(jax.random.key(0), data, schedule, progress_bar=False)[0], cells


def test_of_gaussian_pairs_nothing_is_left_to_learn(gaussian, fixed_coupling):
    # After one step, whose velocities were zero before: from noise, this is noise.
    errors = {}
    for start in ("linear", "noise"):
        solver, _ = _learned(gaussian, fixed_coupling, 1, start)
        x = np.array([[2.0, 2.8], [4.0, 3.5]], np.float32)
        samples = solver.sample(1, x, 4000, ode=ODEConfig(n_steps=4))
        mean, cov = samples.mean(axis=1), np.array([np.cov(one.T) for one in samples])
        errors[start] = max(np.abs(mean - x @ SLOPE.T - SHIFT).max(), np.abs(cov - SPREAD @ SPREAD.T).max())
    assert errors["linear"] < 0.1 < 0.5 < errors["noise"]


def test_it_is_saved_with_the_weights(gaussian, fixed_coupling):
    solver, cells = _learned(gaussian, fixed_coupling, 20, "linear")
    leaves, structure = jax.tree.flatten(solver.weights)
    blank = GENOTSolver.from_state(solver.state_config())
    template = blank.weights_template()
    assert jax.tree.structure(template) == structure
    assert [np.shape(leaf) for leaf in jax.tree.leaves(template)] == [np.shape(leaf) for leaf in leaves]
    again = dataclasses.replace(blank, weights=jax.tree.unflatten(structure, leaves))
    np.testing.assert_array_equal(solver.sample(0, cells[0][:5], 2), again.sample(0, cells[0][:5], 2))
    assert np.isfinite(solver.log_prob(cells[1][:5], cells[0][:5])).all()


def test_maps_do_not_start_at_noise():
    for start in ("noise", "linear"):
        with pytest.raises(ValueError, match=f"`start`='{start}' is GENOT's"):
            OTCFMSolver(2, 2, FlowConfig(start=start))


def test_pairs_that_it_was_fitted_to_are_trained_on_as_well(gaussian):
    cells = tuple(side[:1000] for side in gaussian)
    batches = []
    for k in range(3):
        rows = np.random.default_rng(k).integers(0, 1000, (5, 400))
        batches.append((rows, rows))
    path, pairs = NoiseAroundMean.blank(2, 3).settled(cells, iter(batches))
    again = list(pairs)
    assert len(again) == 3 and all((one[0] == two[0]).all() for one, two in zip(again, batches, strict=True))
    # The rows of the first ones, by their numbers.
    np.testing.assert_allclose(path.slope, SLOPE, atol=0.1)
