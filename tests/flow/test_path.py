"""A flow differs from another by its path alone: trainer and sampler ask it where to start and what to regress."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scgenot.flow import (
    FlowConfig,
    FlowWeights,
    NoiseAroundMean,
    NoiseToTarget,
    ODEConfig,
    Path,
    Standardizer,
    TrainConfig,
    sample_blocks,
)
from scgenot.flow._trainer import train_velocity
from scgenot.flow._velocity import abstract_velocity, initial_weights
from scgenot.methods import GENOTSolver

N = 64


@dataclasses.dataclass(frozen=True)
class SourceToTarget(Path):
    """Straight lines from the source cell itself, which the velocity then does not need to see: a map."""

    def start(self, z, x):
        return x

    def seen(self, x):
        return x[:, :0]

    def position(self, t, start, y):
        return (1.0 - t[:, None]) * start + t[:, None] * y

    def velocity(self, t, start, y):
        return y - start


@pytest.fixture(scope="module")
def shifted():
    source = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
    return source, source + np.array([2.0, -1.0], np.float32)


def test_a_path_of_ones_own_is_trained_and_sampled(shifted, fixed_coupling):
    source, target = shifted
    path, dims = SourceToTarget(), (0, 2, FlowConfig(hidden=(32, 32), time_frequencies=4))
    graphdef, params = abstract_velocity(*dims)[0], initial_weights(jax.random.key(0), *dims)
    result = train_velocity(
        jax.random.key(0),
        graphdef,
        params,
        fixed_coupling(np.arange(N)),
        source,
        target,
        TrainConfig(max_steps=400, batch_size=64, check_every=20, learning_rate=1e-2),
        path=path,
        progress_bar=False,
    )
    none = Standardizer(jnp.zeros(2), jnp.ones(2))
    weights = FlowWeights(result.params, none, none, path=path)
    blocks = sample_blocks(graphdef, weights, jax.random.key(1), source, np.arange(N), 3, ODEConfig())
    samples = np.concatenate([block for _, block in blocks])
    # A shift is a straight path that a small network learns well; were it to start at noise, samples of one cell would
    # differ, and regressing y - z would leave an error of the size of the noise.
    assert np.ptp(samples, axis=1).max() == 0.0
    assert np.abs(samples[:, 0] - target).max() < 0.2


def test_paths_are_trees():
    # Compiled functions take them as such: equal ones must not compile again, and what they learned is no constant.
    calls = []

    @jax.jit
    def start(path, z, x):
        calls.append(path)
        return path.start(z, x)

    rows = jnp.ones((2, 2))
    for path in (NoiseToTarget(), NoiseToTarget(), SourceToTarget()):
        start(path, rows, rows)
    for shift in (1.0, 3.0):
        path = NoiseAroundMean(jnp.eye(2), jnp.full(2, shift), 2.0 * jnp.eye(2))
        assert start(path, rows, rows).tolist() == [[3.0 + shift] * 2] * 2
    assert [type(path) for path in calls] == [NoiseToTarget, SourceToTarget, NoiseAroundMean]


def test_a_flow_from_the_source_needs_one_space():
    with pytest.raises(ValueError, match="`start`='source' needs one space.*got 2 and 3"):
        GENOTSolver(2, 3, FlowConfig(start="source"))
    path = GENOTSolver(2, 2, FlowConfig(start="source")).weights_template().path
    assert path.start(jnp.ones((1, 2)), jnp.ones((1, 2))).tolist() == [[2, 2]]
