"""Several velocity fields that learn side by side: each is what it would be alone, and samples come from them in turn."""

import dataclasses

import jax
import numpy as np
import pytest

from scgenot.flow import FlowConfig, model_variance, train_velocity
from scgenot.flow._velocity import initial_weights, member_of
from scgenot.methods import FitData, GENOTSolver
from scgenot.model.saving._files import flatten_arrays, unflatten_arrays

MEMBERS = 3
CONFIG = FlowConfig(hidden=(32, 32), time_frequencies=4, n_models=MEMBERS)


@pytest.fixture(scope="module")
def learned(cells, schedule, known_pairs):
    data = FitData(*cells, known_pairs(np.arange(len(cells[0]))))
    solver = GENOTSolver(cells[0].shape[1], cells[1].shape[1], CONFIG)
    return solver.learn(jax.random.key(1), data, schedule, progress_bar=False)[0]


def alone(learned, member):
    """Return one member as a model of its own."""
    weights = dataclasses.replace(learned.weights, params=member_of(learned.weights.params, member), n_models=1)
    return dataclasses.replace(learned, config=dataclasses.replace(CONFIG, n_models=1), weights=weights)


def test_first_member_learns_as_if_it_were_alone(cells, schedule, known_pairs):
    # The first one's noise is that of a single model, so from the same weights both take the same steps.
    coupling = known_pairs(np.arange(len(cells[0])))
    dims = cells[0].shape[1], cells[1].shape[1]
    start = initial_weights(jax.random.key(2), *dims, CONFIG)
    graphdef = GENOTSolver(*dims, CONFIG).graphdef
    options = {"progress_bar": False}
    few = dataclasses.replace(schedule, max_steps=5)
    together = train_velocity(jax.random.key(3), graphdef, start, coupling, *cells, few, n_models=MEMBERS, **options)
    single = train_velocity(jax.random.key(3), graphdef, member_of(start, 0), coupling, *cells, few, **options)
    found, wanted = (jax.tree.leaves(one) for one in (member_of(together.params, 0), single.params))
    for left, right, first in zip(found, wanted, jax.tree.leaves(member_of(start, 0)), strict=True):
        assert np.abs(right - first).max() > 1e-4
        np.testing.assert_allclose(left, right, atol=2e-5)


def test_members_differ_and_samples_come_from_them_in_turn(learned, cells):
    x = cells[0][:7]
    # More rows than one block has, and a number of samples that the members do not share evenly.
    samples = learned.sample(0, x, 8, rows=16)
    for member in range(MEMBERS):
        own = alone(learned, member).sample(0, x, 8)
        np.testing.assert_allclose(samples[:, member::MEMBERS], own[:, member::MEMBERS], atol=1e-5)
        assert np.abs(samples[:, member - 1 :: MEMBERS] - own[:, member - 1 :: MEMBERS]).max() > 1e-3
    np.testing.assert_array_equal(learned.sample(0, x[2:4], 8, cell_ids=np.arange(2, 4), rows=16), samples[2:4])


def test_state_holds_all_members(learned, cells):
    blank = GENOTSolver.from_state(learned.state_config())
    assert blank.n_models == MEMBERS
    weights = unflatten_arrays(blank.weights_template(), flatten_arrays(learned.weights))
    again = dataclasses.replace(blank, weights=weights)
    np.testing.assert_array_equal(again.sample(0, cells[0], 4), learned.sample(0, cells[0], 4))


def test_variance_between_models_is_freed_of_the_samples_own():
    rng = np.random.default_rng(0)
    n, s, d = 400, 30, 3
    # Members whose means are 0, 1 and 2 in the first feature: a variance of 1.
    apart = rng.normal(size=(n, s, d))
    apart[:, :, 0] += np.arange(s) % 3
    together = rng.normal(size=(n, s, d))
    assert model_variance(apart, 3).mean() == pytest.approx(1.0, abs=0.1)
    # Ten samples of variance 1 a feature would leave .3 if they were not taken off; what is left is half of the noise's own.
    assert model_variance(together, 3).mean() < 0.13
    assert np.isnan(model_variance(together[:, :5], 3)).all()
    assert np.isnan(model_variance(together, 1)).all()


def test_number_of_models_is_checked(plain_calls):
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="`n_models` must be"):
            FlowConfig(n_models=wrong)
