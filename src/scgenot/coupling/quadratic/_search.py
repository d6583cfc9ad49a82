"""The best plan of a quadratic problem: many starts, chosen at a small epsilon, followed to the epsilon that is asked for."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
from jaxtyping import Array, Float

from scgenot._progress import SILENT, Progress
from scgenot.coupling._base import StartReport
from scgenot.coupling.quadratic._iterate import A_CALL, Limits, QuadraticState, polish, solve_from
from scgenot.coupling.quadratic._problem import QuadraticProblem, in_shape, whole_in_shape
from scgenot.coupling.quadratic._race import SAME, SAME_PLAN, overlap, race, value
from scgenot.coupling.quadratic._starts import start_plans

# With three, the two directions of one relaxed problem between unrelated clouds ended in different optima; with five they agree.
_POLISHED = 5
# Where starts are chosen, as a share of what the terms are worth (`QuadraticProblem.unit`). At an epsilon of .05 one of two gene
# panels (256 cells) had a FOSCTTM of .283 by the lowest objective there, and has .106 by the start that is best here.
SHARP = 0.002
# From there to the user's epsilon by factors of at most this.
_FOLLOW = 2.0
# Name of a start that the caller gave.
GIVEN = "given"
# The value of a start that has lost is known once it moves by less than this share in a call.
_KNOWN = 0.01
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


@dataclasses.dataclass(eq=False)
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
    kept = _raced(whole.at(sharp), kept, starts, limits, progress)
    tied = [start for start in kept if start.sharp - kept[0].sharp <= SAME * abs(kept[0].sharp)]
    if sharp < epsilon:
        progress.stage("following to the epsilon asked for", len(kept))
        for start in kept:
            _follow(start, whole, sharp, limits, progress, exactly=start in tied)
            progress.advance()
    else:
        for start in tied:
            _finish(start, whole, limits, progress)
    # Where starts tie, the epsilon that is asked for decides.
    winner = min(tied, key=lambda start: value(start.state))
    for start in kept:
        if start is not winner and overlap(start.state, winner.state) > SAME_PLAN:
            _give_way(start, winner, starts)
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
    report = StartReport(GIVEN, value(state), iterations, float(state.change), True, converged, 1.0)
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
        starts.append(_Start(name, state, value(state)))
        progress.advance(objective=starts[-1].rough)
    return sorted(starts, key=lambda start: start.rough)


def _distinct(starts: list[_Start]) -> list[_Start]:
    """Return the best few starts that really differ."""
    kept: list[_Start] = []
    for start in starts:
        start.followed = next((other for other in kept if overlap(start.state, other.state) > SAME_PLAN), None)
        if start.followed is None and len(kept) < _POLISHED:
            kept.append(start)
            start.followed = start
    return kept


def _raced(
    sharp: QuadraticProblem, kept: list[_Start], starts: list[_Start], limits: Limits, progress: Progress
) -> list[_Start]:
    """Polish the starts at the small epsilon; return those that led to plans of their own, the best first."""
    runners = race(sharp, [start.state for start in kept], limits, progress)
    of = {id(runner): start for runner, start in zip(runners, kept, strict=True)}
    for start, runner in zip(kept, runners, strict=True):
        start.state, start.sharp, start.polished = runner.state, value(runner.state), True
        start.iterations, start.converged = runner.iterations, runner.converged
    for start, runner in zip(kept, runners, strict=True):
        while runner.ahead is not None:
            runner = runner.ahead
        if of[id(runner)] is not start:
            _give_way(start, of[id(runner)], starts)
    return sorted((start for start in kept if start.polished), key=lambda start: start.sharp)


def _give_way(start: _Start, better: _Start, starts: list[_Start]) -> None:
    """Take down that a start came to the plan of a better one, and with it whoever had come to its plan."""
    start.polished = start.converged = False
    start.iterations = 0
    for one in starts:
        if one.followed is start:
            one.followed = better


def _finish(start: _Start, problem: QuadraticProblem, limits: Limits, progress: Progress) -> None:
    """Polish a start until its plan stands still: the race goes on only until it is clear which are the best."""
    left = limits.linearisations - start.iterations
    if not start.converged and left > 0:
        start.state, more, start.converged = polish(
            problem, start.state, limits._replace(linearisations=left), progress
        )
        start.sharp, start.iterations = value(start.state), start.iterations + more


def _follow(
    start: _Start, whole: QuadraticProblem, sharp: float, limits: Limits, progress: Progress, exactly: bool
) -> None:
    """Warm a polished start up to the epsilon of the problem, and polish it there; one that has lost only until its value is known."""
    epsilon, state, done = float(whole.epsilon), start.state, 0
    steps = np.geomspace(sharp, epsilon, 1 + int(np.ceil(np.log(epsilon / sharp) / np.log(_FOLLOW))))
    few = limits._replace(linearisations=min(_ON_THE_WAY, limits.linearisations))
    for before, after in zip(steps, steps[1:], strict=False):
        state = state.scaled(float(before / after))
        if after != steps[-1]:
            state, _, _ = polish(whole.at(float(after)), state, few, progress)
    settled, moved = False, np.inf
    while not settled and done < limits.linearisations and (exactly or moved > _KNOWN * abs(value(state))):
        most = limits.linearisations - done
        some = limits._replace(linearisations=most if exactly else min(A_CALL, most))
        at = value(state)
        state, more, settled = polish(whole, state, some, progress)
        done, moved = done + more, abs(value(state) - at)
    start.state, start.iterations, start.converged = state, done, settled


def _reports(starts: list[_Start], winner: _Start) -> tuple[StartReport, ...]:
    best = np.asarray(winner.state.plan)

    def report(one: _Start) -> StartReport:
        end = one.followed
        return StartReport(
            one.name,
            float("nan") if end is None else value(end.state),
            one.iterations,
            float(one.state.change),
            one.polished,
            one.converged,
            1.0 - 0.5 * float(np.abs(np.asarray(one.state.plan) - best).sum()) if one.polished else float("nan"),
            one.rough if end is None else end.sharp,
        )

    order = sorted(starts, key=lambda one: (one is not winner, not one.polished, value((one.followed or one).state)))
    return tuple(map(report, order))
