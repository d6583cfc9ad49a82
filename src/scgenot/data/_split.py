"""Which cells training sees, and which are held out."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from scgenot.data._conditions import Block
from scgenot.data._populations import Population

_FEWEST_TRAINING = 2


@dataclasses.dataclass(frozen=True)
class Split:
    """Places of training and held-out cells in their populations, ascending."""

    source_train: Int[np.ndarray, " n"]
    source_held: Int[np.ndarray, " k"]
    target_train: Int[np.ndarray, " m"]
    target_held: Int[np.ndarray, " l"]

    @property
    def holds_out(self) -> bool:
        """Whether cells of both populations are held out."""
        return bool(len(self.source_held) and len(self.target_held))

    def swapped(self) -> Split:
        """Return the split seen from the other side."""
        return Split(self.target_train, self.target_held, self.source_train, self.source_held)


def split_cells(rng: np.random.Generator, source: Population, target: Population, share: float) -> Split:
    """Hold out a share of each population at random; at least two cells are left for training.

    Validation needs cells of both populations: where the share of one of them rounds to none, nothing is held out, and a
    warning says so.

    A pair is known to training only if both partners are. So that few pairs are lost, partners of held-out source cells
    are held out first, then cells without a partner.
    """
    sizes = {"source": len(source.rows), "target": len(target.rows)}
    none = [side for side, n in sizes.items() if held_count(n, share) == 0]
    if len(none) == 1:
        warnings.warn(
            f"`validation_size`={share:g} holds out none of the {sizes[none[0]]} {none[0]} cells, so nothing is held out "
            "on either side: training sees all cells and is not validated. Use a larger share.",
            UserWarning,
            stacklevel=3,
        )
    if none:
        return Split(np.arange(sizes["source"]), np.arange(0), np.arange(sizes["target"]), np.arange(0))
    source_train, source_held = _split(rng, len(source.rows), share)
    priority = np.zeros(len(target.rows), int)
    if source.pair_names is not None:
        names = target.pair_names
        partner_trains = names.isin(source.pair_names.iloc[source_train].dropna()) & names.notna()
        partner_held = names.isin(source.pair_names.iloc[source_held].dropna()) & names.notna()
        priority = np.select([partner_trains, partner_held], [2, 0], 1)
    target_train, target_held = _split(rng, len(target.rows), share, priority)
    return Split(source_train, source_held, target_train, target_held)


def split_blocks(
    rng: np.random.Generator, blocks: Sequence[Block], sizes: tuple[int, int], share: float, unseen: Sequence[int] = ()
) -> Split:
    """Hold out a share of the cells of each block at random, and all target cells of unseen conditions altogether.

    Each block keeps two controls, and two of its cells if it has as many: small ones are not held out from.
    """
    held_source = np.zeros(sizes[0], bool)
    target = np.zeros((2, sizes[1]), bool)
    strata: set[bytes] = set()
    for block in blocks:
        # Conditions of one stratum share their controls, and strata have none in common.
        if block.source.tobytes() not in strata:
            strata.add(block.source.tobytes())
            held_source[rng.permutation(block.source)[: held_count(len(block.source), share)]] = True
        if block.condition not in unseen:
            order = rng.permutation(block.target)
            few = held_count(len(order), share)
            target[1, order[:few]] = True
            target[0, order[few:]] = True
    # Controls that belong to no condition play no part.
    used = np.zeros(sizes[0], bool)
    for block in blocks:
        used[block.source] = True
    return Split(*map(np.flatnonzero, (used & ~held_source, used & held_source, target[0], target[1])))


def held_count(n: int, share: float) -> int:
    """Return how many of `n` cells are held out: a share, but two are left for training."""
    return max(0, min(int(round(share * n)), n - _FEWEST_TRAINING))


def _split(
    rng: np.random.Generator, n: int, share: float, priority: Int[np.ndarray, " n"] | None = None
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    held = held_count(n, share)
    order = rng.permutation(n)
    if priority is not None:
        order = order[np.argsort(priority[order], kind="stable")]
    return np.sort(order[held:]), np.sort(order[:held])
