"""Regressing on the mean over a batch's targets: the exact mean where all are looked at, the same expectation where some are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scgenot.costs import resolve_cost
from scgenot.coupling import CouplingConfig, Minibatch, PairScores, solve_coupling
from scgenot.flow import FlowConfig, NoiseAroundMean, NoiseAroundSource, NoiseToTarget, TrainConfig
from scgenot.flow._candidates import Candidates
from scgenot.methods import FitData, GENOTSolver, OTCFMSolver
from scgenot.sinkhorn import Geometry

N, M, D = 60, 50, 2
PATHS = {
    "noise": NoiseToTarget(),
    "source": NoiseAroundSource(),
    "linear": NoiseAroundMean(
        jnp.array([[0.5, 0.2], [0.0, -1.0]]), jnp.array([0.3, -0.2]), jnp.array([[0.7, 0.0], [0.4, 1.2]])
    ),
}
# Marginals kept, and both relaxed: targets are then drawn by other weights than the prior ones.
PLANS = {
    "balanced": CouplingConfig(epsilon=0.3),
    "unbalanced": CouplingConfig(epsilon=0.3, tau_source=0.9, tau_target=0.7),
}


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), 1.5 * rng.normal(size=(M, D)) + 0.5
    weights = [rng.uniform(0.2, 2.0, size) for size in (N, M)]
    return x.astype(np.float32), y.astype(np.float32), *(one / one.sum() for one in weights)


def solved(cells, config):
    x, y, a, b = cells
    return solve_coupling(jax.random.key(0), x, y, source_weights=a, target_weights=b, config=config)


def whole_plan(coupling):
    """The plan by its definition, in double precision."""
    one = coupling.geometry
    costs = ((np.asarray(one.x, float)[:, None] - np.asarray(one.y, float)[None]) ** 2).sum(axis=2)
    u, v = (np.asarray(side, float) for side in (coupling.potentials.u, coupling.potentials.v))
    a, b = (np.asarray(side, float) for side in (coupling.a, coupling.b))
    return a[:, None] * b * np.exp(u[:, None] + v - float(one.inverse) * costs)


def noise_of(path, start, x):
    return np.asarray(path.noise(jnp.asarray(start, jnp.float32), jnp.asarray(x, jnp.float32)), float)


# ---- The mean itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("path", PATHS)
def test_over_all_targets_it_is_the_posterior_mean(cells, plan, path):
    coupling, path = solved(cells, PLANS[plan]), PATHS[path]
    x, y, plan = cells[0], cells[1], whole_plan(coupling)
    rng, rows = np.random.default_rng(1), np.arange(0, N, 3)
    z, t = rng.normal(size=(len(rows), D)), np.linspace(0.02, 0.93, len(rows))
    own = rng.integers(0, M, len(rows))
    start = np.asarray(path.start(jnp.asarray(z, jnp.float32), jnp.asarray(x[rows])), float)
    position = (1 - t[:, None]) * start + t[:, None] * y[own]
    # By Bayes: the plan's row times the density of the noise that each target would need.
    expected = []
    for row, place, time in zip(rows, position, t, strict=True):
        starts = (place[None] - time * y) / (1 - time)
        log = np.log(plan[row]) - 0.5 * np.square(noise_of(path, starts, np.repeat(x[[row]], M, axis=0))).sum(axis=1)
        weights = np.exp(log - log.max())
        expected.append(weights @ y / weights.sum())
    # All targets, each once: drawn by their planned mass, which the scores leave out.
    scores = coupling.pair_scores(jnp.asarray(rows), jnp.arange(M)) + jnp.log(jnp.asarray(coupling.target_marginal))
    to_jax = lambda one: jnp.asarray(one, jnp.float32)
    found = path.mean_target(to_jax(t), to_jax(position), to_jax(x[rows]), to_jax(y), scores)
    # In single precision; targets are about 1.5 apart.
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["balanced", "unbalanced", "quadratic"])
def test_over_a_batch_it_has_the_expectation_of_one_pair_and_less_variance(cells, kind):
    if kind == "quadratic":
        x, y, a, b = cells
        y = np.concatenate([y, y[:, :1] ** 2], axis=1).astype(np.float32)
        weights = {"source_weights": a, "target_weights": b}
        config = CouplingConfig(epsilon=0.05)
        coupling = solve_coupling(jax.random.key(0), x, y, problem="quadratic", config=config, **weights)
    else:
        x, y, coupling = *cells[:2], solved(cells, PLANS[kind])
    path, batch, time = NoiseToTarget(), 64, 0.4
    scores, (x, y) = coupling.pair_scores, map(jnp.asarray, (x, y))
    # Between two spaces costs are looked up, in one they are computed.
    assert (scores.geometry.matrix is not None) == (kind == "quadratic")

    @jax.jit
    def off(i, j, z):
        t = jnp.full(batch, time)
        place = path.position(t, z, y[j])
        candidates = Candidates.among(scores, i, j, y)
        return place, candidates.means(path.mean_target, t, place, x[i]) - y[j]

    rng, rounds = np.random.default_rng(2), 400
    i, j = (np.asarray(side) for side in next(coupling.pairs(jax.random.key(1), batch_size=batch, steps=rounds)))
    z = rng.normal(size=(rounds, batch, y.shape[1])).astype(np.float32)
    places, offs = (np.stack(side) for side in zip(*map(off, i, j, z), strict=True))
    x, y = np.asarray(x), np.asarray(y)
    drawn = y[j]
    # Orthogonal to whatever the velocity may be a function of: the place, and the source cell.
    seen = {"nothing": 1.0, "place": places[..., :1], "its square": places[..., :1] ** 2, "source": x[i][..., :1]}
    for name, values in seen.items():
        products = (offs * values).mean(axis=1)
        error = products.std(axis=0) / np.sqrt(rounds)
        assert (np.abs(products.mean(axis=0)) < 4.5 * error).all(), name
    # Of what a pair's target varies at a place and source cell, much is gone. In the quadratic problem there is little: its rows are sharp.
    gone = np.square(offs).mean() / drawn.var(axis=(0, 1)).mean()
    assert gone > (0.05 if kind == "quadratic" else 0.2)
    assert (offs + drawn).var(axis=(0, 1)).mean() < (1.0 - 0.8 * gone) * drawn.var(axis=(0, 1)).mean()


def test_a_large_batch_is_averaged_over_in_parts_that_take_every_so_many_th_row():
    rows = jnp.arange(4096.0)[:, None]
    # On a line, in units of the cost: a score is minus a squared distance.
    scores = PairScores(Geometry(rows, rows, 1.0, resolve_cost("sqeuclidean")), jnp.zeros(4096))
    found = Candidates.among(scores, jnp.arange(4096), jnp.arange(4096), rows)
    assert found.targets.shape == (4, 1024, 1) and found.targets[1, :3, 0].tolist() == [1, 5, 9]
    assert found.scores[1, 2, :3].tolist() == [-64, -16, 0]
    # Rows come back in their order.
    back = found.means(lambda rows, targets, scores: rows, rows)
    assert back.tolist() == rows.tolist()
    # No part of it has more rows than are looked at together, and none is left out, whatever their number.
    assert Candidates.among(scores, jnp.arange(1500), jnp.arange(1500), rows).targets.shape == (2, 750, 1)


# ---- In training -----------------------------------------------------------------------------------------------------


def test_it_learns_a_law_better_in_as_few_steps(cells):
    # The law of a source cell is its row of the plan; what is compared is its mean, over all cells.
    coupling = solved(cells, CouplingConfig(epsilon=1.0))
    x, y, plan = cells[0], cells[1], whole_plan(coupling)
    wanted = plan @ y / plan.sum(axis=1, keepdims=True)
    few = {"max_steps": 200, "batch_size": 256, "check_every": 50, "learning_rate": 1e-2}
    off, told = {}, {}
    for targets in ("pair", "batch"):
        errors = []
        for seed in range(3):
            blank = GENOTSolver(D, D, FlowConfig(hidden=(64, 64)))
            learned, result = blank.learn(
                jax.random.key(seed), FitData(x, y, coupling), TrainConfig(**few, targets=targets), progress_bar=False
            )
            samples = learned.sample(seed, x, 400)
            errors.append(np.square(samples.mean(axis=1) - wanted).mean())
            told[targets, seed] = result.history["train_loss"][1][-1]
        off[targets] = np.mean(errors)
    assert off["batch"] < off["pair"]
    # What is reported is the loss of pairs either way, so that it compares with the validation loss.
    assert told["batch", 0] == pytest.approx(told["pair", 0], rel=0.1)


def test_where_it_cannot_be_it_is_refused(cells):
    x, y = cells[:2]
    asked = TrainConfig(max_steps=2, batch_size=16, check_every=2, targets="batch")
    batches = solve_coupling(jax.random.key(0), x, y, kind=Minibatch())
    couplings = {GENOTSolver: batches, OTCFMSolver: solved(cells, CouplingConfig(epsilon=0.3))}
    for solver, coupling in couplings.items():
        blank = solver(D, D, FlowConfig(hidden=(8,)))
        with pytest.raises(ValueError, match="`targets`='batch' needs a flow from noise and.*Use targets='pair'"):
            blank.learn(jax.random.key(0), FitData(x, y, coupling), asked, progress_bar=False)
