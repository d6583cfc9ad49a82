"""From the cells of all conditions to a coupling of blocks: one scale, one orientation, a few sizes."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._messages import is_number, one_of
from scgenot._progress import SILENT, Progress
from scgenot._sizes import padded_size
from scgenot.costs import AnchoredCost, cost_scale, resolve_cost, resolve_cost_pair
from scgenot.coupling._base import Coupling, StartReport
from scgenot.coupling._blocks import Block, BlockCoupling, Rows, checked_rows, checked_weights, features_of
from scgenot.coupling._config import CostScales, CouplingConfig
from scgenot.coupling._inputs import checked_cells
from scgenot.coupling._kinds import Global, Kind, kind_named
from scgenot.coupling._orientation import agreement, reference_coupling
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling._solve import Asked, Solver, complaints, in_common, resolved_solver, solved
from scgenot.coupling.quadratic._sides import Side

_ORIENTATIONS = ("reference", "checked", "free")
# Plans whose rows correlate less than this are of different orientations: the same one gives .9 and more, another one of clouds
# with symmetries 0 or less.
_AGREES = 0.5
# A lower objective is one if it is lower by more than this share: less is what starts that tie differ by.
_LOWER = 1e-3


def solve_blocks(
    key: jax.Array,
    source: Float[Array | np.ndarray, "n dx"],
    target: Float[Array | np.ndarray, "m dy"],
    blocks: Sequence[tuple[Rows, Rows]],
    *,
    gamma: float = 0.5,
    source_weights: Float[Array | np.ndarray, " n"] | None = None,
    target_weights: Float[Array | np.ndarray, " m"] | None = None,
    shared: tuple[Float[Array | np.ndarray, "n s"], Float[Array | np.ndarray, "m s"]] | None = None,
    pairs: Int[np.ndarray, "p 2"] | None = None,
    problem: str = "linear",
    kind: str | Kind = "global",
    config: CouplingConfig | None = None,
    orientation: str | None = None,
    names: Sequence[str] | None = None,
    progress_bar: bool = False,
) -> BlockCoupling:
    """Couple the source and target cells of each condition, all conditions under one scale of the cost.

    Parameters
    ----------
    key
        JAX key.
    source, target
        Cells of all conditions.
    blocks
        For each condition the rows of its source cells (which may serve several conditions) and of its target cells.
    gamma
        A block of n target cells has ``n ** gamma`` shares of a training batch: 1 as they are, 0 all alike.
    source_weights, target_weights
        Weights of the cells; within each block they are normalised to sum to 1.
    shared
        Features of all cells that both populations have, for fused problems.
    pairs
        Instead of `shared`: rows of source and target cells that are known to correspond. Each block has those whose cells
        both belong to it, and needs at least one.
    problem, kind, config
        As in :func:`solve_coupling`. With a named ``scale_cost`` each cost (between two cells of a linear problem; within
        the source, within the target and between shared features of others) has one scale: the mean over the blocks, in
        proportion to their shares of a batch, of what it would be in each alone. Cells of different blocks are never
        compared, so that what lies between blocks has no part in it. By known `pairs` each block has features of its
        own, whose scale is the block's own.
    orientation
        How the blocks of a quadratic or fused problem, each of which alone could come out mirrored, are kept alike.
        ``"reference"``: a plan between a sample of all cells, up to 1024 a side, is found from many starts, and each block
        starts from what it implies for its cells, and from nothing else. ``"checked"``: each is also solved freely, at many
        times the cost, to warn where it prefers another orientation; the reference's is kept. ``"free"``: each alone.
        ``None`` is ``"reference"`` where the kind allows it, and ``"free"`` with low-rank plans. Minibatches share one
        reference batch.
    names
        What messages call the blocks; their numbers by default.
    progress_bar
        Whether to show how many blocks are solved.

    Returns
    -------
    The coupling of all blocks. Blocks that have not converged, or have left the reference, are named in a warning.

    Raises
    ------
    ValueError
        If there are no blocks, one has no cells or names rows that are not there; if one scale cannot be found; and as
        :func:`solve_coupling`, with the number of the block before it.

    Notes
    -----
    Blocks of like size share what is compiled for them: it is compiled for a few sizes, up to which they are filled with cells
    that have no weight. Costs of solved blocks are not stored.
    """
    cells = BlockCells.of(source, target, source_weights, target_weights, problem, shared, pairs)
    rows = checked_blocks(blocks, len(cells.source), len(cells.target))
    weights = block_weights(rows, gamma)
    largest = max(len(left) * len(right) for left, right in rows)
    config, solver = resolved_solver(problem, kind, config, largest)
    orientation = _checked_orientation(orientation, problem, kind_named(kind))
    config = dataclasses.replace(config, scale_cost=one_scale(cells, rows, weights, problem, config))
    with Progress(progress_bar) as progress:
        solve = _BlockSolver(key, cells, problem, solver, config, orientation)
        solve.prepare(rows, weights, progress)
        progress.stage("blocks", len(rows))
        parts = []
        for number, one in enumerate(rows):
            try:
                parts.append(solve(number, *one))
            except ValueError as error:
                called = f"block {number}" if names is None else repr(names[number])
                raise ValueError(f"{called}: {error}") from error
            progress.advance()
    for said in solve.said(names):
        warnings.warn(said, RuntimeWarning, stacklevel=2)
    return BlockCoupling(tuple(parts), (len(cells.source), len(cells.target)), weights)


@dataclasses.dataclass(frozen=True)
class BlockCells:
    """All cells with their weights, and what they share."""

    source: Float[np.ndarray, "n dx"]
    target: Float[np.ndarray, "m dy"]
    a: Float[np.ndarray, " n"]
    b: Float[np.ndarray, " m"]
    shared: tuple[Float[np.ndarray, "n s"], Float[np.ndarray, "m s"]] | None
    pairs: Int[np.ndarray, "p 2"] | None

    @classmethod
    def of(cls, source, target, source_weights, target_weights, problem, shared, pairs) -> BlockCells:
        source, target = (np.asarray(checked_cells(*one)) for one in (("source", source), ("target", target)))
        a, b = checked_weights(source_weights, target_weights, len(source), len(target))
        given = in_common(problem, shared, pairs, len(source), len(target))
        features = given.get("shared")
        features = None if features is None else tuple(np.asarray(one) for one in features)
        return cls(source, target, a, b, features, given.get("pairs"))

    def mixture(self, rows: list[tuple[Rows, Rows]], weights: Float[np.ndarray, " blocks"]) -> tuple[Any, Any]:
        """Return the weights of all cells in the mixture of the blocks."""
        whole = np.zeros(len(self.source)), np.zeros(len(self.target))
        for one, weight in zip(rows, weights, strict=True):
            for mass, prior, own in zip(whole, (self.a, self.b), one, strict=True):
                mass[own] += weight * prior[own] / max(prior[own].sum(), 1e-300)
        return whole

    def block(self, left: Rows, right: Rows, *, filled: bool) -> Asked:
        """Return the cells of one block, filled up to a size on the ladder with copies that have no weight."""
        fill = _filled if filled else lambda array: array
        a, b = (np.pad(one, (0, len(fill(one)) - len(one))) for one in (self.a[left], self.b[right]))
        shared = features_of(self.shared, left, right)
        shared = None if shared is None else tuple(map(fill, shared))
        return Asked(fill(self.source[left]), fill(self.target[right]), a, b, shared, self._pairs_of(left, right))

    def _pairs_of(self, left: Rows, right: Rows) -> Int[np.ndarray, "q 2"] | None:
        if self.pairs is None:
            return None
        places = [np.full(len(side), -1) for side in (self.source, self.target)]
        for place, own in zip(places, (left, right), strict=True):
            place[own] = np.arange(len(own))
        found = np.stack([place[one] for place, one in zip(places, self.pairs.T, strict=True)], axis=1)
        found = found[(found >= 0).all(axis=1)]
        if not len(found):
            raise ValueError(
                "none of the `pairs` has both cells in it. Add one, leave the block out, or give `shared`."
            )
        return found


@dataclasses.dataclass
class _BlockSolver:
    """Solves one block after the other, and remembers what one has to know of them."""

    key: jax.Array
    cells: BlockCells
    problem: str
    solver: Solver
    config: CouplingConfig
    orientation: str
    reference: Any = None
    pooled: Coupling | None = None

    def __post_init__(self) -> None:
        self._complaints: dict[int, str] = {}
        self._left: dict[int, float] = {}
        self._prefers: dict[int, float] = {}

    def prepare(self, rows: list[tuple[Rows, Rows]], weights: Float[np.ndarray, " blocks"], progress: Progress) -> None:
        """Find what all blocks have in common: a reference plan, or the reference batch of minibatches."""
        cells = self.cells
        if self.orientation == "free" or self.problem == "linear" or len(rows) == 1:
            return
        mixture = cells.mixture(rows, weights)
        if self.solver.starts_from:
            self.reference = reference_coupling(
                self.key,
                (cells.source, cells.target),
                mixture,
                self.config,
                shared=cells.shared,
                pairs=cells.pairs,
                progress=progress,
            )
        else:
            whole = Asked(cells.source, cells.target, *mixture, cells.shared, cells.pairs)
            self.pooled = solved(self.key, whole, self.problem, self.solver, self.config, progress=progress)

    def __call__(self, number: int, left: Rows, right: Rows) -> Block:
        """Solve a block."""
        # Solvers of whole plans fill up what they compile for.
        own = self.cells.block(left, right, filled=not self.solver.known_plan)
        if self.pooled is not None:
            found = self.pooled.extend(
                own.source,
                own.target,
                source_weights=own.source_weights,
                target_weights=own.target_weights,
                shared=own.shared,
            )
            return Block(left, right, found)
        found = self._solved(number, own, init=self.reference)
        for said in complaints(found, self.solver, self.config):
            self._complaints.setdefault(number, said)
        agrees = None
        if self.reference is not None and isinstance(found, PotentialCoupling):
            agrees = agreement(found, self.reference, (own.source, own.target), shared=own.shared)
            if agrees < _AGREES:
                self._left[number] = agrees
            if self.orientation == "checked":
                found = self._checked(number, own, found)
        return Block(left, right, found.light() if isinstance(found, PotentialCoupling) else found, agrees)

    def _solved(self, number: int, own: Asked, **start: Any) -> Coupling:
        key = jax.random.fold_in(self.key, number)
        return solved(key, own, self.problem, self.solver, self.config, progress=SILENT, **start)

    def _checked(self, number: int, own: Asked, found: PotentialCoupling) -> PotentialCoupling:
        """Solve the block freely as well; return it with the best of its own starts in its report."""
        free = self._solved(number, own)
        assert isinstance(free, PotentialCoupling)
        best = free.starts[0]
        agrees = agreement(found, free, (own.source, own.target), shared=own.shared)
        ours = found.starts[0].objective
        if agrees < _AGREES and best.objective < ours - _LOWER * abs(ours):
            self._prefers[number] = best.objective / ours - 1.0
        report = StartReport(
            f"free: {best.start}", best.objective, best.iterations, best.plan_change, True, best.converged
        )
        return dataclasses.replace(found, starts=(*found.starts, report))

    def said(self, names: Sequence[str] | None = None) -> list[str]:
        """Return a sentence for each thing about the blocks that one has to know."""
        said = []
        if self._complaints:
            number, first = next(iter(self._complaints.items()))
            others = (
                f" So for {len(self._complaints)} blocks: {_names(self._complaints, names)}."
                if len(self._complaints) > 1
                else ""
            )
            said.append(f"Block {_names([number], names)}: {first}{others}")
        if self._left:
            said.append(
                f"Blocks {_names(self._left, names)} have left the orientation of the reference plan (agreement "
                f"{min(self._left.values()):.2g} at the least): between the spaces they may be mirrored. Look at their "
                "`agreement`, and leave out those that are not alike, or give `shared` features or `pairs`."
            )
        if self._prefers:
            said.append(
                f"Blocks {_names(self._prefers, names)} alone prefer another orientation than that of the reference plan (objective "
                f"lower by up to {-100 * min(self._prefers.values()):.2g} %). The reference's is kept; orientation='free' takes theirs."
            )
        return said


def _names(numbers: Iterable[int], names: Sequence[str] | None) -> str:
    numbers = list(numbers)
    some = [str(number) if names is None else repr(names[number]) for number in numbers[:10]]
    return ", ".join(some) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")


def _checked_orientation(orientation: str | None, problem: str, kind: str) -> str:
    if orientation is None:
        return "free" if kind == "low_rank" or problem == "linear" else "reference"
    if orientation not in _ORIENTATIONS:
        raise ValueError(one_of("orientation", orientation, _ORIENTATIONS))
    if problem == "linear":
        raise ValueError(
            "`orientation` belongs to quadratic and fused problems: in one space nothing is mirrored. Leave it out."
        )
    if kind == "low_rank" and orientation != "free":
        raise ValueError(
            f"`orientation`={orientation!r}: low-rank plans cannot start from another plan. Use kind='global'."
        )
    if kind == "minibatch" and orientation == "checked":
        raise ValueError("`orientation`='checked' compares plans, which minibatches do not have. Use kind='global'.")
    return orientation


def checked_blocks(blocks: Sequence[tuple[Any, Any]], n: int, m: int) -> list[tuple[Rows, Rows]]:
    if len(blocks) == 0:
        raise ValueError("`blocks` must hold at least one pair of source and target rows, got none.")
    rows = [
        (checked_rows(number, left, n), checked_rows(number, right, m)) for number, (left, right) in enumerate(blocks)
    ]
    for number, one in enumerate(rows):
        if not min(map(len, one)):
            raise ValueError(f"block {number} has {len(one[0])} source and {len(one[1])} target cells. Leave it out.")
    return rows


def block_weights(rows: list[tuple[Rows, Rows]], gamma: float) -> Float[np.ndarray, " blocks"]:
    """Return the share of each block in a training batch: in proportion to its target cells to the power of `gamma`."""
    if not is_number(gamma) or not 0.0 <= gamma <= 1.0:
        raise ValueError(f"`gamma` must lie in [0, 1], got {gamma!r}. 0 draws all blocks equally often.")
    weights = np.array([len(right) for _, right in rows], np.float64) ** gamma
    return weights / weights.sum()


def one_scale(
    cells: BlockCells,
    rows: list[tuple[Rows, Rows]],
    weights: Float[np.ndarray, " blocks"],
    problem: str,
    config: CouplingConfig,
) -> CostScales:
    """Return one number for each cost: the mean, or the maximum, of what it would be in each block."""
    whole = lambda scales, name: float(np.max(scales) if name == "max" else weights @ np.asarray(scales))
    if problem == "linear":
        name, cost = config.scale_of(0), resolve_cost(config.cost)
        if not isinstance(name, str):
            return float(name)
        if isinstance(cost, AnchoredCost):
            raise ValueError(
                f"`scale_cost`={name!r}: blocks need one scale, which is found for a cost between two cells only. Give a "
                "number, such as the `scale` in the diagnostics of a coupling of all cells."
            )
        scales = [
            cost_scale(cost, jax.device_put(cells.source[left]), jax.device_put(cells.target[right]), name)
            for left, right in rows
        ]
        return whole(scales, name)
    found: list[Any] = []
    # Minibatches have no landmarks.
    config = dataclasses.replace(config, landmarks=config.landmarks or Global.landmarks)
    sides = zip((cells.source, cells.target), (cells.a, cells.b), resolve_cost_pair(config.cost), strict=True)
    for side, (points, mass, cost) in enumerate(sides):
        name, known = config.scale_of(side), {}
        if isinstance(name, str):
            for own in (one[side] for one in rows):
                if own.tobytes() not in known:
                    # As a block alone would find it. Controls are those of many blocks.
                    measured = jax.device_put((points[own], mass[own]))
                    known[own.tobytes()] = Side.of(np.random.default_rng(0), *measured, cost, config, side).scale
            found.append(whole([known[one[side].tobytes()] for one in rows], name))
        else:
            found.append(float(name))
    if problem == "fused":
        name = config.scale_of(2)
        if isinstance(name, str) and cells.shared is not None:
            cost = resolve_cost(config.shared_cost)
            scales = [cost_scale(cost, *jax.device_put(features_of(cells.shared, *one)), name) for one in rows]
            name = whole(scales, name)
        found.append(name)
    return tuple(found)


def _filled(array: Float[np.ndarray, "k ..."]) -> Float[np.ndarray, "size ..."]:
    """Return an array with copies of the last entry behind, up to a size on the ladder."""
    more = padded_size(len(array)) - len(array)
    return np.pad(array, [(0, more), *[(0, 0)] * (array.ndim - 1)], mode="edge")
