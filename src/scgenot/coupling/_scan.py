"""What tau and epsilon do to a coupling, and which values the data suggest. No label has a say in that."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from scgenot._messages import check_count, check_positive, check_unit
from scgenot.costs import cost_scale, resolve_cost
from scgenot.costs._displaced import settled
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling._solve import _cells, solve_coupling

TAUS = (1.0, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8)
EPSILONS = (0.05, 0.02, 0.01)
# Cells that have a counterpart may lose a tenth of their mass to the noise between cells; eta is then off by as much.
_KEPT = 0.9
# A cell's mass may spread over one in twenty target cells: less than most cell types are.
_SPREAD = 0.05
_FEWEST = 4


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

    Returns
    -------
    The scan.

    Raises
    ------
    ValueError
        If the grid is empty or has values out of range, if there are fewer than four cells a side, if labels are given
        for one side only or are not one a cell; and as :func:`solve_coupling`.
    """
    config = (config or CouplingConfig()).resolved("linear")
    taus, epsilons = _grid(taus, epsilons)
    check_count("max_cells", max_cells, minimum=_FEWEST)
    x, y = (np.asarray(_cells(name, cells)) for name, cells in (("source", source), ("target", target)))
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"taus are scanned in one space, got {x.shape[1]} features in `source` and {y.shape[1]} in `target`. Use "
            "the same representation for both."
        )
    _check({"source": (x, source_weights, source_labels), "target": (y, target_weights, target_labels)})
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    x, a, x_labels = _some(rng, (x, source_weights, source_labels), max_cells)
    y, b, y_labels = _some(rng, (y, target_weights, target_labels), max_cells)
    # Halves of one population are not displaced, and are measured with the scale of the problem itself.
    x, cost = settled(x, resolve_cost(config.cost))
    scale = cost_scale(cost, jnp.asarray(x), jnp.asarray(y), config.scale_cost)
    config = dataclasses.replace(config, cost=cost, scale_cost=scale)
    halves = [_halves(rng, x, a), _halves(rng, y, b)]
    equal = None if x_labels is None else x_labels[:, None] == y_labels[None, :]

    rows = []
    with warnings.catch_warnings():
        # Convergence and mass are columns here.
        warnings.filterwarnings("ignore", message="The coupling did not converge")
        warnings.filterwarnings("ignore", message="The coupling carries only")
        for epsilon in epsilons:
            for tau in taus:
                one = dataclasses.replace(config, epsilon=epsilon, tau_source=tau, tau_target=tau)
                found = solve_coupling(key, x, y, source_weights=a, target_weights=b, config=one)
                kept = 1.0 if tau == 1.0 else float(np.mean([_mass(key, half, one) for half in halves]))
                rows.append({"epsilon": epsilon, "tau": tau, "kept": kept} | _measures(found, equal))
    table = {name: np.asarray([row[name] for row in rows]) for name in rows[0]}
    return TauScan(table, *_suggest(table, len(y)), n_source=len(x), n_target=len(y))


def _grid(taus: Sequence[float], epsilons: Sequence[float]) -> tuple[list[float], list[float]]:
    for name, values in (("taus", taus), ("epsilons", epsilons)):
        if len(values) == 0:
            raise ValueError(f"`{name}` must hold at least one value, got none.")
    for tau in taus:
        check_unit("taus", tau, remedy="1.0 is balanced.")
    for epsilon in epsilons:
        check_positive("epsilons", epsilon, remedy="Start from 0.05, in units of the mean cost.")
    return sorted({float(tau) for tau in taus}, reverse=True), sorted({float(one) for one in epsilons}, reverse=True)


def _check(sides: dict[str, tuple]) -> None:
    for name, (cells, weights, labels) in sides.items():
        if len(cells) < _FEWEST:
            raise ValueError(f"`{name}` must have at least {_FEWEST} cells, to be halved, got {len(cells)}.")
        for what, values in (("weights", weights), ("labels", labels)):
            if values is not None and np.shape(values) != (len(cells),):
                raise ValueError(
                    f"`{name}_{what}` must hold one value for each of the {len(cells)} cells, got shape "
                    f"{np.shape(values)}."
                )
    given = [name for name, (_, _, labels) in sides.items() if labels is not None]
    if len(given) == 1:
        raise ValueError(f"only `{given[0]}_labels` is given. Purity needs the labels of both sides, or give none.")


def _some(rng: np.random.Generator, side: tuple, most: int) -> list:
    n = len(side[0])
    if n <= most:
        return [side[0], *(None if values is None else np.asarray(values) for values in side[1:])]
    rows = np.sort(rng.choice(n, most, replace=False))
    return [None if values is None else np.asarray(values)[rows] for values in side]


def _halves(rng: np.random.Generator, cells: np.ndarray, weights: np.ndarray | None) -> list:
    order: Int[np.ndarray, " n"] = rng.permutation(len(cells))
    parts = order[: len(cells) // 2], order[len(cells) // 2 :]
    return [cells[rows] for rows in parts] + [None if weights is None else weights[rows] for rows in parts]


def _mass(key: jax.Array, half: list, config: CouplingConfig) -> float:
    left, right, a, b = half
    found = solve_coupling(key, left, right, source_weights=a, target_weights=b, config=config)
    return float(jnp.sum(found.source_marginal))


def _measures(found: PotentialCoupling, equal: np.ndarray | None) -> dict[str, float | bool]:
    geometry, potentials, summary = found.geometry.stored(), found.potentials, found.diagnostics
    costs = geometry.inverse * geometry.matrix
    log_plan = (potentials.u + jnp.log(found.a))[:, None] + (potentials.v + jnp.log(found.b))[None, :] - costs
    plan = np.asarray(jnp.exp(log_plan), np.float64)
    sent, received = plan.sum(axis=1), plan.sum(axis=0)
    mass = plan.sum()
    row = {
        "mass": summary.mass,
        "source_change": float(np.abs(sent - np.asarray(found.a)).sum()),
        "target_change": float(np.abs(received - np.asarray(found.b)).sum()),
        "effective_targets": summary.effective_targets,
        "objective": summary.objective,
        "cost": float((plan * np.asarray(costs)).sum() / mass) * summary.epsilon,
        "converged": summary.converged,
    }
    return row if equal is None else row | {"purity": float(plan[equal].sum() / mass)}


def _suggest(table: dict[str, np.ndarray], n_target: int) -> tuple[float, float, str]:
    """Choose from ``kept`` and ``effective_targets`` alone."""
    narrow, chosen = False, None
    for epsilon in np.unique(table["epsilon"])[::-1]:
        here = np.flatnonzero(table["epsilon"] == epsilon)
        enough = here[table["kept"][here] >= _KEPT]
        chosen = int(min(enough, key=lambda row: table["tau"][row])) if len(enough) else None
        place = here[np.argmax(table["tau"][here])] if chosen is None else chosen
        narrow = table["effective_targets"][place] <= _SPREAD * n_target
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
        first = f"tau 1, as at any smaller one given two random halves of one population lose more than {1 - _KEPT:.0%}"
    else:
        first = (
            f"tau {tau:g}: two random halves of one population keep {kept:.0%} of their mass there (at least "
            f"{_KEPT:.0%} is asked for), the two populations {mass:.0%}"
        )
    if narrow:
        second = (
            f"epsilon {epsilon:g}: the largest given at which a cell's mass spreads over at most {_SPREAD:.0%} of the "
            f"target cells ({spread:.0f} of {n_target})"
        )
    else:
        second = (
            f"epsilon {epsilon:g}, the smallest given: a cell's mass still spreads over {spread:.0f} of {n_target} "
            f"target cells, more than {_SPREAD:.0%}"
        )
    return tau, epsilon, f"{first}; {second}."
