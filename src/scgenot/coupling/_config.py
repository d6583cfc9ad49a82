"""What can be chosen about a coupling: the problem."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

from scgenot._messages import check_positive, check_unit, is_number
from scgenot.costs import CostLike, ScaleCost, check_scale_cost, resolve_cost, resolve_cost_pair
from scgenot.coupling._kinds import OPTIONS, Global, Kind, check_options
from scgenot.sinkhorn import SinkhornConfig

# Squared differences of distances are what a quadratic problem sums: squared distances in their place would leave all weight
# to the largest. Its epsilon is in units of these squares, hence smaller. 0.005: on gene panels and SNARE-seq (256 cells, seeds 0 and
# 1) FOSCTTM is that of 0.002, and the nominal 90 % region of a row holds .87 and .63 of the true partners instead of .62 and .36; at
# 0.01 FOSCTTM on panels begins to rise (.053 for .042).
_DEFAULTS = {"linear": ("sqeuclidean", 0.05), "quadratic": ("euclidean", 0.005), "fused": ("euclidean", 0.005)}


# One for all costs, or one each: within the source population, within the target population, between shared features.
CostScales: TypeAlias = ScaleCost | tuple[ScaleCost, ...] | list[ScaleCost]
_COSTS = {"linear": 1, "quadratic": 2, "fused": 3}


@dataclasses.dataclass(frozen=True)
class CouplingConfig:
    """How cells of two populations are paired.

    Attributes
    ----------
    cost
        Ground cost: a name, an OTT ``CostFn``, or a function of two cells (see :func:`scgenot.costs.resolve_cost`). In
        quadratic problems also a pair of them, within the source and within the target population. ``None`` is
        ``"sqeuclidean"`` in linear problems and ``"euclidean"`` in quadratic and fused ones.
    epsilon
        Factor of the entropy (KL to the product of the marginals), in units of the scaled cost. ``None`` is 0.05 in linear
        problems and 0.005 in quadratic and fused ones.
    tau_source, tau_target
        How strictly each marginal is kept, in (0, 1]: lambda / (lambda + epsilon). 1 is balanced.
    alpha
        Weight of the quadratic term in fused problems, in (0, 1); that of the linear one is ``1 - alpha``.
    shared_cost
        Cost between the shared features of a fused problem.
    scale_cost
        Costs are divided by their ``"mean"``, their ``"max"``, or by a number. In quadratic problems also a pair of these, for
        costs within the source and within the target population; in fused ones also three, the last for shared features.
    tolerance, max_iterations, n_draws, warm_start, rank, landmarks, dense_limit, coarse_limit, n_cells, n_sweeps, n_targets
        Options of the kind of coupling, which can as well be given with it: see :class:`Global`, :class:`Extended`,
        :class:`Minibatch` and :class:`LowRank`. ``None`` is the kind's own value; one that the kind does not have is refused when it is solved.
    """

    cost: CostLike | tuple[CostLike, CostLike] | None = None
    epsilon: float | None = None
    tau_source: float = 1.0
    tau_target: float = 1.0
    alpha: float = 0.5
    shared_cost: CostLike = "sqeuclidean"
    scale_cost: CostScales = "mean"
    tolerance: float | None = None
    max_iterations: int | None = None
    n_draws: int | None = None
    warm_start: bool | None = None
    rank: int | None = None
    landmarks: int | None = None
    dense_limit: int | None = None
    coarse_limit: int | None = None
    n_cells: int | None = None
    n_sweeps: int | None = None
    n_targets: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers where they are given."""
        if self.epsilon is not None:
            check_positive("epsilon", self.epsilon, remedy="Start from 0.05, in units of the mean cost.")
        check_unit("tau_source", self.tau_source, remedy="1.0 keeps the source marginal exactly.")
        check_unit("tau_target", self.tau_target, remedy="1.0 keeps the target marginal exactly.")
        if self.cost is not None:
            resolve_cost_pair(self.cost)
        resolve_cost(self.shared_cost)
        if not is_number(self.alpha) or not 0.0 < self.alpha < 1.0:
            raise ValueError(
                f"`alpha` must lie in (0, 1), got {self.alpha!r}. It weighs the quadratic term of a fused problem; for 1 leave "
                "out the shared features, for 0 solve a linear problem on them."
            )
        if isinstance(self.scale_cost, list):
            # What was saved as JSON comes back as a list.
            object.__setattr__(self, "scale_cost", tuple(self.scale_cost))
        if isinstance(self.scale_cost, tuple) and len(self.scale_cost) not in (2, 3):
            raise ValueError(
                "`scale_cost` must be one for all costs, a pair in quadratic problems or three in fused ones, got "
                f"{len(self.scale_cost)} of them."
            )
        for number in range(3):
            check_scale_cost(self.scale_of(number))
        check_options(self.options)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the kind that were given here, by name."""
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in given.items() if value is not None}

    def resolved(self, problem: str, kind: Kind | None = None) -> CouplingConfig:
        """Return the config with the problem's own cost and epsilon, and the kind's own options, where none was chosen."""
        cost, epsilon = _DEFAULTS[problem]
        if isinstance(self.scale_cost, tuple) and len(self.scale_cost) != _COSTS[problem]:
            raise ValueError(
                f"`scale_cost`={self.scale_cost!r} is for {len(self.scale_cost)} costs; {problem} problems have "
                f"{_COSTS[problem]}. Give one for each, or one for all."
            )
        return dataclasses.replace(
            self,
            cost=cost if self.cost is None else self.cost,
            epsilon=epsilon if self.epsilon is None else self.epsilon,
            **dataclasses.asdict(kind or Global()) | self.options,
        )

    @property
    def sinkhorn(self) -> SinkhornConfig:
        """What the linear problem is solved with; epsilon has to be resolved."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(SinkhornConfig)}
        # Some kinds leave limits to the solver.
        return SinkhornConfig(**{name: value for name, value in given.items() if value is not None})

    def scale_of(self, number: int) -> ScaleCost:
        """Return how one cost is scaled: within the source (0), within the target (1), between shared features (2)."""
        if not isinstance(self.scale_cost, tuple):
            return self.scale_cost
        return self.scale_cost[number] if number < len(self.scale_cost) else "mean"

    def swapped(self) -> CouplingConfig:
        """Return the config of the opposite direction."""
        cost = self.cost[::-1] if isinstance(self.cost, tuple) else self.cost
        scales = self.scale_cost
        if isinstance(scales, tuple):
            scales = (scales[1], scales[0], *scales[2:])
        return dataclasses.replace(
            self, cost=cost, scale_cost=scales, tau_source=self.tau_target, tau_target=self.tau_source
        )
