"""A search on some of the cells, whose winner is followed on all of them: many starts then take as long as few cells do."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, Int

from scgenot._progress import SILENT, Progress
from scgenot._sampling import alike, weighted_subset
from scgenot.coupling.quadratic._iterate import Limits, plan_for
from scgenot.coupling.quadratic._problem import QuadraticProblem
from scgenot.coupling.quadratic._race import value
from scgenot.coupling.quadratic._search import Found, follow, search

__all__ = ["search_coarsely"]

# Starts whose objectives on k cells differ by less than this over the square root of k, as a share, may change places on all. Settled on six
# clouds of 240 cells without much of a shape, searched on 64: twice the wrong start won, by 1 and 3 %; the margin is 25 % there.
_SAMPLED = 2.0


def search_coarsely(
    rng: np.random.Generator,
    problem: QuadraticProblem,
    n_coarse: int,
    *,
    shared: bool,
    limits: Limits | None = None,
    progress: Progress = SILENT,
    given: Float[np.ndarray, "n m"] | None = None,
) -> Found:
    """Return the plan that the best plan between some of the cells leads to, between all.

    Some of the cells tell objectives with the noise of a sample. Where another start comes within that, all starts are searched on all
    cells, as if these had been asked for.

    Parameters
    ----------
    rng
        Chooses which.
    problem
        The problem, of any shape.
    n_coarse
        Cells a side that starts are compared on.
    shared, limits, progress, given
        As in :func:`search`; the given plan is between all cells.

    Returns
    -------
    The state between all cells. Reports are those of the search, but for the chosen start, which tells how following it ended.
    """
    # Rows of costs to all others tell which cells are alike.
    within = (problem.within_source, problem.within_target)
    rows, columns = chosen = [
        weighted_subset(rng, weights, n_coarse, alike(costs, n_coarse))
        for weights, costs in zip((problem.a, problem.b), within, strict=True)
    ]
    known = None if given is None else given[np.ix_(rows[0], columns[0])]
    found = search(_between(problem, chosen), shared=shared, limits=limits, progress=progress, given=known)
    if not _is_clear(found, n_coarse):
        return search(problem, shared=shared, limits=limits, progress=progress, given=given)
    plan = np.asarray(found.state.plan)[: len(rows[0]), : len(columns[0])]
    start = _implied(problem, plan, rows[0], columns[0])
    followed = follow(problem, start, limits=limits, progress=progress)
    end, (first, *others) = followed.starts[0], found.starts
    told = {"iterations": first.iterations + end.iterations, "plan_change": end.plan_change, "converged": end.converged}
    first = dataclasses.replace(first, objective=value(followed.state), **told)
    return Found(followed.problem, followed.state, (first, *others))


def _is_clear(found: Found, n_coarse: int) -> bool:
    """Return whether the best start is better than the others by more than sampling cells can have made."""
    values = sorted(start.sharp for start in found.starts if start.polished)
    return len(values) < 2 or bool(values[1] - values[0] > _SAMPLED / np.sqrt(n_coarse) * abs(values[0]))


def _between(problem: QuadraticProblem, chosen) -> QuadraticProblem:
    """Return the problem between some cells, with the weights by which they stand for all."""
    (rows, a), (columns, b) = chosen
    single = lambda one: np.asarray(one, np.float32)
    return dataclasses.replace(
        problem,
        within_source=np.asarray(problem.within_source)[np.ix_(rows, rows)],
        within_target=np.asarray(problem.within_target)[np.ix_(columns, columns)],
        shared=np.asarray(problem.shared)[np.ix_(rows, columns)],
        a=single(a),
        b=single(b),
    )


def _implied(
    problem: QuadraticProblem,
    plan: Float[np.ndarray, "k l"],
    rows: Int[np.ndarray, " k"],
    columns: Int[np.ndarray, " l"],
) -> Float[np.ndarray, "n m"]:
    """Return the plan between all cells that is optimal for the costs linearised at a plan between some."""
    source, target = np.asarray(problem.within_source)[:, rows], np.asarray(problem.within_target)[:, columns]
    plan, alpha = plan / plan.sum(), np.float32(problem.alpha)
    far = np.square(source) @ plan.sum(axis=1)[:, None] + (np.square(target) @ plan.sum(axis=0))[None, :]
    cost = 2.0 * alpha * (far - 2.0 * source @ (plan @ target.T)) + (1.0 - alpha) * np.asarray(problem.shared)
    return np.asarray(_plan_for(problem, jax.device_put(np.asarray(cost, np.float32))))


_plan_for = jax.jit(plan_for)
