"""The entropic map: rows of the plan at training cells, their soft c-transform elsewhere, and several plans in a row."""

import dataclasses

import jax
import numpy as np
import pytest

from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.flow import TrainConfig
from scgenot.methods import EntropicMapConfig, EntropicMapSolver, FitData


def learned(coupling, source, target, **options):
    blank = EntropicMapSolver(source.shape[1], target.shape[1], EntropicMapConfig(**options))
    return blank.learn(jax.random.key(0), FitData(source, target, coupling), TrainConfig(), progress_bar=False)[0]


@pytest.fixture(scope="module")
def clouds():
    rng = np.random.default_rng(1)
    draw = lambda n: rng.normal(size=(n, 2)).astype(np.float32)
    return draw(300), (draw(280) * [2.0, 0.5] + [3.0, -1.0]).astype(np.float32), draw(200)


@pytest.fixture(scope="module", params=[1.0, 0.7], ids=["balanced", "unbalanced"])
def coupling(request, clouds):
    weights = np.linspace(1, 3, 280)
    config = CouplingConfig(epsilon=0.05, tau_source=request.param)
    return solve_coupling(jax.random.key(0), *clouds[:2], target_weights=weights / weights.sum(), config=config)


def test_training_cells_go_to_their_barycentres(clouds, coupling):
    source, target, _ = clouds
    found = learned(coupling, source, target).sample(0, source, 1)[:, 0]
    np.testing.assert_allclose(found, coupling.barycentric(target), atol=1e-3)
    # Both are far from doing nothing, and from where the mean cell goes.
    assert ((found - source) ** 2).sum(1).mean() > 1 and found.std(0).min() > 0.3


def test_new_cells_go_where_the_extended_coupling_sends_them(clouds, coupling):
    _, target, new = clouds
    weights = np.asarray(coupling.b)
    extended = dataclasses.replace(coupling.extend(new, target, target_weights=weights), potentials=coupling.potentials)
    found = learned(coupling, clouds[0], target).sample(0, new, 1)[:, 0]
    np.testing.assert_allclose(found, extended.barycentric(target), atol=1e-3)


def test_draws_are_training_cells_with_the_mean_of_the_map(clouds, coupling):
    source, target, new = clouds
    drawn = learned(coupling, source, target, samples="plan").sample(0, new, 400)
    assert (np.abs(drawn[:5, :, None] - target[None, None]).sum(-1).min(-1) == 0).all()
    image = learned(coupling, source, target).sample(0, new, 1)[:, 0]
    # Systematic draws: the mean of 400 is closer than that of independent ones.
    assert np.abs(drawn.mean(1) - image).max() < 3 * target.std(0).max() / np.sqrt(400)
    assert np.abs(image[1:] - image[:-1]).max() > 1


def test_one_progressive_step_is_the_entropic_map(clouds, coupling):
    source, target, new = clouds
    one, other = (learned(coupling, source, target, **own) for own in ({"map": "progressive", "n_steps": 1}, {}))
    np.testing.assert_array_equal(one.sample(0, new, 1), other.sample(0, new, 1))


def test_progressive_steps_come_closer_to_the_map_of_gaussians():
    # The entropic map shrinks; the Monge map between these is (2, .5) times the cell.
    rng = np.random.default_rng(0)
    source, target, new = (rng.normal(size=(800, 2)).astype(np.float32) for _ in range(3))
    target = (target * [2.0, 0.5]).astype(np.float32)
    coupling = solve_coupling(jax.random.key(0), source, target, config=CouplingConfig(epsilon=0.2))
    errors = {}
    for steps in (1, 2, 4):
        image = learned(coupling, source, target, map="progressive", n_steps=steps).sample(0, new, 1)[:, 0]
        errors[steps] = ((image - new * [2.0, 0.5]) ** 2).sum(1).mean() / target.var(0).sum()
    assert errors[4] < errors[2] < errors[1]


def test_growth_is_the_plans(clouds, coupling):
    source, target, _ = clouds
    found = learned(coupling, source, target)
    grown = found.growth(source)
    np.testing.assert_allclose(grown, np.asarray(coupling.source_marginal) * len(source), rtol=2e-3)
    assert np.ptp(grown) > 0.05 or coupling.config.tau_source == 1.0


def test_what_it_cannot_do(clouds, known_pairs, plain_calls):
    source, target, _ = clouds
    for wrong in (
        known_pairs(np.arange(300)),
        solve_coupling(jax.random.key(0), source, target, config=CouplingConfig(cost="euclidean", epsilon=0.05)),
    ):
        with pytest.raises(ValueError, match="needs the potentials of a linear problem with the cost 'sqeuclidean'"):
            learned(wrong, source, target)
    with pytest.raises(ValueError, match="`samples`='plan' draws from one plan"):
        EntropicMapConfig(map="progressive", samples="plan")
    with pytest.raises(ValueError, match="`map` must be one of 'entropic', 'progressive'"):
        EntropicMapConfig(map="progresive")
