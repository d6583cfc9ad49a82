"""What can be chosen about a coupling."""

from __future__ import annotations

import dataclasses

from scgenot._messages import check_count, check_positive, check_unit
from scgenot.costs import CostLike, ScaleCost, check_scale_cost, resolve_cost, resolve_cost_pair
from scgenot.sinkhorn import SinkhornConfig

# Squared differences of distances are what a quadratic problem sums: squared distances in their place would leave all weight
# to the largest. Its epsilon is in units of these squares, hence smaller.
_DEFAULTS = {"linear": ("sqeuclidean", 0.05), "quadratic": ("euclidean", 0.002), "fused": ("euclidean", 0.002)}


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
        problems and 0.002 in quadratic and fused ones.
    tau_source, tau_target
        How strictly each marginal is kept, in (0, 1]: lambda / (lambda + epsilon). 1 is balanced.
    alpha
        Weight of the quadratic term in fused problems, in (0, 1); that of the linear one is ``1 - alpha``.
    shared_cost
        Cost between the shared features of a fused problem.
    scale_cost
        Costs are divided by their ``"mean"``, their ``"max"``, or by a number.
    tolerance
        Solving stops when the marginals are off by less than this, in total variation times two.
    max_iterations
        Sinkhorn iterations at full size, at most. Quadratic problems with landmarks take fewer where cells are many.
    n_draws
        Targets drawn for each source cell in one pass over the coupling.
    warm_start
        Minibatches of quadratic problems start from what the solution of one reference batch implies for their cells.
    rank
        Rank of the plan in low-rank couplings.
    landmarks
        Quadratic problems are solved over at most this many cells a side, and extended to the others.
    dense_limit
        Costs of more entries than this are computed block by block, again in each pass, and never stored.
    coarse_limit
        Problems with more entries than this are first solved on random subsets of the cells.
    """

    cost: CostLike | tuple[CostLike, CostLike] | None = None
    epsilon: float | None = None
    tau_source: float = 1.0
    tau_target: float = 1.0
    alpha: float = 0.5
    shared_cost: CostLike = "sqeuclidean"
    scale_cost: ScaleCost = "mean"
    tolerance: float = 1e-3
    max_iterations: int = 2000
    n_draws: int = 32
    warm_start: bool = True
    rank: int = 50
    landmarks: int = 2048
    dense_limit: int = 2**24
    coarse_limit: int = 2**24

    def __post_init__(self) -> None:
        """Check the numbers where they are given."""
        if self.epsilon is not None:
            check_positive("epsilon", self.epsilon, remedy="Start from 0.05, in units of the mean cost.")
        check_unit("tau_source", self.tau_source, remedy="1.0 keeps the source marginal exactly.")
        check_unit("tau_target", self.tau_target, remedy="1.0 keeps the target marginal exactly.")
        if self.cost is not None:
            resolve_cost_pair(self.cost)
        resolve_cost(self.shared_cost)
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(
                f"`alpha` must lie in (0, 1), got {self.alpha!r}. It weighs the quadratic term of a fused problem; for 1 leave "
                "out the shared features, for 0 solve a linear problem on them."
            )
        check_scale_cost(self.scale_cost)
        check_positive("tolerance", self.tolerance)
        check_count("landmarks", self.landmarks, minimum=2)
        check_count("max_iterations", self.max_iterations)
        check_count("n_draws", self.n_draws)
        check_count("rank", self.rank)
        check_count("dense_limit", self.dense_limit, remedy="1 stores no costs.")
        check_count("coarse_limit", self.coarse_limit, remedy="2**24 suits most problems.")

    def resolved(self, problem: str) -> CouplingConfig:
        """Return the config with the problem's own cost and epsilon where none was chosen."""
        cost, epsilon = _DEFAULTS[problem]
        return dataclasses.replace(
            self,
            cost=cost if self.cost is None else self.cost,
            epsilon=epsilon if self.epsilon is None else self.epsilon,
        )

    @property
    def sinkhorn(self) -> SinkhornConfig:
        """What the linear problem is solved with; epsilon has to be resolved."""
        return SinkhornConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(SinkhornConfig)})

    def swapped(self) -> CouplingConfig:
        """Return the config of the opposite direction."""
        cost = self.cost[::-1] if isinstance(self.cost, tuple) else self.cost
        return dataclasses.replace(self, cost=cost, tau_source=self.tau_target, tau_target=self.tau_source)
