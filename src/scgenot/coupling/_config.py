"""What can be chosen about a coupling."""

from __future__ import annotations

import dataclasses

from scgenot._messages import check_count, check_positive, check_unit
from scgenot.costs import CostLike, ScaleCost, check_scale_cost, resolve_cost_pair


@dataclasses.dataclass(frozen=True)
class CouplingConfig:
    """How cells of two populations are paired.

    Attributes
    ----------
    cost
        Ground cost: a name, an OTT ``CostFn``, or a function of two cells (see :func:`scgenot.costs.resolve_cost`). In
        quadratic problems also a pair of them, within the source and within the target population.
    epsilon
        Factor of the entropy (KL to the product of the marginals), in units of the scaled cost.
    tau_source, tau_target
        How strictly each marginal is kept, in (0, 1]: lambda / (lambda + epsilon). 1 is balanced.
    scale_cost
        Costs are divided by their ``"mean"``, their ``"max"``, or by a number.
    tolerance
        Solving stops when the marginals are off by less than this, in total variation times two.
    max_iterations
        Sinkhorn iterations at full size, at most.
    n_draws
        Targets drawn for each source cell in one pass over the coupling.
    landmarks
        Quadratic problems are solved over at most this many cells a side, and extended to the others.
    dense_limit
        Costs of more entries than this are computed block by block, again in each pass, and never stored.
    coarse_limit
        Problems with more entries than this are first solved on random subsets of the cells.
    """

    cost: CostLike | tuple[CostLike, CostLike] = "sqeuclidean"
    epsilon: float = 0.05
    tau_source: float = 1.0
    tau_target: float = 1.0
    scale_cost: ScaleCost = "mean"
    tolerance: float = 1e-3
    max_iterations: int = 2000
    n_draws: int = 32
    landmarks: int = 2048
    dense_limit: int = 2**24
    coarse_limit: int = 2**24

    def __post_init__(self) -> None:
        """Check the numbers where they are given."""
        check_positive("epsilon", self.epsilon, remedy="Start from 0.05, in units of the mean cost.")
        check_unit("tau_source", self.tau_source, remedy="1.0 keeps the source marginal exactly.")
        check_unit("tau_target", self.tau_target, remedy="1.0 keeps the target marginal exactly.")
        resolve_cost_pair(self.cost)
        check_scale_cost(self.scale_cost)
        check_positive("tolerance", self.tolerance)
        check_count("landmarks", self.landmarks, minimum=2)
        check_count("max_iterations", self.max_iterations)
        check_count("n_draws", self.n_draws)
