"""What goes into a quadratic problem: the two populations with their landmarks, and what they share."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._sampling import alike, weighted_subset
from scgenot.costs import Anchored, Cost, check_symmetric, cost_scale, matrix_scale, resolve_cost
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._lift import Lift
from scgenot.coupling.quadratic._pairs import PairProfile, pair_profiles


@dataclasses.dataclass(frozen=True)
class Side:
    """One population of a quadratic problem: its landmarks, and costs to them.

    Attributes
    ----------
    cells
        All cells, as the costs see them.
    chosen
        Rows of the landmarks.
    weights
        Weights of the landmarks; they sum to 1.
    anchored
        Costs from any cells to the landmarks.
    within
        Scaled costs between the landmarks.
    scale
        What costs are divided by.
    """

    cells: Float[Array, "n d"]
    chosen: Int[np.ndarray, " k"]
    weights: Float[Array, " k"]
    anchored: Anchored
    within: Float[Array, "k k"]
    scale: float

    @classmethod
    def of(cls, rng: np.random.Generator, cells, weights, cost: Any, config: CouplingConfig, number: int) -> Side:
        """Choose landmarks that stand for the weights of all cells, and measure between them; `number` is 0 for the source, 1 for the target."""
        chosen = np.arange(len(cells))
        if len(cells) > config.landmarks:
            chosen, own = weighted_subset(rng, weights, config.landmarks, alike(cells, config.landmarks))
            weights = jax.device_put(np.asarray(own, np.float32))
        anchored = cost.fit(np.asarray(cells), chosen)
        within = np.asarray(anchored(np.asarray(cells)[chosen]))
        check_symmetric(cost.name, within)
        scale = matrix_scale(within, config.scale_of(number))
        return cls(cells, chosen, weights, anchored, jax.device_put(np.asarray(within / scale, np.float32)), scale)


@dataclasses.dataclass(frozen=True)
class SharedTerm:
    """What a fused problem compares directly: shared features, or what is known of pairs.

    Attributes
    ----------
    source, target
        Features of all cells of the two populations.
    cost, scale
        Cost between them, and what it is divided by.
    profiles
        Features by what is known of pairs; ``None`` where the user gives features.
    """

    source: Float[Array, "n s"]
    target: Float[Array, "m s"]
    cost: Cost
    scale: float
    profiles: tuple[PairProfile, PairProfile] | None

    @classmethod
    def of(
        cls,
        sides: list[Side],
        costs: tuple[Any, Any],
        config: CouplingConfig,
        shared: tuple[Float[Array, "n s"], Float[Array, "m s"]] | None,
        pairs: Int[np.ndarray, "p 2"] | None,
    ) -> SharedTerm:
        """Compare by shared features, or by what is known of pairs."""
        cost, profiles = resolve_cost(config.shared_cost), None
        if not isinstance(cost, Cost):
            raise ValueError(f"`shared_cost` must be a cost between features, got {cost.name!r}. Use 'sqeuclidean'.")
        if pairs is not None:
            cells, scales = zip(*((side.cells, side.scale) for side in sides), strict=True)
            profiles = pair_profiles(cells, scales, costs, pairs, cost)
            shared = tuple(profile(side) for profile, side in zip(profiles, cells, strict=True))
        scale = cost_scale(cost, *shared, config.scale_of(2))
        return cls(*shared, cost, scale, profiles)

    def between_landmarks(self, sides: list[Side]) -> Float[Array, "k l"]:
        """Return the scaled costs between the landmarks of both populations."""
        return self.cost(self.source[sides[0].chosen], self.target[sides[1].chosen]) / self.scale

    def added_to(self, lift: tuple[Lift, Lift], weight: float) -> tuple[Lift, Lift]:
        """Return the lifts with shared features beside their own; `weight` is that of this term."""
        root = float(np.sqrt(weight / self.scale))
        profiles = self.profiles or (None, None)
        return tuple(
            dataclasses.replace(one, weight=root, profile=profile) for one, profile in zip(lift, profiles, strict=True)
        )
