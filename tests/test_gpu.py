"""What a GPU must get as right as a CPU. Skipped where JAX finds none: `pytest -m gpu` runs these alone."""

import jax
import numpy as np
import pytest

from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import gaussian_mixture
from scgenot.flow import FlowConfig, TrainConfig
from scgenot.methods import GENOTSolver
from scgenot.metrics import cbw_uvp

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def devices():
    try:
        return jax.devices("cpu")[0], jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX finds no GPU")


def far_cells(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells ten standard deviations off the origin: products with short mantissas would lose their differences."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(1.0, 0.2, d)
    return tuple(np.float32(rng.normal(size=(n, d)) * spread + 10 + shift) for shift in (0.0, 0.5))


@pytest.mark.parametrize(("n", "problem"), [(300, "linear"), (5000, "linear"), (300, "quadratic")])
def test_potentials_are_those_of_a_cpu(devices, n, problem):
    source, target = far_cells(n, 20)
    config = CouplingConfig(epsilon=0.05, tolerance=1e-4)
    found = []
    for device in devices:
        with jax.default_device(device):
            coupling = solve_coupling(jax.random.key(0), source, target, problem=problem, config=config)
        assert coupling.diagnostics.converged
        found.append(np.asarray(coupling.barycentric(target)))
    assert next(iter(coupling.potentials.u.devices())) == devices[1]
    # In units of the largest standard deviation, which is 1. A plan that ignores its source has one mean for all cells.
    assert np.abs(found[0] - found[1]).max() < 0.01
    assert found[0].std(axis=0).max() > 0.1


def test_laws_are_as_right_as_those_of_a_cpu(devices):
    problem, rng = gaussian_mixture(4, rng=0), np.random.default_rng(0)
    source, target = (np.float32(draw(rng, 2048)) for draw in (problem.sample_source, problem.sample_target))
    asked = np.float32(problem.sample_source(rng, 200))
    moments, variance = problem.conditional_moments(asked), float(np.trace(problem.target_cov))
    scores = []
    for device in devices:
        with jax.default_device(device):
            config = CouplingConfig(epsilon=float(problem.epsilon), scale_cost=1.0)
            coupling = solve_coupling(jax.random.key(0), source, target, config=config)
            train = TrainConfig(max_steps=1500, batch_size=512, learning_rate=2e-3)
            solver, _, _ = GENOTSolver.fit(
                0,
                source,
                target,
                coupling=coupling,
                flow_config=FlowConfig(hidden=(128, 128)),
                train_config=train,
                progress_bar=False,
            )
            scores.append(cbw_uvp(solver.sample(0, asked, 300), *moments, variance))
    independent = np.broadcast_to(target[rng.integers(0, len(target), 300)], (200, 300, 4))
    nothing = cbw_uvp(independent, *moments, variance)
    # A field that ignores its source is no better than drawing any target.
    assert max(scores) < 0.05 * nothing
    assert scores[1] < 1.3 * scores[0]
