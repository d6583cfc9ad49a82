"""One suite over every kind of coupling for every problem, and proof that it fails where a promise is broken."""

import functools

import jax
import numpy as np
import pytest
from tests.coupling.contract import CHECKS, clumps

from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.coupling._solve import SOLVERS

EVERY = sorted(SOLVERS)
OPTIONS = {"low_rank": {"rank": 4}}


@functools.cache
def solved(problem, kind):
    source, target, given, shared = clumps(problem)
    tied = {} if shared is None else {"shared": shared}
    epsilon = 0.05 if problem == "linear" else 0.01
    config = CouplingConfig(epsilon=epsilon, **OPTIONS.get(kind, {}))
    return solve_coupling(jax.random.key(0), source, target, problem=problem, kind=kind, config=config, **given, **tied)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("problem", "kind"), EVERY)
def test_every_coupling_keeps(problem, kind, check):
    given = {"problem": problem} if check == "extend" else {}
    CHECKS[check](solved(problem, kind), SOLVERS[problem, kind].known_plan, **given)


class Broken:
    """A good coupling, but for one thing."""

    def __init__(self, good, **wrong):
        self._good, self._wrong = good, wrong

    def __getattr__(self, name):
        wrong = self.__dict__["_wrong"].get(name)
        good = getattr(self.__dict__["_good"], name)
        return good if wrong is None else functools.partial(wrong, good)


def ignores_source(good, key, indices, n_draws):
    return good(key, np.zeros_like(indices), n_draws)


def one_key(good, key, indices, n_draws):
    return good(jax.random.key(0), indices, n_draws)


def one_row_key(good, key, indices, n_draws):
    rows, places = np.unique(indices, return_inverse=True)
    return np.asarray(good(key, rows, n_draws))[places]


def one_key_of_pairs(good, key, **sizes):
    return good(jax.random.key(0), **sizes)


def independent(good, key, *, batch_size, steps):
    for i, j in good(key, batch_size=batch_size, steps=steps):
        yield i, np.random.default_rng(0).permuted(np.asarray(j), axis=1)


def uniform_source(good, key, *, batch_size, steps):
    for i, j in good(key, batch_size=batch_size, steps=steps):
        yield np.random.default_rng(0).integers(0, 24, i.shape), j


def not_swapped(good):
    return good.__self__


def without_weights(good, *cells, source_weights=None, target_weights=None, **given):
    return good(*cells, **given)


def another_way(good, source, target, **given):
    """Right cells, right weights, and rows of the plan in the wrong order."""
    given["source_weights"] = given["source_weights"][::-1]
    return good(source[::-1].copy(), target, **given)


@pytest.mark.parametrize(
    ("check", "name", "wrong"),
    [
        ("draws", "conditional", ignores_source),
        ("draws", "conditional", one_key),
        ("draws", "conditional", one_row_key),
        ("weights", "pairs", one_key_of_pairs),
        ("weights", "pairs", independent),
        ("weights", "pairs", uniform_source),
        ("swap", "swapped", not_swapped),
        ("extend", "extend", without_weights),
        ("extend", "extend", another_way),
    ],
)
def test_the_suite_fails_on_a_broken_coupling(check, name, wrong):
    broken = Broken(solved("linear", "global"), **{name: wrong})
    given = {"problem": "linear"} if check == "extend" else {}
    with pytest.raises(AssertionError):
        CHECKS[check](broken, True, **given)
