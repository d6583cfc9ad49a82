"""`train`, `history` and `coupling_summary`."""

import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ott.geometry import costs as ott_costs
from tests.conftest import BRIEF, SETUP, SMALL, UNOPTIMIZED, assert_same, make_adata, snapshot
from tests.model.modalities import FEW, build, make_mdata

from scgenot import GENOT
from scgenot.coupling import Diagnostics, StartReport
from scgenot.flow import TrainConfig
from scgenot.flow import _trainer as trainer
from scgenot.methods import GENOTSolver
from scgenot.model import _training
from scgenot.model._coupling_summary import summary_rows


@pytest.fixture
def model(ready):
    return GENOT(ready, flow_config=SMALL)


def state_of(model):
    """What a failed call must leave as it was."""
    weights = model._method.weights
    return (
        model.is_trained_,
        model.steps_,
        model.stopped_,
        None if model.history is None else {k: v.copy() for k, v in model.history.items()},
        None if weights is None else model.sample(n_samples=2),
    )


def assert_same_state(model, before):
    for one, was in zip(state_of(model), before, strict=True):
        if isinstance(was, dict):
            assert set(one) == set(was)
            for key in was:
                pd.testing.assert_frame_equal(one[key], was[key])
        elif isinstance(was, np.ndarray):
            np.testing.assert_array_equal(one, was)
        else:
            assert one == was


def test_history(trained):
    assert set(trained.history) == {"train_loss", "validation_loss", "validation_sinkhorn_divergence"}
    for name, frame in trained.history.items():
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.columns) == [name] and frame.index.name == "step"
        assert list(frame.index) == list(range(20, 201, 20))
        assert np.isfinite(frame[name]).all()


def test_coupling_summary(trained):
    summary = trained.coupling_summary()
    assert list(summary.columns) == [field.name for field in dataclasses.fields(Diagnostics) if field.name != "starts"]
    assert summary.index.name == "start" and len(summary) == 1
    row = summary.iloc[0]
    assert row["kind"] == "linear, global" and row["epsilon"] == 0.05
    assert row["converged"] and row["marginal_violation"] <= 1e-3
    assert row["mass"] == pytest.approx(1, abs=1e-4)
    # Mean squared distance between the populations: 4^2 + 2^2 between means, variances 1, .49, .16 twice; 60 cells.
    assert row["scale"] == pytest.approx(20 + 2 * 1.65, rel=0.2)


def test_coupling_summary_has_a_row_for_each_start(trained):
    model = copy.copy(trained)
    starts = (StartReport("profiles", 1.0, 9, 1e-4, True, True), StartReport("product", 2.0, 0, 0.3, False, False))
    whole = Diagnostics("quadratic, global", 1.0, 1.0, 0.05, 9, 1e-4, 1.0, 7.0, True, starts)
    model._coupling_diagnostics = summary_rows(whole)
    summary = model.coupling_summary()
    assert summary.index.tolist() == ["profiles", "product"]
    assert summary["objective"].tolist() == [1.0, 2.0]
    assert summary["converged"].tolist() == [True, False]
    assert set(summary["kind"]) == {"quadratic, global"}


def test_coupling_summary_tells_that_landmarks_converged_and_all_cells_did_not(trained):
    model = copy.copy(trained)
    starts = (StartReport("profiles", 1.0, 9, 1e-4, True, True), StartReport("product", 2.0, 4, 1e-4, True, True))
    whole = Diagnostics("quadratic, global, 9 x 9 landmarks", 1.0, 1.0, 0.05, 30, 0.2, 1.0, 7.0, False, starts)
    model._coupling_diagnostics = summary_rows(whole)
    assert model.coupling_summary()["converged"].tolist() == [False, True]


def test_before_training(model):
    assert model.history is None
    assert not model.is_trained_
    with pytest.raises(RuntimeError, match=r"no coupling yet. Call `model.train\(\)`"):
        model.coupling_summary()


def test_training_learns_which_way(trained):
    # Stimulated cells lie at (4, 0, -2): the mean of what is sampled must be there, not where the source cells are.
    mean = trained.sample(n_samples=30).mean((0, 1))
    rows = (trained.adata.obs["condition"] == "stimulated").to_numpy()
    wanted = trained.adata.obsm["X_pca"][rows].mean(0)
    # 45 of the 50 cells are trained on; standard errors of means up to .15, and 200 steps.
    np.testing.assert_allclose(mean, wanted, atol=0.6)


def test_train_and_validation_cells(trained):
    both = np.concatenate([trained.train_indices_, trained.validation_indices_])
    condition = trained.adata.obs["condition"].to_numpy()
    np.testing.assert_array_equal(np.sort(both), np.flatnonzero(condition != "unused"))
    # A tenth of each population.
    held = condition[trained.validation_indices_]
    assert ((held == "control").sum(), (held == "stimulated").sum()) == (6, 5)


def test_no_validation(model):
    model.train(**BRIEF, validation_size=0)
    assert set(model.history) == {"train_loss"}
    assert len(model.validation_indices_) == 0 and len(model.train_indices_) == 110


def test_epochs_are_passes_over_the_training_source_cells(model):
    # 54 training source cells in batches of 64: one step a pass; in batches of 20: three.
    model.train(5, batch_size=64, check_every=20, progress_bar=False)
    assert model.steps_ == 5
    model.train(5, batch_size=20, check_every=20, progress_bar=False)
    assert model.steps_ == 15
    assert list(model.history["train_loss"].index) == [15]


def test_steps_are_steps(model):
    model.train(**BRIEF | {"max_steps": 25})
    assert model.steps_ == 25 and model.stopped_ == "max_steps"
    assert list(model.history["train_loss"].index) == [20, 25]


WRONG = {
    "epochs and steps": ({"max_epochs": 2, "max_steps": 10}, ValueError, "`max_epochs` or `max_steps`, not both"),
    "epochs": ({"max_epochs": 0, "max_steps": None}, ValueError, "`max_epochs` must be a whole number"),
    "steps": ({"max_steps": 0}, ValueError, "`max_steps` must be a whole number of at least 1, got 0"),
    "batch": ({"batch_size": 0}, ValueError, "`batch_size` must be a whole number of at least 1, got 0"),
    "batch with epochs": (
        {"batch_size": 0, "max_epochs": 1, "max_steps": None},
        ValueError,
        "`batch_size` must be a whole number of at least 1, got 0",
    ),
    "validation": ({"validation_size": 1.0}, ValueError, r"`validation_size` must lie in \[0, 1\), got 1.0"),
    "early stopping": (
        {"validation_size": 0, "early_stopping": True},
        ValueError,
        "`early_stopping` needs held-out cells, got `validation_size`=0",
    ),
    "learning rate": ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be a finite number above 0, got -1.0"),
    "misspelt": (
        {"learning_rat": 0.1},
        TypeError,
        "train.. has no argument 'learning_rat'. Did you mean 'learning_rate'",
    ),
    "misspelt option": ({"patiense": 3}, TypeError, "no argument 'patiense'. Did you mean 'patience'"),
    "rng": ({"rng": "zero"}, TypeError, "`rng` must be an int, a numpy.random.Generator or None, got str"),
}


@pytest.mark.parametrize(("changes", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_change_nothing(trained, changes, error, message, plain_calls):
    before, state = snapshot(trained.adata), state_of(trained)
    with pytest.raises(error, match=message):
        trained.train(**BRIEF | changes)
    assert_same(trained.adata, before)
    assert_same_state(trained, state)


def test_same_seed_same_weights_bit_for_bit():
    samples = []
    for seed in (3, 3, 4, np.random.default_rng(0), np.random.default_rng(0)):
        adata = make_adata()
        GENOT.setup_anndata(adata, **SETUP)
        model = GENOT(adata, flow_config=SMALL)
        model.train(**BRIEF, rng=seed)
        samples.append(model.sample(n_samples=2))
    np.testing.assert_array_equal(samples[0], samples[1])
    assert (samples[0] != samples[2]).any()
    np.testing.assert_array_equal(samples[3], samples[4])


def test_training_twice_starts_anew(model):
    model.train(**BRIEF)
    first = model.sample(n_samples=2)
    model.train(**BRIEF)
    np.testing.assert_array_equal(model.sample(n_samples=2), first)
    assert list(model.history["train_loss"].index) == [20, 40]


class Recorded(Exception):
    """Ends training once the method has been asked to learn."""


OPTIONS = {
    "batch_size": 65,
    "learning_rate": 2e-3,
    "schedule": "constant",
    "warmup_steps": 7,
    "max_grad_norm": 2.0,
    "ema_decay": 0.9,
    "targets": "batch",
    "check_every": 21,
    "early_stopping": True,
    "patience": 3,
    "restore_best": True,
    "max_steps": 41,
}


@pytest.mark.parametrize("turned", [False, True], ids=["train", "reverse"])
def test_options_reach_the_trainer(model, monkeypatch, turned):
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(TrainConfig)}
    asked = []

    def learn(self, key, data, train_config, *, progress_bar=True):
        asked.append((train_config, progress_bar, data))
        raise Recorded

    if turned:
        model.train(**BRIEF | {"max_steps": 20})
    monkeypatch.setattr(GENOTSolver, "learn", learn)
    with pytest.raises(Recorded):
        (model.reverse if turned else model.train)(**OPTIONS, progress_bar=False)
    (config, bar, data) = asked[0]
    assert {name: getattr(config, name) for name in OPTIONS} == OPTIONS and bar is False
    sizes = (len(data.source), len(data.target), len(data.held_out.source), len(data.held_out.target))
    assert sizes == ((45, 54, 5, 6) if turned else (54, 45, 6, 5))


def test_averaged_weights_are_others(model):
    plain, averaged = [], []
    for found, options in ((plain, {}), (averaged, {"ema_decay": 0.9})):
        model.train(**BRIEF, **options)
        found.append(model.sample(n_samples=1))
    assert (plain[0] != averaged[0]).any()


def test_early_stopping(model, monkeypatch):
    values = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(trainer, "_validation_loss", lambda *_: next(values))
    model.train(**BRIEF | {"max_steps": 200}, early_stopping=True, patience=2)
    assert (model.steps_, model.stopped_) == (60, "early_stopping")
    assert "early_stopping" in repr(model)


@pytest.fixture
def interrupt_at(monkeypatch):
    """Raise at the given compiled call of the training loop."""
    real = trainer._run_steps

    def at(number, error):
        calls = iter(range(1000))

        def run(*args, **kwargs):
            if next(calls) == number:
                raise error
            return real(*args, **kwargs)

        monkeypatch.setattr(trainer, "_run_steps", run)

    return at


def test_interrupted_training_leaves_a_usable_model(model, interrupt_at, tmp_path):
    interrupt_at(2, KeyboardInterrupt)
    model.train(**BRIEF | {"max_steps": 200})
    assert (model.steps_, model.stopped_, model.is_trained_) == (40, "interrupted", True)
    samples = model.sample(n_samples=2)
    assert np.isfinite(samples).all() and len(model.history["train_loss"]) == 2
    assert "interrupted" in repr(model)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(GENOT.load(tmp_path / "model", model.adata).sample(n_samples=2), samples)


def test_interrupted_before_the_first_check_leaves_the_earlier_model_usable(model, interrupt_at):
    model.train(**BRIEF)
    interrupt_at(0, KeyboardInterrupt)
    model.train(**BRIEF)
    # An interrupted `train` leaves a usable model: there was one.
    assert np.isfinite(model.sample(n_samples=2)).all()


def test_interrupted_while_coupling_leaves_the_earlier_model(model, monkeypatch):
    model.train(**BRIEF)
    state = state_of(model)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_training, "solve_coupling", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.train(**BRIEF)
    assert_same_state(model, state)


def test_an_error_while_training_leaves_the_earlier_model(model, interrupt_at):
    model.train(**BRIEF)
    state, before = state_of(model), snapshot(model.adata)
    interrupt_at(1, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        model.train(**BRIEF)
    assert_same_state(model, state)
    assert_same(model.adata, before)


def test_diverging_training_leaves_a_usable_model(model, monkeypatch):
    real, calls = trainer._run_steps, iter(range(100))

    def run(*args, **kwargs):
        state, losses = real(*args, **kwargs)
        return (state, losses * jnp.nan) if next(calls) == 2 else (state, losses)

    monkeypatch.setattr(trainer, "_run_steps", run)
    with pytest.warns(RuntimeWarning, match="exploded.*after 20 steps.*`learning_rate`"):
        model.train(**BRIEF | {"max_steps": 200})
    assert (model.steps_, model.stopped_, model.is_trained_) == (20, "diverged", True)
    assert np.isfinite(model.sample(n_samples=2)).all()


def test_diverging_from_the_first_leaves_the_earlier_model_usable(model):
    model.train(**BRIEF)
    with pytest.warns(RuntimeWarning, match="`learning_rate`"):
        model.train(**BRIEF, learning_rate=1e20)
    # Training stops with the last good weights: there were some.
    assert np.isfinite(model.sample(n_samples=2)).all()


def test_no_convergence_is_said(ready):
    model = GENOT(ready, flow_config=SMALL, epsilon=0.001, max_iterations=2, tolerance=1e-6)
    with pytest.warns(RuntimeWarning, match="coupling did not converge.*`epsilon`"):
        model.train(**BRIEF | {"max_steps": 20})
    assert not model.coupling_summary()["converged"].any()


CHANGES = {
    "fewer cells": lambda adata: adata._inplace_subset_obs(np.arange(100)),
    "a wider representation": lambda adata: adata.obsm.__setitem__("X_pca", adata.obsm["X_wide"]),
    "other categories": lambda adata: setattr(
        adata, "obs", adata.obs.assign(condition=np.where(adata.obs["donor"] == "a", adata.obs["condition"], "unused"))
    ),
    "no representation": lambda adata: adata.obsm.__delitem__("X_pca"),
    "no column": lambda adata: setattr(adata, "obs", adata.obs.drop(columns="condition")),
    "not a number": lambda adata: adata.obsm["X_pca"].__setitem__(slice(None), np.nan),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_anndata_that_was_changed_after_setup(ready, change):
    model = GENOT(ready, flow_config=SMALL)
    CHANGES[change](ready)
    before = snapshot(ready)
    with pytest.raises((ValueError, KeyError), match="changed after setup|no column|neither 'X'|NaN or inf"):
        model.train(**BRIEF)
    assert not model.is_trained_
    if change != "not a number":
        assert_same(ready, before)


def test_values_that_were_changed_after_setup_are_used(ready):
    # Only what was set up is fixed; numbers are read when they are needed.
    model = GENOT(ready, flow_config=SMALL)
    ready.obsm["X_pca"][(ready.obs["condition"] == "stimulated").to_numpy()] += 100
    model.train(**BRIEF)
    assert model.sample(n_samples=1).mean() > 50


def _between(adata):
    cells = adata.obsm["X_pca"].astype(np.float64)
    x, y = (cells[(adata.obs["condition"] == name).to_numpy()] for name in ("control", "stimulated"))
    return x[:, None], y[None]


def _cosine(x, y):
    return 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


# What the couplings' own report must say of each: the mean of the cost over all pairs, or its maximum.
SCALES = {
    "minibatch": ({"coupling": "minibatch"}, None),
    "unbalanced": ({"tau_source": 0.9, "tau_target": 0.8}, lambda x, y: ((x - y) ** 2).sum(-1).mean()),
    "cosine": ({"cost": "cosine"}, lambda x, y: _cosine(x, y).mean()),
    "ott": ({"cost": ott_costs.PNormP(1.5)}, lambda x, y: (np.abs(x - y) ** 1.5).sum(-1).mean() / 1.5),
    "callable": ({"cost": lambda x, y: jnp.sum(jnp.abs(x - y))}, lambda x, y: np.abs(x - y).sum(-1).mean()),
    "coupling options": (
        {"dense_limit": 1, "n_draws": 4, "scale_cost": "max"},
        lambda x, y: ((x - y) ** 2).sum(-1).max(),
    ),
}


@pytest.mark.parametrize(("options", "scale"), SCALES.values(), ids=SCALES)
def test_any_coupling_trains(ready, options, scale):
    model = GENOT(ready, flow_config=SMALL, **options)
    model.train(**BRIEF | {"max_steps": 20}, validation_size=0)
    summary = model.coupling_summary().iloc[0]
    assert summary["kind"].endswith(options.get("coupling", "global")) and summary["epsilon"] == 0.05
    if scale is not None:
        assert summary["scale"] == pytest.approx(scale(*_between(ready)), rel=1e-3)
    relaxed = "tau_source" in options
    # With both taus below 1 cells far from the others are left out; balanced, every cell keeps its mass.
    assert (model.coupling_.source_marginal.std() > 1e-4) == relaxed
    assert (summary["mass"] < 0.99) == relaxed
    # 20 steps are few: samples are of the size and place that standardised noise has, which is that of the targets.
    samples = model.sample(n_samples=4)
    targets = _between(ready)[1][0]
    assert np.abs(samples.mean((0, 1)) - targets.mean(0)).max() < 3 * targets.std()


@pytest.mark.once
def test_a_low_rank_coupling_through_the_model(tmp_path):
    model = build(make_mdata(), coupling="low_rank", rank=7)
    model.train(**FEW)
    # The rank reaches the solver.
    assert "low rank (7)" in model.coupling_summary()["kind"].iloc[0]
    assert model.sample(n_samples=2).shape == (60, 2, 2)
    model.save(tmp_path / "model")
    again = GENOT.load(tmp_path / "model", make_mdata())
    assert again._coupling_kind == "low_rank" and again._coupling_config.rank == 7
    again.train(**FEW)
    np.testing.assert_array_equal(again.sample(n_samples=2), model.sample(n_samples=2))


@pytest.mark.once
def test_double_precision():
    """With 64-bit numbers switched on a model trains, samples and knows growth as it does without; networks stay in float32."""
    code = (
        "import jax\nimport numpy as np\nfrom tests.conftest import SETUP, SMALL, BRIEF, make_adata\n"
        "from scgenot import GENOT\nfrom scgenot.flow import ODEConfig\n"
        "adata = make_adata()\nGENOT.setup_anndata(adata, **SETUP)\n"
        "model = GENOT(adata, flow_config=SMALL, tau_source=0.9)\n"
        "model.train(**BRIEF | {'max_steps': 25}, ema_decay=0.9)\n"
        "assert model.steps_ == 25 and np.isfinite(model.history['validation_loss']).all(axis=None)\n"
        "assert {leaf.dtype for leaf in jax.tree.leaves(model._method.weights.params)} == {np.dtype(np.float32)}\n"
        "for ode in (ODEConfig(), ODEConfig(solver='tsit5')):\n"
        "    samples = model.sample(n_samples=2, ode=ode)\n"
        "    assert samples.dtype == np.float32 and samples.shape == (60, 2, 3) and np.isfinite(samples).all()\n"
        "growth = model._method.growth(adata.obsm['X_pca'])\n"
        "assert growth.dtype == np.float32 and np.isfinite(growth).all()\n"
    )
    environment = os.environ | UNOPTIMIZED | {"JAX_ENABLE_X64": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_weights_reach_the_coupling(adata):
    # Only stimulated cells with weight are ever drawn: those at one place.
    stimulated = np.flatnonzero(adata.obs["condition"] == "stimulated")
    adata.obs["mass"] = 1.0
    adata.obs.iloc[stimulated[10:], adata.obs.columns.get_loc("mass")] = 0.0
    adata.obsm["X_pca"][stimulated[:10], 0] = 50.0
    GENOT.setup_anndata(adata, **SETUP, weights_key="mass")
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF, validation_size=0)
    # Without weights, units and samples would follow all 50 cells, most of which lie at 4.
    assert model.sample(n_samples=3)[..., 0].min() > 40


def test_progress_bar(model, capsys):
    model.train(**BRIEF)
    assert capsys.readouterr().err == ""
    model.train(**BRIEF | {"progress_bar": True})
    shown = capsys.readouterr()
    assert "40/40" in shown.err + shown.out
