"""The training loop: what it learns, when it ends, and what it leaves behind."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scgenot.coupling import CouplingConfig
from scgenot.datasets import gaussian_pair
from scgenot.flow import FlowConfig, HeldOut, NoiseToTarget, Standardizer, TrainConfig, VelocityField, validate_on
from scgenot.flow import _trainer as trainer
from scgenot.flow import _validation as validation
from scgenot.flow._trainer import ValidationSet, learning_rates, train_velocity
from scgenot.methods import GENOTSolver
from scgenot.metrics import cbw_uvp

N = 64


def leaves(params):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def assert_equal_weights(first, second):
    for one, other in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


def are_equal_weights(first, second):
    return all(np.array_equal(one, other) for one, other in zip(leaves(first), leaves(second), strict=True))


@pytest.fixture
def run(pairs, small, fixed_coupling):
    """Train on known pairs; return the result."""
    graphdef, params = nnx.split(VelocityField(2, 2, small, rngs=nnx.Rngs(0)))

    def run(config, *, key=0, before_round=None, partner=np.arange(N), target=pairs[1], validation=None, params=params):
        return train_velocity(
            jax.random.key(key),
            graphdef,
            params,
            fixed_coupling(partner, before_round),
            jnp.asarray(pairs[0]),
            jnp.asarray(target),
            config,
            validation=validation,
            progress_bar=False,
        )

    run.graphdef, run.params = graphdef, params
    return run


@pytest.fixture
def held_out(rng):
    draw = lambda: jnp.asarray(rng.normal(size=(40, 2)), jnp.float32)
    return ValidationSet(draw(), draw(), draw(), jnp.linspace(0, 1, 40))


# ---- What is learned -------------------------------------------------------------------------------------------------


def test_velocity_uses_its_source_cell(small, fixed_coupling):
    # Two sources, each at one point, go to two other points. A velocity that ignores x sends half of either to each:
    # all means would lie in the middle, off by 5.
    left, right = np.array([-1.0, 0.0]), np.array([1.0, 0.5])
    source = np.repeat([left, right], N // 2, axis=0).astype(np.float32)
    target = np.repeat([[0.0, 5.0], [0.0, -5.0]], N // 2, axis=0).astype(np.float32)
    config = TrainConfig(max_steps=300, batch_size=64, check_every=20, learning_rate=1e-2)
    solver, _, _ = GENOTSolver.fit(
        0,
        source,
        target,
        coupling=fixed_coupling(np.arange(N)),
        flow_config=small,
        train_config=config,
        progress_bar=False,
    )
    samples = solver.sample(1, np.stack([left, right]).astype(np.float32), 200)
    # Each conditional law is a point. Were x ignored, half of the samples would be 10 off and the mean distance 5.
    distances = np.linalg.norm(samples - np.array([[[0.0, 5.0]], [[0.0, -5.0]]]), axis=2)
    assert distances.mean() < 1.0
    assert distances.max() < 5.0  # each sample is nearer to its own target than to the other


def test_which_target_belongs_to_which_source_is_learned(pairs, fixed_coupling):
    # A one-to-one map: conditional means must be near it, and far from where they would be with targets permuted.
    source, target = pairs
    config = TrainConfig(max_steps=600, batch_size=64, check_every=20, learning_rate=1e-2)
    errors = {}
    order = np.random.default_rng(0).permutation(N)
    for name, partner in {"right": np.arange(N), "permuted": order}.items():
        solver, _, _ = GENOTSolver.fit(
            0,
            source,
            target,
            coupling=fixed_coupling(partner),
            flow_config=FlowConfig(hidden=(32, 32), time_frequencies=4),
            train_config=config,
            progress_bar=False,
        )
        means = solver.sample(1, source, 30).mean(1)
        errors[name] = np.mean(np.sum((means - target) ** 2, 1)) / target.var(0).sum()
    assert errors["right"] < 0.05  # 5 % of the variance unexplained
    assert errors["permuted"] > 0.5


@pytest.fixture(scope="module", params=["noise", "source"])
def gaussian(request):
    """A solver on a Gaussian pair in two dimensions, and the problem."""
    problem = gaussian_pair(2, rng=0)
    x, y = problem.sample_source(1, 2000).astype(np.float32), problem.sample_target(2, 2000).astype(np.float32)
    solver, result, coupling = GENOTSolver.fit(
        0,
        x,
        y,
        coupling_config=CouplingConfig(epsilon=problem.epsilon, scale_cost=1.0),
        flow_config=FlowConfig(hidden=(64, 64), start=request.param),
        train_config=TrainConfig(max_steps=800, batch_size=256, learning_rate=4e-3),
        progress_bar=False,
    )
    return problem, solver, result, coupling


def test_conditional_laws_of_a_gaussian_pair(gaussian):
    problem, solver, _, _ = gaussian
    x = problem.sample_source(3, 100).astype(np.float32)
    means, covariance = problem.conditional(x)

    def score(samples):
        return cbw_uvp(samples, means, covariance, problem.target_cov)

    samples = solver.sample(4, x, 500)
    rng = np.random.default_rng(5)
    floor = score(problem.sample_conditional(6, x, 500))
    independent = score(problem.sample_target(7, 100 * 500).reshape(100, 500, 2))
    others = score(samples[rng.permutation(100)])
    # 100 |error of the mean|^2 / variance of the target: 2 % stands for means that are off by a seventh of the target's
    # standard deviation, which 2000 cells (1/45 each) and 800 steps must beat. Ignoring x, or the x of another cell,
    # costs the variance that x explains, more than a quarter of it.
    assert score(samples) < floor + 2.0
    assert independent > 25 and others > 25
    assert floor < 0.5


def test_spread_of_the_conditional_laws(gaussian):
    # A deterministic map has the right means and no spread: metrics of means would not see it.
    problem, solver, _, _ = gaussian
    x = problem.sample_source(3, 50).astype(np.float32)
    samples = solver.sample(4, x, 500).astype(np.float64)
    spread = np.mean([np.cov(one.T) for one in samples], axis=0)
    # 800 steps; a tenth of the spread in each direction.
    np.testing.assert_allclose(spread, problem.conditional_cov, atol=0.15 * np.trace(problem.conditional_cov))


def test_loss_falls(gaussian):
    steps, losses = gaussian[2].history["train_loss"]
    assert steps == list(range(100, 801, 100))
    assert losses[-1] < losses[0]


# ---- Ends ------------------------------------------------------------------------------------------------------------


def test_runs_as_long_as_asked(run, brief):
    result = run(dataclasses.replace(brief, max_steps=50))
    assert (result.steps, result.stopped) == (50, "max_steps")
    assert result.history["train_loss"][0] == [20, 40, 50]
    assert not are_equal_weights(result.params, run.params)


def test_a_shorter_last_call_counts_its_own_steps_only(run, brief):
    # Losses are means over the steps that were done, not over the length of a call: at a tiny learning rate they stay.
    config = dataclasses.replace(brief, max_steps=41, learning_rate=1e-9)
    losses = run(config).history["train_loss"][1]
    assert losses[2] > losses[0] / 2


def test_early_stopping_stops_and_keeps_the_best(run, brief, held_out, monkeypatch):
    scripted = iter([3.0, 2.0, 1.0, 1.5, 1.2, 1.1, 0.1, 0.1])
    monkeypatch.setattr(trainer, "_validation_loss", lambda *_: next(scripted))
    config = dataclasses.replace(brief, max_steps=200, early_stopping=True, patience=3)
    result = run(config, validation=held_out)
    assert (result.steps, result.stopped) == (120, "early_stopping")
    assert result.history["validation_loss"] == ([20, 40, 60, 80, 100, 120], [3.0, 2.0, 1.0, 1.5, 1.2, 1.1])
    # With a constant rate, a run of 60 steps ends with the weights of the third check.
    assert_equal_weights(result.params, run(dataclasses.replace(brief, max_steps=60)).params)


def test_best_weights_without_early_stopping(run, brief, held_out, monkeypatch):
    config = dataclasses.replace(brief, max_steps=60)
    for restore in (True, False):
        scripted = iter([2.0, 1.0, 3.0])
        monkeypatch.setattr(trainer, "_validation_loss", lambda *_, values=scripted: next(values))
        result = run(dataclasses.replace(config, restore_best=restore), validation=held_out)
        assert (result.steps, result.stopped) == (60, "max_steps")
        expected = run(dataclasses.replace(config, max_steps=40 if restore else 60))
        assert_equal_weights(result.params, expected.params)


def test_a_validation_loss_that_is_not_a_number_is_never_the_best(run, brief, held_out, monkeypatch):
    scripted = iter([float("nan"), 2.0, 3.0])
    monkeypatch.setattr(trainer, "_validation_loss", lambda *_: next(scripted))
    result = run(dataclasses.replace(brief, restore_best=True), validation=held_out)
    assert_equal_weights(result.params, run(dataclasses.replace(brief, max_steps=40)).params)


def test_validation_loss_is_the_matching_loss(run, brief, held_out):
    result = run(dataclasses.replace(brief, max_steps=20), validation=held_out)
    model = nnx.merge(run.graphdef, result.params)
    t, x, y, z = (np.asarray(one) for one in (held_out.t, held_out.x, held_out.y, held_out.z))
    between = (1 - t[:, None]) * z + t[:, None] * y
    velocity = np.asarray(model(held_out.t, jnp.asarray(between), held_out.x))
    assert result.history["validation_loss"][1] == [pytest.approx(np.mean((velocity - (y - z)) ** 2), rel=1e-4)]


def test_losses_that_are_not_finite_stop_with_the_last_good_weights(run, brief, pairs):
    target = pairs[1].copy()
    target[-1] = np.nan
    partner = np.arange(N) % (N - 1)  # the bad target is nobody's partner ...

    def poison(number, j):
        return j if number < 2 else jnp.full_like(j, N - 1)  # ... until the third round

    with pytest.warns(RuntimeWarning, match="exploded.*last good weights.*after 20 steps.*`learning_rate`"):
        result = run(dataclasses.replace(brief, max_steps=200), before_round=poison, partner=partner, target=target)
    # The weights after step 40 were not tried: the loss that would have is the one that failed.
    assert (result.steps, result.stopped) == (20, "diverged")
    expected = run(dataclasses.replace(brief, max_steps=20), partner=partner, target=target)
    assert_equal_weights(result.params, expected.params)
    assert all(np.isfinite(result.history["train_loss"][1]))


@pytest.mark.parametrize("check_every", [1, 20])
@pytest.mark.parametrize("bad_step", [0, 1, 20])
def test_an_outlier_among_the_targets_is_trained_on(run, brief, pairs, bad_step, check_every):
    # One batch has one target 300 standard deviations away: a loss of hundreds, once. In the first batch, or a later one.
    target = pairs[1].copy()
    target[-1] = 300.0
    partner = np.arange(N) % (N - 1)

    def outlier(number, j):
        k = bad_step - number * check_every
        return j.at[k, 0].set(N - 1) if 0 <= k < check_every else j

    config = dataclasses.replace(brief, check_every=check_every)
    result = run(config, before_round=outlier, partner=partner, target=target)
    assert (result.steps, result.stopped) == (60, "max_steps")
    losses = result.history["train_loss"][1]
    assert max(losses) > 10 * np.median(losses) if check_every == 1 else max(losses) > 2 * min(losses)


def test_a_loss_that_explodes_late_is_seen(run, brief, pairs):
    # From the third round on every target lies far away: no outlier any more, whatever the earlier losses were.
    target = pairs[1].copy()
    target[-1] = 300.0
    partner = np.arange(N) % (N - 1)
    far = lambda number, j: j if number < 2 else jnp.full_like(j, N - 1)
    with pytest.warns(RuntimeWarning, match="exploded.*after 20 steps"):
        result = run(dataclasses.replace(brief, max_steps=200), before_round=far, partner=partner, target=target)
    assert (result.steps, result.stopped) == (20, "diverged")


@pytest.mark.parametrize("learning_rate", [1e4, 1e6, 1e12])
@pytest.mark.parametrize("check_every", [1, 20])
def test_a_huge_learning_rate_leaves_finite_weights_and_says_so(run, brief, check_every, learning_rate):
    # A diverging loss stops training with the last good weights and says so. Adam's steps are as large as the
    # rate, so some of these losses overflow, and others stay finite at 1e20 or more, from 2 at the start.
    config = dataclasses.replace(brief, learning_rate=learning_rate, check_every=check_every)
    with pytest.warns(RuntimeWarning, match="`learning_rate`"):
        result = run(config)
    assert result.stopped == "diverged"
    velocity = nnx.merge(run.graphdef, result.params)(jnp.full(4, 0.5), jnp.ones((4, 2)), jnp.ones((4, 2)))
    assert np.abs(np.asarray(velocity)).max() < 1e3


def test_interrupted_training_keeps_what_it_has(run, brief):
    def interrupt(number, j):
        if number == 2:
            raise KeyboardInterrupt
        return j

    with pytest.warns(RuntimeWarning, match="interrupted; the weights reached are kept, those after 40 steps"):
        result = run(dataclasses.replace(brief, max_steps=200), before_round=interrupt)
    assert (result.steps, result.stopped) == (40, "interrupted")
    assert_equal_weights(result.params, run(dataclasses.replace(brief, max_steps=40)).params)


def test_other_errors_are_not_swallowed(run, brief):
    def fail(number, j):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        run(brief, before_round=fail)


# ---- Details ---------------------------------------------------------------------------------------------------------


def test_moving_average_by_hand(run, brief):
    config = dataclasses.replace(brief, check_every=1, warmup_steps=0)
    steps = [run.params, *(run(dataclasses.replace(config, max_steps=k)).params for k in (1, 2, 3))]
    found = run(dataclasses.replace(config, max_steps=3, ema_decay=0.75)).params
    expected = [leaf.astype(np.float64) for leaf in leaves(steps[0])]
    for params in steps[1:]:
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, leaves(params), strict=True)]
    for one, other in zip(leaves(found), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_same_key_same_weights_bit_for_bit(run, brief):
    first, again, other = (run(brief, key=key) for key in (0, 0, 1))
    assert_equal_weights(first.params, again.params)
    assert first.history == again.history
    assert not are_equal_weights(first.params, other.params)


def test_nothing_is_compiled_again(run, brief):
    run(brief)
    before = trainer._run_steps._cache_size()
    run(dataclasses.replace(brief, max_steps=50))  # a shorter last call
    run(dataclasses.replace(brief, max_steps=130), key=3)
    run(dataclasses.replace(brief, learning_rate=1e-4, schedule="cosine", warmup_steps=3))
    assert trainer._run_steps._cache_size() == before


def test_one_solver_after_another_shares_the_compiled_step(pairs, small, brief, fixed_coupling):
    def fit(seed):
        arguments = {"flow_config": small, "train_config": brief, "progress_bar": False}
        return GENOTSolver.fit(seed, *pairs, coupling=fixed_coupling(np.arange(N)), **arguments)

    fit(0)
    before = trainer._run_steps._cache_size()
    fit(1)
    assert trainer._run_steps._cache_size() == before


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_learning_rates(schedule):
    rates = learning_rates(TrainConfig(max_steps=1000, learning_rate=0.1, warmup_steps=50, schedule=schedule))
    assert rates.shape == (1000,)
    np.testing.assert_allclose(rates[:50], 0.1 * np.arange(1, 51) / 50, rtol=2e-3 if schedule == "cosine" else 1e-6)
    assert rates.max() == pytest.approx(0.1, rel=1e-5)
    if schedule == "constant":
        np.testing.assert_allclose(rates[50:], 0.1, rtol=1e-6)
    else:
        assert (np.diff(rates[51:]) < 0).all()
        assert rates[525] == pytest.approx(0.05, rel=1e-2)
        assert 0 <= rates[-1] < 1e-5 * 0.1 * 10  # to zero, one step before it


def test_warm_up_of_a_short_run_is_short():
    rates = learning_rates(TrainConfig(max_steps=20, learning_rate=1.0, warmup_steps=50))
    assert np.argmax(rates) <= 2
    assert len(learning_rates(TrainConfig(max_steps=1))) == 1
    assert learning_rates(TrainConfig(max_steps=1, learning_rate=1.0))[0] == 1.0


def test_gradients_are_clipped(run, brief):
    # Adam divides the gradient's scale out, so the first step has the size of the rate whatever the loss is.
    config = dataclasses.replace(brief, check_every=1, max_steps=1, learning_rate=1e-3)
    moved = [new - old for new, old in zip(leaves(run(config).params), leaves(run.params), strict=True)]
    assert max(np.abs(one).max() for one in moved) == pytest.approx(1e-3, rel=1e-2)


def test_held_out_cells_are_scored(pairs, small, brief, fixed_coupling):
    # Pairs that belong together are scored better after training, those of a far cell worse than either.
    near, far = HeldOut(pairs[0][:10], pairs[1][:10]), HeldOut(pairs[0][:10], pairs[1][:10] + 30.0)
    histories = []
    for held_out in (near, far):
        arguments = {"flow_config": small, "progress_bar": False, "held_out": held_out}
        config = dataclasses.replace(brief, max_steps=200, learning_rate=1e-2)
        _, result, _ = GENOTSolver.fit(
            0, *pairs, coupling=fixed_coupling(np.arange(N)), train_config=config, **arguments
        )
        assert set(result.history) == {"train_loss", "validation_loss", "validation_sinkhorn_divergence"}
        assert all(steps == list(range(20, 201, 20)) for steps, _ in result.history.values())
        histories.append({name: values for name, (_, values) in result.history.items()})
    for name in ("validation_loss", "validation_sinkhorn_divergence"):
        assert histories[0][name][-1] < 0.5 * histories[0][name][0]
        assert histories[1][name][-1] > 10 * histories[0][name][-1]


def test_the_divergence_is_between_the_masses_of_the_plan(run, fixed_coupling, pairs, monkeypatch):
    # The plan sends three times as much from the first half of the held-out cells, and gives the second half nothing.
    asked = {}

    class Massive(fixed_coupling):
        source_marginal = property(lambda self: jnp.where(jnp.arange(20) < 10, 0.075, 0.025))
        target_marginal = property(lambda self: jnp.where(jnp.arange(20) < 10, 0.1, 0.0))

        def extend(self, source, target, *, source_weights=None, target_weights=None, shared=None):
            asked.update(source_weights=source_weights, target_weights=target_weights)
            return Massive(np.arange(20))

    held = HeldOut(pairs[0][:20], pairs[1][:20], source_weights=np.ones(20), target_weights=np.full(20, 2.0))
    units = tuple(Standardizer.fit(side, np.ones(N), "global") for side in pairs)
    arguments = (jax.random.key(0), run.graphdef, NoiseToTarget(), Massive(np.arange(N)), units, held)
    monkeypatch.setattr(validation, "sinkhorn_divergence", lambda x, y: asked.update(target=y) or 1.0)
    sampled = validation.sample_blocks
    monkeypatch.setattr(
        validation,
        "sample_blocks",
        lambda g, w, key, source, *rest, **o: asked.update(source=source) or sampled(g, w, key, source, *rest, **o),
    )
    assert validate_on(*arguments)[1](run.params) == {"validation_sinkhorn_divergence": 1.0}
    first_half = [
        np.isin(asked[name][:, 0], side[:10, 0]).mean() for name, side in zip(("source", "target"), pairs, strict=True)
    ]
    # 64 cells, drawn evenly over the mass.
    assert first_half[0] == pytest.approx(0.75, abs=0.02) and first_half[1] == 1.0
    np.testing.assert_array_equal(asked["target_weights"], np.full(20, 2.0))
    np.testing.assert_array_equal(asked["source_weights"], np.ones(20))


def test_a_progress_bar_is_shown_only_if_wanted(run, brief, capsys):
    run(brief)
    assert capsys.readouterr().err == ""


def test_fit_leaves_its_input_alone(pairs, small, brief, fixed_coupling):
    before = [one.copy() for one in pairs]
    arguments = {"flow_config": small, "train_config": brief, "progress_bar": False}
    GENOTSolver.fit(0, *pairs, coupling=fixed_coupling(np.arange(N)), **arguments)
    for one, was in zip(pairs, before, strict=True):
        np.testing.assert_array_equal(one, was)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "`max_steps` must be a whole number of at least 1, got 0"),
        ({"batch_size": -3}, "`batch_size` must be a whole number"),
        ({"patience": 0}, "`patience` must be a whole number"),
        ({"warmup_steps": -1}, "`warmup_steps` must be a whole number of at least 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number above 0, got 0.0. Start from 1e-3"),
        ({"learning_rate": float("nan")}, "`learning_rate`"),
        ({"max_grad_norm": 0.0}, "`max_grad_norm`"),
        ({"targets": "all"}, "`targets` must be one of 'pair', 'batch', got 'all'"),
        ({"schedule": "cosin"}, "`schedule` must be one of 'cosine', 'constant', got 'cosin'. Did you mean 'cosine'"),
        ({"ema_decay": 1.0}, r"`ema_decay` must lie in \(0, 1\) or be None, got 1.0"),
    ],
)
def test_wrong_training_options(options, message, plain_calls):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "`hidden` must name at least one layer width"),
        ({"hidden": (32, 0)}, "`hidden` must be a whole number of at least 1, got 0"),
        ({"time_frequencies": 0}, "`time_frequencies`"),
        ({"standardize": "features"}, "`standardize` must be one of .* Did you mean 'feature'"),
    ],
)
def test_wrong_network_options(options, message, plain_calls):
    with pytest.raises(ValueError, match=message):
        FlowConfig(**options)
