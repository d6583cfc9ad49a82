"""The scans of tau and epsilon over the blocks of several conditions, under the one scale of the cost that their plans share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from scgenot._progress import Progress
from scgenot.costs import AnchoredCost, resolve_cost
from scgenot.coupling._blocks import Rows, features_of
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._epsilon_scan import AGREE, EpsilonScan, scan_epsilons
from scgenot.coupling._epsilon_scan import SPREAD as EPSILON_SPREAD
from scgenot.coupling._solve_blocks import BlockCells, block_weights, checked_blocks, one_scale
from scgenot.coupling._tau_scan import EPSILONS, KEPT, SPREAD, TAUS, TauScan, scan_taus

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class BlockTauScan:
    """Scans of taus over several blocks, and one suggestion for all.

    Attributes
    ----------
    scans
        One a block, as if it were alone but for the scale of the cost.
    tau, epsilon
        What is suggested for all blocks.
    why
        Sentences that say why, and which blocks it does not suit.
    """

    scans: tuple[TauScan, ...]
    tau: float
    epsilon: float
    why: str


@dataclasses.dataclass(frozen=True)
class BlockEpsilonScan:
    """Scans of epsilons over several blocks, and one suggestion for all.

    Attributes
    ----------
    scans
        One a block, as if it were alone but for the scale of the cost.
    epsilon
        What is suggested for all blocks.
    stable
        Whether subsets agree there in each block.
    why
        Sentences that say why, and which blocks it does not suit.
    """

    scans: tuple[EpsilonScan, ...]
    epsilon: float
    stable: bool
    why: str


def scan_block_taus(
    key: jax.Array,
    source: Float[Array | np.ndarray, "n d"],
    target: Float[Array | np.ndarray, "m d"],
    blocks: Sequence[tuple[Rows, Rows]],
    *,
    scanned: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    taus: Sequence[float] = TAUS,
    epsilons: Sequence[float] = EPSILONS,
    gamma: float = 0.5,
    source_weights: Float[Array | np.ndarray, " n"] | None = None,
    target_weights: Float[Array | np.ndarray, " m"] | None = None,
    source_labels: Shaped[np.ndarray, " n"] | None = None,
    target_labels: Shaped[np.ndarray, " m"] | None = None,
    config: CouplingConfig | None = None,
    max_cells: int = 1000,
    progress: Progress | None = None,
) -> BlockTauScan:
    """Scan taus and epsilons in several blocks under one scale of the cost, and suggest one of each for all.

    At each epsilon the tau is the *largest* of those that blocks need alone: below it, some block would lose cells that do have a
    counterpart, while above it a block only shows less of what it lost. Epsilon is the largest of those at which most blocks,
    all of them if there is such a one, have a cell's mass spread over at most 5 % of their target cells.

    Parameters
    ----------
    key
        Chooses halves, and the cells of large blocks.
    source, target
        Cells of all conditions, in one space.
    blocks, gamma
        As in :func:`solve_blocks`: all blocks of the model have a say in the scale of the cost.
    scanned
        Numbers of the blocks that are scanned; all by default.
    names
        What sentences and messages call the blocks; their numbers by default.
    taus, epsilons, config, max_cells, progress
        As in :func:`scan_taus`, `max_cells` a block.
    source_weights, target_weights
        Weights of the cells; within each block they are normalised to sum to 1.
    source_labels, target_labels
        Cell types, for the column ``purity``.

    Returns
    -------
    The scans, and what they suggest together.

    Raises
    ------
    ValueError
        As :func:`scan_taus`, with the name of the block before it, and as :func:`solve_blocks`; if the cost is not one between
        two cells, so that blocks have no scale in common.
    """
    config = _one_scale(source, target, blocks, "linear", gamma, source_weights, target_weights, config)
    labels = None if source_labels is None or target_labels is None else (source_labels, target_labels)

    def scan(number: int, key: jax.Array, left: Rows, right: Rows) -> TauScan:
        own = features_of(labels, left, right) or (None, None)
        return scan_taus(
            key,
            np.asarray(source)[left],
            np.asarray(target)[right],
            taus=taus,
            epsilons=epsilons,
            source_weights=_some(source_weights, left),
            target_weights=_some(target_weights, right),
            source_labels=own[0],
            target_labels=own[1],
            config=config,
            max_cells=max_cells,
            padded=True,
            progress=progress,
        )

    scans, called = _scans(scan, key, blocks, scanned, names)
    return BlockTauScan(scans, *_common_tau(scans, called))


def scan_block_epsilons(
    key: jax.Array,
    source: Float[Array | np.ndarray, "n dx"],
    target: Float[Array | np.ndarray, "m dy"],
    blocks: Sequence[tuple[Rows, Rows]],
    *,
    scanned: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    problem: str = "linear",
    epsilons: Sequence[float] | None = None,
    gamma: float = 0.5,
    source_weights: Float[Array | np.ndarray, " n"] | None = None,
    target_weights: Float[Array | np.ndarray, " m"] | None = None,
    config: CouplingConfig | None = None,
    max_cells: int = 500,
    progress: Progress | None = None,
) -> BlockEpsilonScan:
    """Scan epsilons in several blocks under one scale of the cost, and suggest one for all.

    Suggested is the epsilon at which most blocks, all of them if there is such a one, have plans that two subsets agree on *and*
    narrow rows; of several the largest. Where no block ever has both, it is the smallest at which most blocks agree, and where
    none agrees, that of the best agreement on average. A network shared by all cannot have an epsilon for each: one that most
    blocks can stand is what there is, and the blocks that cannot are named, to be looked at or left out.

    Parameters
    ----------
    key
        Chooses subsets, and the cells of large blocks.
    source, target
        Cells of all conditions.
    blocks, gamma
        As in :func:`solve_blocks`: all blocks of the model have a say in the scale of the cost.
    scanned
        Numbers of the blocks that are scanned; all by default.
    names
        What sentences and messages call the blocks; their numbers by default.
    problem, epsilons, config, max_cells, progress
        As in :func:`scan_epsilons`, `max_cells` a block. Between spaces each block is solved alone, by its own starts: whether
        its cells determine a plan is what is asked. A model starts all blocks from one reference plan instead.
    source_weights, target_weights
        Weights of the cells; within each block they are normalised to sum to 1.

    Returns
    -------
    The scans, and what they suggest together.

    Raises
    ------
    ValueError
        As :func:`scan_epsilons`, with the name of the block before it, and as :func:`solve_blocks`.
    """
    config = _one_scale(source, target, blocks, problem, gamma, source_weights, target_weights, config)

    def scan(number: int, key: jax.Array, left: Rows, right: Rows) -> EpsilonScan:
        return scan_epsilons(
            key,
            np.asarray(source)[left],
            np.asarray(target)[right],
            problem=problem,
            epsilons=epsilons,
            source_weights=_some(source_weights, left),
            target_weights=_some(target_weights, right),
            config=config,
            max_cells=max_cells,
            progress=progress,
        )

    scans, called = _scans(scan, key, blocks, scanned, names)
    return BlockEpsilonScan(scans, *_common_epsilon(scans, called))


def _some(weights: Any, rows: Rows) -> Any:
    return None if weights is None else np.asarray(weights)[rows]


def _one_scale(source, target, blocks, problem: str, gamma, source_weights, target_weights, config) -> CouplingConfig:
    """Return the config with the scale that all blocks share, as :func:`solve_blocks` finds it."""
    config = (config or CouplingConfig()).resolved(problem)
    # Asked here: there is no number to be given instead, as there is for a model.
    if (
        problem == "linear"
        and isinstance(resolve_cost(config.cost), AnchoredCost)
        and isinstance(config.scale_cost, str)
    ):
        raise ValueError(
            f"`cost`={config.cost!r} is measured among the cells of one population, so that several conditions have no scale "
            "in common. Use a cost between two cells, such as 'sqeuclidean', or scan one pair of populations at a time."
        )
    cells = BlockCells.of(source, target, source_weights, target_weights, problem, None, None)
    rows = checked_blocks(blocks, len(cells.source), len(cells.target))
    return dataclasses.replace(config, scale_cost=one_scale(cells, rows, block_weights(rows, gamma), problem, config))


def _scans(
    scan: Callable[..., Any],
    key: jax.Array,
    blocks: Sequence,
    scanned: Sequence[int] | None,
    names: Sequence[str] | None,
) -> tuple[tuple[Any, ...], list[str]]:
    numbers = list(range(len(blocks))) if scanned is None else [int(one) for one in scanned]
    if not numbers or not set(numbers) <= set(range(len(blocks))):
        raise ValueError(f"`scanned` must name some of the {len(blocks)} blocks by their numbers, got {numbers}.")
    called = [f"block {number}" if names is None else str(names[number]) for number in numbers]
    found = []
    for number, name in zip(numbers, called, strict=True):
        try:
            # By its number: a block is scanned alike whichever others are.
            found.append(scan(number, jax.random.fold_in(key, number), *map(np.asarray, blocks[number])))
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
    return tuple(found), called


def _common_tau(scans: tuple[TauScan, ...], names: list[str]) -> tuple[float, float, str]:
    """Choose from ``kept`` and ``effective_targets`` alone, as each scan does."""
    first = scans[0].table
    taus = np.unique(first["tau"])
    at = lambda name, epsilon, tau: np.array(
        [one.table[name][(one.table["epsilon"] == epsilon) & (one.table["tau"] == tau)][0] for one in scans]
    )
    most = np.array([SPREAD * one.n_target for one in scans])
    choices = []
    for epsilon in np.unique(first["epsilon"])[::-1]:
        kept = np.stack([at("kept", epsilon, tau) for tau in taus], axis=1)
        # The smallest tau that keeps enough, the largest where none does.
        needed = np.array([taus[np.argmax(row >= KEPT)] if (row >= KEPT).any() else taus[-1] for row in kept])
        tau = float(needed.max())
        choices.append((float(epsilon), tau, needed, at("effective_targets", epsilon, tau) <= most))
    # From the largest epsilon down; the smallest where no block has narrow rows.
    best = max(choices, key=lambda one: (int(one[3].sum()), one[0] if one[3].any() else -one[0]))
    epsilon, tau, needed, narrow = best
    lost = at("kept", epsilon, tau) < KEPT
    binding = [name for name, own in zip(names, needed, strict=True) if own == tau]
    if lost.any():
        why = (
            f"tau {tau:g}, the largest given: even there two random halves of one population keep less than {KEPT:.0%} of their "
            f"mass in {_some_of(names, lost)} (add larger ones)"
        )
    elif tau == needed.min():
        why = f"tau {tau:g}: what each {_count(names)} needs alone for two random halves of one population to keep {KEPT:.0%}"
    else:
        why = (
            f"tau {tau:g}: the largest of what the {len(names)} conditions need alone ({needed.min():g} to {needed.max():g}), for "
            f"{_listed(binding)}, where two random halves of one population lose more than {1 - KEPT:.0%} at smaller ones"
        )
    rows = f"a cell's mass spreads over at most {SPREAD:.0%} of the target cells"
    if narrow.all():
        why += f"; epsilon {epsilon:g}: the largest given at which {rows} in all of them"
    elif narrow.any():
        why += f"; epsilon {epsilon:g}: {rows} in {narrow.sum()} of {len(names)}, not in {_some_of(names, ~narrow)}"
    else:
        why += f"; epsilon {epsilon:g}, the smallest given: in none of them a cell's mass keeps to {SPREAD:.0%} of the target cells"
    return tau, epsilon, f"{why}."


def _common_epsilon(scans: tuple[EpsilonScan, ...], names: list[str]) -> tuple[float, bool, str]:
    epsilons = scans[0].table["epsilon"]
    table = lambda name: np.stack([one.table[name] for one in scans])
    agreement = table("agreement")
    agree = agreement >= AGREE
    good = agree & (table("effective_targets") <= EPSILON_SPREAD * np.array([[one.n_target] for one in scans]))
    # Rows go from the largest epsilon down.
    places = range(len(epsilons))
    if good.any():
        place = max(places, key=lambda k: (good[:, k].sum(), agree[:, k].sum(), -k))
    elif agree.any():
        place = max(places, key=lambda k: (agree[:, k].sum(), k))
    else:
        place = max(places, key=lambda k: agreement[:, k].mean())
    epsilon, here, well = float(epsilons[place]), agree[:, place], good[:, place]
    subsets = "the plans of two random subsets of a condition agree"
    if not here.any():
        return (
            epsilon,
            False,
            f"Do not trust these couplings: at no epsilon given do the plans of two random subsets of a condition agree, in none of "
            f"{len(names)} (best on average at epsilon {epsilon:g}, {agreement[:, place].mean():.2f}; {AGREE:g} is asked for). Use more "
            "cells, another representation, or fewer `match_keys`.",
        )
    if well.all():
        why = f"epsilon {epsilon:g}: the largest given at which rows are narrow and {subsets}, in {_all(names)}."
    else:
        why = f"epsilon {epsilon:g}: rows are narrow and {subsets} in {well.sum()} of {len(names)}"
        if (here & ~well).any():
            why += f"; rows are wide in {_some_of(names, here & ~well)}"
        if (~here).any():
            why += f"; subsets do not agree in {_some_of(names, ~here)}, whose cells do not determine a plan there"
        why += ". Its own scan says what each needs alone."
    return epsilon, bool(here.all()), why


def _some_of(names: list[str], which: np.ndarray) -> str:
    return _listed([name for name, one in zip(names, which, strict=True) if one])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _count(names: list[str]) -> str:
    return "condition" if len(names) == 1 else f"of the {len(names)} conditions"


def _all(names: list[str]) -> str:
    return _listed(names) if len(names) == 1 else f"all {len(names)} conditions"
