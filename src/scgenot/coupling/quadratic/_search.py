"""The best plan of a quadratic problem: many starts, chosen at a small epsilon, followed to the epsilon that is asked for."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
from jaxtyping import Array, Float

from scgenot._progress import SILENT, Progress
from scgenot.coupling._base import StartReport
from scgenot.coupling.quadratic._iterate import Limits, QuadraticState, polish, solve_from
from scgenot.coupling.quadratic._problem import QuadraticProblem, in_shape, whole_in_shape
from scgenot.coupling.quadratic._starts import start_plans

# With three, the two directions of one relaxed problem between unrelated clouds ended in different optima; with five they agree.
_POLISHED = 5
# Objectives closer than this tie. Distinct optima of SNARE-seq subsets do (FOSCTTM .152 and .229 within 1e-4). Two starts are one
# optimum reached twice if their plans have most of their mass in common, whatever their objectives are so far: on gene panels three
# rough plans that overlap by .90 to .94 differ by .4 % in theirs, and took all places from the better optimum, which overlaps by .4.
_SAME, _SAME_PLAN = 1e-4, 0.8
# Where starts are chosen, as a share of what the terms are worth (`QuadraticProblem.unit`). At an epsilon of .05 one of two gene
# panels (256 cells) had a FOSCTTM of .283 by the lowest objective there, and has .106 by the start that is best here.
SHARP = 0.002
# From there to the user's epsilon by factors of at most this.
_FOLLOW = 2.0
# Name of a start that the caller gave.
GIVEN = "given"
# Linearisations at each epsilon on the way.
_ON_THE_WAY = 5


@dataclasses.dataclass(frozen=True)
class Found:
    """The best state, in the shape that it was solved in, and what became of the starts.

    Attributes
    ----------
    problem
        The problem in that shape.
    state
        Its state.
    starts
        Reports of all starts, the chosen one first.
    """

    problem: QuadraticProblem
    state: QuadraticState
    starts: tuple[StartReport, ...]


@dataclasses.dataclass
class _Start:
    name: str
    state: QuadraticState
    # Objective where starts are chosen: roughly, and once polished.
    rough: float
    sharp: float = float("nan")
    iterations: int = 0
    converged: bool = False
    polished: bool = False
    # The polished start whose plan it has; itself if it was polished, `None` if nobody followed it to the end.
    followed: _Start | None = None


def search(
    problem: QuadraticProblem,
    *,
    shared: bool,
    limits: Limits | None = None,
    progress: Progress = SILENT,
    given: Float[np.ndarray, "n m"] | None = None,
) -> Found:
    """Return the plan of the lowest objective at a small epsilon, followed to the epsilon of the problem.

    At a large epsilon all orientations of a shape cost nearly the same, and the lowest objective may be a blur of wrong ones;
    at a small one the right one shows. So starts are followed and compared there, and the best is then followed upwards, as
    one follows a cooling metal, but towards warmth. An epsilon that is small already is left as it is.

    Parameters
    ----------
    problem
        The problem, of any shape.
    shared
        Whether it has shared features, which make a start of their own.
    limits
        When a plan counts as settled.
    progress
        Is told of each start and each batch of linearisations.
    given
        A plan that is one start more.
    """
    limits = limits or Limits()
    sizes = len(problem.a), len(problem.b)
    whole, rough = in_shape(problem)
    epsilon = float(whole.epsilon)
    sharp = min(epsilon, SHARP * whole.unit()) or epsilon
    starts = _followed_down(rough.at(sharp), sizes, shared, progress, given)
    kept = _distinct(starts)
    progress.stage("polishing the best starts", len(kept))
    for start in kept:
        start.polished = True
        start.state, start.iterations, start.converged = polish(whole.at(sharp), start.state, limits, progress)
        start.sharp = _value(start.state)
        progress.advance()
    kept.sort(key=lambda start: start.sharp)
    if sharp < epsilon:
        progress.stage("following to the epsilon asked for", len(kept))
        for start in kept:
            _follow(start, whole, sharp, limits, progress)
            progress.advance()
        # Where starts tie, the epsilon that is asked for decides.
        tied = [start for start in kept if start.sharp - kept[0].sharp <= _SAME * abs(kept[0].sharp)]
        winner = min(tied, key=lambda start: _value(start.state))
    else:
        winner = kept[0]
    return Found(whole, winner.state, _reports(starts, winner))


def follow(
    problem: QuadraticProblem,
    plan: Float[np.ndarray, "n m"],
    *,
    limits: Limits | None = None,
    progress: Progress = SILENT,
) -> Found:
    """Return the plan that `plan` leads to, at the epsilon of the problem, and no other.

    A plan that comes from a like problem says which optimum is meant; annealing could leave it, and there is nothing to
    compare. With whole costs, not their leading directions: programs then do not depend on how many these are.
    """
    limits = limits or Limits()
    whole = whole_in_shape(problem)
    progress.stage(f"following the {GIVEN} plan", limits.linearisations)
    state, iterations, converged = polish(whole, _from_plan(whole, plan), limits, progress)
    report = StartReport(GIVEN, _value(state), iterations, float(state.change), True, converged, 1.0)
    return Found(whole, state, (report,))


def _from_plan(problem: QuadraticProblem, plan: Float[np.ndarray, "n m"]) -> QuadraticState:
    n, m = len(problem.a), len(problem.b)
    zero, unknown = np.zeros((), np.float32), np.asarray(np.inf, np.float32)
    plan = np.pad(np.asarray(plan, np.float32), ((0, n - len(plan)), (0, m - plan.shape[1])))
    zeros = np.zeros(n, np.float32), np.zeros(m, np.float32)
    return jax.device_put(QuadraticState(plan, np.zeros_like(plan), *zeros, zero, unknown, unknown, unknown))


def best_state(
    problem: QuadraticProblem, shared: Float[Array | np.ndarray, "n m"] | None
) -> tuple[QuadraticState, list[StartReport]]:
    """Return the best state and the reports of all starts, in the shape of the problem."""
    found = search(problem, shared=shared is not None)
    n, m = len(problem.a), len(problem.b)
    # Cut through NumPy: slices on the device would be compiled for each size.
    state = jax.device_get(found.state)
    cut = dataclasses.replace(
        state, plan=state.plan[:n, :m], quadratic=state.quadratic[:n, :m], u=state.u[:n], v=state.v[:m]
    )
    return jax.device_put(cut), list(found.starts)


def _followed_down(
    rough: QuadraticProblem, sizes: tuple[int, int], shared: bool, progress: Progress, given
) -> list[_Start]:
    progress.stage("starts")
    starts, plans = [], start_plans(rough, sizes, shared=shared)
    if given is not None:
        plans = itertools.chain(plans, [(GIVEN, 1.0, _from_plan(rough, given).plan)])
    for name, anneal, plan in plans:
        state = solve_from(rough, plan, anneal)
        starts.append(_Start(name, state, _value(state)))
        progress.advance(objective=starts[-1].rough)
    return sorted(starts, key=lambda start: start.rough)


def _distinct(starts: list[_Start]) -> list[_Start]:
    """Return the best few starts that really differ."""
    kept: list[_Start] = []
    for start in starts:
        start.followed = next((other for other in kept if _overlap(start.state, other.state) > _SAME_PLAN), None)
        if start.followed is None and len(kept) < _POLISHED:
            kept.append(start)
            start.followed = start
    return kept


def _follow(start: _Start, whole: QuadraticProblem, sharp: float, limits: Limits, progress: Progress) -> None:
    """Warm a polished start up to the epsilon of the problem, and polish it there."""
    epsilon = float(whole.epsilon)
    steps = np.geomspace(sharp, epsilon, 1 + int(np.ceil(np.log(epsilon / sharp) / np.log(_FOLLOW))))
    for before, after in zip(steps, steps[1:], strict=False):
        last = after == steps[-1]
        state = start.state.scaled(float(before / after))
        some = limits if last else limits._replace(linearisations=min(_ON_THE_WAY, limits.linearisations))
        start.state, start.iterations, start.converged = polish(
            whole if last else whole.at(float(after)), state, some, progress
        )


def _reports(starts: list[_Start], winner: _Start) -> tuple[StartReport, ...]:
    best = np.asarray(winner.state.plan)

    def report(one: _Start) -> StartReport:
        end = one.followed
        return StartReport(
            one.name,
            float("nan") if end is None else _value(end.state),
            one.iterations,
            float(one.state.change),
            one.polished,
            one.converged,
            1.0 - 0.5 * float(np.abs(np.asarray(one.state.plan) - best).sum()) if one.polished else float("nan"),
            one.rough if end is None else end.sharp,
        )

    order = sorted(starts, key=lambda one: (one is not winner, not one.polished, _value((one.followed or one).state)))
    return tuple(map(report, order))


def _overlap(one: QuadraticState, other: QuadraticState) -> float:
    return 1.0 - 0.5 * float(np.abs(np.asarray(one.plan) - np.asarray(other.plan)).sum())


def _value(state: QuadraticState) -> float:
    """Return the objective; a start that broke down comes last instead of winning by NaN."""
    value = float(state.objective)
    return value if np.isfinite(value) else float("inf")
