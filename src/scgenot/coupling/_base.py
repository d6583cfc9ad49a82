"""What every coupling is to the trainer, and what it tells about itself."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Literal, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot.coupling._pair_scores import PairScores

# "kept": the plan's marginal is the prior one. "relaxed": it is another one, and known. "unknown": another one.
MarginalKind: TypeAlias = Literal["kept", "relaxed", "unknown"]


@dataclasses.dataclass(frozen=True)
class StartReport:
    """What became of one start of a quadratic problem.

    Where starts were compared on some of the landmarks only, as with more cells than landmarks, values and overlaps of all but the
    chosen one are those on these.

    Attributes
    ----------
    start
        Name of the start.
    objective
        Value reached, in units of the scaled costs; of starts that have lost it is good to about 1 %. A start that came to the plan
        of a better one has the better one's; NaN for starts that were not followed to the end.
    iterations
        Linearisations at the final epsilon; 0 for starts that were not followed that far.
    plan_change
        L1 distance between the last two plans.
    polished
        Whether it was among the best few, led to a plan of its own, and was followed to the end.
    converged
        Whether its plan stood still. Only the best is waited for.
    overlap
        Share of the mass that its plan has in common with the chosen one; NaN for starts that were not followed to the end.
    sharp
        Value reached at the small epsilon at which starts are compared: of those that were followed, the chosen one has the
        lowest. Of the others a rough value, by few directions of the costs.
    """

    start: str
    objective: float
    iterations: int
    plan_change: float
    polished: bool
    converged: bool
    overlap: float = float("nan")
    sharp: float = float("nan")


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """How solving went.

    Attributes
    ----------
    kind
        Which coupling this is, for example ``"linear, global"``.
    objective
        Value of the regularised problem, in units of the scaled cost; NaN where it is not one problem (minibatches).
    scale
        What the costs were divided by, in the unit of the cost; in quadratic problems those within the source population.
    epsilon
        As given, in units of the scaled cost.
    iterations
        Sinkhorn iterations at full size; the mean over batches for minibatches; in quadratic problems over all cells the
        linearisations of the chosen start at the final epsilon, each of which is solved by up to 88 Sinkhorn iterations.
    marginal_violation
        L1 distance between the plan's marginals and what they should be, the larger of the two sides; of extended couplings
        measured on a random sample of the cells.
    violation_error
        Standard error of that, where it was measured on a sample.
    mass
        Total mass of the plan: 1 in a balanced problem.
    effective_targets
        Exponential of the mean conditional entropy: among how many target cells a source cell's mass is spread.
    converged
        Whether the violation came below the tolerance; with landmarks, which are a sample, below 0.05.
    starts
        What became of each start of a quadratic problem, the chosen one first.
    source_scale, target_scale, shared_scale
        What costs within either population and between shared features were divided by, in quadratic and fused problems.
    cost
        What the objective minimises before the entropy, in units of the scaled cost: ``<C, P>`` in linear problems, alpha
        times the quadratic and ``1 - alpha`` times the linear term in the others. ``None`` where there is no one plan.
    shared_cost
        What of it is between shared features, in fused problems.
    kl
        ``KL(P | a b')``: the objective holds it times epsilon.
    penalty
        What relaxed marginals cost, in units of the scaled cost; 0 in balanced problems.
    agreement
        Blocks of quadratic problems that share a reference plan: how far the block's plan sends its cells where the reference
        would send them, as a correlation of their places; of several blocks the lowest.
    """

    kind: str
    objective: float
    scale: float
    epsilon: float
    iterations: float
    marginal_violation: float
    mass: float
    effective_targets: float
    converged: bool
    starts: tuple[StartReport, ...] = ()
    source_scale: float | None = None
    target_scale: float | None = None
    shared_scale: float | None = None
    cost: float | None = None
    shared_cost: float | None = None
    kl: float | None = None
    penalty: float | None = None
    agreement: float | None = None
    violation_error: float | None = None


class Coupling(abc.ABC):
    """Pairs of source and target cells: all that training needs to know of optimal transport."""

    @property
    @abc.abstractmethod
    def source_marginal(self) -> Float[Array, " n"]:
        """Mass that each source cell sends, ``P 1``."""

    @property
    @abc.abstractmethod
    def target_marginal(self) -> Float[Array, " m"]:
        """Mass that each target cell gets, ``P' 1``."""

    @property
    def marginal_kinds(self) -> tuple[MarginalKind, MarginalKind]:
        """How the plan's source and target marginals relate to the prior ones; kept unless a coupling says otherwise."""
        return "kept", "kept"

    @property
    def priors(self) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
        """Prior weights a and b of source and target cells; each sums to 1."""
        return self.source_marginal, self.target_marginal

    @property
    def blocks(self) -> int:
        """Number of blocks (conditions); where it is above 1, :meth:`pairs` yields each pair's block as a third array."""
        return 1

    @property
    @abc.abstractmethod
    def diagnostics(self) -> Diagnostics:
        """How solving went."""

    @property
    def pair_scores(self) -> PairScores | None:
        """How likely any pairs are, for training steps that look at several targets of a cell; ``None`` where it is not known."""
        return None

    @abc.abstractmethod
    def conditional(
        self, key: jax.Array, source_indices: Int[Array | np.ndarray, " k"], n_draws: int
    ) -> Int[Array, "k n_draws"]:
        """Draw `n_draws` target indices for each source index from its row of the plan, rows independently."""

    @abc.abstractmethod
    def pairs(
        self, key: jax.Array, *, batch_size: int, steps: int
    ) -> Iterator[tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]]:
        """Yield, without end, source and target indices for `steps` training batches at a time.

        Source indices follow the plan's source marginal; each target index is drawn from its source cell's row.
        """

    @abc.abstractmethod
    def extend(
        self,
        source: Float[Array | np.ndarray, "k dx"],
        target: Float[Array | np.ndarray, "l dy"],
        *,
        source_weights: Float[Array | np.ndarray, " k"] | None = None,
        target_weights: Float[Array | np.ndarray, " l"] | None = None,
        shared: tuple[Float[Array | np.ndarray, "k s"], Float[Array | np.ndarray, "l s"]] | None = None,
    ) -> Coupling:
        """Return the coupling between other cells of the two populations that these potentials imply.

        Cells are given as they were to be coupled, with weights of their own (equal ones if ``None``); `shared` are their
        shared features in a problem that has them. Marginals and diagnostics are those of the new cells.
        """

    @abc.abstractmethod
    def swapped(self) -> Coupling:
        """Return the same coupling seen from the other side: target cells are its source."""
