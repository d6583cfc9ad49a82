"""A coupling of blocks: one plan for each condition, all under one scale of the cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._messages import is_number
from scgenot._sampling import host_rng, systematic
from scgenot._sizes import padded_size
from scgenot.costs import AnchoredCost, cost_scale, resolve_cost
from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._inputs import checked_cells, checked_marginal
from scgenot.coupling._kinds import Kind
from scgenot.coupling._solve import solve_coupling

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
    """

    source_rows: Rows
    target_rows: Rows
    coupling: Coupling

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
        """The worst block's violation, means of the rest by the blocks' weights; :attr:`block_diagnostics` has each."""
        every = self.block_diagnostics
        used = [one for one, weight in zip(every, self.weights, strict=True) if weight > 0]
        mean = lambda name: float(self.weights @ [getattr(one, name) for one in every])
        return Diagnostics(
            kind=f"{self.blocks} blocks: {every[0].kind}",
            objective=mean("objective"),
            scale=every[0].scale,
            epsilon=every[0].epsilon,
            iterations=mean("iterations"),
            marginal_violation=max(one.marginal_violation for one in used),
            mass=mean("mass"),
            effective_targets=float(np.exp(self.weights @ np.log([one.effective_targets for one in every]))),
            converged=all(one.converged for one in used),
        )

    @cached_property
    def block_diagnostics(self) -> tuple[Diagnostics, ...]:
        """How solving went, for each block."""
        return tuple(part.coupling.diagnostics for part in self.parts)

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
        parts = tuple(Block(one.target_rows, one.source_rows, one.coupling.swapped()) for one in self.parts)
        return dataclasses.replace(self, parts=parts, sizes=self.sizes[::-1])

    def extend(
        self,
        source: Float[Array | np.ndarray, "k dx"],
        target: Float[Array | np.ndarray, "l dy"],
        *,
        source_weights: Float[Array | np.ndarray, " k"] | None = None,
        target_weights: Float[Array | np.ndarray, " l"] | None = None,
        shared: None = None,
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
            Blocks have none.
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
        a, b = _weights(source_weights, target_weights, len(source), len(target))
        parts, weights = [], self.weights.copy()
        for number, ((rows, columns), part) in enumerate(zip(blocks, self.parts, strict=True)):
            rows, columns = _checked_rows(number, rows, len(source)), _checked_rows(number, columns, len(target))
            if not len(rows) or not len(columns):
                parts.append(Block(rows[:0], columns[:0], part.coupling))
                weights[number] = 0.0
                continue
            between = part.coupling.extend(
                source[rows], target[columns], source_weights=a[rows], target_weights=b[columns]
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


def solve_blocks(
    key: jax.Array,
    source: Float[Array | np.ndarray, "n dx"],
    target: Float[Array | np.ndarray, "m dy"],
    blocks: Sequence[tuple[Rows, Rows]],
    *,
    gamma: float = 0.5,
    source_weights: Float[Array | np.ndarray, " n"] | None = None,
    target_weights: Float[Array | np.ndarray, " m"] | None = None,
    problem: str = "linear",
    kind: str | Kind = "global",
    config: CouplingConfig | None = None,
) -> BlockCoupling:
    """Couple the source and target cells of each condition, all conditions under one scale of the cost.

    Parameters
    ----------
    key
        JAX key.
    source, target
        Cells of all conditions.
    blocks
        For each condition the rows of its source cells (which may serve several conditions) and of its target cells.
    gamma
        A block of n target cells has ``n ** gamma`` shares of a training batch: 1 as they are, 0 all alike.
    source_weights, target_weights
        Weights of the cells; within each block they are normalised to sum to 1.
    problem, kind, config
        As in :func:`solve_coupling`. With a named ``scale_cost`` the scale is the mean over the blocks, in proportion to
        their shares of a batch; that needs a linear problem whose cost is a function of two cells.

    Returns
    -------
    The coupling of all blocks.

    Raises
    ------
    ValueError
        If there are no blocks, one has no cells or names rows that are not there; if one scale cannot be found; and as
        :func:`solve_coupling`, with the number of the block before it.

    Notes
    -----
    Blocks are filled up to a few sizes with copies of a cell that have no weight, so that blocks of like size share what is
    compiled for them.
    """
    source, target = (np.asarray(checked_cells(*one)) for one in (("source", source), ("target", target)))
    a, b = _weights(source_weights, target_weights, len(source), len(target))
    if not is_number(gamma) or not 0.0 <= gamma <= 1.0:
        raise ValueError(f"`gamma` must lie in [0, 1], got {gamma!r}. 0 draws all blocks equally often.")
    if len(blocks) == 0:
        raise ValueError("`blocks` must hold at least one pair of source and target rows, got none.")
    rows = [
        (_checked_rows(number, left, len(source)), _checked_rows(number, right, len(target)))
        for number, (left, right) in enumerate(blocks)
    ]
    for number, one in enumerate(rows):
        if not min(map(len, one)):
            raise ValueError(f"block {number} has {len(one[0])} source and {len(one[1])} target cells. Leave it out.")
    weights = np.array([len(right) for _, right in rows], np.float64) ** gamma
    weights /= weights.sum()
    config = config or CouplingConfig()
    config = dataclasses.replace(config, scale_cost=_one_scale(source, target, rows, weights, problem, config))
    parts = []
    for number, (left, right) in enumerate(rows):
        cells, own = zip(*(_filled(*one) for one in ((source[left], a[left]), (target[right], b[right]))), strict=True)
        try:
            found = solve_coupling(
                jax.random.fold_in(key, number),
                *cells,
                source_weights=own[0],
                target_weights=own[1],
                problem=problem,
                kind=kind,
                config=config,
            )
        except ValueError as error:
            raise ValueError(f"block {number}: {error}") from error
        parts.append(Block(left, right, found))
    return BlockCoupling(tuple(parts), (len(source), len(target)), weights)


def _one_scale(source, target, rows, weights, problem: str, config: CouplingConfig) -> float:
    if isinstance(config.scale_cost, int | float):
        return float(config.scale_cost)
    cost = resolve_cost(config.resolved(problem).cost) if problem == "linear" else None
    if cost is None or isinstance(cost, AnchoredCost):
        raise ValueError(
            f"`scale_cost`={config.scale_cost!r}: blocks need one scale, which is found in linear problems with a cost between "
            "two cells only. Give a number, such as the `scale` in the diagnostics of a coupling of all cells."
        )
    scales = [
        cost_scale(cost, *map(jax.device_put, (source[left], target[right])), config.scale_cost) for left, right in rows
    ]
    return float(np.max(scales) if config.scale_cost == "max" else weights @ scales)


def _filled(cells: Float[np.ndarray, "k d"], weights: Float[np.ndarray, " k"]) -> tuple[Any, Any]:
    """Return cells and weights with copies of the last cell behind that have no weight, up to a size on the ladder."""
    more = padded_size(len(cells)) - len(cells)
    return np.pad(cells, ((0, more), (0, 0)), mode="edge"), np.pad(weights, (0, more))


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


def _weights(source_weights, target_weights, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    a = checked_marginal("source_weights", source_weights, n)
    return np.asarray(a), np.asarray(checked_marginal("target_weights", target_weights, m))


def _checked_rows(number: int, rows: Any, n: int) -> Rows:
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
