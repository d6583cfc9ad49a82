"""Kinds of coupling as values: each holds the options that it uses, and no others."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, TypeAlias

from scgenot._messages import check_count, check_positive, did_you_mean


@dataclasses.dataclass(frozen=True)
class _Options:
    """What the kinds have in common: options are checked where they are given."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(dataclasses.asdict(self))

    @property
    def chosen(self) -> dict[str, Any]:
        """Options that differ from their defaults, by name."""
        fields = dataclasses.fields(self)
        return {one.name: getattr(self, one.name) for one in fields if getattr(self, one.name) != one.default}


@dataclasses.dataclass(frozen=True)
class Global(_Options):
    """One problem over all cells; quadratic ones over landmarks where there are many.

    Attributes
    ----------
    tolerance
        Solving stops when the marginals are off by less than this, in total variation times two.
    max_iterations
        Sinkhorn iterations at full size, at most. Quadratic problems with landmarks take fewer where cells are many.
    n_draws
        Targets drawn for each source cell in one pass over the coupling.
    landmarks
        Quadratic problems, and costs over a whole population such as ``"geodesic"``, take at most this many cells a side, and
        are extended to the others.
    dense_limit
        Costs of more entries than this are computed block by block, again in each pass, and never stored.
    coarse_limit
        Problems with more entries than this are first solved on random subsets of the cells.
    """

    name: ClassVar[str] = "global"

    tolerance: float = 1e-3
    max_iterations: int = 2000
    n_draws: int = 32
    landmarks: int = 2048
    dense_limit: int = 2**24
    coarse_limit: int = 2**24


@dataclasses.dataclass(frozen=True)
class Minibatch(_Options):
    """The GENOT paper's: one problem in each training batch.

    Attributes
    ----------
    tolerance
        Each batch is solved until its marginals are off by less than this; with this, batches count as converged.
    max_iterations
        Sinkhorn iterations of a batch, at most. Linear problems only: quadratic batches take a fixed number.
    warm_start
        Batches of quadratic problems start from what the solution of one reference batch implies for their cells.
    """

    name: ClassVar[str] = "minibatch"

    tolerance: float = 1e-3
    max_iterations: int = 2000
    warm_start: bool = True


@dataclasses.dataclass(frozen=True)
class LowRank(_Options):
    """Quadratic problems over plans of low rank.

    Attributes
    ----------
    rank
        Rank of the plan.
    tolerance, max_iterations, n_draws, dense_limit, coarse_limit
        As in :class:`Global`, for the linear problem that the low-rank plan implies.
    landmarks
        Costs within each population are factored through at most this many cells.
    """

    name: ClassVar[str] = "low_rank"

    rank: int = 50
    tolerance: float = 1e-3
    max_iterations: int = 2000
    n_draws: int = 32
    landmarks: int = 2048
    dense_limit: int = 2**24
    coarse_limit: int = 2**24


@dataclasses.dataclass(frozen=True)
class Extended(_Options):
    """One problem over all cells, in time linear in their number: solved over some of them and extended to the others.

    Attributes
    ----------
    n_cells
        Cells a side that the problem is solved over, and that each sweep takes afresh. Up to so many, nothing is sampled.
    n_sweeps
        How often further cells are averaged in, at most.
    tolerance
        Sweeps end when the marginals are off by less than this (L1 distance), as measured on cells that were not used. Sampling shows
        in it; what it costs is on the page about scale. A plan whose marginals stay off by more than 1.5 is given up with a warning,
        and the problem solved over all cells.
    max_iterations
        Sinkhorn iterations between the cells that are solved over, at most.
    n_draws
        Targets drawn for a source cell at a time.
    n_targets
        Target cells that each source cell sees at a time, a new random subset each time; all, where there are no more.
    landmarks
        As in :class:`Global`.
    """

    name: ClassVar[str] = "extended"

    n_cells: int = 16384
    n_sweeps: int = 4
    tolerance: float = 0.1
    max_iterations: int = 2000
    n_draws: int = 32
    n_targets: int = 65536
    landmarks: int = 2048


@dataclasses.dataclass(frozen=True)
class Auto(_Options):
    """Global where there are few cells, extended where there are many; see :func:`automatic`."""

    name: ClassVar[str] = "auto"


Kind: TypeAlias = Global | Minibatch | LowRank | Extended | Auto
KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Global, Minibatch, LowRank, Extended)}
OPTIONS = tuple(dict.fromkeys(field.name for kind in KINDS.values() for field in dataclasses.fields(kind)))
_SMALLEST = {"landmarks": 2, "n_sweeps": 0, "n_cells": 2, "n_targets": 2}
# What only one of the two can do says which is meant. A tolerance is the global one's: who asks for one wants it converged.
_GLOBAL = frozenset({"tolerance", "dense_limit", "coarse_limit"})
_EXTENDED = frozenset({"n_cells", "n_sweeps", "n_targets"})
# Pairs of cells from which on a global coupling is slow. Between spaces not by itself: there marginals of extended plans were off by
# .2 to .4 (quadratic, 400 of 1500 cells, 2 sweeps) and by 5 and more (fused); more cells were not tried.
_MANY = {"linear": 40_000**2}


def check_options(options: dict[str, Any]) -> None:
    """Raise a ``ValueError`` if the value of an option is not allowed."""
    for name, value in options.items():
        if name == "tolerance":
            check_positive(name, value)
        elif name == "warm_start":
            if not isinstance(value, bool):
                raise ValueError(f"`warm_start` must be True or False, got {value!r}.")
        else:
            check_count(name, value, minimum=_SMALLEST.get(name, 1))


def automatic(problem: str, options: dict[str, Any], pairs: int | None = None) -> str:
    """Return the kind that ``"auto"`` is: by the options that were given, otherwise by the number of pairs of cells.

    Without a number it stays ``"auto"``.
    """
    if _EXTENDED & set(options):
        return Extended.name
    if _GLOBAL & set(options):
        return Global.name
    return Auto.name if pairs is None else Extended.name if pairs > _MANY.get(problem, math.inf) else Global.name


def kind_named(kind: str | Kind) -> str:
    """Return the name of a kind that is given by name or with its options."""
    return kind if isinstance(kind, str) else kind.name


def with_options(kind: str | Kind, options: dict[str, Any], *, unused: frozenset[str], problem: str) -> Kind:
    """Return the kind with some of its options replaced.

    Parameters
    ----------
    kind
        A known name, or the kind itself; an option that differs from its default there cannot be given again.
    options
        By name.
    unused
        Options of the kind that do nothing in this problem.
    problem
        The problem, for the message.

    Raises
    ------
    ValueError
        If the kind has no such option, which would be ignored, or the option was given twice.
    """
    name, fields = (
        kind_named(kind),
        {field.name: field.default for field in dataclasses.fields(KINDS[kind_named(kind)])},
    )
    chosen = KINDS[name]() if isinstance(kind, str) else kind
    own = {option for option, default in fields.items() if getattr(chosen, option) != default}
    used = [option for option in fields if option not in unused]
    for option in [*options, *own]:
        if option not in used:
            others = [other for other, one in KINDS.items() if other != name and option in one.__dataclass_fields__]
            remedy = f" It belongs to {' and '.join(map(repr, others))}." if others else ""
            raise ValueError(
                f"`{option}` does nothing in a {problem} problem with the {name!r} coupling, whose options are "
                f"{', '.join(map(repr, used))}.{remedy}{did_you_mean(option, used)} Leave it out."
            )
    for option in own & set(options):
        if options[option] != getattr(chosen, option):
            raise ValueError(
                f"`{option}` was given twice: {getattr(chosen, option)!r} with the kind, {options[option]!r} in the config. "
                "Leave one of them out."
            )
    return dataclasses.replace(chosen, **options)
