"""Several problems learned by one network, told apart by a condition vector."""

import dataclasses

import jax
import numpy as np
import pytest
from tests.methods.blocks import Blocks, RelaxedBlocks

from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import GaussianProblem
from scgenot.flow import FlowConfig, HeldOut, TrainConfig
from scgenot.methods import FitData, GENOTSolver
from scgenot.model.saving._files import flatten_arrays, unflatten_arrays

# One source law; targets of two shapes, whose conditional means go opposite ways in the second feature.
SOURCE = np.diag([1.0, 1.0])
TARGETS = (np.array([[1.5, 0.9], [0.9, 1.0]]), np.array([[1.5, -0.9], [-0.9, 1.0]]))
CONDITIONS = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
N = 1000


@pytest.fixture(scope="module")
def problems():
    return [GaussianProblem(SOURCE, cov, 0.3) for cov in TARGETS]


@pytest.fixture(scope="module")
def data(problems):
    source = problems[0].sample_source(0, N).astype(np.float32)
    targets = [problem.sample_target(k + 1, N).astype(np.float32) for k, problem in enumerate(problems)]
    config = CouplingConfig(epsilon=0.3, scale_cost=1.0)
    plans = [solve_coupling(jax.random.key(k), source, target, config=config) for k, target in enumerate(targets)]
    return FitData(source, np.concatenate(targets), Blocks(plans), conditions=CONDITIONS)


@pytest.fixture(scope="module")
def learned(data):
    blank = GENOTSolver(2, 2, FlowConfig(hidden=(64, 64)))
    config = TrainConfig(max_steps=1200, batch_size=256, learning_rate=4e-3)
    return blank.learn(jax.random.key(0), data, config, progress_bar=False)[0]


@pytest.mark.parametrize("k", [0, 1])
def test_each_condition_has_its_own_conditional_law(problems, learned, k):
    x = problems[k].sample_source(5, 200).astype(np.float32)
    samples = learned.sample(1, x, 200, condition=CONDITIONS[k]).astype(np.float64)
    means, covariance = problems[k].conditional(x)
    unit = np.trace(TARGETS[k])
    error = lambda truth: ((samples.mean(axis=1) - truth) ** 2).sum(axis=1).mean() / unit
    # Of the target's variance: 200 samples leave .002, 1000 cells and 1200 steps the rest. The other condition's means, or
    # what both have in common (a network that ignores the condition), are this far off:
    other = problems[1 - k].conditional(x)[0]
    apart, common = (((means - wrong) ** 2).sum(axis=1).mean() / unit for wrong in (other, 0.5 * (means + other)))
    assert apart > 0.3 and common > 0.08
    assert error(means) < 0.02
    spread = np.mean([np.cov(one.T) for one in samples], axis=0)
    np.testing.assert_allclose(spread, covariance, atol=0.15 * np.trace(covariance))


def test_conditions_by_cell_are_those_asked_for(learned, data):
    # Every cell may have a condition of its own; its samples are those that it has alone.
    x = data.source[:6]
    ids = np.arange(6)
    mixed = learned.sample(1, x, 3, condition=CONDITIONS[[0, 1, 0, 1, 0, 1]], cell_ids=ids)
    first, second = (learned.sample(1, x, 3, condition=c, cell_ids=ids) for c in CONDITIONS)
    np.testing.assert_array_equal(mixed[::2], first[::2])
    np.testing.assert_array_equal(mixed[1::2], second[1::2])


def test_state_holds_the_conditions(learned, data):
    blank = GENOTSolver.from_state(learned.state_config())
    assert blank.condition_dim == 2
    weights = unflatten_arrays(blank.weights_template(), flatten_arrays(learned.weights))
    again = dataclasses.replace(blank, weights=weights)
    options = {"condition": CONDITIONS[1]}
    np.testing.assert_array_equal(
        again.sample(0, data.source, 2, **options), learned.sample(0, data.source, 2, **options)
    )


def test_held_out_pairs_are_scored_under_their_condition(data, learned):
    # Scored by the trained field under the right conditions the loss is lower than under exchanged ones.
    from scgenot.flow._path import NoiseToTarget
    from scgenot.flow._trainer import _validation_loss
    from scgenot.flow._validation import validate_on

    held = HeldOut(data.source, data.target)
    weights = learned.weights
    units = weights.source_units, weights.target_units
    table = weights.condition_units.on_host(CONDITIONS)
    losses = {}
    for name, some in {"right": table, "exchanged": table[::-1]}.items():
        pairs, metrics = validate_on(
            jax.random.key(0), learned.graphdef, NoiseToTarget(), data.coupling, units, held, some
        )
        assert metrics is None
        arrays = (pairs.x, pairs.y, pairs.z, pairs.t, pairs.c)
        losses[name] = float(_validation_loss(learned.graphdef, NoiseToTarget(), 1, None, weights.params, *arrays))
    assert losses["right"] < 0.8 * losses["exchanged"]


def test_growth_is_that_of_the_condition(cells, schedule):
    # Cells on the left grow in one condition and shrink in the other.
    x = cells[0]
    left = x[:, 0] < 0
    growth = np.where([left, ~left], 1.5, 0.5)
    solver = GENOTSolver(2, 3, FlowConfig(hidden=(32, 32), time_frequencies=4))
    data = FitData(*cells, RelaxedBlocks(growth), conditions=CONDITIONS)
    learned, _ = solver.learn(jax.random.key(0), data, dataclasses.replace(schedule, max_steps=20), progress_bar=False)
    assert learned.training_growth() is None
    far = np.abs(x[:, 0]) > 0.5
    for k in range(2):
        np.testing.assert_allclose(learned.growth(x, condition=CONDITIONS[k])[far], growth[k][far], atol=0.3)
    blank = GENOTSolver.from_state(learned.state_config())
    again = dataclasses.replace(
        blank, weights=unflatten_arrays(blank.weights_template(), flatten_arrays(learned.weights))
    )
    np.testing.assert_array_equal(again.growth(x, condition=CONDITIONS[0]), learned.growth(x, condition=CONDITIONS[0]))


def test_wrong_conditions(learned, data, plain_calls):
    x = data.source[:5]
    with pytest.raises(
        ValueError, match="`condition` is needed: this method learned conditions described by 2 numbers"
    ):
        learned.sample(0, x)
    for wrong in (np.zeros(3), np.zeros((4, 2)), np.array([np.nan, 0.0])):
        with pytest.raises(
            ValueError, match="`condition` must be 2 finite numbers, or one such row for each of 5 cells"
        ):
            learned.sample(0, x, condition=wrong)
