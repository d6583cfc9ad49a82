"""The quadratic and fused global couplings: Gromov-Wasserstein from many starts, extended to all cells."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._progress import SILENT, Progress
from scgenot._sampling import host_rng
from scgenot.costs import resolve_cost_pair
from scgenot.coupling._base import Coupling, StartReport
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._lift import Lift, lifted_cost, lifts
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling._start_plan import start_plan
from scgenot.coupling.quadratic._coarse import search_coarsely
from scgenot.coupling.quadratic._iterate import Limits, settle
from scgenot.coupling.quadratic._problem import quadratic_problem
from scgenot.coupling.quadratic._search import Found, best_state, follow, search
from scgenot.coupling.quadratic._sides import SharedTerm, Side
from scgenot.sinkhorn import Geometry, Potentials, refine_potentials

__all__ = ["best_state", "quadratic_coupling"]

# Sinkhorn iterations that a linearisation counts for in `max_iterations`: a round of it, which is what one near the end takes.
_A_ROUND = 10
_FEWEST_DIRECTIONS = 8
# Landmarks a side that starts are compared on, where there are more cells than landmarks; the best is followed among all landmarks.
_SEARCHED = 512
_PROBES = 256


def quadratic_coupling(
    key: jax.Array,
    source: Float[Array, "n dx"],
    target: Float[Array, "m dy"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
    *,
    shared: tuple[Float[Array, "n s"], Float[Array, "m s"]] | None = None,
    pairs: Int[np.ndarray, "p 2"] | None = None,
    progress: Progress | None = None,
    init: Coupling | Float[Array | np.ndarray, "_ _"] | None = None,
    only_init: bool = True,
) -> PotentialCoupling:
    """Solve the quadratic or fused entropic problem: cells that are close go to cells that are close.

    Minimises ``alpha sum |cX_ik - cY_jl|^2 P_ij P_kl / mass(P) + (1 - alpha) <C, P> + epsilon KL(P | a b')``, with the
    marginals relaxed where a tau is below 1. The problem is not convex: it is solved from several starts at a small epsilon, the
    best few are followed until they stand still, the lowest objective wins and is followed to the epsilon asked for.

    Parameters
    ----------
    key
        Chooses landmarks.
    source, target
        Cells of the two populations, which need not share a space.
    a, b
        Marginals; each sums to 1.
    config
        Costs, epsilon, alpha, taus, landmarks, limits.
    shared
        Features that both populations have, which makes the problem fused.
    pairs
        Rows of source and target cells known to correspond: costs to them become the shared features.
    progress
        Is told of starts, polishing, and sweeps over all cells.
    init
        A plan to start from, or a coupling that implies one.
    only_init
        Whether it is the only start.

    Returns
    -------
    The coupling, with a report of each start in its diagnostics.
    """
    given = {"shared": shared, "pairs": pairs, "progress": progress, "init": init, "only_init": only_init}
    found = linearised(key, source, target, a, b, config, **given)
    if found.whole and found.matrix.size <= config.sinkhorn.dense_limit:
        geometry = dataclasses.replace(found.geometry, matrix=found.matrix)
        winner = found.starts[0]
        potentials = Potentials(*found.potentials, found.violation, winner.iterations, winner.converged)
    else:
        geometry = found.geometry
        potentials = found.accepted(refine_potentials(geometry, a, b, found.landmarks, config.sinkhorn, progress))
    return PotentialCoupling(
        geometry,
        a,
        b,
        potentials,
        config,
        f"{found.problem}, global{found.sample}",
        found.scale,
        lift=found.lift,
        starts=found.starts,
    )


@dataclasses.dataclass(frozen=True)
class Linearised:
    """A quadratic problem that was solved over landmarks, as a linear one over all cells.

    Attributes
    ----------
    problem
        ``"quadratic"`` or ``"fused"``.
    geometry
        Linearised costs over epsilon between all cells.
    lift
        How cells become what these are between.
    scale
        What costs within the source population are divided by.
    starts
        What became of each start.
    whole
        Whether all cells are landmarks.
    matrix, potentials, violation
        Between landmarks: scaled costs, both potentials, and how far the marginals are off.
    landmarks
        Rows of the source's landmarks, their weights, and their potentials.
    sizes
        Numbers of landmarks.
    """

    problem: str
    geometry: Geometry
    lift: tuple[Lift, Lift]
    scale: float
    starts: tuple[StartReport, ...]
    whole: bool
    matrix: Float[Array, "k l"]
    potentials: tuple[Float[Array, " k"], Float[Array, " l"]]
    violation: float
    landmarks: tuple[Int[np.ndarray, " k"], Float[Array, " k"], Float[Array, " k"]]
    sizes: tuple[int, int]

    @property
    def sample(self) -> str:
        """What diagnostics say of landmarks."""
        return "" if self.whole else f", {self.sizes[0]} x {self.sizes[1]} landmarks"

    def accepted(self, potentials: Potentials) -> Potentials:
        """Return potentials of all cells, which have converged only if the landmarks' have."""
        return dataclasses.replace(potentials, converged=potentials.converged and self.starts[0].converged)


def linearised(
    key: jax.Array,
    source: Float[Array, "n dx"],
    target: Float[Array, "m dy"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
    *,
    shared: tuple[Float[Array, "n s"], Float[Array, "m s"]] | None = None,
    pairs: Int[np.ndarray, "p 2"] | None = None,
    progress: Progress | None = None,
    init: Coupling | Float[Array | np.ndarray, "_ _"] | None = None,
    only_init: bool = True,
) -> Linearised:
    """Solve the problem over landmarks, and linearise it at the best plan; arguments are those of :func:`quadratic_coupling`."""
    rng = host_rng(key)
    costs = resolve_cost_pair(config.cost)
    sides = [
        Side.of(rng, *side, cost, config, number)
        for number, (side, cost) in enumerate(zip(((source, a), (target, b)), costs, strict=True))
    ]
    left, right = sides
    within, scales = (left.within, right.within), (left.scale, right.scale)
    fused = None if shared is None and pairs is None else SharedTerm.of(sides, costs, config, shared, pairs)
    alpha = 1.0 if fused is None else config.alpha
    shared_costs = None if fused is None else fused.between_landmarks(sides)
    problem = quadratic_problem(
        *within,
        left.weights,
        right.weights,
        config.epsilon,
        shared=shared_costs,
        alpha=alpha,
        taus=(config.tau_source, config.tau_target),
    )
    whole = len(left.chosen) == len(source) and len(right.chosen) == len(target)
    limits = Limits(config.tolerance, max(config.max_iterations // _A_ROUND, 1))
    given = None if init is None else start_plan(init, sides, shared)
    told = {"limits": limits, "progress": progress or SILENT}
    if given is not None and only_init:
        found = follow(problem, given, **told)
    elif min(len(left.chosen), len(right.chosen)) > _SEARCHED and not whole:
        found = search_coarsely(rng, problem, _SEARCHED, shared=fused is not None, given=given, **told)
    else:
        found = search(problem, shared=fused is not None, given=given, **told)
    # Without the cells that fill up its shape: this is the problem that was asked.
    state, matrix, u, v, violation = _unfilled(found, config.tolerance, len(left.chosen), len(right.chosen))

    offset = -alpha * float(np.sum(state.quadratic * state.plan))
    anchored, probes = (left.anchored, right.anchored), None if whole else (_some(left), _some(right))
    lift = lifts(anchored, within, scales, jax.device_put(state.plan), alpha, offset, config.epsilon, probes)
    lift = _filled_up(lift)
    between, features = lifted_cost(), (None, None)
    if fused is not None:
        lift, features = fused.added_to(lift, 1.0 - alpha), (fused.source, fused.target)
        between = lifted_cost(lift[0].map.shape[1] + 2, fused.cost)
    geometry = Geometry(lift[0](source, features[0]), lift[1](target, features[1]), 1.0 / config.epsilon, between)
    return Linearised(
        "quadratic" if fused is None else "fused",
        geometry,
        lift,
        scales[0],
        found.starts,
        whole,
        matrix,
        (u, v),
        violation,
        (left.chosen, left.weights, u),
        (len(left.chosen), len(right.chosen)),
    )


def _filled_up(lift: tuple[Lift, Lift]) -> tuple[Lift, Lift]:
    """Return the lifts with directions of zeros, up to a power of two: how many there are varies with the data."""
    rank = lift[0].map.shape[1]
    more = max(2 ** int(np.ceil(np.log2(rank))), _FEWEST_DIRECTIONS) - rank
    # Through NumPy: padding on the device would be compiled for each rank.
    wider = (jax.device_put(np.pad(np.asarray(one.map), [(0, 0), (0, more)])) for one in lift)
    return tuple(dataclasses.replace(one, map=map_) for one, map_ in zip(lift, wider, strict=True))


def _some(side: Side) -> Float[np.ndarray, "k d"]:
    """Return cells that are no landmarks, where there are some, to measure how well lifted costs hold between them."""
    others = np.setdiff1d(np.arange(len(side.cells)), side.chosen)
    others = others if len(others) else side.chosen
    return np.asarray(side.cells)[
        others[np.linspace(0, len(others) - 1, min(len(others), _PROBES)).round().astype(int)]
    ]


def _unfilled(found: Found, tolerance: float, n: int, m: int):
    """Return the state, the linearised cost with its potentials, and the violation, of the cells that have mass."""
    settled = settle(found.problem, found.state, np.asarray(tolerance, np.float32))
    state, matrix, u, v, violation = jax.device_get((found.state, *settled))
    u, v = u[:n], v[:m]
    state = dataclasses.replace(state, plan=state.plan[:n, :m], quadratic=state.quadratic[:n, :m], u=u, v=v)
    return state, *map(jax.device_put, (matrix[:n, :m], u, v)), float(violation)
