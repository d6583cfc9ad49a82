"""Random bits within compiled code: the published generator, and numbers of the right law made from it."""

import jax
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from scgenot._random import normal, random_bits, related, uniform, words


@pytest.fixture(scope="module")
def bits():
    """Bits for 400 rows and 250 columns, under a key and under a related one."""

    @jax.jit
    def drawn(key):
        counts = np.arange(400)[:, None], np.arange(250)[None, :]
        return random_bits(key, *counts), random_bits(related(key, 1), *counts)

    return np.asarray(drawn(jax.random.key(3)))


def test_bits_are_those_of_threefry(bits):
    counts = np.stack(np.broadcast_arrays(np.arange(400)[:, None], np.arange(250)[None, :])).astype(np.uint32)
    key = words(jax.random.key(3))
    np.testing.assert_array_equal(bits[0], threefry_2x32(key, counts))


def test_streams_are_independent(bits):
    streams = bits.reshape(4, -1)
    # Neighbours along either count, both words, both keys: correlations of 1e5 numbers.
    assert np.abs(np.corrcoef(streams) - np.eye(4)).max() < 5 / np.sqrt(streams.shape[1])
    grid = bits[0, 0] / 2.0**32
    for one, two in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 5 / np.sqrt(one.size)
    assert len(np.unique(streams[0])) > streams.shape[1] - 20


def test_laws(bits):
    numbers = np.asarray(uniform(jax.device_put(bits[0, 0].ravel())))
    assert numbers.min() >= 0 and numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-4
    numbers = np.asarray(normal(jax.device_put(bits[0, 1].ravel())))
    assert stats.kstest(numbers, "norm").pvalue > 1e-4
    ends = np.asarray(normal(jax.device_put(np.array([0, 2**32 - 1], np.uint32))))
    assert np.isfinite(ends).all() and 5 < ends[1] < 5.5 and ends[0] == -ends[1]
