"""Cells drawn in proportion to their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from scgenot.sinkhorn import choose


@pytest.mark.parametrize("n", [1, 5, 128, 129, 1000])
def test_frequencies_are_the_weights(n, rng):
    weights = rng.uniform(0, 1, n) ** 4
    weights[: n // 3] = 0.0
    drawn = np.asarray(choose(jax.random.key(0), jnp.asarray(weights, jnp.float32), (100, 500)))
    assert drawn.shape == (100, 500) and drawn.dtype == np.int32
    counts, expected = np.bincount(drawn.ravel(), minlength=n), 50_000 * weights / weights.sum()
    assert counts[weights == 0].sum() == 0
    many = expected >= 5
    statistic = np.sum((counts[many] - expected[many]) ** 2 / expected[many])
    assert statistic < chi2.ppf(1 - 1e-6, max(many.sum(), 1))


def test_a_million_equal_cells_are_equally_likely():
    """A running sum in single precision gives cells near its end 1.19e-6, 0.95e-6 or less of the mass instead of 1e-6."""
    n, repeats = 1_000_000, 40
    draw = jax.jit(lambda key: choose(key, jnp.full(n, 1.0 / n), (500_000,)))
    counts = np.zeros(n)
    for seed in range(repeats):
        counts += np.bincount(np.asarray(draw(jax.random.key(seed))), minlength=n)
    # 20 draws a cell. Pearson's statistic has mean n and standard deviation sqrt(2 n); unequal probabilities whose
    # relative variance is s^2 add 20 s^2 n: 5 standard deviations see s = 2 %.
    assert abs(np.sum((counts - 20) ** 2 / 20) - n) < 5 * np.sqrt(2 * n)
