"""What all minibatch couplings have in common: batches of source cells in, pairs out."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from scgenot._random import random_bits, related, uniform
from scgenot._rng import as_key
from scgenot._sampling import cumulative_table, host_rng, independent
from scgenot._sizes import pad_edge, padded_cells, padded_size
from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind
from scgenot.coupling._config import CouplingConfig
from scgenot.sinkhorn import Geometry, draw_rows, soft_min_rows

# Sides of a batch that targets of single cells are drawn from: as in training by default, and not below what shows most
# targets of a small population in each batch.
_BATCH, _SMALLEST_BATCH = 1024, 256
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
        source = independent(np.random.default_rng(0), self._source_table, (_TRIAL_BATCHES, min(_BATCH, len(self.a))))
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

    @cached_property
    def _source_table(self) -> UInt32[np.ndarray, " n"]:
        return cumulative_table(self.a)

    @cached_property
    def _target_table(self) -> UInt32[Array, " size"]:
        # The last sum again, which is never drawn, as behind the cells: another number of them compiles nothing.
        table = cumulative_table(self.b)
        return jax.device_put(pad_edge(table, padded_cells(len(table))))

    def conditional(
        self, key: jax.Array, source_indices: Int[Array | np.ndarray, " k"], n_draws: int
    ) -> Int[Array, "k n_draws"]:
        """Draw target indices for each source index; every draw comes from a batch of its own.

        Batches hold random cells of both populations, whichever cells are asked for and however many: the potentials of a
        solved batch imply the row of any further cell.
        """
        asked = np.asarray(source_indices, np.int32)
        size = _SMALLEST_BATCH
        while size < min(_BATCH, max(len(self.a), len(self.b))):
            size *= 2
        width = min(padded_size(max(len(asked), 1)), size)
        drawn = np.zeros((len(asked), n_draws), np.int32)
        for draw in range(n_draws):
            for start in range(0, len(asked), width):
                some = asked[start : start + width]
                rng = host_rng(key, draw, start)
                source, solve_key = independent(rng, self._source_table, (1, size)), as_key(rng)
                padded = np.pad(some, (0, width - len(some)), mode="edge")
                found = self.solve(solve_key, source, resample=False, asked=padded)[1]
                drawn[start : start + width, draw] = np.asarray(found)[0, : len(some)]
        return jax.device_put(drawn)

    def pairs(
        self, key: jax.Array, *, batch_size: int, steps: int
    ) -> Iterator[tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]]:
        """Yield, without end, source and target indices for `steps` training batches at a time."""
        relaxed = min(self.config.tau_source, self.config.tau_target) < 1.0
        round_ = 0
        while True:
            rng = host_rng(key, round_)
            source = independent(rng, self._source_table, (steps, batch_size))
            yield self.solve(as_key(rng), source, resample=relaxed)[:2]
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
        self,
        key: jax.Array,
        source: Int[Array | np.ndarray, "steps batch"],
        *,
        resample: bool,
        asked: Int[np.ndarray, " k"] | None = None,
    ) -> tuple[Int[Array, "steps rows"], Int[Array, "steps rows"], dict[str, Float[Array, " steps"]]]:
        """Solve one problem for each row of `source`; return source and target indices, and how it went.

        With `resample`, source cells follow the mass that they send, otherwise they stay as they are. Targets are drawn for
        the cells of the batch, or for those `asked` for, which need not be in it.
        """


def batches_of(key: jax.Array, source: Int[Array, "steps batch"], rows: int) -> dict[str, Array]:
    """Return what each batch is drawn with: its source cells, bits, and an id for each row of which a target is drawn."""
    steps, size = source.shape
    targets, order = random_bits(related(key, 1), jnp.arange(steps)[:, None], jnp.arange(size)[None, :])
    row_ids = jnp.arange(steps * rows).reshape(steps, rows)
    return {"source": source, "target": targets, "order": order, "row_ids": row_ids}


def draw_batch(
    geometry: Geometry,
    u: Float[Array, " k"],
    v: Float[Array, " k"],
    key: jax.Array,
    row_ids: Int[Array, " r"],
    order_bits: UInt32[Array, " k"],
    *,
    resample: bool,
    asked: Geometry | None = None,
) -> tuple[Int[Array, " r"], Int[Array, " r"], dict[str, Float[Array, ""]]]:
    """Return places of source and of target cells within a solved batch of uniform weights, its mass and its width.

    Targets are drawn for the cells of the batch, or from the rows of `asked`: costs of other cells to its targets. The bits
    decide which source cells come in, where these are drawn again.
    """
    size = geometry.shape[0]
    weights = v - jnp.log(size)
    log_row = u - jnp.log(size) + soft_min_rows(geometry, weights)
    log_p = jax.nn.log_softmax(weights[None, :] - geometry.inverse * geometry.matrix, axis=1)
    report = {
        "mass": jnp.exp(log_row).sum(),
        "effective_targets": jnp.exp(-jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=1))),
    }
    if asked is not None:
        order = jnp.arange(asked.shape[0])
        return order, draw_rows(asked, weights, key, row_ids, 1)[:, 0], report
    order = jnp.arange(size)
    if resample:
        cumulative = jnp.cumsum(jax.nn.softmax(log_row))
        drawn = jnp.searchsorted(cumulative, uniform(order_bits) * cumulative[-1], side="right")
        order = jnp.minimum(drawn, size - 1).astype(jnp.int32)
    some = dataclasses.replace(geometry, x=geometry.x[order], matrix=geometry.matrix[order])
    return order, draw_rows(some, weights, key, row_ids, 1)[:, 0], report
