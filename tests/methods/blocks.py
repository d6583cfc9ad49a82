"""A coupling of blocks in its shortest form: one plan a condition, source cells shared, target cells one after another."""

import types

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


class RelaxedBlocks(Blocks):
    """Blocks of known pairs in which all source cells take part, and grow by known factors; targets are kept."""

    def __init__(self, growth):
        self.growth = np.asarray(growth)
        n = self.growth.shape[1]
        rows, prior = np.arange(n), np.full(n, 1 / n)
        self.weights = np.full(len(growth), 1 / len(growth))
        self.parts = tuple(
            types.SimpleNamespace(
                source_rows=rows, target_rows=rows, priors=(prior, prior), masses=(prior * one, prior)
            )
            for one in self.growth
        )

    @property
    def marginal_kinds(self):
        return "relaxed", "kept"

    @property
    def source_marginal(self):
        return self.growth.mean(axis=0) / self.growth.shape[1]

    @property
    def target_marginal(self):
        return np.full(self.growth.shape[1], 1 / self.growth.shape[1])

    @property
    def diagnostics(self):
        return None

    def pairs(self, key, *, batch_size, steps):
        rng = np.random.default_rng(0)
        while True:
            i = rng.integers(0, self.growth.shape[1], (steps, batch_size)).astype(np.int32)
            yield i, i, rng.integers(0, len(self.parts), i.shape).astype(np.int32)
