"""A coupling of blocks in its shortest form: one plan a condition, source cells shared, target cells one after another."""

import jax
import jax.numpy as jnp
import numpy as np

from scgenot.coupling import Coupling


class Blocks(Coupling):
    def __init__(self, plans):
        self.plans = plans
        sizes = [len(plan.target_marginal) for plan in plans]
        self.offsets = np.cumsum([0, *sizes])[:-1]

    @property
    def source_marginal(self):
        return sum(plan.source_marginal for plan in self.plans) / len(self.plans)

    @property
    def target_marginal(self):
        return jnp.concatenate([plan.target_marginal for plan in self.plans]) / len(self.plans)

    @property
    def diagnostics(self):
        return self.plans[0].diagnostics

    def conditional(self, key, source_indices, n_draws):
        return self.plans[0].conditional(key, source_indices, n_draws)

    def pairs(self, key, *, batch_size, steps):
        # Each step has equal shares of all blocks.
        share = batch_size // len(self.plans)
        streams = [
            plan.pairs(jax.random.fold_in(key, k), batch_size=share, steps=steps) for k, plan in enumerate(self.plans)
        ]
        while True:
            drawn = [next(stream) for stream in streams]
            i = jnp.concatenate([i for i, _ in drawn], axis=1)
            j = jnp.concatenate([j + offset for (_, j), offset in zip(drawn, self.offsets, strict=True)], axis=1)
            yield i, j, jnp.broadcast_to(jnp.repeat(jnp.arange(len(drawn)), share), i.shape)

    def extend(self, source, target, *, shared=None):
        return self

    def swapped(self):
        raise NotImplementedError
