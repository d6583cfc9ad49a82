"""Relaxed LightSB and SCONES of the comparison, against plans on a grid and Gaussians in closed form."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from benchmarks.solvers import relaxed_lightsb, scones

from scgenot.datasets import GaussianProblem

pytestmark = pytest.mark.once
KEY = jax.random.key(0)
EPSILON, LAM = 0.3, 0.5
GRID = np.linspace(-6.0, 6.0, 241)


def densities() -> tuple[np.ndarray, np.ndarray]:
    normal = lambda mean, sd: np.exp(-0.5 * ((GRID - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    return 0.5 * normal(-1.5, 0.5) + 0.5 * normal(1.0, 0.6), 0.25 * normal(-1.0, 0.6) + 0.75 * normal(2.0, 0.5)


def drawn(rng: np.random.Generator, density: np.ndarray, n: int) -> np.ndarray:
    step = GRID[1] - GRID[0]
    return (rng.choice(GRID, n, p=density / density.sum()) + step * (rng.random(n) - 0.5))[:, None].astype(np.float32)


def plan_on_grid(p: np.ndarray, q: np.ndarray, relax_source: bool) -> np.ndarray:
    """The density of the relaxed plan, entropy against Lebesgue measure: Sinkhorn's iterations with damped potentials."""
    step = GRID[1] - GRID[0]
    kernel = np.exp(-0.5 * (GRID[:, None] - GRID[None]) ** 2 / EPSILON)
    u, v, damp = np.ones_like(p), np.ones_like(q), LAM / (LAM + EPSILON)
    for _ in range(2000):
        u = (p / (kernel @ v * step)) ** (damp if relax_source else 1.0)
        v = (q / (kernel.T @ u * step)) ** damp
    return u[:, None] * kernel * v[None]


@pytest.mark.parametrize("relax_source", [False, True], ids=["semi-relaxed", "unbalanced"])
def test_relaxed_lightsb(relax_source):
    p, q = densities()
    rng, step = np.random.default_rng(5), GRID[1] - GRID[0]
    # In another unit than the fit's own, as the entropy sees units; here cells come as they are.
    x, y = drawn(rng, p, 4000), drawn(rng, q, 4000)
    options = {"epsilon_b": EPSILON, "lam": LAM, "relax_source": relax_source, "n_components": 8, "steps": 2000}
    found = relaxed_lightsb.fit(KEY, x, y, **options, batch_size=256)
    plan = plan_on_grid(p, q, relax_source)
    sent, got = plan.sum(1) * step, plan.sum(0) * step
    at = np.flatnonzero(p > 0.05)
    cells = GRID[at, None].astype(np.float32)
    true_mean = (plan[at] @ GRID) * step / sent[at]
    # One law for all cells, which ignores the source, is off by the variance of the means.
    floor = np.average((true_mean - np.average(true_mean, weights=p[at])) ** 2, weights=p[at])
    assert np.average((found.mean(cells)[:, 0] - true_mean) ** 2, weights=p[at]) < 0.02 * floor
    there = np.flatnonzero(q > 0.05)
    assert np.abs(found.xi(GRID[there, None]) / (got[there] / q[there]) - 1.0).mean() < 0.1
    eta = sent[at] / p[at]
    assert np.abs(found.eta(cells) / eta - 1.0).mean() < (0.1 if relax_source else 1e-6)
    # It is not the balanced plan.
    assert np.abs(got[there] / q[there] - 1.0).mean() > 0.2
    # Densities and samples are those of one law.
    pairs = np.repeat(cells[:2], len(GRID), axis=0)
    law = np.exp(found.log_prob(np.tile(GRID, 2)[:, None], pairs)).reshape(2, -1)
    np.testing.assert_allclose(law.sum(1) * step, 1.0, rtol=1e-3)
    samples = found.sample(KEY, cells[:2], 2000)
    assert samples.shape == (2, 2000, 1)
    np.testing.assert_allclose(samples.mean(axis=(1, 2)), found.mean(cells[:2])[:, 0], atol=0.06)
    np.testing.assert_allclose(law @ GRID * step, found.mean(cells[:2])[:, 0], atol=1e-2)


def test_scones():
    # Their Gaussian experiment: BW-UVP of some per cent at large epsilon.
    problem = GaussianProblem(np.diag([1.0, 0.5]), np.array([[1.0, 0.4], [0.4, 0.8]]), 2.0)
    x, y = (one.astype(np.float32) for one in (problem.sample_source(0, 1000), problem.sample_target(1, 1000) + 2.0))
    found = scones.fit(KEY, x, y, epsilon_b=1.0, steps=1500, batch_size=256, width=64)
    cells = problem.sample_source(2, 24).astype(np.float32)
    samples = found.sample(KEY, cells, 100)
    mean, cov = problem.conditional(cells)
    error = np.square(samples.mean(1) - mean - 2.0).sum(1).mean()
    # Of one law for all cells, by far the larger part is that of the means.
    ignoring = np.square(mean - mean.mean(0)).sum(1).mean()
    assert error < 0.15 * ignoring
    spread = np.mean([np.cov(one.T) for one in samples], axis=0)
    assert np.abs(spread - cov).max() < 0.15 * np.trace(cov)
    assert not scones.Scones.density and scones.Scones.stochastic
