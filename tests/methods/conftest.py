import dataclasses

import jax
import numpy as np
import pytest

from scgenot.coupling import Coupling, CouplingConfig, Diagnostics, solve_coupling
from scgenot.flow import FlowConfig, Stopped, TrainConfig, TrainResult
from scgenot.methods import (
    Abilities,
    EntropicMapConfig,
    EntropicMapSolver,
    FitData,
    GENOTSolver,
    LightSBConfig,
    LightSBSolver,
    Method,
    OTCFMSolver,
)

N = 64


class KnownPairs(Coupling):
    """Pairs that are known, and marginals that may be relaxed. All on the host, so that it compiles nothing.

    With several rows in `partner`, one a block, pairs come with the number of their block.
    """

    def __init__(self, partner, *, growth=None):
        self.partner = np.atleast_2d(np.asarray(partner, np.int32))
        self.several = np.ndim(partner) == 2
        n = self.partner.shape[1]
        self.prior = np.full(n, 1 / n, np.float32)
        self.growth = np.ones(n, np.float32) if growth is None else np.asarray(growth, np.float32)
        self.kinds = ("kept" if growth is None else "relaxed", "kept")

    @property
    def blocks(self):
        return len(self.partner)

    @property
    def source_marginal(self):
        return self.prior * self.growth

    @property
    def target_marginal(self):
        return self.prior

    @property
    def priors(self):
        return self.prior, self.prior

    @property
    def marginal_kinds(self):
        return self.kinds

    @property
    def diagnostics(self):
        return Diagnostics("known", 0.0, 1.0, 1.0, 1, 0.0, 1.0, 1.0, True)

    def conditional(self, key, source_indices, n_draws):
        return np.tile(self.partner[0][source_indices][:, None], (1, n_draws))

    def pairs(self, key, *, batch_size, steps):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        while True:
            i = rng.integers(0, self.partner.shape[1], (steps, batch_size)).astype(np.int32)
            block = rng.integers(0, len(self.partner), i.shape).astype(np.int32)
            pair = i, self.partner[block, i]
            yield (*pair, block) if self.several else pair

    def swapped(self):
        return KnownPairs(np.argsort(self.partner[0]))

    def extend(self, source, target, *, shared=None):
        return KnownPairs(np.arange(len(source)) % len(target))


@dataclasses.dataclass(frozen=True)
class NearestConfig:
    """How many pairs to learn from."""

    draws: int = 512


@dataclasses.dataclass(frozen=True)
class NearestOfLinear(Method):
    """A map: the training target that lies nearest to a linear function of the source cell."""

    name = "nearest-of-linear"
    needs = "pairs"
    can = Abilities(stochastic=False, two_spaces=True)
    config_type = NearestConfig

    def learn(self, key, data, train_config, *, progress_bar=True):
        x, y = self.cells(data.source), self.cells(data.target, "target")
        i, j = next(data.coupling.pairs(key, batch_size=self.config.draws, steps=1))
        ones = np.ones((len(x), 1), np.float32)
        matrix = np.linalg.lstsq(np.hstack([x, ones])[i[0]], y[j[0]], rcond=None)[0]
        told = {"marginal_kinds": tuple(data.coupling.marginal_kinds), "training_cells": (len(x), len(y))}
        learned = dataclasses.replace(self, weights={"matrix": matrix.astype(np.float32), "targets": y}, **told)
        return learned, TrainResult(None, {"train_loss": ([1], [0.0])}, 1, Stopped.MAX_STEPS)

    def sample_blocks(
        self, rng, x, n_samples=30, *, condition=None, ode=None, cell_ids=None, rows=None
    ):  # fmt: skip
        weights, x = self.trained(), self.cells(x)
        self.condition_rows(condition, len(x))
        images = np.hstack([x, np.ones((len(x), 1), np.float32)]) @ weights["matrix"]
        squared = ((images[:, None] - weights["targets"][None]) ** 2).sum(-1)
        nearest = weights["targets"][squared.argmin(1)]
        for start in range(0, len(x), 50):
            place = slice(start, min(start + 50, len(x)))
            yield place, np.repeat(nearest[place][:, None], n_samples, axis=1)

    def weights_template(self):
        matrix = jax.ShapeDtypeStruct((self.source_dim + 1, self.target_dim), np.float32)
        targets = jax.ShapeDtypeStruct(((self.training_cells or (0, 0))[1], self.target_dim), np.float32)
        return {"matrix": matrix, "targets": targets}


@pytest.fixture(scope="session")
def known_pairs():
    return KnownPairs


# Two source features and three target features; the map is linear, so that the toy can learn it, too.
@pytest.fixture(scope="session")
def two_spaces():
    source = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
    target = source @ np.array([[0.0, 2.0, 0.5], [-1.0, 0.0, 1.0]]) + [3.0, -5.0, 0.0]
    return source, target.astype(np.float32)


@pytest.fixture(scope="session")
def cells(two_spaces):
    return two_spaces


# The same for methods in one space: the map is a gradient of a convex function, so that cells are coupled along it.
@pytest.fixture(scope="session")
def one_space():
    source = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
    target = (source * [2.0, 0.5] + [3.0, -5.0]).astype(np.float32)
    return source, target


@pytest.fixture(scope="session")
def solved(one_space):
    """The coupling of these cells that a sharp plan makes."""
    return solve_coupling(jax.random.key(0), *one_space, config=CouplingConfig(epsilon=0.005))


@pytest.fixture(scope="session")
def material(two_spaces, one_space, solved):
    """What each method learns from: pairs of 64 cells that are known, the plan, or the two samples."""

    def of(method):
        if method.can.two_spaces:
            return FitData(*two_spaces, KnownPairs(np.arange(N)))
        if method.needs == "potentials":
            return FitData(*one_space, solved)
        return FitData(*one_space, KnownPairs(np.arange(N)) if method.needs == "pairs" else None)

    return of


@pytest.fixture(scope="session")
def blanks():
    """Each method before it learned anything."""
    return {
        "genot": GENOTSolver(2, 3, FlowConfig(hidden=(32, 32), time_frequencies=4)),
        "nearest": NearestOfLinear(2, 3, NearestConfig()),
        "otcfm": OTCFMSolver(2, 2, FlowConfig(hidden=(32, 32), time_frequencies=4)),
        "lightsb": LightSBSolver(2, 2, LightSBConfig(epsilon=0.02)),
        "entropic_map": EntropicMapSolver(2, 2, EntropicMapConfig()),
        "entropic_plan": EntropicMapSolver(2, 2, EntropicMapConfig(samples="plan")),
        "progressive": EntropicMapSolver(2, 2, EntropicMapConfig(map="progressive", n_steps=3)),
    }


@pytest.fixture(scope="session")
def schedule():
    return TrainConfig(max_steps=400, batch_size=64, check_every=20, learning_rate=1e-2)
