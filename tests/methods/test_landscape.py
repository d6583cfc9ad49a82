"""Landscapes: known potentials come back, from gradients at the later cell, times as they pass, and plans as they weigh."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from scgenot.coupling import Coupling, CouplingConfig, solve_coupling
from scgenot.methods import Arrivals, LinearPotential, NetworkPotential, fit_landscape

KEY = jax.random.key(0)
CURVES = np.array([[2.0, 0.5], [0.5, 1.0]])
GAPS = (0.5, 2.5)


def bowl(y: np.ndarray) -> np.ndarray:
    """Gradient of ``y' C y / 2``."""
    return y @ CURVES


def wells(y: np.ndarray) -> np.ndarray:
    """Gradient of ``(y_0^2 - 1)^2 + y_1^2``, convex beside ``|y|^2 / (2 gap)`` for gaps below 1/4."""
    return np.stack([4.0 * y[:, 0] * (y[:, 0] ** 2 - 1.0), 2.0 * y[:, 1]], axis=1)


def around_wells(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.sign(rng.normal(size=(n, 1))) * np.array([[1.0, 0.0]]) + rng.normal(size=(n, 2)) * np.array([0.35, 0.5])


def steps(cells, gradient, gaps, mass=None) -> list[Arrivals]:
    """Implicit steps whose plans are known: each later cell comes from ``y + gap grad V(y)``."""
    parts = np.array_split(cells, len(gaps))
    mass = np.ones(len(cells)) if mass is None else mass
    weights = np.array_split(mass, len(gaps))
    return [Arrivals(y, y + gap * gradient(y), w, gap) for y, w, gap in zip(parts, weights, gaps, strict=True)]


def off(found, gradient, cells) -> float:
    """Squared error of the drift, as a share of its square: 1 for a landscape that is flat."""
    return float(np.square(found.drift(cells) + gradient(cells)).sum() / np.square(gradient(cells)).sum())


@pytest.mark.parametrize("seed", [10, 11])
def test_quadratic(seed):
    rng = np.random.default_rng(seed)
    cells, others = rng.normal(size=(400, 2)), rng.normal(size=(300, 2))
    found = fit_landscape(KEY, steps(cells, bowl, GAPS), LinearPotential(n_centers=0))
    assert off(found, bowl, others) < 1e-6
    # Up to a constant.
    value = 0.5 * np.einsum("ni,ij,nj->n", others, CURVES, others)
    gained = found.potential(others) - value
    assert gained.std() < 1e-4 * value.std()
    assert found.explained > 1 - 1e-6 and found.held_out > 1 - 1e-6 and found.by_drift < 0.1
    # An implicit step inverts `y + gap grad V(y)`.
    np.testing.assert_allclose(found.ahead(others + 2.5 * bowl(others), 2.5), others, atol=1e-4)


def test_gradients_stand_at_the_later_cell():
    # At the earlier cell the same pairs have the gradient C (1 + gap C)^-1 x, some half of it.
    rng = np.random.default_rng(10)
    cells, others = rng.normal(size=(400, 2)), rng.normal(size=(300, 2))
    right = steps(cells, bowl, GAPS)
    # As a fit that takes features at the earlier cells would see them.
    wrong = [Arrivals(one.origins, 2 * one.origins - one.cells, one.mass, one.gap) for one in right]
    assert off(fit_landscape(KEY, wrong, LinearPotential(n_centers=0)), bowl, others) > 0.2
    assert off(fit_landscape(KEY, right, LinearPotential(n_centers=0)), bowl, others) < 1e-6


def test_times_that_are_not_equally_spaced():
    rng = np.random.default_rng(10)
    cells = rng.normal(size=(400, 2))
    right = steps(cells, bowl, GAPS)
    alike = [Arrivals(one.cells, one.origins, one.mass, 1.0) for one in right]
    # Gaps that are taken for equal ones say twice as much of one step, and half of the other.
    assert off(fit_landscape(KEY, alike, LinearPotential(n_centers=0)), bowl, cells) > 0.02
    # The unit of time is free: in days or in hours the same V times a number.
    hours = [Arrivals(one.cells, one.origins, one.mass, 24.0 * one.gap) for one in right]
    found = fit_landscape(KEY, hours, LinearPotential(n_centers=0))
    np.testing.assert_allclose(24.0 * found.drift(cells), -bowl(cells), atol=1e-3)


@pytest.mark.parametrize(
    ("config", "bound"),
    [(LinearPotential(), 0.02), (LinearPotential(degree=4, n_centers=0), 1e-5), (NetworkPotential(), 0.02)],
    ids=["gaussians", "powers", "network"],
)
def test_double_well(config, bound):
    rng = np.random.default_rng(12)
    cells, others = around_wells(rng, 600), around_wells(rng, 500)
    found = fit_landscape(KEY, steps(cells, wells, (0.1, 0.2)), config)
    assert off(found, wells, others) < bound
    bottom = found.potential(np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
    assert abs(bottom[0] - bottom[2]) < 0.1 and 0.8 < bottom[1] - bottom[[0, 2]].mean() < 1.2
    start = others + 0.15 * wells(others)
    assert np.median(np.linalg.norm(found.ahead(start, 0.15) - others, axis=1)) < 0.02


def test_cells_count_by_their_mass_and_steps_alike():
    rng = np.random.default_rng(10)
    cells = rng.normal(size=(400, 2))
    # Two laws that no potential joins; which one is learned where is a matter of weight.
    right, left = steps(cells, bowl, (1.0,))[0], steps(cells, lambda y: -bowl(y), (1.0,))[0]
    config = LinearPotential(n_centers=0, ridge=1e-6)
    mixed = lambda w: Arrivals(np.tile(cells, (2, 1)), np.concatenate([right.origins, left.origins]), w)
    weights = np.repeat([3.0, 1.0], 400)
    found = fit_landscape(KEY, [mixed(weights)], config)
    np.testing.assert_allclose(found.drift(cells), -0.5 * bowl(cells), atol=1e-2)
    # A step whose plan has a tenth of the mass counts as one: it says half.
    steps_of = [right, Arrivals(left.cells, left.origins, 0.1 * left.mass)]
    np.testing.assert_allclose(fit_landscape(KEY, steps_of, config).drift(cells), 0.0, atol=1e-2)
    # A cell without mass is not there.
    gone = fit_landscape(KEY, [mixed(np.repeat([1.0, 0.0], 400))], config)
    np.testing.assert_allclose(gone.drift(cells), -bowl(cells), atol=1e-2)


@pytest.fixture(scope="module")
def snapshots():
    rng = np.random.default_rng(13)
    later, other = around_wells(rng, 500).astype(np.float32), around_wells(rng, 500)
    return (other + 0.2 * wells(other)).astype(np.float32), later


@pytest.mark.parametrize("tau", [1.0, 0.9])
def test_plans_are_read_backwards(snapshots, tau):
    earlier, later = snapshots
    config = CouplingConfig(epsilon=0.05, tau_source=tau, tau_target=tau)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(later)).astype(np.float32)
    coupling = solve_coupling(KEY, earlier, later, target_weights=weights, config=config)
    found = Arrivals.of_coupling(KEY, coupling, earlier, later, 0.2)
    plan = coupling.top_k(len(later)).toarray()
    # A balanced plan's own columns are right up to what Sinkhorn left.
    assert np.abs(found.mass - plan.sum(0)).sum() < 1e-3 + coupling.diagnostics.marginal_violation
    np.testing.assert_allclose(found.origins, plan.T @ earlier / plan.sum(0)[:, None], atol=2e-3)
    # A balanced plan arrives as the weights say, an unbalanced one does not.
    assert (np.abs(found.mass - weights / weights.sum()).sum() < 1e-2) == (tau == 1.0)

    drawn = Arrivals.of_coupling(KEY, Pairs(coupling), earlier, later, 0.2)
    assert np.abs(drawn.mass - found.mass / found.mass.sum()).sum() < 0.2
    assert np.sqrt(np.square(drawn.origins - found.origins).mean()) < 0.1


class Pairs(Coupling):
    """A coupling that tells nothing but its pairs, as those of minibatches."""

    def __init__(self, inner: Coupling) -> None:
        self.inner = inner

    source_marginal = target_marginal = diagnostics = property(lambda self: None)
    conditional = extend = swapped = None

    def pairs(self, key, *, batch_size, steps):
        return self.inner.pairs(key, batch_size=batch_size, steps=steps)


def test_double_well_from_snapshots(snapshots):
    # Without pairs: an entropic plan between two samples, which cannot know which cell came from which.
    earlier, later = snapshots
    coupling = solve_coupling(KEY, earlier, later, config=CouplingConfig(epsilon=0.005))
    arrivals = [Arrivals.of_coupling(KEY, coupling, earlier, later, 0.2)]
    found = fit_landscape(KEY, arrivals, LinearPotential(degree=4, n_centers=0))
    rng = np.random.default_rng(14)
    others = around_wells(rng, 500)
    assert off(found, wells, others) < 0.1
    # It takes the pairs: origins in any other order say nothing.
    shuffled = [Arrivals(later, rng.permutation(arrivals[0].origins), arrivals[0].mass, 0.2)]
    assert off(fit_landscape(KEY, shuffled, LinearPotential(degree=4, n_centers=0)), wells, others) > 0.5


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: Arrivals(np.ones((3, 2)), np.ones((3, 2)), np.ones(3), 0.0), ValueError, "`gap` must be a finite"),
        (lambda: Arrivals(np.full((3, 2), np.nan), np.ones((3, 2)), np.ones(3)), ValueError, "`cells` has NaN"),
        (lambda: Arrivals(np.ones((3, 2)), np.ones((3, 2)), np.zeros(3)), ValueError, "`mass` must hold numbers"),
        (lambda: Arrivals(np.ones((3, 2)), np.ones((3, 2)), -np.ones(3)), ValueError, "`mass` must hold numbers"),
        (lambda: LinearPotential(degree=0, products=False, n_centers=0), ValueError, "needs features"),
        (lambda: LinearPotential(ridge=0.0), ValueError, "`ridge`"),
        (lambda: NetworkPotential(hidden=()), ValueError, "`hidden` must name"),
        (lambda: NetworkPotential(steps=0), ValueError, "`steps`"),
        (lambda: fit_landscape(KEY, []), ValueError, "`arrivals` must be steps"),
        (
            lambda: fit_landscape(
                KEY, [Arrivals(np.ones((3, k)), np.ones((3, k)), np.ones(3)) for k in (2, 3)], LinearPotential()
            ),
            ValueError,
            r"same features, got \[2, 3\]",
        ),
    ],
)
def test_bad_input(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_cells_of_other_width():
    rng = np.random.default_rng(0)
    found = fit_landscape(KEY, steps(rng.normal(size=(50, 2)), bowl, (1.0,)), LinearPotential(n_centers=0))
    with pytest.raises(ValueError, match="must have 2 features"):
        found.drift(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="`gap`"):
        found.ahead(np.zeros((3, 2)), -1.0)
    assert found.drift(np.zeros((0, 2))).shape == (0, 2) and found.potential(np.zeros((0, 2))).shape == (0,)
