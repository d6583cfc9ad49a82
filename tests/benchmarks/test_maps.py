"""OTT's maps, the conditional Monge gap and SF-EUOT of the comparison, against Gaussians in closed form."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.linalg
from benchmarks.solvers import conditional_monge_gap, expectile_dual, monge_gap, neural_dual, sfeuot

pytestmark = pytest.mark.once
KEY = jax.random.key(0)
A, B = np.diag([1.5, 0.5]), np.array([[0.8, 0.5], [0.5, 1.0]])
SHIFT = np.array([2.0, -1.0])


def gaussians(n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    draw = lambda cov: (rng.normal(size=(n, 2)) @ np.linalg.cholesky(cov).T).astype(np.float32)
    return draw(A), draw(B) + SHIFT.astype(np.float32)


def monge(x: np.ndarray) -> np.ndarray:
    root = scipy.linalg.sqrtm(A).real
    inverse = np.linalg.inv(root)
    return x @ (inverse @ scipy.linalg.sqrtm(root @ B @ root).real @ inverse) + SHIFT


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (neural_dual, {"convex": False, "steps": 400, "batch_size": 128, "hidden": (64, 64), "learning_rate": 3e-3}),
        (expectile_dual, {"steps": 1000, "batch_size": 256, "hidden": (64, 64, 64), "learning_rate": 1e-3}),
        (monge_gap, {"steps": 100, "batch_size": 128, "learning_rate": 3e-3}),
    ],
    ids=["neural dual", "expectile dual", "Monge gap"],
)
def test_maps_of_gaussians(module, options):
    x, y = gaussians()
    found = module.fit(KEY, x, y, **options)
    cells = gaussians(300)[0]
    error = np.square(found.mean(cells) - monge(cells)).sum(1).mean()
    # A constant, which ignores the source, is off by the target's variance; a shift of all cells by .2 of it.
    assert error < 0.08 * np.trace(B)
    samples = found.sample(KEY, cells[:3], 4)
    assert samples.shape == (3, 4, 2) and (samples == samples[:, :1]).all()
    assert not found.stochastic and not found.density


def test_conditional_monge_gap():
    # What a condition does depends on it: turns and shifts in opposite directions, and nothing in between.
    rng = np.random.default_rng(0)
    conditions = np.array([[-1.0], [-0.5], [0.5], [1.0]], np.float32)
    image = lambda x, c: x * np.exp(0.4 * c) + c * SHIFT
    pairs = [
        (rng.normal(size=(600, 2)), image(rng.normal(size=(600, 2)), c)) for c in conditions[:, 0].astype(np.float64)
    ]
    found = conditional_monge_gap.fit(KEY, pairs, conditions, steps=400, batch_size=128, learning_rate=3e-3)
    cells = rng.normal(size=(200, 2))
    for c in (-1.0, 0.0, 1.0):
        true = image(cells, c)
        # One map for all conditions would leave 5 c^2 at least, and one image for all cells the variance.
        assert np.square(found.mean(cells, np.array([c])) - true).sum(1).mean() < 0.2
    with pytest.raises(ValueError, match="`conditions` must hold a vector for each of 4 pairs"):
        conditional_monge_gap.fit(KEY, pairs, conditions[:2])


def test_sfeuot():
    # One feature: the semi-relaxed plan between Gaussians is Gaussian, and its density is found on a grid.
    rng, e, alpha = np.random.default_rng(0), 0.5, 1.0
    x, y = rng.normal(size=(2000, 1)), 0.7 * rng.normal(size=(2000, 1)) + 1.5
    grid = np.linspace(-6.0, 6.0, 241)
    step = grid[1] - grid[0]
    normal = lambda mean, sd: np.exp(-0.5 * ((grid - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    p, q = normal(0.0, 1.0), normal(1.5, 0.7)
    kernel, v = np.exp(-0.5 * (grid[:, None] - grid[None]) ** 2 / e), np.ones_like(q)
    for _ in range(500):
        u = p / (kernel @ v * step)
        v = (q / (kernel.T @ u * step)) ** (alpha / (alpha + e))
    plan = u[:, None] * kernel * v[None]
    at = np.flatnonzero(p > 0.05)
    true = (plan[at] @ grid) / plan[at].sum(1)
    found = sfeuot.fit(KEY, x, y, epsilon_b=e, alpha=alpha, steps=1500, batch_size=128, width=32)
    cells = grid[at, None]
    samples = found.sample(KEY, cells, 200)[..., 0]
    ignoring = np.average((true - np.average(true, weights=p[at])) ** 2, weights=p[at])
    assert np.average((samples.mean(1) - true) ** 2, weights=p[at]) < 0.3 * ignoring
    spread = np.sqrt((plan[at] @ grid**2) / plan[at].sum(1) - true**2)
    assert 0.5 < np.average(samples.std(1) / spread, weights=p[at]) < 1.5
