"""The minibatch coupling of the GENOT paper: one small transport problem in each training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot.costs import Cost, cost_scale, resolve_cost
from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._geometry import Geometry, draw_rows, soft_min_rows
from scgenot.coupling._sinkhorn import extend_rows, sinkhorn_steps

_CHECK_EVERY = 10
_BATCH = 1024
_TRIAL_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class MinibatchCoupling(Coupling):
    """Pairs from entropic problems between small random samples of both populations (Klein et al., algorithm 1).

    Kept for comparison: each batch sees few targets, so its rows are wider or narrower than the true ones, and every
    training step waits for Sinkhorn. Epsilon has the same unit in each batch, that of the whole populations' scale.
    """

    source: Float[Array, "n d"]
    target: Float[Array, "m d"]
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    cost: Cost
    scale: float
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
        batch_size = min(_BATCH, len(self.a))
        source = _choose(jax.random.key(0), self.a, (_TRIAL_BATCHES, batch_size))
        report = self._solve(jax.random.key(1), source)[2]
        violation = float(report["violation"].max())
        return Diagnostics(
            kind="linear, minibatch",
            objective=float("nan"),
            scale=self.scale,
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
        fill = _choose(fill_key, self.a, (batches * batch_size - k,))
        once = jnp.concatenate([jnp.asarray(source_indices, jnp.int32), fill])
        source = jnp.tile(once, n_draws).reshape(-1, batch_size)
        drawn = self._solve(solve_key, source, resample=False)[1]
        return drawn.reshape(n_draws, -1)[:, :k].T

    def pairs(
        self, key: jax.Array, *, batch_size: int, steps: int
    ) -> Iterator[tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]]:
        """Yield, without end, source and target indices for `steps` training batches at a time."""
        round_ = 0
        while True:
            source_key, solve_key = jax.random.split(jax.random.fold_in(key, round_))
            source = _choose(source_key, self.a, (steps, batch_size))
            yield self._solve(solve_key, source)[:2]
            round_ += 1

    def swapped(self) -> MinibatchCoupling:
        """Return the same coupling seen from the other side."""
        return dataclasses.replace(
            self,
            source=self.target,
            target=self.source,
            a=self.b,
            b=self.a,
            cost=self.cost.swapped(),
            config=self.config.swapped(),
        )

    def extend(
        self,
        source: Float[Array | np.ndarray, "k dx"],
        target: Float[Array | np.ndarray, "l dy"],
        *,
        shared: None = None,
    ) -> MinibatchCoupling:
        """Return minibatch couplings between other cells of the two populations, with the same cost and scale."""
        a, b = (jnp.full(len(points), 1.0 / len(points), jnp.float32) for points in (source, target))
        return dataclasses.replace(self, source=jnp.asarray(source), target=jnp.asarray(target), a=a, b=b)

    def _solve(self, key: jax.Array, source: Int[Array, "steps batch"], *, resample: bool | None = None):
        if resample is None:
            resample = min(self.config.tau_source, self.config.tau_target) < 1.0
        numbers = (
            1.0 / (self.scale * self.config.epsilon),
            (self.config.tau_source, self.config.tau_target),
            self.config.tolerance,
            self.config.max_iterations,
        )
        return _solve_batches(self.cost, resample, self.source, self.target, self.b, source, key, numbers)


def minibatch_coupling(
    key: jax.Array,
    source: Float[Array, "n d"],
    target: Float[Array, "m d"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
) -> MinibatchCoupling:
    """Set up the paper's coupling. Nothing is solved yet; see :class:`MinibatchCoupling`."""
    del key  # Every draw is given a key of its own.
    cost = resolve_cost(config.cost)
    scale = cost_scale(cost, source, target, config.scale_cost)
    return MinibatchCoupling(jnp.asarray(source), jnp.asarray(target), a, b, cost, scale, config)


def _choose(key: jax.Array, weights: Float[Array, " n"], shape: tuple[int, ...]) -> Int[Array, "..."]:
    quantiles = jax.random.uniform(key, shape)
    cumulative = jnp.cumsum(weights / weights.sum())
    return jnp.minimum(jnp.searchsorted(cumulative, quantiles, side="right"), len(weights) - 1).astype(jnp.int32)


@partial(jax.jit, static_argnames=("cost", "resample"))
def _solve_batches(cost: Cost, resample: bool, source_cells, target_cells, b, source, key, numbers):
    inverse, taus, tolerance, max_iterations = numbers
    size = source.shape[1]
    uniform = jnp.full(size, -jnp.log(size))

    def one_batch(batch):
        target_key, order_key, row_key = jax.random.split(batch["key"], 3)
        rows = batch["source"]
        columns = _choose(target_key, b, (size,))
        geometry = Geometry(source_cells[rows], target_cells[columns], inverse, cost).stored()

        def more(state):
            return (state[2] > tolerance) & (state[3] < max_iterations)

        def steps(state):
            u, v, violation = sinkhorn_steps(geometry, uniform, uniform, *state[:2], taus, 1.0, _CHECK_EVERY)
            return u, v, violation, state[3] + _CHECK_EVERY

        v = jnp.zeros(size)
        u = extend_rows(geometry, uniform, v, taus[0])
        u, v, violation, iterations = jax.lax.while_loop(more, steps, (u, v, jnp.inf, 0))
        log_row = uniform + u + soft_min_rows(geometry, v + uniform)
        report = {
            "violation": violation,
            "iterations": iterations,
            "mass": jnp.exp(log_row).sum(),
            "effective_targets": _effective(geometry, v + uniform),
        }
        order = jnp.arange(size)
        if resample:
            order = _choose(order_key, jnp.exp(log_row), (size,))
        some = Geometry(geometry.x[order], geometry.y, inverse, cost, geometry.matrix[order])
        drawn = draw_rows(some, v + uniform, row_key, jnp.arange(size), 1)[:, 0]
        return rows[order], columns[drawn], report

    keys = jax.random.split(key, source.shape[0])
    return jax.lax.map(one_batch, {"key": keys, "source": source})


def _effective(geometry: Geometry, h: Float[Array, " m"]) -> Float[Array, ""]:
    log_p = jax.nn.log_softmax(h[None, :] - geometry.inverse * geometry.matrix, axis=1)
    return jnp.exp(-jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=1)))
