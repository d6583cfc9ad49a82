"""Distilled fields: the law of the closed form in one step, for both starts, conditions and ensembles; the trained field untouched."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from scgenot.datasets import GaussianProblem
from scgenot.flow import DistillConfig, FlowConfig, ODEConfig, TrainConfig
from scgenot.flow import _distill as distilling
from scgenot.flow import _sampler as sampler
from scgenot.methods import FitData, GENOTSolver
from scgenot.metrics import cbw_uvp
from scgenot.model.saving._files import flatten_arrays, unflatten_arrays

# Two conditions, under which the conditional means go opposite ways in the second feature.
TARGETS = (np.array([[1.5, 0.9], [0.9, 1.0]]), np.array([[1.5, -0.9], [-0.9, 1.0]]))
CONDITIONS = np.eye(2, dtype=np.float32)
N = 2048
BRIEF = DistillConfig(max_steps=600, batch_size=256, pool_size=4096, fresh=1024, learning_rate=2e-3)
ONE, TWO = (ODEConfig("distilled", n_steps=steps) for steps in (1, 2))


@pytest.fixture(scope="module")
def problems():
    return [GaussianProblem(np.eye(2), cov, 0.3) for cov in TARGETS]


@pytest.fixture(scope="module")
def source(problems):
    return problems[0].sample_source(0, N).astype(np.float32)


@pytest.fixture(scope="module")
def learn(problems, source, known_pairs):
    """Learn from pairs that are drawn from the true laws, so that no coupling stands between."""
    # As many source as target cells, which is what this coupling has.
    rows = np.arange(2 * N) % N
    targets = [one.sample_conditional(10 + k, source, 1)[:, 0].astype(np.float32) for k, one in enumerate(problems)]
    data = FitData(source[rows], np.concatenate(targets), known_pairs([rows, N + rows]), CONDITIONS)
    training = TrainConfig(max_steps=1000, batch_size=256, learning_rate=4e-3)

    def learned(start, n_models=1):
        blank = GENOTSolver(2, 2, FlowConfig(hidden=(64, 64), start=start, n_models=n_models))
        return blank.learn(jax.random.key(0), data, training, progress_bar=False)[0]

    return learned


def both_conditions(source):
    return np.concatenate([source, source]), np.repeat(CONDITIONS, len(source), axis=0)


@pytest.fixture(scope="module")
def pairs(learn, source):
    """For each start a trained flow, and the same one distilled for up to two steps; made when they are first asked for."""

    @functools.cache
    def made(start):
        learned = learn(start)
        x, condition = both_conditions(source)
        return learned, learned.distill(jax.random.key(1), x, condition, 2, BRIEF, progress_bar=False)[0]

    return made


@pytest.fixture(scope="module")
def learned(pairs):
    return pairs("noise")[0]


@pytest.fixture(scope="module")
def distilled(pairs):
    return pairs("noise")[1]


def error(problem, solver, condition, ode):
    """Return cBW-UVP in % of the true conditional laws of new cells."""
    x = problem.sample_source(5, 200).astype(np.float32)
    samples = solver.sample(1, x, 200, condition=condition, ode=ode)
    return cbw_uvp(samples, *problem.conditional(x), float(np.trace(problem.target_cov)))


@pytest.mark.parametrize("start", ["noise", "source"])
def test_few_steps_give_the_law_of_the_closed_form(problems, pairs, start):
    learned, distilled = pairs(start)
    for k, problem in enumerate(problems):
        # One step of the trained field from 0 to 1 ends at the mean of the law, without any variance, which is this far off.
        _, covariance = problem.conditional(np.zeros((1, 2)))
        naive = 100 * np.trace(covariance) / np.trace(problem.target_cov)
        trained = error(problem, learned, CONDITIONS[k], None)
        for ode in (ONE, TWO):
            assert error(problem, distilled, CONDITIONS[k], ode) < trained + 0.5 < 2 < 7 < naive


def test_a_distilled_field_that_ignores_the_source_would_be_found(problems, learned, distilled):
    params = distilled.weights.distilled
    first = params["layers"][0]["kernel"]
    # After two features of the state, the first layer sees two of the source cell.
    blind = np.asarray(first[...]).copy()
    blind[2:4] = 0
    kernel = first.replace(blind)
    flat, structure = jax.tree.flatten(params)
    leaves = [kernel[...] if leaf.shape == blind.shape else leaf for leaf in flat]
    weights = dataclasses.replace(distilled.weights, distilled=jax.tree.unflatten(structure, leaves))
    solver = dataclasses.replace(distilled, weights=weights)
    assert error(problems[0], solver, CONDITIONS[0], ONE) > 10 > 2 > error(problems[0], distilled, CONDITIONS[0], ONE)


def test_one_seed_gives_nearly_the_same_samples(learned, distilled, source):
    # So that the two may stand for each other cell by cell; of unit variance, roughly.
    x, condition = both_conditions(source[:50])
    fine = learned.sample(3, x, 20, condition=condition)
    for ode in (ONE, TWO):
        assert np.sqrt(np.mean((distilled.sample(3, x, 20, condition=condition, ode=ode) - fine) ** 2)) < 0.15


def test_the_trained_field_stays_as_it_is(learned, distilled, source):
    x, y = source[:8], source[8:16]
    asked = {"condition": CONDITIONS[0]}
    np.testing.assert_array_equal(distilled.sample(0, x, 3, **asked), learned.sample(0, x, 3, **asked))
    # Densities are the trained field's whatever is asked for.
    np.testing.assert_array_equal(distilled.log_prob(y, x, ode=ONE, **asked), learned.log_prob(y, x, **asked))


def test_other_cells_and_lengths_compile_nothing(learned, distilled, source):
    programs = distilling._run_steps, distilling._refresh, sampler._solve_rows
    distilled.sample(0, source[:5], 3, condition=CONDITIONS[0], ode=ONE)
    before = [one._cache_size() for one in programs]
    few = dataclasses.replace(BRIEF, max_steps=150)
    for cells in (source[:70], source[:71]):
        again = learned.distill(jax.random.key(2), *both_conditions(cells), 2, few, progress_bar=False)[0]
        again.sample(0, cells, 7, condition=CONDITIONS[1], ode=ONE)
    assert [one._cache_size() for one in programs] == before


def test_state_holds_both_fields_and_may_hold_one(learned, distilled, source):
    for solver in (learned, distilled):
        blank = GENOTSolver.from_state(solver.state_config())
        weights = unflatten_arrays(blank.weights_template(), flatten_arrays(solver.weights))
        again = dataclasses.replace(blank, weights=weights)
        for ode in (None, ONE) if again.distilled_steps else (None,):
            options = {"condition": CONDITIONS[0], "ode": ode}
            np.testing.assert_array_equal(
                again.sample(0, source[:9], 2, **options), solver.sample(0, source[:9], 2, **options)
            )
    # As versions before this one wrote it.
    old = {name: one for name, one in learned.state_config().items() if name != "distilled_steps"}
    assert GENOTSolver.from_state(old).distilled_steps == 0


def test_members_of_an_ensemble_are_distilled_each(learn, source):
    ensemble = learn("noise", n_models=2)
    x, condition = both_conditions(source)
    found = ensemble.distill(jax.random.key(1), x, condition, 2, BRIEF, progress_bar=False)[0]
    fine = ensemble.sample(3, x[:50], 20, condition=condition[:50])
    few = found.sample(3, x[:50], 20, condition=condition[:50], ode=ONE)
    swapped = jax.tree.map(lambda one: one[::-1], found.weights.distilled)
    wrong = dataclasses.replace(found, weights=dataclasses.replace(found.weights, distilled=swapped))
    far = lambda one: np.sqrt(np.mean((one - fine) ** 2))
    assert far(few) < 0.15
    # Each follows its own teacher more closely than the other one's.
    assert far(few) < far(wrong.sample(3, x[:50], 20, condition=condition[:50], ode=ONE))


def test_without_a_distilled_field(learned, distilled, source):
    asked = {"condition": CONDITIONS[0]}
    with pytest.raises(RuntimeError, match="there is no distilled field. Call `distill` first"):
        learned.sample(0, source[:2], 1, ode=ONE, **asked)
    for steps in (3, 4):
        with pytest.raises(ValueError, match=rf"must be one of \[1, 2\], got {steps}"):
            distilled.sample(0, source[:2], 1, ode=ODEConfig("distilled", n_steps=steps), **asked)


def test_wrong_number_of_steps(learned, source):
    for steps in (3, 0, 32):
        with pytest.raises(ValueError, match=r"`steps` must be one of \[1, 2, 4, 8, 16\], got"):
            learned.distill(jax.random.key(0), *both_conditions(source[:2]), steps, BRIEF)


def test_methods_without_an_equation_say_so(blanks, source):
    with pytest.raises(NotImplementedError, match="'lightsb' solves no equation"):
        blanks["lightsb"].distill(jax.random.key(0), source, None, 1, BRIEF)


def test_flows_without_noise_are_distilled_too(blanks, material, schedule):
    data = material(blanks["otcfm"])
    learned = blanks["otcfm"].learn(jax.random.key(0), data, schedule, progress_bar=False)[0]
    found = learned.distill(jax.random.key(1), data.source, None, 1, BRIEF, progress_bar=False)[0]
    x = data.source[:20]
    away, few = (found.sample(0, x, 1, ode=ode)[:, 0] for ode in (None, ONE))
    assert np.sqrt(np.mean((few - away) ** 2)) < 0.1 < 1 < np.sqrt(np.mean((x - away) ** 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_size": 1000, "fresh": 300}, "`pool_size` must be a multiple of `fresh`, got 1000 and 300"),
        ({"whole": 1.5}, r"`whole` must lie in \[0, 1\]"),
        ({"max_steps": 0}, "`max_steps` must be a whole number"),
        ({"learning_rate": 0.0}, "`learning_rate` must be"),
    ],
)
def test_wrong_options(options, message, plain_calls):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**options)
