"""The linear minibatch coupling of the GENOT paper: one small transport problem in each training step."""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._sampling import choose
from scgenot._sizes import pad_edge, padded_cells
from scgenot.costs import AnchoredCost, Cost, cost_scale, resolve_cost
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._inputs import checked_cells, checked_marginal
from scgenot.coupling._minibatch import BatchCoupling, batches_of, draw_batch
from scgenot.sinkhorn import ITERATIONS_PER_ROUND, Geometry, dense_rounds


@dataclasses.dataclass(frozen=True)
class MinibatchCoupling(BatchCoupling):
    """Pairs from linear problems between small random samples (Klein et al., algorithm 1)."""

    source: Float[Array, "n d"]
    target: Float[Array, "m d"]
    cost: Cost
    scale: float

    @property
    def kind(self) -> str:
        """What its diagnostics call it."""
        return "linear, minibatch"

    @property
    def unit(self) -> float:
        """What costs are divided by."""
        return self.scale

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
        source_weights: Float[Array | np.ndarray, " k"] | None = None,
        target_weights: Float[Array | np.ndarray, " l"] | None = None,
        shared: None = None,
    ) -> MinibatchCoupling:
        """Return minibatch couplings between other cells of the two populations, with the same cost and scale."""
        source, target = checked_cells("source", source), checked_cells("target", target)
        a = checked_marginal("source_weights", source_weights, len(source))
        b = checked_marginal("target_weights", target_weights, len(target))
        return dataclasses.replace(self, source=source, target=target, a=a, b=b)

    def solve(
        self,
        key: jax.Array,
        source: Int[Array | np.ndarray, "steps batch"],
        *,
        resample: bool,
        asked: Int[np.ndarray, " k"] | None = None,
    ) -> tuple[Int[Array, "steps rows"], Int[Array, "steps rows"], dict[str, Float[Array, " steps"]]]:
        """Solve one problem for each row of `source`."""
        numbers = (
            1.0 / (self.scale * self.config.epsilon),
            (self.config.tau_source, self.config.tau_target),
            self.config.tolerance,
            self.config.max_iterations,
        )
        cells = *self._padded_cells, self._target_table
        return _solve_batches(self.cost, resample, *cells, source, asked, key, numbers)

    @cached_property
    def _padded_cells(self) -> tuple[Float[Array, "k d"], Float[Array, "l d"]]:
        return tuple(jax.device_put(pad_edge(side, padded_cells(len(side)))) for side in (self.source, self.target))


def minibatch_coupling(
    key: jax.Array,
    source: Float[Array, "n d"],
    target: Float[Array, "m d"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
) -> MinibatchCoupling:
    """Set up the paper's coupling. Nothing is solved yet; see :class:`MinibatchCoupling`.

    Raises
    ------
    ValueError
        If the cost needs the whole population.
    """
    del key  # Every draw is given a key of its own.
    cost = resolve_cost(config.cost)
    if isinstance(cost, AnchoredCost):
        raise ValueError(
            f"`cost`={cost.name!r} is a cost over the whole population, which a batch does not see. Use coupling='global'."
        )
    scale = cost_scale(cost, source, target, config.scale_of(0))
    return MinibatchCoupling(a, b, config, source, target, cost, scale)


@partial(jax.jit, static_argnames=("cost", "resample"))
def _solve_batches(cost: Cost, resample: bool, source_cells, target_cells, table, source, asked, key, numbers):
    inverse, taus, tolerance, max_iterations = numbers
    size, most = source.shape[1], -(-max_iterations // ITERATIONS_PER_ROUND)

    def one_batch(batch):
        rows = batch["source"]
        columns = choose(batch["target"], table)
        geometry = Geometry(source_cells[rows], target_cells[columns], inverse, cost).stored()
        scaled, weights, zeros = inverse * geometry.matrix, jnp.full(size, 1.0 / size), jnp.zeros(size)
        u, v, violation, rounds = dense_rounds(scaled, weights, weights, zeros, zeros, taus, tolerance, most)
        others = None if asked is None else dataclasses.replace(geometry, x=source_cells[asked], matrix=None)
        order, drawn, report = draw_batch(
            geometry, u, v, key, batch["row_ids"], batch["order"], resample=resample, asked=others
        )
        rows = rows if asked is None else asked
        report |= {"violation": violation, "iterations": rounds * ITERATIONS_PER_ROUND}
        return rows[order], columns[drawn], report

    return jax.lax.map(one_batch, batches_of(key, source, size if asked is None else len(asked)))
