"""Starts of a quadratic problem raced against each other: the same winner as if all were polished to the end, with less work."""

import dataclasses

import jax
import numpy as np
import pytest

from scgenot.coupling.quadratic import _search
from scgenot.coupling.quadratic._iterate import Limits, polish, solve_from
from scgenot.coupling.quadratic._problem import in_shape, quadratic_problem
from scgenot.coupling.quadratic._race import SAME, SAME_PLAN, Runner, overlap, race, value
from scgenot.coupling.quadratic._starts import start_plans

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def problem_and_states():
    """A lopsided cloud and a noisy turned copy; the states that all starts come to by few directions of the costs."""
    rng = np.random.default_rng(1)
    source = rng.gamma(1.5, size=(80, 3)) * [2.0, 1.0, 0.5]
    target = source @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + rng.normal(0.0, 0.3, size=source.shape)
    within = [np.linalg.norm(one[:, None] - one[None], axis=-1).astype(np.float32) for one in (source, target)]
    a = np.full(80, 1 / 80, np.float32)
    problem = quadratic_problem(*(one / one.mean() for one in within), jax.device_put(a), jax.device_put(a), 2e-3)
    whole, rough = in_shape(problem)
    plans = list(start_plans(rough, (80, 80), shared=False))
    return whole, [solve_from(rough, plan, anneal) for _, anneal, plan in plans]


def test_the_winner_is_that_of_polishing_all(problem_and_states):
    whole, states = problem_and_states
    # So tight that plans move long after it is clear where they go, as those of many cells do.
    limits = Limits(tolerance=1e-6)
    ends = [polish(whole, state, limits) for state in states]
    runners = race(whole, states, limits)
    best = min(value(state) for state, _, _ in ends)
    winner = min(runners, key=lambda runner: value(runner.state))
    assert value(winner.state) <= best + 10 * SAME * abs(best)
    first = min(ends, key=lambda end: value(end[0]))[0]
    assert overlap(winner.state, first) > SAME_PLAN
    # Starts end in different optima here; which of them is the worst does not decide how long it is polished.
    assert max(value(state) for state, _, _ in ends) > 1.2 * best
    assert sum(runner.iterations for runner in runners) < 0.7 * sum(done for _, done, _ in ends)


def test_a_start_that_comes_to_the_plan_of_another_gives_way(problem_and_states):
    whole, states = problem_and_states
    good = min(states, key=value)
    runners = race(whole, [good, good], Limits())
    ahead = [runner for runner in runners if runner.ahead is None]
    behind = [runner for runner in runners if runner.ahead is not None]
    assert len(ahead) == len(behind) == 1 and behind[0].ahead is ahead[0]
    assert behind[0].iterations <= ahead[0].iterations


def test_a_start_that_broke_down_does_not_win(problem_and_states):
    whole, states = problem_and_states
    good = min(states, key=value)
    broken = dataclasses.replace(good, plan=np.full_like(np.asarray(good.plan), np.nan))
    runners = race(whole, [broken, good], Limits())
    assert min(runners, key=lambda runner: value(runner.state)) is runners[1]
    assert value(runners[0].state) == np.inf


def test_all_that_tie_are_polished_to_the_end(problem_and_states, monkeypatch):
    """Where epsilon is small from the start, there is no way to follow: whichever of those that tie wins has settled."""
    whole, _ = problem_and_states
    monkeypatch.setattr(_search, "race", lambda problem, states, *_: [Runner(state) for state in states])
    monkeypatch.setattr(_search, "SAME", 100.0)
    found = _search.search(whole.at(1e-3), shared=False)
    polished = [start for start in found.starts if start.polished]
    assert polished and all(start.converged for start in polished)
