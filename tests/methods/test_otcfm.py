"""Flow matching between coupled populations, against its closed form for Gaussians."""

import jax
import numpy as np
import pytest

from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.flow import FlowConfig, TrainConfig
from scgenot.methods import FitData, OTCFMSolver

SCALES = np.array([2.0, 0.5])


@pytest.mark.parametrize("epsilon", [0.02, 1.0])
def test_the_map_between_gaussians_does_not_depend_on_epsilon(epsilon):
    # Covariances I and diag(4, .25) commute: the map is (2, .5) times the cell at every epsilon. A map of conditional means would shrink
    # to a point as epsilon grows.
    rng = np.random.default_rng(0)
    source, target, new = (rng.normal(size=(1500, 2)).astype(np.float32) for _ in range(3))
    target = (target * SCALES + [3.0, -1.0]).astype(np.float32)
    coupling = solve_coupling(jax.random.key(0), source, target, config=CouplingConfig(epsilon=epsilon))
    schedule = TrainConfig(max_steps=1500, batch_size=512, learning_rate=3e-3)
    blank = OTCFMSolver(2, 2, FlowConfig(hidden=(64, 64)))
    learned, _ = blank.learn(jax.random.key(0), FitData(source, target, coupling), schedule, progress_bar=False)
    image = learned.sample(0, new, 1)[:, 0]
    truth = new * SCALES + [3.0, -1.0]
    error = lambda found: ((found - truth) ** 2).sum(1).mean() / target.var(0).sum()
    barycentres = np.asarray(coupling.barycentric(target))
    blurred = ((barycentres - source * SCALES - [3.0, -1.0]) ** 2).sum(1).mean() / target.var(0).sum()
    assert error(image) < 0.03
    assert error(image) < blurred or epsilon < 0.1
    assert error(new) > 1 and error(target.mean(0)) > 0.9


def test_straight_lines_of_one_unit():
    # One shift and one scale for both: lines between cells stay straight, and velocities are moves of cells.
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(64, 2)).astype(np.float32), rng.normal(5.0, 3.0, size=(64, 2)).astype(np.float32)
    coupling = solve_coupling(jax.random.key(0), source, target)
    blank = OTCFMSolver(2, 2, FlowConfig(hidden=(32, 32), time_frequencies=4))
    schedule = TrainConfig(max_steps=20, batch_size=64, check_every=20)
    learned, _ = blank.learn(jax.random.key(0), FitData(source, target, coupling), schedule, progress_bar=False)
    one, other = learned.weights.source_units, learned.weights.target_units
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.scale, other.scale)
    assert abs(float(one.mean[0])) > 1


def test_what_it_cannot_do(plain_calls):
    with pytest.raises(ValueError, match="'otcfm' works within one space, got 2 and 3 features"):
        OTCFMSolver(2, 3, FlowConfig())
    with pytest.raises(ValueError, match="`start`='noise' is GENOT's"):
        OTCFMSolver(2, 2, FlowConfig(start="noise"))
    with pytest.raises(ValueError, match="`n_models` must be 1, got 2"):
        OTCFMSolver(2, 2, FlowConfig(n_models=2))
