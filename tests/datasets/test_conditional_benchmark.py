"""What the benchmark of conditions compares models with: baselines on screens whose answer is known."""

import dataclasses
import itertools
import types

import numpy as np
import pandas as pd
import pytest
from benchmarks.conditions import screens, simulated
from benchmarks.conditions._models import Training
from benchmarks.conditions._scores import rank_correlations, score, table
from benchmarks.solvers import conditional_monge_gap

from scgenot.datasets import conditional_mixture


@pytest.fixture
def screen():
    """Three perturbations in four contexts of 30 cells; means are those of an additive table, exactly."""
    rng = np.random.default_rng(0)
    names = ["control", "A", "B", "C"]
    effects = dict(zip(names, np.vstack([np.zeros(5), rng.normal(size=(3, 5))]), strict=True))
    contexts = dict(zip("wxyz", 3 * rng.normal(size=(4, 5)), strict=True))
    parts, labels = [], []
    for name, context in itertools.product(names, contexts):
        cells = rng.normal(size=(30, 5))
        parts.append(cells - cells.mean(axis=0) + effects[name] + contexts[context] * (1 if name == "control" else 1.4))
        labels += [(name, context)] * 30
    perturbation, context = np.array(labels).T
    features = np.concatenate(parts)
    return screens.Screen("synthetic", features, perturbation, context, features, np.eye(5), 0)


def test_additive_baseline_is_exact_on_an_additive_screen(screen):
    for fold in screen.folds("file"):
        truth = fold.truth.mean(axis=0) - fold.controls.mean(axis=0)
        found = screens.baselines(fold)
        np.testing.assert_allclose(found["two-way additive"], truth, atol=1e-12)
        np.testing.assert_allclose(found["true shift (oracle)"], truth, atol=1e-12)
        # The others see other contexts or other perturbations, and miss.
        for name in ("mean shift", "same context, other perturbations", "nearest context, controls", "nothing"):
            assert np.linalg.norm(found[name] - truth) > 0.05


def test_nothing_that_was_left_out_reaches_a_baseline(screen):
    (fold, *_) = screen.folds("file")
    changed = screen.features.copy()
    changed[fold.left] += 100.0
    other = screens.Screen("synthetic", changed, screen.perturbation, screen.context, changed, np.eye(5), 3)
    (refitted, *_) = other.folds("train")
    (before, *_) = screens.Screen(
        "synthetic", screen.features, screen.perturbation, screen.context, changed, np.eye(5), 3
    ).folds("train")
    np.testing.assert_array_equal(refitted.back, before.back)
    for name, shift in screens.baselines(refitted).items():
        if "oracle" not in name:
            np.testing.assert_array_equal(shift, screens.baselines(before)[name])


def test_conditional_monge_gap_heeds_its_condition(screen, monkeypatch):
    fitted, fit = [], conditional_monge_gap.fit
    quick = {"batch_size": 64, "hidden": (32, 32), "learning_rate": 1e-2}
    monkeypatch.setattr(
        conditional_monge_gap, "fit", lambda *a, **k: fitted.append(fit(*a, **k, **quick)) or fitted[-1]
    )
    (fold, *_) = screen.folds("file")
    store = types.SimpleNamespace(get=lambda key, compute: compute())
    found = screens.measured(fold, Training(steps=100), range(1), (screens.MAP,), store)
    assert {screens.MAP, f"{screens.MAP}, halfway to the mean shift"} < set(found["methods"])
    # It has one image a cell, so no spread to predict its error with.
    assert f"{screens.MAP}: spread of samples" not in found["predictors"]

    asked = lambda name: fitted[0].mean(fold.controls, screens.condition_vector(fold, name, fold.context)).mean(axis=0)
    shift = lambda name: asked(name) - fold.controls.mean(axis=0)
    # Cells are the same: without its condition, a map moves them alike, and is off by half of this for one of the two.
    apart = np.linalg.norm(fold.shifts["B", fold.context] - fold.shifts["C", fold.context])
    for name in "BC":
        assert np.linalg.norm(shift(name) - fold.shifts[name, fold.context]) < 0.4 * apart
    assert found["methods"][screens.MAP]["mean"] == pytest.approx(asked("A"), abs=1e-5)
    assert min(np.linalg.norm(shift("A") - shift(name)) for name in "BC") > 0.1 * apart


def test_new_contexts_are_described_by_their_controls(screen):
    (fold, *_) = screen.folds("file")
    np.testing.assert_array_equal(screens.condition_vector(fold, "B", "z"), [0, 1, 0, 0, 0, 0, 1])
    few = np.isin(screen.perturbation, ("control", "A"))
    kept = {name: getattr(screen, name)[few] for name in ("features", "perturbation", "context", "given")}
    alone = dataclasses.replace(screen, **kept)
    (fold, *_) = alone.folds("file")
    np.testing.assert_allclose(screens.condition_vector(fold, "A", "w"), [1, *fold.controls.mean(axis=0)])


def test_table_of_the_oracle_and_of_doing_nothing(screen):
    nothing = types.SimpleNamespace(get=None)
    folds = [screens.measured(fold, None, range(0), (), nothing) for fold in screen.folds("file")]
    found = table(folds)
    assert found.loc["nothing", "energy, %"] == pytest.approx(100)
    assert found.loc["nothing", ["discrimination", "within context"]].tolist() == pytest.approx([0.5, 0.5])
    assert found.loc["nothing", "Pearson, control"] == 0
    assert found.loc["true shift (oracle)", ["Pearson, control", "Pearson, treated", "discrimination"]].tolist() == (
        pytest.approx([1, 1, 1])
    )
    # The oracle has no error, and what two sample means would have is subtracted; contexts differ in their effects.
    assert (
        found.loc["true shift (oracle)", "error of means, %"] < 0 < found.loc["mean shift", "error of means, %"] < 100
    )
    ranks = rank_correlations(folds, "mean shift")
    assert ranks["rank correlation"].abs().max() <= 1


def test_score_against_plain_code(rng):
    draws, truth = rng.normal(size=(3, 20, 4)), rng.normal(size=(30, 4)) + 1
    found = score(list(draws), truth, 2 * np.eye(4))
    errors = [np.sum((one.mean(0) - truth.mean(0)) ** 2) - one.var(0, ddof=1).sum() / 20 for one in draws]
    assert found["error of means"] == pytest.approx(np.mean(errors) - truth.var(0, ddof=1).sum() / 30)
    np.testing.assert_allclose(found["mean"], 2 * draws.mean(axis=(0, 1)))
    assert found["variance"] == pytest.approx(np.mean([one.var(0, ddof=1).sum() for one in draws]))


def test_pairs_of_drugs_are_as_stated():
    seen, unseen = simulated.pairs()
    assert (len(seen), len(unseen)) == (24, 12)
    combinations = {frozenset(one) for one in seen}, {frozenset(one) for one in unseen}
    assert not combinations[0] & combinations[1]  # in neither order
    assert [sum(drug in one for one in combinations[0] if len(one) == 2) for drug in range(6)] == [3] * 6
    assert all(frozenset(one) in combinations[0] for one in simulated.between())


def test_simulated_cells_and_columns_belong_together():
    problem = conditional_mixture(3, n_drugs=6, n_donors=2, rng=3)
    conditions = [{0: 1.0, 4: 2.0}, {2: 3.0}]
    adata = simulated.populations(problem, conditions, range(2), 4000, 0)
    assert adata.obs.groupby(["population", "donor"]).size().tolist() == [16000, 16000, 8000, 8000]
    for donor, doses in itertools.product(range(2), conditions):
        columns = simulated.slots(doses) | {"donor": f"donor{donor}"}
        rows = np.logical_and.reduce([adata.obs[name] == value for name, value in columns.items()])
        mean, _ = problem.target_moments(problem.doses(doses), donor)
        np.testing.assert_allclose(adata.obsm["X_rep"][rows].mean(axis=0), mean, atol=0.2)
        strengths = simulated.strengths(pd.DataFrame([columns]))[0]
        np.testing.assert_allclose(np.expm1(strengths), problem.doses(doses))
    # What is drawn for one condition does not depend on which others there are.
    fewer = simulated.populations(problem, conditions[1:], [1], 4000, 0)
    own = (adata.obs["donor"] == "donor1") & (adata.obs["drug1"] == "drug2")
    np.testing.assert_array_equal(adata.obsm["X_rep"][own], fewer.obsm["X_rep"][fewer.obs["population"] == "treated"])
