"""The global coupling: dual potentials over all cells, rows of the plan drawn from them in streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind, StartReport
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._given_costs import GivenLift
from scgenot.coupling._lift import Lift, NoLift
from scgenot.sinkhorn import Geometry, Potentials, draw_rows, extend_rows, pair_costs, soft_min_rows

_ENTROPY_CELLS = 2048


@dataclasses.dataclass(frozen=True)
class PotentialCoupling(Coupling):
    """A plan held as its dual potentials: ``P_ij = a_i b_j exp(u_i + v_j - C_ij / epsilon)``.

    Nothing of size n x m is kept. Rows are drawn in one blocked pass into a pool of `n_draws` targets a source cell;
    training reads the pool, which is drawn afresh each time it has been used up on average.
    """

    geometry: Geometry
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    potentials: Potentials
    config: CouplingConfig
    kind: str
    scale: float
    lift: tuple[Lift | GivenLift | NoLift, Lift | GivenLift | NoLift] | None = None
    starts: tuple[StartReport, ...] = ()

    @cached_property
    def _row_weights(self) -> Float[Array, " m"]:
        return self.potentials.v + jnp.log(self.b)

    @cached_property
    def source_marginal(self) -> Float[Array, " n"]:
        """Mass that each source cell sends, ``P 1``."""
        if self.config.tau_source == 1.0:
            return self.a
        return _masses(self.a, self.potentials.u + soft_min_rows(self.geometry, self._row_weights))

    @cached_property
    def target_marginal(self) -> Float[Array, " m"]:
        """Mass that each target cell gets, ``P' 1``."""
        if self.config.tau_target == 1.0 and self.config.tau_source == 1.0:
            return self.b
        column_weights = self.potentials.u + jnp.log(self.a)
        return _masses(self.b, self.potentials.v + soft_min_rows(self.geometry.T, column_weights))

    @property
    def marginal_kinds(self) -> tuple[MarginalKind, MarginalKind]:
        """Which marginals are relaxed: those whose tau is below 1."""
        taus = self.config.tau_source, self.config.tau_target
        return tuple("kept" if tau == 1.0 else "relaxed" for tau in taus)

    @property
    def priors(self) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
        """Prior weights a and b."""
        return self.a, self.b

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """How solving went."""
        found, config = self.potentials, self.config
        mass = float(jnp.sum(self.source_marginal))
        return Diagnostics(
            kind=self.kind,
            objective=self.starts[0].objective if self.starts else self._objective(mass),
            scale=self.scale,
            epsilon=config.epsilon,
            iterations=found.iterations,
            marginal_violation=found.violation,
            mass=mass,
            effective_targets=self._effective_targets(),
            converged=found.converged,
            starts=self.starts,
        )

    def conditional(
        self, key: jax.Array, source_indices: Int[Array | np.ndarray, " k"], n_draws: int
    ) -> Int[Array, "k n_draws"]:
        """Draw `n_draws` target indices for each source index from its row of the plan, rows independently."""
        chosen = jnp.asarray(source_indices)
        matrix = None if self.geometry.matrix is None else self.geometry.matrix[chosen]
        some = dataclasses.replace(self.geometry, x=self.geometry.x[chosen], matrix=matrix)
        # Ids are places in the list, so that a cell that is asked for twice gets draws of its own each time.
        return draw_rows(some, self._row_weights, key, jnp.arange(len(chosen)), n_draws)

    def pairs(
        self, key: jax.Array, *, batch_size: int, steps: int
    ) -> Iterator[tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]]:
        """Yield, without end, source and target indices for `steps` training batches at a time."""
        n = self.geometry.shape[0]
        cumulative = jnp.cumsum(self.source_marginal / jnp.sum(self.source_marginal))
        pool, used, round_ = None, 0, 0
        while True:
            round_key = jax.random.fold_in(key, round_)
            if pool is None or used >= pool.size:
                pool_key = jax.random.fold_in(round_key, 1)
                pool = draw_rows(self.geometry, self._row_weights, pool_key, jnp.arange(n), self.config.n_draws)
                used = 0
            yield _pairs_from_pool(pool, cumulative, round_key, steps, batch_size)
            used += steps * batch_size
            round_ += 1

    def swapped(self) -> PotentialCoupling:
        """Return the same coupling seen from the other side."""
        found = self.potentials
        return dataclasses.replace(
            self,
            geometry=self.geometry.T,
            a=self.b,
            b=self.a,
            potentials=dataclasses.replace(found, u=found.v, v=found.u),
            config=self.config.swapped(),
            lift=None if self.lift is None else tuple(one.swapped() for one in self.lift[::-1]),
        )

    def extend(
        self,
        source: Float[Array | np.ndarray, "k dx"],
        target: Float[Array | np.ndarray, "l dy"],
        *,
        shared: tuple[Float[Array | np.ndarray, "k s"], Float[Array | np.ndarray, "l s"]] | None = None,
    ) -> PotentialCoupling:
        """Return the coupling between other cells of the two populations that these potentials imply."""
        old, config = self.geometry, self.config
        if self.lift is not None:
            own = shared or (None, None)
            source, target = self.lift[0](source, own[0]), self.lift[1](target, own[1])
        source, target = jnp.asarray(source, jnp.float32), jnp.asarray(target, jnp.float32)
        to_target = dataclasses.replace(old, y=target, matrix=None)
        v = extend_rows(to_target.T, jnp.log(self.a), self.potentials.u, config.tau_target)
        to_source = dataclasses.replace(old, x=source, matrix=None)
        u = extend_rows(to_source, jnp.log(self.b), self.potentials.v, config.tau_source)
        a, b = (jnp.full(len(points), 1.0 / len(points), jnp.float32) for points in (source, target))
        return dataclasses.replace(
            self,
            geometry=dataclasses.replace(old, x=source, y=target, matrix=None),
            a=a,
            b=b,
            potentials=dataclasses.replace(self.potentials, u=u, v=v),
        )

    def _objective(self, mass: float) -> float:
        """Return the dual value, which equals the primal one once converged."""
        value = 0.0
        for tau, weights, potential in (
            (self.config.tau_source, self.a, self.potentials.u),
            (self.config.tau_target, self.b, self.potentials.v),
        ):
            used = jnp.where(weights > 0, potential, 0.0)
            if tau == 1.0:
                value += float(jnp.sum(weights * used))
            else:
                ratio = tau / (1.0 - tau)
                value -= ratio * float(jnp.sum(weights * jnp.expm1(-used / ratio)))
        # The entropy is relative to a b', of mass 1; its conjugate leaves 1 - mass.
        return self.config.epsilon * (value + 1.0 - mass)

    def _effective_targets(self) -> float:
        """Return exp of the mean conditional entropy, estimated from draws at some of the cells."""
        n = self.geometry.shape[0]
        rows = jnp.asarray(jnp.linspace(0, n - 1, min(n, _ENTROPY_CELLS)).round(), jnp.int32)
        drawn = self.conditional(jax.random.key(0), rows, self.config.n_draws)
        sources = jnp.broadcast_to(rows[:, None], drawn.shape)
        some = dataclasses.replace(
            self.geometry,
            x=self.geometry.x[rows],
            matrix=None if self.geometry.matrix is None else self.geometry.matrix[rows],
        )
        log_total = soft_min_rows(some, self._row_weights)[:, None]
        log_p = self._row_weights[drawn] - pair_costs(self.geometry, sources, drawn) - log_total
        # Rounding, at a tiny epsilon, must not spread mass over more cells than there are.
        return float(jnp.clip(jnp.exp(-jnp.mean(log_p)), 1.0, self.geometry.shape[1]))


def _masses(weights: Float[Array, " n"], log_ratio: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return the masses of cells; one without weight has none, however much its potential would give to it."""
    return jnp.where(weights > 0, weights * jnp.exp(log_ratio), 0.0)


@partial(jax.jit, static_argnames=("steps", "batch_size"))
def _pairs_from_pool(
    pool: Int[Array, "n k"], cumulative: Float[Array, " n"], key: jax.Array, steps: int, batch_size: int
) -> tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]:
    n, k = pool.shape
    source_key, slot_key = jax.random.split(jax.random.fold_in(key, 0))
    offsets = jax.random.uniform(source_key, (steps, 1))
    # Systematic over the batch: each batch spreads over the source cells in proportion to their mass.
    quantiles = (jnp.arange(batch_size)[None, :] + offsets) / batch_size
    source = jnp.minimum(jnp.searchsorted(cumulative, quantiles, side="right"), n - 1)
    slots = jax.random.randint(slot_key, (steps, batch_size), 0, k)
    return source.astype(jnp.int32), pool[source, slots]
