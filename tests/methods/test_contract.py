"""What holds for every method: GENOT, the other solvers, and a toy that is written for these tests."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from scgenot.flow import Stopped
from scgenot.methods import Abilities, Method
from scgenot.model.saving._files import flatten_arrays, unflatten_arrays

METHODS = ("genot", "nearest", "otcfm", "lightsb", "entropic_map", "entropic_plan", "progressive")


@pytest.fixture(scope="module", params=METHODS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def data(blanks, material, name):
    return material(blanks[name])


@pytest.fixture(scope="module")
def cells(data):
    return data.source, data.target


@pytest.fixture(scope="module")
def learned(blanks, data, schedule, name):
    """A method, learned from 64 cells a side; and what it said about it."""
    return blanks[name].learn(jax.random.key(0), data, schedule, progress_bar=False)


@pytest.fixture
def method(learned):
    return learned[0]


def test_it_says_what_it_is(method):
    assert isinstance(method, Method) and isinstance(method.can, Abilities)
    assert method.name and method.needs in ("samples", "pairs", "potentials")
    assert dataclasses.is_dataclass(method.config_type) and method.config_type()


def test_learning_returns_a_new_value_and_a_report(blanks, learned, name):
    method, result = learned
    assert blanks[name].weights is None and method.weights is not None
    assert result.steps >= 1 and result.stopped is Stopped.MAX_STEPS and result.history["train_loss"][0]
    assert method.training_cells == (64, 64) and method.marginal_kinds == ("kept", "kept")


def test_same_key_same_weights(blanks, data, schedule, learned, name):
    again, _ = blanks[name].learn(jax.random.key(0), data, schedule, progress_bar=False)
    for one, other in zip(jax.tree.leaves(again.weights), jax.tree.leaves(learned[0].weights), strict=True):
        np.testing.assert_array_equal(one, other)


def test_samples(method, cells):
    samples = method.sample(0, cells[0][:5], 7)
    d = method.target_dim
    assert samples.shape == (5, 7, d) and samples.dtype == np.float32 and np.isfinite(samples).all()
    assert method.sample(0, cells[0][:0], 7).shape == (0, 7, d)
    spread = np.ptp(samples, axis=1).max()
    assert spread > 0 if method.can.stochastic else spread == 0


def test_samples_are_a_function_of_the_seed(method, cells, name):
    first, again, other = (method.sample(seed, cells[0], 3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    # Draws among the few target cells of a row of the plan often agree.
    share = 0.1 if name == "entropic_plan" else 0.99
    assert (first != other).mean() > share if method.can.stochastic else (first == other).all()


def test_a_cells_samples_do_not_depend_on_the_others(method, cells):
    ids = np.arange(64)
    whole = method.sample(0, cells[0], 4, cell_ids=ids)
    some = np.random.default_rng(0).permutation(64)[:20]
    np.testing.assert_array_equal(method.sample(0, cells[0][some], 4, cell_ids=ids[some]), whole[some])


def test_blocks_are_the_samples_in_order(method, cells):
    places, blocks = zip(*method.sample_blocks(0, cells[0], 4), strict=True)
    assert [place.start for place in places] == [0, *(place.stop for place in places[:-1])]
    np.testing.assert_array_equal(np.concatenate(blocks), method.sample(0, cells[0], 4))


def test_the_source_cell_counts(method, cells):
    # A method that ignores its source cell, or takes another's, leaves all the variance or twice that.
    source, target = cells
    means = method.sample(0, source, 30).mean(axis=1)
    unexplained = lambda truth: ((means - truth) ** 2).sum(1).mean() / target.var(0).sum()
    assert unexplained(target) < 0.1
    assert unexplained(target[::-1]) > 0.7


def test_state_and_weights_go_through_files(method, cells, name):
    # JSON for the one, arrays by name for the other, as the model class saves them.
    state = json.loads(json.dumps(method.state_config()))
    blank = type(method).from_state(state)
    assert blank.weights is None and blank.config == method.config
    weights = unflatten_arrays(blank.weights_template(), flatten_arrays(method.weights))
    again = dataclasses.replace(blank, weights=weights)
    np.testing.assert_array_equal(again.sample(3, cells[0], 4), method.sample(3, cells[0], 4))
    assert json.loads(json.dumps(again.state_config())) == state


def test_a_template_computes_no_weights(blanks, name):
    assert blanks[name].weights_template() is not None and blanks[name].weights is None


def test_growth_is_one_where_marginals_are_kept(method, cells):
    np.testing.assert_array_equal(method.growth(cells[0]), np.ones(64))
    np.testing.assert_array_equal(method.growth(cells[1], "target"), np.ones(64))
    assert method.training_growth("source") is None


def test_density_is_there_or_refused(method, cells):
    if method.can.density:
        assert method.log_prob(cells[1][:4], cells[0][:4]).shape == (4,)
    else:
        with pytest.raises(NotImplementedError, match="`can.density`"):
            method.log_prob(cells[1], cells[0])


def test_wrong_calls(blanks, method, cells, name, plain_calls):
    with pytest.raises(RuntimeError, match="no weights yet"):
        blanks[name].sample(0, cells[0])
    with pytest.raises(ValueError, match=r"`x` must be cells x 2 features.*got shape \(64, 3\)"):
        method.sample(0, np.zeros((64, 3), np.float32))
    with pytest.raises(ValueError, match="`n_samples` must be a whole number of at least 1, got 0"):
        method.sample(0, cells[0], 0)
    with pytest.raises(ValueError, match="`condition` was given, but no conditions were learned"):
        method.sample(0, cells[0], condition=np.zeros(2))
    with pytest.raises(ValueError, match="`population` must be one of 'source', 'target'"):
        method.growth(cells[0], "sources")


def test_learning_leaves_the_data_alone(blanks, data, schedule, name):
    before = [side.copy() for side in (data.source, data.target)]
    blanks[name].learn(jax.random.key(1), data, dataclasses.replace(schedule, max_steps=20), progress_bar=False)
    for side, was in zip((data.source, data.target), before, strict=True):
        np.testing.assert_array_equal(side, was)
