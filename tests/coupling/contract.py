"""What every coupling promises, as checks that are given a coupling of two clumps; see test_contract.py."""

import contextlib

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from tests.coupling.helpers import plan_of

N, M = 24, 20
SOURCE_CLUMP = np.arange(N) < 14
TARGET_CLUMP = np.arange(M) < 11
KEY = jax.random.key(5)

_COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: _COMPILED.append(event) if "backend_compile" in event else None
)


@contextlib.contextmanager
def compiles_at_most(count):
    """Fail if more programs than this are compiled, or fetched from the cache of compiled ones."""
    before = len(_COMPILED)
    yield
    assert len(_COMPILED) - before <= count


def clumps(problem):
    """Two clumps far apart, of the same mass on both sides; one cell in each population has no weight."""
    rng = np.random.default_rng(0)
    # The second clump is wider: only one of the two ways round fits the distances within.
    width = np.array([0.3, 0.9], np.float32)
    source, target = (
        (rng.normal(size=(len(clump), 2)) * width[1 - clump.astype(int)][:, None] + np.where(clump, 0.0, 6.0)[:, None])
        for clump in (SOURCE_CLUMP, TARGET_CLUMP)
    )
    weights = []
    for clump, zero in ((SOURCE_CLUMP, 3), (TARGET_CLUMP, 2)):
        own = rng.uniform(0.5, 2.0, len(clump))
        own[zero] = 0.0
        own[clump] *= 0.65 / own[clump].sum()
        own[~clump] *= 0.35 / own[~clump].sum()
        weights.append(own)
    given = {"source_weights": weights[0], "target_weights": weights[1]}
    shared = (source[:, :1].astype(np.float32), target[:, :1].astype(np.float32)) if problem == "fused" else None
    if problem != "linear":
        target = target @ np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]
    return np.float32(source), np.float32(target), given, shared


def draws(coupling, known_plan):
    """Each source cell's draws are those of its row; keys matter, for each row on its own."""
    everyone = np.flatnonzero(np.asarray(coupling.priors[0]) > 0)
    count = 300 if known_plan else 6
    drawn = np.asarray(coupling.conditional(KEY, everyone, count))
    assert drawn.shape == (len(everyone), count) and drawn.min() >= 0 and drawn.max() < M
    # Clumps are far apart and have the same mass: nearly all of it stays within.
    assert (TARGET_CLUMP[drawn] == SOURCE_CLUMP[everyone][:, None]).mean() > 0.9
    if known_plan:
        plan = plan_of(coupling)[everyone]
        frequencies = np.stack([np.bincount(row, minlength=M) / count for row in drawn])
        # Draws of a row are systematic.
        np.testing.assert_allclose(frequencies, plan / plan.sum(1, keepdims=True), atol=2.5 / count)
    again, other = (np.asarray(coupling.conditional(key, everyone, count)) for key in (KEY, jax.random.key(6)))
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != other).any()
    # A cell that is asked for many times has draws of its own each time.
    alike = np.asarray(coupling.conditional(KEY, np.full(16, everyone[0]), 1))
    assert len(np.unique(alike)) > 1
    # Which other cells are asked for does not matter to the law of a cell.
    alone = np.asarray(coupling.conditional(KEY, everyone[-1:], 40 if known_plan else 12))
    assert (TARGET_CLUMP[alone] == SOURCE_CLUMP[everyone[-1]]).mean() > 0.8


def weights(coupling, known_plan):
    """Cells without weight are never drawn; pairs follow the marginals."""
    a, b = (np.asarray(one, np.float64) for one in coupling.priors)
    assert a.sum() == pytest.approx(1, abs=1e-5) and b.sum() == pytest.approx(1, abs=1e-5)
    assert a[3] == 0 and b[2] == 0
    i, j = (np.asarray(one) for one in next(coupling.pairs(KEY, batch_size=256, steps=8)))
    assert i.shape == j.shape == (8, 256)
    assert (a[i] > 0).all() and (b[j] > 0).all()
    pairs = 8 * 256
    for found, marginal, prior in (
        (i, coupling.source_marginal, a),
        (j, coupling.target_marginal, b),
    ):
        share = np.bincount(found.ravel(), minlength=len(prior)) / pairs
        # Five standard errors of a share of at most .12; targets of a batch are a sample themselves, and pools are drawn once.
        np.testing.assert_allclose(share, np.asarray(marginal), atol=5 * np.sqrt(2 * 0.11 / pairs))
        np.testing.assert_allclose(share, prior, atol=5 * np.sqrt(2 * 0.11 / pairs))
    assert (TARGET_CLUMP[j] == SOURCE_CLUMP[i]).mean() > 0.9
    other = next(coupling.pairs(jax.random.key(8), batch_size=256, steps=8))
    assert (np.asarray(other[1]) != j).any()
    again = next(coupling.pairs(KEY, batch_size=256, steps=8))
    np.testing.assert_array_equal(again[1], j)


def swap(coupling, known_plan):
    """Swapped, the plan is transposed; swapped twice, it is as before."""
    other = coupling.swapped()
    np.testing.assert_allclose(other.priors[0], coupling.priors[1])
    np.testing.assert_allclose(other.source_marginal, coupling.target_marginal, atol=1e-6)
    back = other.swapped()
    some = np.array([0, 5, 20])
    np.testing.assert_array_equal(back.conditional(KEY, some, 3), coupling.conditional(KEY, some, 3))
    drawn = np.asarray(other.conditional(KEY, np.array([0, 5, 15, 19]), 8))
    assert drawn.max() < N
    assert (SOURCE_CLUMP[drawn] == TARGET_CLUMP[[0, 5, 15, 19]][:, None]).mean() > 0.8
    if known_plan:
        np.testing.assert_allclose(plan_of(other), plan_of(coupling).T, rtol=1e-4, atol=1e-9)


def extend(coupling, known_plan, problem):
    """Extended to the same cells it is the same; other cells and weights count."""
    source, target, given, shared = clumps(problem)
    tied = {} if shared is None else {"shared": shared}
    same = coupling.extend(source, target, **given, **tied)
    if known_plan:
        np.testing.assert_allclose(plan_of(same), plan_of(coupling), atol=5e-3)
        assert same.diagnostics.marginal_violation < 0.03 and same.diagnostics.converged
    left, right = np.r_[0:8, 14:20], np.r_[0:6, 11:17]
    a, b = np.arange(14.0), np.r_[0.0, np.ones(11)]
    tied = {} if shared is None else {"shared": (shared[0][left], shared[1][right])}
    some = coupling.extend(source[left], target[right], source_weights=a, target_weights=b, **tied)
    np.testing.assert_allclose(some.priors[0], a / a.sum(), rtol=1e-5)
    np.testing.assert_allclose(some.priors[1], b / b.sum(), rtol=1e-5)
    assert some.source_marginal.shape == (14,) and some.target_marginal.shape == (12,)
    drawn = np.asarray(some.conditional(KEY, np.arange(14), 6))
    assert drawn.shape == (14, 6) and drawn.min() > 0 and drawn.max() < 12
    assert ((drawn < 6) == (np.arange(14) < 8)[:, None]).mean() > 0.8
    i, j = (np.asarray(one) for one in next(some.pairs(KEY, batch_size=256, steps=8)))
    assert (i > 0).all() and (j > 0).all()
    share = np.bincount(i.ravel(), minlength=14) / i.size
    np.testing.assert_allclose(share, a / a.sum(), atol=5 * np.sqrt(0.14 / i.size))
    if known_plan:
        # What is said of the target marginal is what is drawn; half of all weight moved from one clump to the other.
        share = np.bincount(j.ravel(), minlength=12) / j.size
        np.testing.assert_allclose(share, some.target_marginal, atol=5 * np.sqrt(2 * 0.2 / j.size))
        assert some.diagnostics.marginal_violation > 0.1 and not some.diagnostics.converged
    with pytest.raises(ValueError, match="`source_weights` must be finite and not negative"):
        coupling.extend(source[left], target[right], source_weights=-np.ones(14), **tied)


def traces(coupling, known_plan):
    """Other numbers of cells, and other keys, compile nothing."""
    coupling.conditional(KEY, np.arange(5), 2)
    batches = coupling.pairs(KEY, batch_size=256, steps=8)
    next(batches)
    with compiles_at_most(0):
        coupling.conditional(jax.random.key(9), np.arange(6), 2)
        coupling.conditional(KEY, np.arange(11), 2)
        next(batches)
    with compiles_at_most(1):
        next(coupling.pairs(jax.random.key(10), batch_size=256, steps=8))


def diagnostics(coupling, known_plan):
    """Whatever is told is finite."""
    told = coupling.diagnostics
    assert np.isfinite([told.scale, told.epsilon, told.iterations, told.marginal_violation, told.mass]).all()
    assert told.mass == pytest.approx(1, abs=0.02)
    assert 1 <= told.effective_targets <= N
    assert told.iterations > 0 and told.marginal_violation >= 0
    assert np.isfinite(told.objective) == known_plan
    if known_plan:
        plan, (a, b) = plan_of(coupling), (np.asarray(one, np.float64) for one in coupling.priors)
        ratio = np.where(plan > 0, plan / np.maximum(np.outer(a, b), 1e-300), 1.0)
        assert told.kl == pytest.approx((plan * np.log(ratio)).sum() - plan.sum() + 1, abs=2e-3)
        costs = float(coupling.geometry.inverse) * told.epsilon * np.asarray(coupling.geometry.stored().matrix)
        assert told.cost == pytest.approx((plan * costs).sum(), rel=1e-3, abs=1e-5)
        assert told.penalty == 0.0
        assert (told.shared_cost is None) == ("fused" not in told.kind)
        if told.shared_cost is not None:
            _, _, _, shared = clumps("fused")
            costs = cdist(*shared, "sqeuclidean")
            wanted = (1 - coupling.config.alpha) * (plan * costs).sum() / told.shared_scale
            assert told.shared_cost == pytest.approx(wanted, rel=1e-2)
            assert 0 < told.shared_cost < told.cost


CHECKS = {
    "draws": draws,
    "weights": weights,
    "swap": swap,
    "extend": extend,
    "traces": traces,
    "diagnostics": diagnostics,
}
