"""LightSB recovers the mixture that it is made of: moments, densities, draws."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import gaussian_mixture
from scgenot.flow import TrainConfig
from scgenot.methods import FitData, LightSBConfig, LightSBSolver

N = 4096


def learned(data, schedule=None, **options):
    blank = LightSBSolver(2, 2, LightSBConfig(**options))
    schedule = schedule or TrainConfig(learning_rate=1e-2, max_steps=2000)
    return blank.learn(jax.random.key(0), data, schedule, progress_bar=False)[0]


@pytest.fixture(scope="module")
def problem():
    return gaussian_mixture(2)


@pytest.fixture(scope="module")
def solver(problem):
    data = FitData(problem.sample_source(0, N), problem.sample_target(1, N))
    return learned(data, epsilon=problem.epsilon, scale_cost=1.0, n_components=10)


def test_it_recovers_its_own_mixture(problem, solver):
    new = problem.sample_source(2, 400)
    samples = solver.sample(0, new, 200)
    mean, covariance = problem.conditional_moments(new)
    trace = np.trace(problem.target_cov)
    off = lambda found: ((found - mean) ** 2).sum(1).mean() / trace
    # The floor: as many draws of the true law. Knowing the target's mean alone, or doing nothing, is far off.
    floor = off(problem.sample_conditional(3, new, 200).mean(1))
    assert off(samples.mean(1)) < floor + 0.002
    assert off(problem.target_mean) > 0.1 and off(new) > 0.1
    spread = np.mean([np.cov(one, rowvar=False) for one in samples], axis=0)
    np.testing.assert_allclose(spread, covariance.mean(0), atol=0.05 * np.trace(covariance.mean(0)))


def test_its_density_is_the_mixtures(problem, solver):
    new = problem.sample_source(2, 400)
    y = problem.sample_conditional(4, new, 1)[:, 0]
    weights, means, covariance = problem.conditional(new)
    far = ((y[:, None] - means) ** 2).sum(-1) / covariance[0, 0]
    truth = logsumexp(np.log(weights) - 0.5 * far - np.log(2 * np.pi * covariance[0, 0]), axis=1)
    found = solver.log_prob(y, new)
    # The divergence of the learned from the true law, estimated without bias, in nats; that of other cells' laws is large.
    assert abs((truth - found).mean()) < 0.03
    assert (truth - solver.log_prob(y, new[::-1])).mean() > 1
    # It is a density: over a grid that holds the law it sums to one.
    line = np.arange(-9.0, 9.0, 0.2)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype(np.float32)
    one = np.full((1, 2), 0.3, np.float32)
    pairs = np.arange(len(grid)), np.zeros(len(grid), int)
    np.testing.assert_allclose(np.exp(solver.log_prob(grid, one, pairs=pairs)).sum() * 0.04, 1.0, rtol=0.01)


@pytest.mark.parametrize("epsilon", [1e-4, 10.0])
def test_numbers_stay_finite(problem, epsilon):
    x, y = problem.sample_source(0, 200) + 1000.0, problem.sample_target(1, 200) + 1000.0
    schedule = TrainConfig(max_steps=40, check_every=20, batch_size=64)
    solver = learned(FitData(x, y), schedule, epsilon=epsilon, n_components=10)
    assert np.isfinite(solver.sample(0, x, 5)).all() and np.isfinite(solver.log_prob(y, x)).all()


def test_unbalanced_problems_are_balanced_between_their_own_marginals():
    # A tenth of the target cells lies where no source cell can be meant to go: the coupling gives them up, and so does the mixture.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)).astype(np.float32)
    y = rng.normal(size=(500, 2)).astype(np.float32)
    y[:50] += 12.0
    config = CouplingConfig(epsilon=0.02, tau_source=0.9, tau_target=0.9)
    coupling = solve_coupling(jax.random.key(0), x, y, config=config)
    share = lambda solver: (solver.sample(0, x, 20)[..., 0] > 6).mean()
    schedule = TrainConfig(max_steps=1000, batch_size=256, learning_rate=1e-2)
    options = {"epsilon": 0.02, "n_components": 10}
    balanced = learned(FitData(x, y), schedule, **options)
    relaxed = learned(FitData(x, y, coupling), schedule, marginals="coupling", **options)
    left = float(np.asarray(coupling.target_marginal)[:50].sum() / np.asarray(coupling.target_marginal).sum())
    assert left < 0.05 < share(balanced)
    assert abs(share(relaxed) - left) < 0.02
    with pytest.raises(ValueError, match="`marginals`='coupling' needs one"):
        learned(FitData(x, y), schedule, marginals="coupling")
