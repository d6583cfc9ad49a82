"""Entropic transport by Sinkhorn iterations on dual potentials, balanced or not, coarse to fine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._blocks import traced
from scgenot._messages import check_count, check_positive, check_unit
from scgenot._progress import Progress
from scgenot._sampling import host_rng, weighted_subset
from scgenot.costs import block
from scgenot.sinkhorn._geometry import Geometry, soft_min_rows
from scgenot.sinkhorn._groups import Stage, grouped_potentials

# Marginals of potentials that were extended from landmarks: off by no more than this, they have converged.
LANDMARK_TOLERANCE = 0.05
_COARSEST = 2048
# Cells a side that the mean cost is measured between: good to a tenth, where stages are a factor of four apart.
_MEASURED = 64
_REFINEMENT = 8
# Extended potentials are swept over all cells as often as this many costs allow, and at least so often.
_SWEPT_ENTRIES, _FEWEST_SWEEPS = 1e10, 30


@dataclasses.dataclass(frozen=True)
class SinkhornConfig:
    """What a linear entropic problem is solved with.

    Attributes
    ----------
    epsilon
        Factor of the entropy, in units of the scaled cost.
    tau_source, tau_target
        How strictly each marginal is kept, in (0, 1].
    tolerance
        Solving stops when the marginals are off by less than this, in total variation times two.
    max_iterations
        Iterations at full size, at most.
    dense_limit
        Costs of more entries than this are computed block by block, again in each pass, and never stored.
    coarse_limit
        Problems with more entries than this are first solved on random subsets of the cells.
    """

    epsilon: float
    tau_source: float = 1.0
    tau_target: float = 1.0
    tolerance: float = 1e-3
    max_iterations: int = 2000
    dense_limit: int = 2**24
    coarse_limit: int = 2**24

    def __post_init__(self) -> None:
        """Check the numbers where they are given."""
        check_positive("epsilon", self.epsilon)
        check_unit("tau_source", self.tau_source)
        check_unit("tau_target", self.tau_target)
        check_positive("tolerance", self.tolerance)
        check_count("max_iterations", self.max_iterations)
        check_count("dense_limit", self.dense_limit, remedy="1 stores no costs.")
        check_count("coarse_limit", self.coarse_limit, remedy="2**24 suits most problems.")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("u", "v"),
    meta_fields=("violation", "iterations", "converged"),
)
@dataclasses.dataclass(frozen=True)
class Potentials:
    """Dual potentials over epsilon, and how finding them went.

    The plan is ``P_ij = a_i b_j exp(u_i + v_j - C_ij / epsilon)``.
    """

    u: Float[Array, " n"]
    v: Float[Array, " m"]
    violation: float = float("nan")
    iterations: int = 0
    converged: bool = False


def extend_rows(
    geometry: Geometry,
    log_b: Float[Array | np.ndarray, " m"],
    v: Float[Array | np.ndarray, " m"],
    tau: float | Float[Array, ""],
) -> Float[Array, " n"]:
    """Return the row potential that column potentials imply: the soft c-transform, damped by `tau`.

    It is defined for any cells, also for ones that were not part of the problem.
    """
    if traced(geometry.x, geometry.y, geometry.matrix, log_b, v, tau):
        return -tau * soft_min_rows(geometry, v + log_b)
    return jax.device_put(-np.float32(tau) * np.asarray(soft_min_rows(geometry, np.asarray(v) + np.asarray(log_b))))


def solve_potentials(
    geometry: Geometry,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: SinkhornConfig,
    *,
    key: jax.Array,
    progress: Progress | None = None,
) -> Potentials:
    """Solve for the dual potentials of a linear problem.

    Parameters
    ----------
    geometry
        Costs over epsilon.
    a, b
        Marginals, each summing to 1; zeros are allowed.
    config
        Taus, tolerance, limits.
    key
        Chooses the subsets of the coarse problems.
    progress
        Is told of the stages, and how far the marginals are off.

    Returns
    -------
    The potentials at the last iteration, converged or not.

    Notes
    -----
    Large problems start from the potentials of a random subset of the cells, extended to all cells by the soft
    c-transform; these are right up to sampling error, so few iterations remain at full size. The coarsest problem
    is annealed from a large epsilon.
    """
    n, m = geometry.shape
    at_epsilon = Stage(1.0, config.tolerance, config.max_iterations)
    if n * m <= config.coarse_limit or max(n, m) <= _COARSEST:
        return iterated(
            geometry, a, b, np.zeros(m, np.float32), config, [*_annealing(geometry, config), at_epsilon], progress
        )
    shrink = min(_REFINEMENT, max(n, m) / _COARSEST)
    source_key, target_key, coarse_key = jax.random.split(key, 3)
    (source, own_a), (target, own_b) = (
        weighted_subset(host_rng(one), side, int(np.ceil(len(side) / shrink)))
        for one, side in ((source_key, a), (target_key, b))
    )
    own_a, own_b = (np.asarray(own, np.float32) for own in (own_a, own_b))
    coarse = solve_potentials(
        geometry.rows(source, target),
        jax.device_put(own_a),
        jax.device_put(own_b),
        config,
        key=coarse_key,
        progress=progress,
    )
    # Extended from the coarse source cells, the column potential is defined on every target cell.
    weights = np.log(own_a)
    v = extend_rows(geometry.rows(source, np.arange(m)).T, weights, coarse.u, config.tau_target)
    return iterated(geometry, a, b, v, config, [at_epsilon], progress)


def refine_potentials(
    geometry: Geometry,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    landmarks: tuple[Int[np.ndarray, " k"], Float[Array, " k"], Float[Array, " k"]],
    config: SinkhornConfig,
    progress: Progress | None = None,
) -> Potentials:
    """Extend potentials from landmarks to all cells, and sweep over these until the marginals fit, or often enough.

    Parameters
    ----------
    geometry, a, b
        Costs over epsilon and marginals of all cells.
    landmarks
        Rows of the source cells that are landmarks, their weights, and their potentials.
    config
        Taus, tolerance, limits.

    Returns
    -------
    Potentials of all cells. Sampling of the landmarks shows in the marginals, and goes in the first sweeps; the optimal plan
    of a sample does not deserve many more.
    """
    (n, m), (rows, weights, potential) = geometry.shape, landmarks
    known = geometry.rows(rows, np.arange(m)).T
    v = extend_rows(known, np.log(np.asarray(weights)), potential, config.tau_target)
    sweeps = min(max(int(_SWEPT_ENTRIES / (n * m)), _FEWEST_SWEEPS), config.max_iterations)
    found = iterated(geometry, a, b, v, config, [Stage(1.0, config.tolerance, sweeps)], progress)
    return dataclasses.replace(found, converged=found.violation <= max(config.tolerance, LANDMARK_TOLERANCE))


def iterated(geometry: Geometry, a, b, v, config: SinkhornConfig, stages: Sequence[Stage], progress=None) -> Potentials:
    """Iterate over all cells from column potentials, through some stages."""
    n, m = geometry.shape
    if geometry.matrix is None and n * m <= config.dense_limit:
        geometry = geometry.stored()
    u, v, violation, done = grouped_potentials(
        geometry, a, b, v, (config.tau_source, config.tau_target), stages, progress
    )
    return Potentials(u, v, violation, done, violation <= stages[-1].tolerance)


def _annealing(geometry: Geometry, config: SinkhornConfig) -> list[Stage]:
    """Return a few rough iterations at larger epsilons, four times smaller each time, from the mean cost on."""
    powers = int(np.log(max(_mean_cost(geometry), 1.0)) / np.log(4.0))
    return [Stage(4.0**k, 10 * config.tolerance, 20) for k in range(powers, 0, -1)]


def _mean_cost(geometry: Geometry) -> float:
    """Return about how many epsilons costs are on average, from the two populations' evenly spread cells."""
    some = [np.linspace(0, size - 1, _MEASURED).round().astype(int) for size in geometry.shape]
    few = geometry.rows(*some)
    costs = block(few.cost, few.x, few.y) if few.matrix is None else few.matrix
    return float(np.mean(np.abs(np.asarray(costs)))) * float(geometry.inverse)
