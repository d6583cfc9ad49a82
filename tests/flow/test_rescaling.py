"""Growth: right where it is known, exactly 1 where marginals are kept, a function of the cell."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

import scgenot.methods._growth as growth_module
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.flow import FlowConfig, RescalingConfig, TrainConfig
from scgenot.flow._scaling import Standardizer
from scgenot.methods import GENOTSolver
from scgenot.methods._growth import evaluate_growth, fit_rescaling, rescaling_loss

N = 500
ONE_STEP = TrainConfig(max_steps=1, batch_size=64, check_every=20, warmup_steps=0)
SMALL = FlowConfig(hidden=(32, 32), time_frequencies=4)


def clusters(rng, n, weight, shift):
    """Two clusters, of weights `weight` and 1 - `weight`."""
    cells = 0.7 * rng.normal(size=(n, 2))
    cells[:, 0] += np.where(rng.random(n) < weight, -1.5, 1.5)
    cells[:, 1] += shift
    return cells.astype(np.float32)


@pytest.fixture(scope="module")
def populations():
    rng = np.random.default_rng(0)
    return clusters(rng, N, 0.7, 0.0), clusters(rng, N - 50, 0.3, 1.0)


@pytest.fixture(scope="module")
def fit(populations):
    """Fit with some taus, once; the velocity field is left nearly untrained."""
    known = {}

    def fit(tau_source, tau_target):
        key = tau_source, tau_target
        if key not in known:
            config = CouplingConfig(tau_source=tau_source, tau_target=tau_target, scale_cost=4.0, tolerance=1e-4)
            known[key] = GENOTSolver.fit(
                0,
                *populations,
                coupling_config=config,
                flow_config=SMALL,
                train_config=ONE_STEP,
                progress_bar=False,
            )
        solver, _, coupling = known[key]
        return solver, coupling

    return fit


def pot_plan(source, target, taus, unit, epsilon=0.05):
    """Return the unbalanced plan as POT solves it: relaxation of strength epsilon tau / (1 - tau) a side."""
    ot = pytest.importorskip("ot")
    a, b = np.full(len(source), 1 / len(source)), np.full(len(target), 1 / len(target))
    cost = ot.dist(source.astype(np.float64), target.astype(np.float64)) / unit
    strengths = tuple(epsilon * tau / (1 - tau) for tau in taus)
    return ot.unbalanced.sinkhorn_unbalanced(a, b, cost, epsilon, strengths, numItermax=5000, stopThr=1e-8)


# ---- Right where it is known -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("taus", [(0.9, 0.9), (0.95, 0.5)])
def test_growth_is_that_of_pot_plans(fit, populations, taus):
    solver, coupling = fit(*taus)
    plan = pot_plan(*populations, taus, 4.0)
    for side, cells, marginal in zip(
        ("source", "target"), populations, (plan.sum(axis=1), plan.sum(axis=0)), strict=True
    ):
        ours = coupling.source_marginal if side == "source" else coupling.target_marginal
        np.testing.assert_allclose(np.asarray(ours), marginal, rtol=1e-2)
        known, found = marginal * len(cells), solver.growth(cells, side)
        # The bars.
        assert spearmanr(found, known).statistic > 0.95
        assert found.mean() == pytest.approx(known.mean(), rel=0.05)


def test_growth_of_a_cluster_that_shrinks_is_lower(fit):
    # .7 against .3: the left cluster has too little to go to, the right one has room.
    solver, _ = fit(0.9, 0.9)
    left, right = np.array([[-1.5, 0.0]], np.float32), np.array([[1.5, 0.0]], np.float32)
    assert solver.growth(left)[0] < 0.7 * solver.growth(right)[0]
    down = [0.0, 1.0]
    assert solver.growth(left + down, "target")[0] > solver.growth(right + down, "target")[0] / 0.7


def test_growth_of_new_cells_against_another_sample(fit):
    # Cells and plan are both new: what is compared is the population's growth.
    rng = np.random.default_rng(1)
    source, target = clusters(rng, 700, 0.7, 0.0), clusters(rng, 700, 0.3, 1.0)
    plan = pot_plan(source, target, (0.5, 0.5), 4.0)
    solver, _ = fit(0.5, 0.5)
    assert spearmanr(solver.growth(source), plan.sum(axis=1)).statistic > 0.95
    assert spearmanr(solver.growth(target, "target"), plan.sum(axis=0)).statistic > 0.95


@pytest.mark.parametrize("loss", ["deviance", "squared"])
@pytest.mark.parametrize("mass", [1.0, 1e-4])
def test_a_known_function_and_its_mass(loss, mass):
    # Growth over e^4, known in closed form, with prior weights that are not uniform and some that are zero.
    rng = np.random.default_rng(0)
    cells = rng.uniform(-1, 1, size=(N, 3)).astype(np.float32)
    prior = rng.uniform(0.2, 1.0, N) * (np.arange(N) % 10 > 0)
    prior /= prior.sum()
    growth = lambda x: mass * np.exp(2 * x[:, 0])
    marginal = prior * growth(cells)
    params = fit_rescaling(
        jax.random.key(0),
        jnp.asarray(cells),
        jnp.asarray(prior, jnp.float32),
        jnp.asarray(marginal, jnp.float32),
        RescalingConfig(loss=loss),
    )
    units = Standardizer(jnp.zeros(3), jnp.ones(3))
    found = evaluate_growth(params, units, cells, RescalingConfig(loss=loss))
    assert prior @ found == pytest.approx(marginal.sum(), rel=0.01)
    new = rng.uniform(-1, 1, size=(300, 3)).astype(np.float32)
    expected = growth(new)
    error = np.abs(evaluate_growth(params, units, new, RescalingConfig()) - expected)
    # 5 % of the largest growth anywhere, while a constant is off by 80 % of it.
    assert error.max() < 0.05 * mass * np.exp(2)


def test_growth_that_is_no_number_is_not_returned(monkeypatch):
    rng = np.random.default_rng(0)
    cells, prior = rng.normal(size=(64, 3)).astype(np.float32), np.full(64, 1 / 64)
    marginal = prior * np.exp(cells[:, 0])
    fitted = lambda marginal=marginal, **options: fit_rescaling(
        jax.random.key(0), cells, prior, marginal, RescalingConfig(steps=20, **options)
    )
    with pytest.raises(ValueError, match="marginals are not finite"):
        fitted(np.where(np.arange(64) == 3, np.nan, marginal))
    with pytest.raises(ValueError, match=r"`learning_rate` of 1e\+38, nor at a tenth of it"):
        fitted(learning_rate=1e38)
    # Started again, it ends where it would have; and where it does not end, where a tenth of the rate does.
    real, rates = growth_module._fit, []

    def failing(times):
        def fit(graphdef, config, *given):
            rates.append(config.learning_rate)
            found = real(graphdef, config, *given)
            return found if len(rates) > times else jax.tree.map(lambda one: one * np.nan, found)

        return fit

    for times, rate in ((1, 1e-1), (2, 1e-2)):
        monkeypatch.setattr(growth_module, "_fit", failing(times))
        rates.clear()
        again = fitted(learning_rate=1e-1)
        assert rates == [pytest.approx(one) for one in (1e-1, 1e-1, 1e-2)[: times + 1]]
        monkeypatch.setattr(growth_module, "_fit", real)
        for one, other in zip(*map(jax.tree.leaves, (again, fitted(learning_rate=rate))), strict=True):
            np.testing.assert_array_equal(one, other)


def test_noise_of_a_plan_is_averaged_over_neighbours():
    # Ratios with noise of .8 in the logarithm around a smooth function of one of ten features.
    rng = np.random.default_rng(0)
    cells, new = (rng.normal(size=(N, 10)).astype(np.float32) for _ in range(2))
    growth = lambda x: np.exp(0.5 * x[:, 0])
    prior = np.full(N, 1 / N)
    marginal = prior * growth(cells) * np.exp(rng.normal(scale=0.8, size=N))
    units = Standardizer(jnp.zeros(10), jnp.ones(10))
    quality = {}
    for neighbours in (0, 15):
        config = RescalingConfig(neighbours=neighbours)
        params = fit_rescaling(jax.random.key(0), cells, prior, marginal, config)
        quality[neighbours] = spearmanr(evaluate_growth(params, units, new, config), growth(new)).statistic
    assert quality[15] > quality[0] + 0.1


def test_training_cells_have_the_plans_own_growth(fit, plain_calls):
    solver, coupling = fit(0.9, 0.9)
    for side, marginal in zip(("source", "target"), (coupling.source_marginal, coupling.target_marginal), strict=True):
        own = solver.training_growth(side)
        np.testing.assert_allclose(own, np.asarray(marginal) * len(own), rtol=1e-5)
    assert fit(1.0, 0.5)[0].training_growth("source") is None
    with pytest.raises(ValueError, match="`population` must be one of"):
        solver.training_growth("sources")


@pytest.mark.parametrize("loss", ["deviance", "squared"])
def test_losses_are_least_at_the_ratio_and_mass_matching_counts(loss):
    ratio = jnp.asarray([0.01, 0.5, 3.0])
    gradient = jax.grad(rescaling_loss)
    np.testing.assert_allclose(gradient(ratio, ratio, loss), 0.0, atol=1e-6)
    best = rescaling_loss(ratio, ratio, loss)
    for other in (ratio * 1.2, ratio * 0.8, ratio[::-1]):
        assert rescaling_loss(other, ratio, loss) > best
    # Errors that cancel have no mass term, errors of one sign have half of the squared mean.
    off = jnp.asarray([0.1, 0.1, 0.1])
    eta = ratio + off
    divergence = 0.5 * off**2 if loss == "squared" else eta - ratio * jnp.log(eta)
    assert float(rescaling_loss(eta, ratio, loss)) == pytest.approx(float(divergence.mean() + 0.5 * 0.1**2), rel=1e-5)


def test_prior_weights_are_what_growth_is_relative_to(populations):
    # Prior weights that already have the target's composition leave less to learn than uniform ones.
    source, target = populations
    weights = np.where(source[:, 0] < 0, 0.3 / 0.7, 0.7 / 0.3)
    config = CouplingConfig(tau_source=0.8, tau_target=0.8, scale_cost=4.0)
    spread = {}
    for name, some in {"uniform": None, "weighted": weights}.items():
        coupling = solve_coupling(jax.random.key(0), source, target, source_weights=some, config=config)
        solver, _, _ = GENOTSolver.fit(
            0, source, target, coupling=coupling, flow_config=SMALL, train_config=ONE_STEP, progress_bar=False
        )
        growth, prior = solver.growth(source), np.asarray(coupling.priors[0])
        assert prior @ growth == pytest.approx(float(coupling.source_marginal.sum()), rel=0.02)
        left = source[:, 0] < 0
        spread[name] = abs(np.log(growth[left].mean() / growth[~left].mean()))
    assert spread["weighted"] < 0.5 * spread["uniform"]


# ---- Off where nothing is relaxed ------------------------------------------------------------------------------------


def test_balanced_is_exactly_one_and_has_no_weights(fit, populations):
    solver, _ = fit(1.0, 1.0)
    assert solver.weights.rescaling == {} and solver.marginal_kinds == ("kept", "kept")
    for side, cells in zip(("source", "target"), populations, strict=True):
        np.testing.assert_array_equal(solver.growth(cells, side), np.ones(len(cells), np.float32))


@pytest.mark.parametrize("taus", [(1.0, 0.5), (0.5, 1.0)])
def test_the_side_that_is_kept_is_not_learned(fit, populations, taus):
    solver, _ = fit(*taus)
    relaxed, kept = ("target", "source") if taus[0] == 1.0 else ("source", "target")
    assert set(solver.weights.rescaling) == {relaxed}
    cells = dict(zip(("source", "target"), populations, strict=True))
    assert (solver.growth(cells[kept], kept) == 1.0).all()
    growth = solver.growth(cells[relaxed], relaxed)
    # The other side sends all it has: the mean growth is 1, and who grows differs.
    assert growth.mean() == pytest.approx(1.0, rel=0.02)
    assert growth.std() > 0.1


def test_velocity_and_samples_do_not_depend_on_the_rescaling(populations, small, brief):
    samples = []
    for loss in ("deviance", "squared"):
        config = CouplingConfig(tau_source=0.9, tau_target=0.9)
        flow = dataclasses.replace(small, rescaling=RescalingConfig(loss=loss, steps=10))
        arguments = {"flow_config": flow, "train_config": brief, "progress_bar": False}
        solver, _, _ = GENOTSolver.fit(0, *populations, coupling_config=config, **arguments)
        samples.append(solver.sample(0, populations[0][:5], 3))
    np.testing.assert_array_equal(*samples)


# ---- Any cells, any file ---------------------------------------------------------------------------------------------


def test_shape_type_and_independence_of_company(fit):
    solver, _ = fit(0.9, 0.9)
    rng = np.random.default_rng(2)
    cells = rng.normal(size=(5000, 2)).astype(np.float32)  # more than one block
    growth = solver.growth(cells)
    assert growth.shape == (5000,) and growth.dtype == np.float32 and (growth > 0).all()
    np.testing.assert_allclose(solver.growth(cells[4990:]), growth[4990:], rtol=1e-5)
    assert solver.growth(cells[:0]).shape == (0,)


def test_same_seed_same_growth(populations):
    arguments = {"flow_config": SMALL, "train_config": ONE_STEP, "progress_bar": False}
    config = CouplingConfig(tau_source=0.9, tau_target=0.9)
    first, again, other = (
        GENOTSolver.fit(seed, *populations, coupling_config=config, **arguments)[0].growth(populations[0])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_template_has_the_weights_and_no_more(fit):
    for taus in [(0.9, 0.9), (1.0, 1.0), (1.0, 0.5)]:
        solver, _ = fit(*taus)
        template = solver.weights_template()
        assert jax.tree.structure(template) == jax.tree.structure(solver.weights)
        shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
        assert shapes(template) == shapes(solver.weights)


@pytest.mark.parametrize("taus", [(0.9, 0.9), (1.0, 0.5)])
def test_a_saved_model_has_the_growth(fit, populations, taus, tmp_path):
    from scgenot.model.saving._files import flatten_arrays, read_model, unflatten_arrays, write_model

    solver, _ = fit(*taus)
    write_model(tmp_path / "model", {}, flatten_arrays(solver.weights), prefix="", overwrite=False)
    blank = GENOTSolver(2, 2, SMALL, marginal_kinds=solver.marginal_kinds)
    weights = unflatten_arrays(blank.weights_template(), read_model(tmp_path / "model", prefix="").arrays)
    loaded = dataclasses.replace(blank, weights=weights)
    for side, cells in zip(("source", "target"), populations, strict=True):
        np.testing.assert_array_equal(loaded.growth(cells, side), solver.growth(cells, side))


def test_a_saved_genot_has_the_growth_and_an_older_one_says_that_it_has_none(ready, tmp_path):
    import json

    from scgenot import GENOT

    model = GENOT(ready, tau_source=0.8, flow_config=SMALL)
    model.train(max_steps=1, batch_size=64, check_every=20, progress_bar=False)
    model.save(tmp_path / "model")
    cells = ready.obsm["X_pca"]
    again = GENOT.load(tmp_path / "model", False)
    np.testing.assert_array_equal(again._method.growth(cells), model._method.growth(cells))
    assert again._method.growth(cells).std() > 0
    # As written before there was growth: no kinds, no networks in the config or among the weights.
    described = tmp_path / "model" / "scgenot.json"
    content = json.loads(described.read_text())
    content["flow"] = content.pop("method")["config"]
    del content["flow"]["rescaling"]
    described.write_text(json.dumps(content))
    older = GENOT.load(tmp_path / "model", False)
    assert older._method.weights.rescaling == {}
    with pytest.raises(ValueError, match="'source': its growth is not known"):
        older._method.growth(cells)
    assert (older._method.growth(cells, "target") == 1.0).all()
    np.testing.assert_array_equal(older._method.sample(0, cells, 2), model._method.sample(0, cells, 2))


def test_config_from_a_file():
    config = FlowConfig(rescaling=RescalingConfig(hidden=(8,), steps=7))
    assert FlowConfig.from_dict(dataclasses.asdict(config)) == config
    saved_before = {k: v for k, v in dataclasses.asdict(FlowConfig()).items() if k != "rescaling"}
    assert FlowConfig.from_dict(saved_before) == FlowConfig()


# ---- Errors ----------------------------------------------------------------------------------------------------------


def test_minibatches_do_not_tell_growth(populations):
    config = CouplingConfig(tau_source=0.5)
    solver, _, _ = GENOTSolver.fit(
        0,
        *populations,
        coupling_kind="minibatch",
        coupling_config=config,
        flow_config=SMALL,
        train_config=ONE_STEP,
        progress_bar=False,
    )
    with pytest.raises(ValueError, match="'source': its growth is not known. `tau_source`.*minibatch.*'global'"):
        solver.growth(populations[0])
    # The other side is kept in each batch.
    assert (solver.growth(populations[1], "target") == 1.0).all()


def test_wrong_calls(fit, populations, plain_calls):
    solver, _ = fit(0.9, 0.9)
    with pytest.raises(ValueError, match="`population` must be one of 'source', 'target', got 'sources'. Did you mean"):
        solver.growth(populations[0], "sources")
    with pytest.raises(ValueError, match="cells x 2 features"):
        solver.growth(np.zeros((4, 3), np.float32))
    with pytest.raises(RuntimeError, match="no weights yet"):
        GENOTSolver(2, 2, SMALL).growth(populations[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "`hidden` must name at least one layer width"),
        ({"steps": 0}, "`steps` must be a whole number of at least 1"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number above 0"),
        ({"loss": "square"}, "`loss` must be one of 'deviance', 'squared', got 'square'. Did you mean 'squared'"),
    ],
)
def test_wrong_options(options, message, plain_calls):
    with pytest.raises(ValueError, match=message):
        RescalingConfig(**options)
