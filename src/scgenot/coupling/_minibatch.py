"""What all minibatch couplings have in common: batches of source cells in, pairs out."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind
from scgenot.coupling._config import CouplingConfig
from scgenot.sinkhorn import Geometry, draw_rows, soft_min_rows

_BATCH = 1024
_TRIAL_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class BatchCoupling(Coupling):
    """Pairs from entropic problems between small random samples of both populations.

    Kept for comparison: each batch sees few targets, so its rows are wider or narrower than the true ones, and every
    training step waits for a solver. Epsilon has the same unit in each batch, that of the whole populations' scale.
    """

    a: Float[Array, " n"]
    b: Float[Array, " m"]
    config: CouplingConfig

    @property
    def source_marginal(self) -> Float[Array, " n"]:
        """Mass that each source cell sends; over all batches this is known only where the problem is balanced."""
        return self.a

    @property
    def target_marginal(self) -> Float[Array, " m"]:
        """Mass that each target cell gets; over all batches this is known only where the problem is balanced."""
        return self.b

    @property
    def marginal_kinds(self) -> tuple[MarginalKind, MarginalKind]:
        """Marginals whose tau is below 1 are not known: each batch has its own."""
        taus = self.config.tau_source, self.config.tau_target
        return tuple("kept" if tau == 1.0 else "unknown" for tau in taus)

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """How solving goes, measured on a few batches."""
        source = choose(jax.random.key(0), self.a, (_TRIAL_BATCHES, min(_BATCH, len(self.a))))
        report = self.solve(jax.random.key(1), source, resample=False)[2]
        violation = float(report["violation"].max())
        return Diagnostics(
            kind=self.kind,
            objective=float("nan"),
            scale=self.unit,
            epsilon=self.config.epsilon,
            iterations=float(report["iterations"].mean()),
            marginal_violation=violation,
            mass=float(report["mass"].mean()),
            effective_targets=float(report["effective_targets"].mean()),
            converged=violation <= self.config.tolerance,
        )

    def conditional(
        self, key: jax.Array, source_indices: Int[Array | np.ndarray, " k"], n_draws: int
    ) -> Int[Array, "k n_draws"]:
        """Draw target indices for each source index; every draw comes from a batch of its own."""
        k = len(source_indices)
        batch_size = min(_BATCH, k)
        batches = -(-k // batch_size)
        fill_key, solve_key = jax.random.split(key)
        fill = choose(fill_key, self.a, (batches * batch_size - k,))
        once = jnp.concatenate([jnp.asarray(source_indices, jnp.int32), fill])
        source = jnp.tile(once, n_draws).reshape(-1, batch_size)
        drawn = self.solve(solve_key, source, resample=False)[1]
        return drawn.reshape(n_draws, -1)[:, :k].T

    def pairs(
        self, key: jax.Array, *, batch_size: int, steps: int
    ) -> Iterator[tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]]:
        """Yield, without end, source and target indices for `steps` training batches at a time."""
        relaxed = min(self.config.tau_source, self.config.tau_target) < 1.0
        round_ = 0
        while True:
            source_key, solve_key = jax.random.split(jax.random.fold_in(key, round_))
            source = choose(source_key, self.a, (steps, batch_size))
            yield self.solve(solve_key, source, resample=relaxed)[:2]
            round_ += 1

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """What its diagnostics call it."""

    @property
    @abc.abstractmethod
    def unit(self) -> float:
        """What costs are divided by."""

    @abc.abstractmethod
    def solve(
        self, key: jax.Array, source: Int[Array, "steps batch"], *, resample: bool
    ) -> tuple[Int[Array, "steps batch"], Int[Array, "steps batch"], dict[str, Float[Array, " steps"]]]:
        """Solve one problem for each row of `source`; return source and target indices, and how it went.

        With `resample`, source cells follow the mass that they send, otherwise they stay as they are.
        """


def choose(key: jax.Array, weights: Float[Array, " n"], shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Draw indices in proportion to `weights`."""
    quantiles = jax.random.uniform(key, shape)
    cumulative = jnp.cumsum(weights / weights.sum())
    return jnp.minimum(jnp.searchsorted(cumulative, quantiles, side="right"), len(weights) - 1).astype(jnp.int32)


def draw_batch(
    geometry: Geometry,
    u: Float[Array, " k"],
    v: Float[Array, " k"],
    keys: tuple[jax.Array, jax.Array],
    *,
    resample: bool,
) -> tuple[Int[Array, " k"], Int[Array, " k"], dict[str, Float[Array, ""]]]:
    """Return places of source and of target cells within a solved batch of uniform weights, its mass and its width."""
    size = geometry.shape[0]
    order_key, row_key = keys
    weights = v - jnp.log(size)
    log_row = u - jnp.log(size) + soft_min_rows(geometry, weights)
    log_p = jax.nn.log_softmax(weights[None, :] - geometry.inverse * geometry.matrix, axis=1)
    report = {
        "mass": jnp.exp(log_row).sum(),
        "effective_targets": jnp.exp(-jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=1))),
    }
    order = jnp.arange(size)
    if resample:
        order = choose(order_key, jax.nn.softmax(log_row), (size,))
    some = dataclasses.replace(geometry, x=geometry.x[order], matrix=geometry.matrix[order])
    return order, draw_rows(some, weights, row_key, jnp.arange(size), 1)[:, 0], report
