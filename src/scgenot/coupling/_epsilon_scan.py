"""What epsilon does to a coupling: how wide rows are, and whether the plan is there again when some cells are left out."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Shaped

from scgenot._messages import check_count, check_positive, one_of
from scgenot._progress import SILENT, Progress
from scgenot._sampling import host_rng
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._inputs import checked_cells
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling._scan_cells import FEWEST, check_sides, normalised, some_rows
from scgenot.coupling._solve import solve_coupling
from scgenot.coupling.quadratic._race import SAME_PLAN

EPSILONS = {"linear": (0.1, 0.05, 0.02, 0.01, 0.005), "quadratic": (0.02, 0.01, 0.005, 0.002)}
# Two subsets of this share have .64 of the cells in common.
_SHARE = 0.8
# Two plans agree if the cells' mean targets differ by a tenth of what they vary, in squares: correlations above .9.
AGREE = 0.9
# As in the scan of taus: a cell's mass may spread over one in twenty target cells, less than most cell types are.
SPREAD = 0.05
# Distinct optima whose objectives differ by less than this share cannot be told apart by them: subsets of SNARE-seq have gaps
# of .0001, and end in either.
_GAP = 1e-3


@dataclasses.dataclass(frozen=True)
class EpsilonScan:
    """Couplings over a grid of epsilons.

    Attributes
    ----------
    table
        Columns of equal length, a row for each epsilon, the largest first: ``epsilon``; ``effective_targets``, among how
        many target cells a cell's mass is spread; ``agreement`` between the plans of two random subsets of the cells, in
        the mean targets of the cells that both have (1: the same; 0: as if they were two different plans; below: one
        undoes the other); ``gap``, by which share the objective of the next best start that leads elsewhere is worse
        (infinite if none does, and in linear problems, which have one optimum); ``objective``; ``converged``.
    epsilon
        What is suggested.
    stable
        Whether subsets agree there.
    why
        One or two sentences that say why, and warn where no epsilon is good.
    n_source, n_target
        Cells that were used.
    """

    table: dict[str, Shaped[np.ndarray, " rows"]]
    epsilon: float
    stable: bool
    why: str
    n_source: int
    n_target: int


def scan_epsilons(
    key: jax.Array,
    source: Float[jax.Array | np.ndarray, "n dx"],
    target: Float[jax.Array | np.ndarray, "m dy"],
    *,
    problem: str = "linear",
    epsilons: Sequence[float] | None = None,
    source_weights: Float[jax.Array | np.ndarray, " n"] | None = None,
    target_weights: Float[jax.Array | np.ndarray, " m"] | None = None,
    config: CouplingConfig | None = None,
    max_cells: int = 500,
    progress: Progress | None = None,
) -> EpsilonScan:
    """Solve a linear or quadratic coupling on a grid of epsilons, over all cells and two subsets, and suggest one.

    Suggested is the largest epsilon at which a cell's mass spreads over at most 5 % of the target cells and the plans of two
    random subsets of 80 % of the cells of both sides agree. Where no epsilon does both, agreement goes first; where none
    gives agreement, the data do not determine the coupling, and the answer says so.

    Parameters
    ----------
    key
        Chooses the subsets, and the cells of large data.
    source, target
        Cells of the two populations.
    problem
        ``"linear"`` or ``"quadratic"``.
    epsilons
        The grid; ``None``: 0.1 to 0.005 in linear problems, 0.02 to 0.002 in quadratic ones.
    source_weights, target_weights
        Weights of the cells, uniform if ``None``.
    config
        Costs, taus, tolerance, limits; its epsilon is replaced by those of the grid.
    max_cells
        At most this many cells a side are used.
    progress
        Is told of each coupling that has been solved.

    Returns
    -------
    The scan.

    Raises
    ------
    ValueError
        If the problem is another one, the grid is empty or has values out of range, there are fewer than ten cells a side,
        the cost is ``"precomputed"``; and as :func:`solve_coupling`.
    """
    if problem not in EPSILONS:
        raise ValueError(one_of("problem", problem, EPSILONS))
    epsilons = EPSILONS[problem] if epsilons is None else epsilons
    if len(epsilons) == 0:
        raise ValueError("`epsilons` must hold at least one value, got none.")
    for epsilon in epsilons:
        check_positive("epsilons", epsilon, remedy="Start from 0.05 in linear problems, 0.005 in quadratic ones.")
    epsilons = sorted({float(one) for one in epsilons}, reverse=True)
    config = (config or CouplingConfig()).resolved(problem)
    costs = config.cost if isinstance(config.cost, tuple) else (config.cost,)
    if any(cost == "precomputed" for cost in costs):
        raise ValueError("epsilons are not scanned over `cost`='precomputed', whose rows belong to all cells.")
    check_count("max_cells", max_cells, minimum=FEWEST)
    cells = [np.asarray(checked_cells(name, one)) for name, one in (("source", source), ("target", target))]
    weights = source_weights, target_weights
    check_sides(
        {name: (*one, None) for name, one in zip(("source", "target"), zip(cells, weights, strict=True), strict=True)}
    )
    rng = host_rng(key)
    rows = [some_rows(rng, len(one), max_cells) for one in cells]
    weights = [
        normalised(one, chosen, name) for one, chosen, name in zip(weights, rows, ("source", "target"), strict=True)
    ]
    cells = [one[chosen] for one, chosen in zip(cells, rows, strict=True)]
    everything = [np.arange(len(one)) for one in cells]
    # Of one size each, so that both run the same compiled programs.
    subsets = [[some_rows(rng, len(one), int(np.ceil(_SHARE * len(one)))) for one in cells] for _ in range(2)]
    progress = progress or SILENT
    progress.stage("epsilons", 3 * len(epsilons))
    found = []
    with warnings.catch_warnings():
        # Convergence is a column here.
        warnings.filterwarnings("ignore", message="The (quadratic )?coupling (did not converge|carries only)")
        for epsilon in epsilons:
            one = dataclasses.replace(config, epsilon=epsilon, landmarks=max(max_cells, 2))
            couplings = []
            for chosen in (everything, *subsets):
                couplings.append(_solved(key, cells, weights, chosen, problem, one))
                progress.advance(epsilon=epsilon)
            summary = couplings[0].diagnostics
            found.append(
                {
                    "epsilon": epsilon,
                    "effective_targets": summary.effective_targets,
                    "agreement": _agreement(couplings[1:], subsets, cells[1]),
                    "gap": _gap(summary.starts),
                    "objective": summary.objective,
                    "converged": summary.converged,
                }
            )
    table = {name: np.asarray([one[name] for one in found]) for name in found[0]}
    return EpsilonScan(table, *_suggest(table, len(cells[1])), n_source=len(cells[0]), n_target=len(cells[1]))


def _solved(key, cells, weights, chosen, problem: str, config: CouplingConfig) -> PotentialCoupling:
    (x, y), (a, b) = ([one[rows] for one, rows in zip(parts, chosen, strict=True)] for parts in (cells, weights))
    return solve_coupling(key, x, y, source_weights=a, target_weights=b, problem=problem, config=config)


def _agreement(couplings: list[PotentialCoupling], subsets: list, target: Float[np.ndarray, "m d"]) -> float:
    """Return the concordance of two plans' mean targets over the source cells that both have.

    ``1 - sum |m1 - m2|^2 / (sum |m1 - c|^2 + sum |m2 - c|^2)`` with the mean c of both. Means and not rows are compared: a sharp
    plan gives a cell to the few target cells that are there, which are not the same ones in both subsets.
    """
    both = np.intersect1d(subsets[0][0], subsets[1][0])
    means = []
    for coupling, (rows, columns) in zip(couplings, subsets, strict=True):
        plan = _plan(coupling)[np.searchsorted(rows, both)]
        means.append(plan @ target[columns] / np.maximum(plan.sum(axis=1, keepdims=True), 1e-300))
    centre = 0.5 * (means[0].mean(axis=0) + means[1].mean(axis=0))
    apart = np.square(means[0] - means[1]).sum()
    spread = sum(np.square(one - centre).sum() for one in means)
    return float(1.0 - apart / spread) if spread > 0 else 0.0


def _plan(coupling: PotentialCoupling) -> Float[np.ndarray, "n m"]:
    geometry, found = coupling.geometry.stored(), coupling.potentials
    costs = float(geometry.inverse) * np.asarray(geometry.matrix, np.float64)
    weights = np.asarray(coupling.a, np.float64)[:, None] * np.asarray(coupling.b, np.float64)
    return weights * np.exp(np.where(weights > 0, np.asarray(found.u)[:, None] + np.asarray(found.v) - costs, -np.inf))


def _gap(starts: Sequence) -> float:
    """Return by which share the next start that was followed to another plan is worse, where starts are compared."""
    others = [start.sharp for start in starts[1:] if start.polished and start.overlap < SAME_PLAN]
    return float((min(others) - starts[0].sharp) / abs(starts[0].sharp)) if others else float("inf")


def _suggest(table: dict[str, np.ndarray], n_target: int) -> tuple[float, bool, str]:
    agree = table["agreement"] >= AGREE
    narrow = table["effective_targets"] <= SPREAD * n_target
    if agree.any():
        # Rows go from the largest epsilon down.
        good = agree & narrow
        place = int(np.flatnonzero(good)[0]) if good.any() else int(np.flatnonzero(agree)[-1])
    else:
        place = int(np.argmax(table["agreement"]))
    epsilon, spread, agreement, gap = (
        float(table[name][place]) for name in ("epsilon", "effective_targets", "agreement", "gap")
    )
    rows = f"a cell's mass spreads over {spread:.1f} of {n_target} target cells"
    if not agree.any():
        return (
            epsilon,
            False,
            f"Do not trust this coupling: at no epsilon given do the plans of two random subsets of {_SHARE:.0%} of the "
            f"cells agree (at best {agreement:.2f} at epsilon {epsilon:g}, where {rows}; {AGREE:g} is asked for). The cells "
            "do not determine it. Use more cells, another representation, or shared features or known pairs.",
        )
    sentence = f"epsilon {epsilon:g}: {rows}, and the plans of two random subsets of {_SHARE:.0%} of the cells agree ({agreement:.2f})."
    if not (agree & narrow).any():
        sentence += f" No epsilon given has both agreement and rows of at most {SPREAD:.0%} of the target cells."
    if gap < _GAP:
        sentence += (
            f" Another plan costs only {max(gap, 0.0):.2%} more: look whether it makes more sense, or add shared features or known "
            "pairs."
        )
    return epsilon, True, sentence
