"""The solvers that the table compares, on arrays: one line each.

A solver of ``benchmarks/solvers/`` is entered with `of_module`: its module has ``fit(key, x, y, a, b, *, epsilon_b, steps, ...)``, which returns
an object with ``sample(key, x, n)``, cells x n x features. ``epsilon_b`` belongs to the cost ``|x - y|^2 / 2``: half of the package's epsilon, which
belongs to ``|x - y|^2``. The conditional Monge gap fits many conditions at once, ``fit(key, pairs, conditions)``, and has no place among pairs of
populations.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from benchmarks._tables import Meter, measured
from scgenot.coupling import Coupling, CouplingConfig, solve_coupling
from scgenot.flow import FlowConfig, TrainConfig
from scgenot.methods import (
    EntropicMapConfig,
    EntropicMapSolver,
    FitData,
    GENOTSolver,
    LightSBConfig,
    LightSBSolver,
    OTCFMSolver,
)


@dataclasses.dataclass(frozen=True)
class Cells:
    """What a solver is given.

    Attributes
    ----------
    x, y
        Cells of both sides, with equal weights.
    epsilon
        Of the problem, in units of ``|x - y|^2``.
    steps
        Training steps, for those that train.
    coupling
        The plan between the cells; ``None`` for a solver that does not ask for it.
    """

    x: np.ndarray
    y: np.ndarray
    epsilon: float
    steps: int
    coupling: Coupling | None = None


class Fitted(Protocol):
    """What a fit returns."""

    def sample(self, key: jax.Array, x: np.ndarray, n: int) -> np.ndarray:
        """Draw n targets for each cell."""
        ...


@dataclasses.dataclass(frozen=True)
class Solver:
    """A solver and what it can do.

    Attributes
    ----------
    name
        What tables call it.
    fit
        From a key and cells to what was learned.
    stochastic
        Whether it learns laws; a map is judged by its images alone.
    density
        Whether it has log-densities; it stands in the table.
    trains
        Whether the number of steps matters: it is then in the table of time to quality.
    coupled
        Whether it needs the coupling, whose seconds count as its own.
    most_features
        Leave it out where there are more: it would take hours, or all memory.
    least_epsilon
        Leave it out where ``epsilon_b`` is less, for the same reason.
    steps
        Training steps of its own: what its authors train. ``None``: those of the table.
    """

    name: str
    fit: Callable[[jax.Array, Cells], Fitted]
    stochastic: bool
    density: bool = False
    trains: bool = False
    coupled: bool = False
    most_features: int | None = None
    least_epsilon: float | None = None
    steps: int | None = None


def of_module(module: str, **options: Any) -> Callable[[jax.Array, Cells], Fitted]:
    """Return the fit of a module of ``benchmarks/solvers/``, imported when it is needed."""

    def fit(key: jax.Array, cells: Cells) -> Fitted:
        function = importlib.import_module(module).fit
        asked = inspect.signature(function).parameters
        known = {"epsilon_b": cells.epsilon / 2, "steps": cells.steps}
        a, b = (np.full(len(side), 1.0 / len(side)) for side in (cells.x, cells.y))
        given = {name: one for name, one in known.items() if name in asked}
        return function(key, cells.x, cells.y, a, b, **(given | options))

    return fit


def of_method(
    make: Callable[[int, float], Any], learning_rate: float = 1e-3, **options: Any
) -> Callable[[jax.Array, Cells], Fitted]:
    """Return the fit of a method of the package; `make` gets the number of features and epsilon, `options` are of its training."""

    def fit(key: jax.Array, cells: Cells) -> Fitted:
        data = FitData(cells.x, cells.y, cells.coupling)
        schedule = TrainConfig(max_steps=cells.steps, learning_rate=learning_rate, **options)
        return make(cells.x.shape[1], cells.epsilon).learn(key, data, schedule, progress_bar=False)[0]

    return fit


class Coupled:
    """Training cells, and their plan, which is solved once for all solvers that learn from it.

    Parameters
    ----------
    x, y
        Training cells.
    epsilon
        In units of ``|x - y|^2``.
    seed
        Of the plan, of training and of samples.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, epsilon: float, seed: int) -> None:
        self.x, self.y, self.epsilon, self.seed = x, y, epsilon, seed

    @functools.cached_property
    def coupling(self) -> tuple[Coupling, Meter]:
        """The plan between the training cells, and what it took."""
        # Epsilon is in units of the raw cost.
        config = CouplingConfig(epsilon=self.epsilon, scale_cost=1.0)
        with measured() as meter:
            found = solve_coupling(jax.random.key(self.seed), self.x, self.y, config=config)
            jax.block_until_ready(found.potentials)
        return found, meter

    def solved(self, solver: Solver, steps: int, test: np.ndarray, samples: int) -> tuple[np.ndarray, Took]:
        """Fit a solver and draw samples of test cells; of maps, one. Return them, and what that took."""
        cells, meters = Cells(self.x, self.y, self.epsilon, steps), []
        if solver.coupled:
            found, meter = self.coupling
            cells, meters = dataclasses.replace(cells, coupling=found), [meter]
        with measured() as meter:
            fitted = solver.fit(jax.random.key(self.seed), cells)
        meters.append(meter)
        with measured() as sampling:
            drawn = np.asarray(fitted.sample(jax.random.key(self.seed + 1), test, samples if solver.stochastic else 1))
        return drawn, Took(
            sum(meter.seconds for meter in meters),
            sum(meter.core_seconds for meter in meters),
            sampling.core_seconds,
            max(meter.peak_gib for meter in [*meters, sampling]),
        )


@dataclasses.dataclass(frozen=True)
class Took:
    """What a solver took: wall time and time of all cores of learning, with the coupling's; that of sampling; memory of both."""

    seconds: float
    core_seconds: float
    core_seconds_sampling: float
    peak_gib: float

    @property
    def values(self) -> dict[str, float]:
        """Columns of a table."""
        return {"core s": self.core_seconds, "core s, sampling": self.core_seconds_sampling}


def _light(d: int, epsilon: float) -> LightSBSolver:
    return LightSBSolver(d, d, LightSBConfig(epsilon=epsilon, scale_cost=1.0))


def _map(**options: Any) -> Callable[[int, float], EntropicMapSolver]:
    return lambda d, epsilon: EntropicMapSolver(d, d, EntropicMapConfig(**options))


def _genot(d: int, epsilon: float) -> GENOTSolver:
    return GENOTSolver(d, d, FlowConfig())


def _linear(d: int, epsilon: float) -> GENOTSolver:
    return GENOTSolver(d, d, FlowConfig(start="linear"))


def _otcfm(d: int, epsilon: float) -> OTCFMSolver:
    return OTCFMSolver(d, d, FlowConfig())


# Learning rates: of the flows that of `benchmarks.gaussian`, of LightSB that of its own docstring. Both were settled there, on D = 16 and
# D = 2 with epsilon_b = 1, and are the same for all problems. "Tuned": a linear start, the mean over a batch's targets and a learning rate
# of 1e-2 were settled on seed 0 of D = 2 and D = 16 with epsilon_b = 1.
SOLVERS = (
    Solver("GENOT", of_method(_genot, 2e-3), stochastic=True, density=True, trains=True, coupled=True),
    Solver(
        "GENOT, tuned",
        of_method(_linear, 1e-2, targets="batch"),
        stochastic=True,
        density=True,
        trains=True,
        coupled=True,
    ),
    Solver("LightSB", of_method(_light, 1e-2), stochastic=True, density=True, trains=True),
    Solver("discrete plan", of_method(_map(samples="plan")), stochastic=True, coupled=True),
    Solver("entropic map", of_method(_map()), stochastic=False, coupled=True),
    # With 64 features and 16,384 cells it was stopped after 20 minutes of one core, with 16 and an epsilon_b of .1 after 40 of a busy one.
    Solver(
        "progressive map",
        of_method(_map(map="progressive")),
        stochastic=False,
        coupled=True,
        most_features=16,
        least_epsilon=1.0,
    ),
    Solver("OT-CFM", of_method(_otcfm, 2e-3), stochastic=False, trains=True, coupled=True),
)
# Of the comparison only. Each takes the options of its own tests or of its authors; none was tuned on these problems. Not here: OTT's
# `neural_dual`, whose 20,000 steps take .1 to .4 s each, and what needs an environment of its own (`foreign`).
LITERATURE = (
    Solver("SCONES", of_module("benchmarks.solvers.scones"), stochastic=True, steps=3000),
    # Its Laplacian takes as many passes as there are features.
    Solver(
        "SF-EUOT, alpha = 30",
        of_module("benchmarks.solvers.sfeuot", alpha=30.0),
        stochastic=True,
        steps=5000,
        most_features=16,
    ),  # fmt: skip
    Solver(
        "semi-relaxed LightSB, lam = 30",
        of_module("benchmarks.solvers.relaxed_lightsb", lam=30.0),
        stochastic=True,
        density=True,
        steps=5000,
    ),  # fmt: skip
    Solver("expectile dual", of_module("benchmarks.solvers.expectile_dual"), stochastic=False, steps=5000),
    Solver("Monge gap", of_module("benchmarks.solvers.monge_gap"), stochastic=False, steps=300),
)
