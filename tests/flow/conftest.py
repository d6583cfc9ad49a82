import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scgenot.coupling import Coupling, Diagnostics
from scgenot.flow import FlowConfig, TrainConfig

N = 64


class FixedCoupling(Coupling):
    """Pairs that are known: source cell i goes to target cell `partner[i]`, always.

    `before_round` is called with the number of each round; what it returns takes the target indices' place.
    """

    def __init__(self, partner, before_round=None):
        self.partner = jnp.asarray(partner, jnp.int32)
        self.before_round = before_round or (lambda number, j: j)

    @property
    def source_marginal(self):
        return jnp.full(len(self.partner), 1.0 / len(self.partner))

    target_marginal = source_marginal

    @property
    def diagnostics(self):
        return Diagnostics("fixed", 0.0, 1.0, 1.0, 1, 0.0, 1.0, 1.0, True)

    def conditional(self, key, source_indices, n_draws):
        return jnp.tile(self.partner[source_indices][:, None], (1, n_draws))

    def pairs(self, key, *, batch_size, steps):
        number = 0
        while True:
            i = jax.random.randint(jax.random.fold_in(key, number), (steps, batch_size), 0, len(self.partner))
            yield i, self.before_round(number, self.partner[i])
            number += 1

    def swapped(self):
        return FixedCoupling(np.argsort(self.partner))

    def extend(self, source, target, *, shared=None):
        return FixedCoupling(np.arange(len(source)) % len(target))


@pytest.fixture
def fixed_coupling():
    return FixedCoupling


# One shape of data, batch, round and network for most tests, so that one training step is compiled for all of them.
@pytest.fixture
def small():
    return FlowConfig(hidden=(32, 32), time_frequencies=4)


@pytest.fixture
def brief():
    # Without warm-up and decay, the first steps of a long run are those of a short one, bit for bit.
    return TrainConfig(
        max_steps=60, batch_size=64, check_every=20, schedule="constant", warmup_steps=0, learning_rate=3e-3
    )


@pytest.fixture
def pairs(rng):
    """64 source cells and their partners: a rotation, a stretch and a shift away."""
    source = rng.normal(size=(N, 2)).astype(np.float32)
    return source, (source @ np.array([[0.0, 2.0], [-1.0, 0.0]]) + [3.0, -5.0]).astype(np.float32)
