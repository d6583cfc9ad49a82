"""A coupling of blocks: one plan for each condition, all under one scale of the cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._sampling import host_rng, systematic
from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind
from scgenot.coupling._inputs import checked_cells, checked_marginal

Rows: TypeAlias = Int[np.ndarray, " _"]


@dataclasses.dataclass(frozen=True)
class Block:
    """The plan of one condition.

    Attributes
    ----------
    source_rows, target_rows
        Which of all cells belong to it, each once. A source cell may belong to several blocks, as controls do.
    coupling
        Coupling between these cells, in this order; cells beyond them have no weight, and are there to fill a size up.
    agreement
        Quadratic problems that started from a reference plan: how far the block's plan sends its cells where the reference
        would send them, a correlation. ``None`` elsewhere.
    """

    source_rows: Rows
    target_rows: Rows
    coupling: Coupling
    agreement: float | None = None

    @property
    def masses(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " l"]]:
        """The plan's marginals at the block's own cells."""
        sides = (
            (self.coupling.source_marginal, len(self.source_rows)),
            (self.coupling.target_marginal, len(self.target_rows)),
        )
        return tuple(np.asarray(mass, np.float64)[:size] for mass, size in sides)

    @property
    def priors(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " l"]]:
        """Prior weights of the block's own cells."""
        sizes = len(self.source_rows), len(self.target_rows)
        return tuple(np.asarray(one, np.float64)[:size] for one, size in zip(self.coupling.priors, sizes, strict=True))


@dataclasses.dataclass(frozen=True)
class BlockCoupling(Coupling):
    """One plan for each condition; cells of one block are only ever paired with cells of the same block.

    Marginals are those of the mixture of the plans by `weights`.

    Attributes
    ----------
    parts
        The blocks.
    sizes
        Number of all source and target cells.
    weights
        Share of each block in training batches; they sum to 1.
    """

    parts: tuple[Block, ...]
    sizes: tuple[int, int]
    weights: Float[np.ndarray, " blocks"]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.parts)

    @cached_property
    def source_marginal(self) -> Float[Array, " n"]:
        """Mass that each source cell sends in the mixture of all plans."""
        return self._gathered(0, [part.masses[0] for part in self.parts])

    @cached_property
    def target_marginal(self) -> Float[Array, " m"]:
        """Mass that each target cell gets in the mixture of all plans."""
        return self._gathered(1, [part.masses[1] for part in self.parts])

    @cached_property
    def priors(self) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
        """Prior weights in the mixture of all problems."""
        sides = zip(*(part.priors for part in self.parts), strict=True)
        return tuple(self._gathered(side, list(own)) for side, own in enumerate(sides))

    @property
    def marginal_kinds(self) -> tuple[MarginalKind, MarginalKind]:
        """As those of each block: they share one config."""
        return self.parts[0].coupling.marginal_kinds

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """The worst block's violation and agreement, means of the rest by the blocks' weights; :attr:`block_diagnostics` has each."""
        every = self.block_diagnostics
        used = [one for one, weight in zip(every, self.weights, strict=True) if weight > 0]
        worst = max(used, key=lambda one: one.marginal_violation)
        agreements = [one.agreement for one in used if one.agreement is not None]
        mean = lambda name: float(self.weights @ [getattr(one, name) for one in every])
        return Diagnostics(
            kind=f"{self.blocks} blocks: {every[0].kind}",
            objective=mean("objective"),
            scale=every[0].scale,
            epsilon=every[0].epsilon,
            iterations=mean("iterations"),
            marginal_violation=worst.marginal_violation,
            violation_error=worst.violation_error,
            mass=mean("mass"),
            effective_targets=float(np.exp(self.weights @ np.log([one.effective_targets for one in every]))),
            converged=all(one.converged for one in used),
            source_scale=every[0].source_scale,
            target_scale=every[0].target_scale,
            agreement=min(agreements) if agreements else None,
        )

    @cached_property
    def block_diagnostics(self) -> tuple[Diagnostics, ...]:
        """How solving went, for each block."""
        return tuple(dataclasses.replace(part.coupling.diagnostics, agreement=part.agreement) for part in self.parts)

    def conditional(
        self,
        key: jax.Array,
        source_indices: Int[Array | np.ndarray, " k"],
        n_draws: int,
        *,
        block: int | Int[np.ndarray, " k"] | None = None,
    ) -> Int[Array, "k n_draws"]:
        """Draw `n_draws` target indices for each source index from its row of one block's plan.

        Parameters
        ----------
        key
            JAX key.
        source_indices
            Rows among all source cells.
        n_draws
            Targets of each.
        block
            Number of the block, one for all or one each. ``None`` where each of these cells belongs to one block only.

        Raises
        ------
        ValueError
            If a cell does not belong to its block, or to several and none is named.
        """
        asked = np.asarray(source_indices, np.int64)
        own = self._blocks_of(asked) if block is None else np.broadcast_to(np.asarray(block), asked.shape)
        if own.size and (own.min() < 0 or own.max() >= self.blocks):
            raise ValueError(f"`block` must lie in 0 .. {self.blocks - 1}, got {own.min()} to {own.max()}.")
        drawn = np.zeros((len(asked), n_draws), np.int32)
        for number in np.unique(own).tolist():
            part, here = self.parts[number], np.flatnonzero(own == number)
            local = _places(part.source_rows, asked[here], number)
            found = part.coupling.conditional(jax.random.fold_in(key, number), local, n_draws)
            drawn[here] = part.target_rows[np.asarray(found)]
        return jax.device_put(drawn)

    def pairs(
        self, key: jax.Array, *, batch_size: int, steps: int
    ) -> Iterator[tuple[Int[Array, "steps batch"], Int[Array, "steps batch"], Int[Array, "steps batch"]]]:
        """Yield, without end, source indices, target indices and blocks for `steps` training batches at a time.

        Each batch holds blocks in proportion to their weights.
        """
        streams = [
            _stream(jax.random.fold_in(key, number), part, batch_size, max(1, round(steps * weight)))
            for number, (part, weight) in enumerate(zip(self.parts, self.weights, strict=True))
        ]
        rng = host_rng(jax.random.fold_in(key, self.blocks))
        while True:
            own = systematic(rng, self.weights, (steps, batch_size))
            pairs = np.zeros((2, steps, batch_size), np.int32)
            for number, stream in enumerate(streams):
                here = own == number
                count = int(here.sum())
                if count:
                    next(stream)
                    pairs[:, here] = stream.send(count)
            yield tuple(map(jax.device_put, (*pairs, own)))

    def swapped(self) -> BlockCoupling:
        """Return the same coupling seen from the other side."""
        parts = tuple(
            Block(one.target_rows, one.source_rows, one.coupling.swapped(), one.agreement) for one in self.parts
        )
        return dataclasses.replace(self, parts=parts, sizes=self.sizes[::-1])

    def extend(
        self,
        source: Float[Array | np.ndarray, "k dx"],
        target: Float[Array | np.ndarray, "l dy"],
        *,
        source_weights: Float[Array | np.ndarray, " k"] | None = None,
        target_weights: Float[Array | np.ndarray, " l"] | None = None,
        shared: tuple[Float[Array | np.ndarray, "k s"], Float[Array | np.ndarray, "l s"]] | None = None,
        blocks: Sequence[tuple[Rows, Rows]] | None = None,
    ) -> BlockCoupling:
        """Return the coupling between other cells that the potentials of each block imply.

        Parameters
        ----------
        source, target
            New cells of all blocks.
        source_weights, target_weights
            Their weights; within each block they are normalised to sum to 1.
        shared
            Their shared features in fused problems that have them.
        blocks
            Rows of source and of target cells for each block, as in :func:`solve_blocks`. A block without cells on either
            side is left out of batches.

        Raises
        ------
        ValueError
            If there is not one pair of rows for each block, or none has cells on both sides.
        """
        if blocks is None or len(blocks) != self.blocks:
            got = "none" if blocks is None else len(blocks)
            raise ValueError(f"`blocks` must hold rows of source and target cells for {self.blocks} blocks, got {got}.")
        source, target = (np.asarray(checked_cells(*one)) for one in (("source", source), ("target", target)))
        a, b = checked_weights(source_weights, target_weights, len(source), len(target))
        parts, weights = [], self.weights.copy()
        for number, ((rows, columns), part) in enumerate(zip(blocks, self.parts, strict=True)):
            rows, columns = checked_rows(number, rows, len(source)), checked_rows(number, columns, len(target))
            if not len(rows) or not len(columns):
                parts.append(Block(rows[:0], columns[:0], part.coupling))
                weights[number] = 0.0
                continue
            between = part.coupling.extend(
                source[rows],
                target[columns],
                source_weights=a[rows],
                target_weights=b[columns],
                shared=features_of(shared, rows, columns),
            )
            parts.append(Block(rows, columns, between))
        if not weights.any():
            raise ValueError("`blocks`: none has cells on both sides. Give cells of at least one block.")
        return BlockCoupling(tuple(parts), (len(source), len(target)), weights / weights.sum())

    def _gathered(self, side: int, own: list[Float[np.ndarray, " _"]]) -> Float[Array, " n"]:
        whole = np.zeros(self.sizes[side])
        for part, weight, masses in zip(self.parts, self.weights, own, strict=True):
            np.add.at(whole, part.source_rows if side == 0 else part.target_rows, weight * masses)
        return jax.device_put(np.asarray(whole, np.float32))

    def _blocks_of(self, asked: Rows) -> Int[np.ndarray, " k"]:
        found, times = np.zeros(self.sizes[0], int), np.zeros(self.sizes[0], int)
        for number, part in enumerate(self.parts):
            found[part.source_rows] = number
            times[part.source_rows] += 1
        wrong = asked[times[asked] != 1]
        if len(wrong):
            raise ValueError(
                f"`block` must say which plan is meant: source cell {wrong[0]} belongs to {times[wrong[0]]} blocks."
            )
        return found[asked]


def _stream(key: jax.Array, part: Block, batch_size: int, steps: int):
    """Yield pairs of a block in all cells' numbers, as many as are sent for; see :meth:`BlockCoupling.pairs`."""
    rng = host_rng(key)
    batches = part.coupling.pairs(jax.random.fold_in(key, 1), batch_size=batch_size, steps=steps)
    kept = np.zeros((2, 0), np.int32)
    while True:
        count = yield None
        while kept.shape[1] < count:
            i, j = (np.asarray(one).ravel() for one in next(batches))
            # A batch goes through the source cells in their order: a part of it would hold only some kinds of cells.
            order = rng.permutation(len(i))
            more = np.stack([part.source_rows[i[order]], part.target_rows[j[order]]])
            kept = np.concatenate([kept, more.astype(np.int32)], axis=1)
        yield kept[:, :count]
        kept = kept[:, count:]


def features_of(shared: Any, rows: Rows, columns: Rows) -> tuple[Any, Any] | None:
    """Return the shared features of a block's cells, where there are any."""
    return None if shared is None else (np.asarray(shared[0])[rows], np.asarray(shared[1])[columns])


def checked_weights(source_weights, target_weights, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of all source and of all target cells."""
    a = checked_marginal("source_weights", source_weights, n)
    return np.asarray(a), np.asarray(checked_marginal("target_weights", target_weights, m))


def checked_rows(number: int, rows: Any, n: int) -> Rows:
    """Return the rows of a block on one side.

    Raises
    ------
    ValueError
        If they are no whole numbers below `n`, or a row comes twice.
    """
    rows = np.asarray(rows)
    whole = rows.ndim == 1 and (rows.size == 0 or np.issubdtype(rows.dtype, np.integer))
    if not whole or (rows.size and (rows.min() < 0 or rows.max() >= n)):
        raise ValueError(
            f"`blocks[{number}]` must hold whole numbers below {n}, got {rows.dtype} of shape {rows.shape}."
        )
    if len(np.unique(rows)) != len(rows):
        raise ValueError(f"`blocks[{number}]` names a cell twice. Give it more weight instead.")
    return rows.astype(np.int64)


def _places(rows: Rows, asked: Rows, number: int) -> Rows:
    """Return the places of `asked` among `rows`."""
    order = np.argsort(rows)
    places = order[np.minimum(np.searchsorted(rows, asked, sorter=order), len(rows) - 1)] if len(rows) else asked * 0
    missing = asked if not len(rows) else asked[rows[places] != asked]
    if len(missing):
        raise ValueError(f"source cell {missing[0]} does not belong to block {number}.")
    return places
