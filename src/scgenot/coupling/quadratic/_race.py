"""Several starts polished side by side, as long as it is open which of them is the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from scgenot._progress import SILENT, Progress
from scgenot.coupling.quadratic._iterate import A_CALL, Limits, QuadraticState, walk_from, walked
from scgenot.coupling.quadratic._problem import QuadraticProblem

__all__ = ["SAME", "SAME_PLAN", "Runner", "overlap", "race", "value"]

# Objectives closer than this tie. Distinct optima of SNARE-seq subsets do (FOSCTTM .152 and .229 within 1e-4). Two starts are one
# optimum reached twice if their plans have most of their mass in common, whatever their objectives are so far: on gene panels three
# rough plans that overlap by .90 to .94 differ by .4 % in theirs, and took all places from the better optimum, which overlaps by .4.
SAME, SAME_PLAN = 1e-4, 0.8
# A runner whose objective falls by less than this share of a tie in a round has said what it is worth.
_STANDS = 0.1


@dataclasses.dataclass(eq=False)
class Runner:
    """One start in the race.

    Attributes
    ----------
    state
        Where it is.
    iterations
        Linearisations so far.
    converged
        Whether its plan stands still.
    ahead
        The better runner whose plan this one turned out to have; ``None`` while it is one of its own.
    """

    state: QuadraticState
    iterations: int = 0
    converged: bool = False
    ahead: Runner | None = None


def race(
    problem: QuadraticProblem, states: Sequence[QuadraticState], limits: Limits, progress: Progress = SILENT
) -> list[Runner]:
    """Polish all states round by round, and leave those out of which it is clear what becomes of them.

    A runner's race is over when its plan stands still, or its objective does; when its objective, falling on as in this round,
    would not reach the best one in the linearisations that are left; or when its plan is that of a better runner. While the
    changes of its plan grow it goes on in any case: so does one that leaves a saddle, whose objective may have stood for long.

    Parameters
    ----------
    problem
        The problem, at the epsilon at which starts are compared.
    states
        The starts.
    limits
        When a plan stands still, and how many linearisations each runner has.
    progress
        Is told of each round, and of each runner that has ended.

    Returns
    -------
    A runner for each state, in their order.
    """
    runners = [Runner(state) for state in states]
    walks = [walk_from(problem, state) for state in states]
    running, tolerance = list(range(len(runners))), np.float32(limits.tolerance)
    while running:
        falls, quickens = {}, {}
        for place in running:
            runner, before = runners[place], walks[place]
            most = min(A_CALL, limits.linearisations - runner.iterations)
            walks[place], done = walked(problem, before, tolerance, most)
            # Of the first round nothing can be said: starts come with the value that rough costs gave them.
            falls[place] = value(runner.state) - value(walks[place].state) if runner.iterations else np.inf
            quickens[place] = float(walks[place].change) > float(before.change)
            runner.state, runner.converged = walks[place].state, bool(walks[place].settled)
            runner.iterations += int(done)
            progress.advance(0, change=float(runner.state.change), violation=float(runner.state.violation))
        best = min(value(runner.state) for runner in runners)
        for place in list(running):
            runner = runners[place]
            left = (limits.linearisations - runner.iterations) / A_CALL
            runner.ahead = next((one for one in runners if _is_ahead(one, runner)), None)
            stands = falls[place] <= _STANDS * SAME * abs(best)
            hopeless = value(runner.state) - best > falls[place] * left
            settled = runner.converged or left <= 0 or runner.ahead is not None
            if settled or ((stands or hopeless) and not quickens[place]):
                running.remove(place)
                progress.advance()
    return runners


def _is_ahead(one: Runner, runner: Runner) -> bool:
    """Return whether `runner` has come to the plan of `one`, which is no worse and no follower itself."""
    return (
        one is not runner
        and one.ahead is None
        and value(one.state) <= value(runner.state)
        and overlap(one.state, runner.state) > SAME_PLAN
    )


def value(state: QuadraticState) -> float:
    """Return the objective; a start that broke down comes last instead of winning by NaN."""
    found = float(state.objective)
    return found if np.isfinite(found) else float("inf")


def overlap(one: QuadraticState, other: QuadraticState) -> float:
    """Return the share of mass that two plans have in common."""
    return 1.0 - 0.5 * float(np.abs(np.asarray(one.plan) - np.asarray(other.plan)).sum())
