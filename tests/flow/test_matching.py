"""The regression target and the noise that goes with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scgenot.flow import FlowConfig, VelocityField, matching_loss, noise_and_time

# Annotations say VelocityField; these tests put plain functions in its place.
pytestmark = pytest.mark.usefixtures("plain_calls")


@pytest.fixture
def batch(rng):
    x, y, z = (jnp.asarray(rng.normal(size=(50, 3)), jnp.float32) for _ in range(3))
    return x, y, z, jnp.asarray(rng.uniform(size=50), jnp.float32)


def test_noise_to_target_has_no_loss(batch):
    x, y, z, t = batch
    assert matching_loss(lambda t, between, x: y - z, x, y, z, t) == 0.0


def test_source_to_target_has_a_loss(batch):
    # CellFlow 0.0.3 to 0.0.9 regressed y - x: silently wrong.
    x, y, z, t = batch
    loss = matching_loss(lambda t, between, x: y - x, x, y, z, t)
    assert loss == pytest.approx(float(jnp.mean((z - x) ** 2)), rel=1e-5)
    assert loss > 1


@pytest.mark.parametrize("wrong", [lambda y, z: z - y, lambda y, z: y, lambda y, z: 0 * y], ids=["z-y", "y", "0"])
def test_other_targets_have_a_loss(batch, wrong):
    x, y, z, t = batch
    assert matching_loss(lambda t, between, x: wrong(y, z), x, y, z, t) > 0.5


def test_the_velocity_sees_the_straight_line_its_time_and_its_source(batch):
    x, y, z, t = batch
    seen = {}

    def look(t, between, x):
        seen.update(t=t, between=between, x=x)
        return between

    matching_loss(look, x, y, z, t)
    expected = (1 - np.asarray(t)[:, None]) * np.asarray(z) + np.asarray(t)[:, None] * np.asarray(y)
    np.testing.assert_allclose(seen["between"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(seen["t"], t)
    np.testing.assert_array_equal(seen["x"], x)


@pytest.mark.parametrize(("time", "end"), [(0.0, "noise"), (1.0, "target")])
def test_time_runs_from_noise_to_target(batch, time, end):
    x, y, z, t = batch
    ends = {"noise": z, "target": y}
    matching_loss(
        lambda t, between, x: np.testing.assert_array_equal(between, ends[end]) or between,
        x, y, z, jnp.full_like(t, time),
    )  # fmt: skip


def test_loss_is_the_mean_over_rows_and_features(batch):
    x, y, z, t = batch
    assert matching_loss(lambda t, between, x: y - z + 2.0, x, y, z, t) == pytest.approx(4.0, rel=1e-5)


def test_one_time_in_each_equal_interval():
    noise, times = noise_and_time(jax.random.key(0), 128, 3)
    assert noise.shape == (128, 3) and times.shape == (128,)
    np.testing.assert_array_equal(np.floor(np.sort(times) * 128), np.arange(128))


def test_times_are_in_no_order():
    # Rows of a batch are ordered by source cell. The rank correlation of 1000 shuffled times has a standard
    # deviation of 1/sqrt(1000).
    _, times = noise_and_time(jax.random.key(0), 1000, 1)
    assert abs(np.corrcoef(np.arange(1000), times)[0, 1]) < 5 / np.sqrt(1000)


def test_noise_is_standard_normal_and_new_for_each_key():
    noise, times = noise_and_time(jax.random.key(0), 20000, 2)
    # Standard errors of mean, variance and covariance of 20,000: .007, .01, .007.
    np.testing.assert_allclose(np.asarray(noise).mean(0), 0, atol=5 * 0.007)
    np.testing.assert_allclose(np.cov(np.asarray(noise).T), np.eye(2), atol=5 * 0.01)
    assert abs(np.corrcoef(np.asarray(noise)[:, 0], times)[0, 1]) < 5 * 0.007
    other_noise, other_times = noise_and_time(jax.random.key(1), 20000, 2)
    assert (noise != other_noise).all() and (times != other_times).mean() > 0.99


@pytest.fixture
def velocity():
    """A velocity field with random output weights: at the start they are zero."""
    model = VelocityField(3, 2, FlowConfig(hidden=(16, 16)), rngs=nnx.Rngs(0))
    model.out.kernel[...] = jax.random.normal(jax.random.key(1), (16, 2))
    return model


def test_velocity_starts_from_zero():
    model = VelocityField(3, 2, FlowConfig(hidden=(16, 16)), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(model(jnp.ones(4), jnp.ones((4, 2)), jnp.ones((4, 3))), 0.0)


def test_velocity_depends_on_time_noise_and_source(velocity, rng):
    t, z, x = jnp.full(4, 0.3), jnp.asarray(rng.normal(size=(4, 2)), jnp.float32), jnp.ones((4, 3))
    base = velocity(t, z, x)
    assert base.shape == (4, 2)
    for other in (velocity(t + 0.2, z, x), velocity(t, z + 0.1, x), velocity(t, z, x + 0.1)):
        assert (np.abs(np.asarray(other - base)) > 1e-4).all()


def test_every_source_feature_counts(velocity):
    jacobian = jax.jacobian(lambda x: velocity(jnp.full(1, 0.3), jnp.ones((1, 2)), x[None])[0])(jnp.ones(3))
    assert (np.abs(np.asarray(jacobian)) > 1e-6).all()


def test_rows_do_not_mix(velocity, rng):
    t, z, x = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((6,), (6, 2), (6, 3)))
    alone = jnp.concatenate([velocity(t[i : i + 1], z[i : i + 1], x[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(velocity(t, z, x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frequencies", [1, 2, 16])
def test_time_encoding_separates_all_times(frequencies):
    # A 1-periodic encoding gives t = 0 and t = 1 the same numbers.
    model = VelocityField(1, 1, FlowConfig(hidden=(4,), time_frequencies=frequencies), rngs=nnx.Rngs(0))
    times = np.linspace(0, 1, 101)
    angles = times[:, None] * np.asarray(model.frequencies)
    codes = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    distances = np.linalg.norm(codes[:, None] - codes[None], axis=-1) + 10 * np.eye(101)
    assert distances.min() > 0.01
    assert distances[0, 100] > 1


def test_velocity_at_both_ends_of_time_differs(velocity):
    z, x = jnp.ones((1, 2)), jnp.ones((1, 3))
    start, end = velocity(jnp.zeros(1), z, x), velocity(jnp.ones(1), z, x)
    assert np.abs(np.asarray(start - end)).max() > 1e-2
