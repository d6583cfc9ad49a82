"""What known pairs of cells say about all cells, as features that both populations share."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot.costs import Anchored, Cost, cost_scale

# Costs to more cells with a known partner than this add nothing but memory.
_MOST_PAIRS = 256
# Random codes of this length are nearly orthogonal, however many pairs there are.
_CODE_LENGTH = 128


@dataclasses.dataclass(frozen=True, eq=False)
class PairProfile:
    """Features of any cells of one population, by what is known of pairs.

    Costs to the members of the pairs say where *all* cells belong: a cell and its counterpart are equally far from both
    members of any pair. They are smooth, and tell neighbours hardly apart; so the members themselves carry the code of
    their pair besides, which no other cell has.

    Attributes
    ----------
    anchored
        Costs from any cells to the members of some pairs.
    scale
        What these costs are divided by.
    members
        Code of each member, by the bytes of its row.
    length
        What codes are multiplied by.
    """

    anchored: Anchored
    scale: float
    members: dict[bytes, Float[np.ndarray, " c"]]
    length: float = 0.0

    def __call__(self, cells: Float[Array | np.ndarray, "n d"]) -> Float[Array, "n f"]:
        """Return the features: scaled costs, then codes."""
        cells = np.ascontiguousarray(cells, np.float32)
        none = np.zeros(_CODE_LENGTH, np.float32)
        codes = np.stack([self.members.get(row.tobytes(), none) for row in cells])
        costs, codes = np.asarray(self.costs(cells)), np.asarray(self.length * codes, np.float32)
        return jax.device_put(np.concatenate([costs, codes], axis=1))

    def costs(self, cells: Float[Array | np.ndarray, "n d"]) -> Float[Array, "n k"]:
        """Return the scaled costs to the members of the pairs."""
        return jax.device_put(np.asarray(self.anchored(cells) / self.scale, np.float32))


def pair_profiles(
    cells: tuple[Float[Array, "n dx"], Float[Array, "m dy"]],
    scales: tuple[float, float],
    costs: tuple[Any, Any],
    pairs: Int[np.ndarray, "p 2"],
    shared_cost: Cost,
) -> tuple[PairProfile, PairProfile]:
    """Return the profiles of both populations.

    Codes are so long that a member is as far from cells without a partner as two cells are on average by their costs to the
    pairs. In units of epsilon that is far: a plan with tight marginals couples partners with each other.
    """
    codes = np.random.default_rng(0).choice([-1.0, 1.0], (len(pairs), _CODE_LENGTH)) / np.sqrt(_CODE_LENGTH)
    some = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), _MOST_PAIRS)).round().astype(int)]
    profiles = []
    for side, within, scale, rows, chosen in zip(cells, costs, scales, pairs.T, some.T, strict=True):
        side = np.ascontiguousarray(side, np.float32)
        members: dict[bytes, np.ndarray] = {}
        for row, code in zip(rows, codes, strict=True):
            # A cell may belong to several pairs.
            name = side[row].tobytes()
            members[name] = members.get(name, 0.0) + code.astype(np.float32)
        profiles.append(PairProfile(within.fit(side, np.asarray(chosen)), scale, members))
    mean = cost_scale(shared_cost, *(one.costs(side) for one, side in zip(profiles, cells, strict=True)))
    return tuple(dataclasses.replace(one, length=float(np.sqrt(mean))) for one in profiles)
