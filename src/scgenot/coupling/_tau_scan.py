"""What tau and epsilon do to a coupling, and which values the data suggest. No label has a say in that."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr, kl_div
from jaxtyping import Array, Float, Shaped

from scgenot._messages import check_count, check_positive, check_unit
from scgenot._progress import SILENT, Progress
from scgenot._sampling import host_rng
from scgenot.costs import AnchoredCost, matrix_scale, resolve_cost, settled
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._inputs import checked_cells
from scgenot.coupling._scan_cells import FEWEST, check_sides, normalised, some_rows
from scgenot.sinkhorn import Geometry, dense_sinkhorn

TAUS = (1.0, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8)
EPSILONS = (0.05, 0.02, 0.01)
# Cells that have a counterpart may lose a tenth of their mass to the noise between cells; eta is then off by as much.
KEPT = 0.9
# A cell's mass may spread over one in twenty target cells: less than most cell types are.
SPREAD = 0.05
# Iterations that a round of dense Sinkhorn takes.
_A_ROUND = 11


@dataclasses.dataclass(frozen=True)
class TauScan:
    """Couplings over a grid of taus and epsilons.

    Attributes
    ----------
    table
        Columns of equal length, a row for each epsilon and tau: ``epsilon``, ``tau``; ``mass``, what is transported
        (1 if balanced); ``kept``, what two random halves of one population keep at the same settings;
        ``source_change`` and ``target_change``, the L1 distance between the plan's marginals and the balanced ones;
        ``effective_targets``, among how many target cells a cell's mass is spread; ``objective``; ``cost``, per unit
        of mass, in units of the scaled cost; ``converged``; and with labels ``purity``, the share of mass between
        equal labels.
    tau, epsilon
        What is suggested.
    why
        One sentence that says why.
    n_source, n_target
        Cells that were used.
    """

    table: dict[str, Shaped[np.ndarray, " rows"]]
    tau: float
    epsilon: float
    why: str
    n_source: int
    n_target: int


def scan_taus(
    key: jax.Array,
    source: Float[jax.Array | np.ndarray, "n d"],
    target: Float[jax.Array | np.ndarray, "m d"],
    *,
    taus: Sequence[float] = TAUS,
    epsilons: Sequence[float] = EPSILONS,
    source_weights: Float[jax.Array | np.ndarray, " n"] | None = None,
    target_weights: Float[jax.Array | np.ndarray, " m"] | None = None,
    source_labels: Shaped[np.ndarray, " n"] | None = None,
    target_labels: Shaped[np.ndarray, " m"] | None = None,
    config: CouplingConfig | None = None,
    max_cells: int = 1000,
    padded: bool = False,
    progress: Progress | None = None,
) -> TauScan:
    """Solve a linear coupling on a grid of taus (both the same) and epsilons, and suggest one of each.

    Suggested is the smallest tau at which cells that do have a counterpart keep theirs: two random halves of one
    population, at the costs, scale and epsilon of the problem itself, must still exchange 90 % of their mass. What
    the two populations lose beyond that is a difference between them. Epsilon is the largest at which the mass of a
    cell spreads over at most 5 % of the target cells. Labels, where given, are only reported on.

    Parameters
    ----------
    key
        Chooses the halves, and the cells of large data.
    source, target
        Cells of the two populations, in one space.
    taus, epsilons
        The grid.
    source_weights, target_weights
        Weights of the cells, uniform if ``None``.
    source_labels, target_labels
        Cell types, for the column ``purity``. They have no influence on anything else.
    config
        Cost, scale, tolerance, limits; its taus and epsilon are replaced by those of the grid.
    max_cells
        At most this many cells a side are used.
    padded
        Whether both sides are filled up to a power of two with cells of no mass, so that scans of other populations run what
        was compiled for this one.
    progress
        Is told of each point of the grid.

    Returns
    -------
    The scan.

    Raises
    ------
    ValueError
        If the grid is empty or has values out of range, if there are fewer than four cells a side, if labels are given
        for one side only or are not one a cell; if the cost is ``"precomputed"``; and as :func:`solve_coupling`.

    Notes
    -----
    The costs are computed once. Within an epsilon, each tau starts from the potentials of the next smaller one, and the
    smallest from those of the epsilon before; all points of the grid run the same compiled program.
    """
    config = (config or CouplingConfig()).resolved("linear")
    taus, epsilons = _grid(taus, epsilons)
    check_count("max_cells", max_cells, minimum=FEWEST)
    x, y = (np.asarray(checked_cells(name, cells)) for name, cells in (("source", source), ("target", target)))
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"taus are scanned in one space, got {x.shape[1]} features in `source` and {y.shape[1]} in `target`. Use "
            "the same representation for both."
        )
    check_sides({"source": (x, source_weights, source_labels), "target": (y, target_weights, target_labels)})
    if (source_labels is None) != (target_labels is None):
        given = "source" if target_labels is None else "target"
        raise ValueError(f"only `{given}_labels` is given. Purity needs the labels of both sides, or give none.")
    rng = host_rng(key)
    rows, columns = some_rows(rng, len(x), max_cells), some_rows(rng, len(y), max_cells)
    a, b = normalised(source_weights, rows, "source"), normalised(target_weights, columns, "target")
    equal = None
    if source_labels is not None:
        equal = np.asarray(source_labels)[rows][:, None] == np.asarray(target_labels)[columns][None, :]
    problems = _problems(rng, x[rows], y[columns], a, b, config, padded)
    progress = progress or SILENT
    progress.stage("taus and epsilons", len(epsilons) * len(taus))
    found = []
    for epsilon in epsilons:
        # Small taus converge fast, and their potentials are near those of the next.
        for tau in sorted(taus):
            numbers = (epsilon, tau, float(config.tolerance), config.max_iterations)
            for problem in problems[: 1 if tau == 1.0 else 3]:
                problem.solve(*numbers)
            kept = 1.0 if tau == 1.0 else float(np.mean([half.mass for half in problems[1:]]))
            found.append({"epsilon": epsilon, "tau": tau, "kept": kept} | problems[0].measures(equal))
            progress.advance(epsilon=epsilon, violation=problems[0].violation)
    found.sort(key=lambda one: (-one["epsilon"], -one["tau"]))
    table = {name: np.asarray([one[name] for one in found]) for name in found[0]}
    return TauScan(table, *_suggest(table, len(columns)), n_source=len(rows), n_target=len(columns))


class _Point:
    """One problem, at the last point of the grid that it was solved at."""

    def __init__(self, costs: Float[np.ndarray, "n m"], a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]):
        self._costs, self._a, self._b = map(jnp.asarray, (costs, a, b))
        # Potentials in units of the cost, which hardly depend on epsilon.
        self._f, self._g = np.zeros(len(a), np.float32), np.zeros(len(b), np.float32)
        self._plan: Float[Array, "n m"] | None = None
        self._numbers: dict[str, float] = {}
        self.violation = float("inf")

    @property
    def mass(self) -> float:
        return self._numbers["mass"]

    def solve(self, epsilon: float, tau: float, tolerance: float, max_iterations: int) -> None:
        """Go on from the potentials at hand."""
        most = max(max_iterations // _A_ROUND, 1)
        # As arrays of one type, so that every point of the grid runs the same program.
        numbers = map(np.float32, (epsilon, tau, tolerance))
        found = _solved(self._costs, self._a, self._b, self._f, self._g, *numbers, most)
        (self._f, self._g, self._plan, violation), numbers = found
        self.violation = float(violation)
        self._numbers = {name: float(value) for name, value in numbers.items()}
        self._converged = self.violation <= tolerance

    def measures(self, equal: np.ndarray | None) -> dict[str, float | bool]:
        row = self._numbers | {"converged": self._converged}
        if equal is None:
            return row
        plan = np.asarray(self._plan, np.float64)[: equal.shape[0], : equal.shape[1]]
        return row | {"purity": float(plan[equal].sum() / plan.sum())}


def _problems(rng: np.random.Generator, x, y, a, b, config: CouplingConfig, padded: bool) -> list[_Point]:
    """Return the problem itself, and one between two random halves of each population, at the same costs and scale.

    Halves are filled up with cells of no mass to one shape, and so is the problem itself if it is to be `padded`.
    """
    # Halves of one population are not displaced, and are measured with the scale of the problem itself.
    cost = resolve_cost(config.cost)
    n = len(x)
    if isinstance(cost, AnchoredCost):
        if cost.name == "precomputed":
            raise ValueError("taus are not scanned over `cost`='precomputed', whose rows belong to all cells.")
        joint = np.concatenate([x, y])
        within = np.asarray(cost.fit(joint, np.arange(len(joint)))(joint))
        across, blocks = within[:n, n:], (within[:n, :n], within[n:, n:])
    else:
        x, cost = settled(x, cost)
        one = lambda left, right: np.asarray(Geometry(jnp.asarray(left), jnp.asarray(right), 1.0, cost).stored().matrix)
        across, blocks = one(x, y), (one(x, x), one(y, y))
    scale = matrix_scale(across, config.scale_of(0))
    sizes = [_power_of_two(size) if padded else size for size in across.shape]
    size = -(-max(sizes) // 2)
    fill = lambda array, shape: np.pad(array, [(0, to - had) for had, to in zip(array.shape, shape, strict=True)])
    problems = [_Point(fill(np.float32(across / scale), sizes), fill(a, sizes[:1]), fill(b, sizes[1:]))]
    for costs, weights in zip(blocks, (a, b), strict=True):
        order = rng.permutation(len(costs))
        left, right = order[: len(order) // 2], order[len(order) // 2 :]
        marginals = (fill(weights[rows] / weights[rows].sum(), [size]) for rows in (left, right))
        problems.append(_Point(fill(np.float32(costs[np.ix_(left, right)] / scale), [size, size]), *marginals))
    return problems


def _power_of_two(n: int) -> int:
    return max(64, 2 ** (n - 1).bit_length())


@jax.jit
def _solved(costs, a, b, f, g, epsilon, tau, tolerance, most):
    """Solve from the potentials f and g; return new ones, the plan and the violation, and what there is to say."""
    scaled = costs / epsilon

    def again(state):
        u, v, _, done = state
        u, v = _translated(u, v, a, b, tau)
        u, v, violation = dense_sinkhorn(scaled, a, b, u, v, (tau, tau), tolerance, 1)
        return u, v, violation, done + 1

    unfinished = lambda state: (state[2] > tolerance) & (state[3] < most)
    u, v, violation, _ = jax.lax.while_loop(unfinished, again, (f / epsilon, g / epsilon, jnp.inf, 0))
    log_ratio = u[:, None] + v[None, :] - scaled
    plan = a[:, None] * b[None, :] * jnp.exp(log_ratio)
    sent, received, mass = plan.sum(axis=1), plan.sum(axis=0), plan.sum()
    some = jnp.where(sent > 0, sent, 1.0)
    entropy = entr(plan).sum(axis=1) / some + jnp.log(some)
    cost = jnp.sum(plan * costs)
    used = plan > 0
    objective = cost + epsilon * (jnp.sum(jnp.where(used, plan * log_ratio, 0.0)) - mass + 1.0)
    penalty = jnp.sum(kl_div(sent, a)) + jnp.sum(kl_div(received, b))
    objective += jnp.where(tau == 1.0, 0.0, epsilon * tau / jnp.maximum(1.0 - tau, 1e-12) * penalty)
    numbers = {
        "mass": mass,
        "source_change": jnp.abs(sent - a).sum(),
        "target_change": jnp.abs(received - b).sum(),
        "effective_targets": jnp.exp(jnp.sum(a * entropy)),
        "objective": objective,
        "cost": cost / mass,
    }
    return (u * epsilon, v * epsilon, plan, violation), numbers


def _translated(u, v, a, b, tau):
    """Move mass between the two penalties at no change of the plan, as far as is best.

    Plain iterations move along this direction by factors of tau squared, hundreds of them for taus near 1 (Sejourne, Vialard
    and Peyre, 2022).
    """
    ratio = tau / jnp.maximum(1.0 - tau, 1e-12)
    shift = 0.5 * ratio * (jax.nn.logsumexp(jnp.log(a) - u / ratio) - jax.nn.logsumexp(jnp.log(b) - v / ratio))
    shift = jnp.where(tau == 1.0, 0.0, shift)
    return u + shift, v - shift


def _grid(taus: Sequence[float], epsilons: Sequence[float]) -> tuple[list[float], list[float]]:
    for name, values in (("taus", taus), ("epsilons", epsilons)):
        if len(values) == 0:
            raise ValueError(f"`{name}` must hold at least one value, got none.")
    for tau in taus:
        check_unit("taus", tau, remedy="1.0 is balanced.")
    for epsilon in epsilons:
        check_positive("epsilons", epsilon, remedy="Start from 0.05, in units of the mean cost.")
    return sorted({float(tau) for tau in taus}, reverse=True), sorted({float(one) for one in epsilons}, reverse=True)


def _suggest(table: dict[str, np.ndarray], n_target: int) -> tuple[float, float, str]:
    """Choose from ``kept`` and ``effective_targets`` alone."""
    narrow, chosen = False, None
    for epsilon in np.unique(table["epsilon"])[::-1]:
        here = np.flatnonzero(table["epsilon"] == epsilon)
        enough = here[table["kept"][here] >= KEPT]
        chosen = int(min(enough, key=lambda row: table["tau"][row])) if len(enough) else None
        place = here[np.argmax(table["tau"][here])] if chosen is None else chosen
        narrow = table["effective_targets"][place] <= SPREAD * n_target
        if narrow:
            break
    epsilon, tau = float(table["epsilon"][place]), float(table["tau"][place])
    spread, kept, mass = (float(table[name][place]) for name in ("effective_targets", "kept", "mass"))
    if chosen is None:
        first = (
            f"tau {tau:g}, the largest given: even there two random halves of one population keep only {kept:.0%} "
            f"of their mass (add larger ones)"
        )
    elif tau == 1.0:
        first = f"tau 1, as at any smaller one given two random halves of one population lose more than {1 - KEPT:.0%}"
    else:
        first = (
            f"tau {tau:g}: two random halves of one population keep {kept:.0%} of their mass there (at least "
            f"{KEPT:.0%} is asked for), the two populations {mass:.0%}"
        )
    if narrow:
        second = (
            f"epsilon {epsilon:g}: the largest given at which a cell's mass spreads over at most {SPREAD:.0%} of the "
            f"target cells ({spread:.0f} of {n_target})"
        )
    else:
        second = (
            f"epsilon {epsilon:g}, the smallest given: a cell's mass still spreads over {spread:.0f} of {n_target} "
            f"target cells, more than {SPREAD:.0%}"
        )
    return tau, epsilon, f"{first}; {second}."
