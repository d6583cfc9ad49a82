"""Time courses: which cells each step couples, what is held out, and what becomes of cells over several steps."""

from __future__ import annotations

import dataclasses

import anndata as ad
import jax
import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, SCVI_UNS, SMALL, assert_same, snapshot

from scgenot import GENOT
from scgenot.flow import FlowConfig

DAYS = (2, 4, 6)
# Where cells of each day lie: two branches that part after day 4, then go on in another direction.
PLACES = {2: ((0, 0, 0), (0, 6, 0)), 4: ((4, 0, 0), (4, 6, 0)), 6: ((4, 0, 4), (4, 6, -4))}
FITTED = {"max_steps": 600, "batch_size": 256, "check_every": 100, "learning_rate": 3e-3, "progress_bar": False}


def make_course(n: int = 60, *, seed: int = 0, days: tuple = DAYS) -> ad.AnnData:
    """Two branches over three days, in random order, and a few cells without a day."""
    rng = np.random.default_rng(seed)
    day = rng.permutation(np.repeat([*days, np.nan], [n] * len(days) + [5]))
    # As many of each branch on each day: a balanced plan then keeps to the branches.
    branch = pd.Series(day).groupby(day, dropna=False).cumcount().to_numpy() % 2
    cells = 0.4 * rng.normal(size=(len(day), 3))
    for row in np.flatnonzero(~np.isnan(day)):
        cells[row] += PLACES[int(day[row])][branch[row]]
    obs = pd.DataFrame({"day": day, "branch": pd.Categorical(np.array(["left", "right"])[branch])})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    # Labels of one day only, whose names say which.
    obs["fate"] = pd.Categorical(np.where(day == 6, obs["branch"].astype(str) + " late", None))
    obs["mass"] = rng.uniform(0.5, 2.0, len(obs))
    adata = ad.AnnData(np.zeros((len(obs), 2), np.float32), obs=obs)
    adata.obsm["X_pca"] = cells.astype(np.float32)
    adata.obsm["X_wide"] = np.concatenate([adata.obsm["X_pca"]] * 2, axis=1)
    return adata


@pytest.fixture(scope="module")
def course() -> ad.AnnData:
    adata = make_course()
    GENOT.setup_anndata(adata, time_key="day")
    return adata


@pytest.fixture(scope="module")
def model(course) -> GENOT:
    model = GENOT(course, flow_config=FlowConfig(hidden=(64, 64)))
    model.train(validation_size=0.2, **FITTED)
    return model


@pytest.fixture(scope="module")
def backward(model) -> GENOT:
    return model.reverse(**FITTED)


def rows_at(adata: ad.AnnData, day: int) -> np.ndarray:
    return np.flatnonzero(adata.obs["day"] == day)


# ---- Setup -----------------------------------------------------------------------------------------------------------


def test_setup_leaves_the_object_as_it_was():
    adata = make_course()
    before = snapshot(adata)
    GENOT.setup_anndata(adata, time_key="day")
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF)
    model.sample(until=6, n_samples=2)
    assert_same(adata, before, new_uns=SCVI_UNS)
    assert "2.0 -> 4.0 -> 6.0" in repr(model) and model.times == (2.0, 4.0, 6.0)


@pytest.mark.parametrize(
    ("column", "options", "times"),
    [
        (lambda day: day, {}, (2.0, 4.0, 6.0)),
        (lambda day: day.astype("Int64"), {}, (2, 4, 6)),
        (lambda day: day.astype("category"), {}, (2.0, 4.0, 6.0)),
        (lambda day: day, {"times": [2, 6]}, (2, 6)),
        (lambda day: day, {"times": (2, 6), "backwards": True}, (6, 2)),
        (
            lambda day: pd.Categorical(day.map({2: "zero", 4: "one", 6: "two"}), ["zero", "one", "two"], ordered=True),
            {},
            ("zero", "one", "two"),
        ),
        (
            lambda day: day.map({2: "zero", 4: "one", 6: "two"}),
            {"times": ["zero", "one", "two"]},
            ("zero", "one", "two"),
        ),
    ],
    ids=["float", "integer", "categories of numbers", "some", "backwards", "ordered", "named"],
)
def test_times_are_read_in_their_order(column, options, times):
    adata = make_course(20)
    adata.obs["day"] = column(adata.obs["day"])
    GENOT.setup_anndata(adata, time_key="day", **options)
    model = GENOT(adata)
    assert model.times == times
    table = model.conditions
    pairs = sorted(zip(table["from"], table["to"], strict=True), key=lambda pair: times.index(pair[0]))
    assert pairs == list(zip(times[:-1], times[1:], strict=True))
    assert set(table["sources"]) == set(table["targets"]) == {20}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"time_key": "dya"}, KeyError, "`time_key`='dya'.*Did you mean 'day'"),
        (
            {"time_key": "branch"},
            TypeError,
            "`time_key`='branch' must name a column of numbers or of ordered.*ordered=True",
        ),
        (
            {"time_key": "day", "population_key": "branch"},
            ValueError,
            "does not go together with `population_key`='branch'",
        ),
        ({"time_key": "day", "source": 2}, ValueError, "does not go together with `source`=2"),
        ({"time_key": "day", "context_keys": "branch"}, ValueError, "`context_keys`='branch'"),
        ({"time_key": "day", "match_keys": ("branch",)}, ValueError, "`match_keys`=.*Leave `match_keys` out"),
        ({"time_key": "day", "target_rep": "X_wide"}, ValueError, "`target_rep`='X_wide'.*in one representation"),
        ({"time_key": "day", "pairs_key": "branch"}, ValueError, "`pairs_key`"),
        ({"time_key": "day", "times": (2, 5)}, ValueError, "`times` has 5, which no cell.*There are"),
        ({"time_key": "day", "times": (4, 2)}, ValueError, "numbers that increase.*backwards=True"),
        ({"time_key": "day", "times": (2,)}, ValueError, "at least two times"),
        ({"time_key": "day", "times": 2}, TypeError, "`times` must be a sequence of times"),
        ({"time_key": "day", "times": (2, None)}, TypeError, "`times` must hold numbers or texts, got None"),
        ({"time_key": "day", "backwards": "yes"}, TypeError, "`backwards` must be True or False"),
        ({"time_key": 3}, TypeError, "`time_key` must be a key"),
        ({"time_key": "day", "layer": "counts"}, ValueError, "`layer`='counts' takes the place of X"),
        ({"times": (2, 4), "population_key": "day", "source": 2}, ValueError, "`times`=.*Give `time_key`"),
        ({"backwards": True, "population_key": "day", "source": 2}, ValueError, "`backwards`=True"),
        ({}, TypeError, "needs `population_key` and `source`.*or `time_key`"),
        ({"population_key": "day"}, TypeError, "needs `population_key` and `source`"),
        ({"source": 2, "target": 4}, TypeError, "needs `population_key`"),
        ({"time_keys": "day"}, TypeError, "no argument 'time_keys'.*Did you mean 'time_key'"),
    ],
)
def test_what_setup_refuses(options, error, match):
    adata = make_course(10)
    before = snapshot(adata)
    with pytest.raises(error, match=match):
        GENOT.setup_anndata(adata, **options)
    assert_same(adata, before)


def test_a_time_of_one_cell_is_refused():
    adata = make_course(10)
    adata.obs.iloc[rows_at(adata, 4)[1:], 0] = np.nan
    with pytest.raises(ValueError, match="the time 4.0 has 1 cells.*`times`"):
        GENOT.setup_anndata(adata, time_key="day")


def test_steps_are_not_held_out(course):
    with pytest.raises(ValueError, match="`validation_conditions`.*`validation_size`"):
        GENOT(course, flow_config=SMALL).train(validation_conditions=["2 to 4"], **BRIEF)


# ---- What is coupled, and what is held out ---------------------------------------------------------------------------


def test_each_step_couples_the_cells_of_its_times(model, course):
    day = course.obs["day"].to_numpy()
    sources, targets = model._training.train_rows
    for part, (early, late) in zip(model.coupling_.parts, ((2, 4), (4, 6)), strict=True):
        assert set(day[sources[part.source_rows]]) == {early}
        assert set(day[targets[part.target_rows]]) == {late}
    table = model.conditions
    assert table["converged"].all() and list(table.index) == ["2 to 4", "4 to 6"]


def test_a_held_out_cell_is_held_out_on_both_sides(model, course):
    train, held = set(model.train_indices_), set(model.validation_indices_)
    assert not train & held
    assert train | held == set(np.flatnonzero(course.obs["day"].notna()))
    assert {day: len(held & set(rows_at(course, day))) for day in DAYS} == dict.fromkeys(DAYS, 12)
    # Without both sides in mind, a held-out target of the first step could train as a source of the second.
    assert not set(model._training.train_rows[0]) & held and not set(model._training.train_rows[1]) & held


def test_times_too_small_to_hold_out_from():
    adata = make_course(20)
    adata.obs.iloc[np.concatenate([rows_at(adata, day)[2:] for day in (2, 6)]), 0] = np.nan
    GENOT.setup_anndata(adata, time_key="day")
    model = GENOT(adata, flow_config=SMALL)
    with pytest.warns(UserWarning, match="of no two that follow each other"):
        model.train(**BRIEF)
    assert len(model.validation_indices_) == 0


def test_weights_weigh_cells_as_parents_only():
    adata = make_course()
    GENOT.setup_anndata(adata, time_key="day", weights_key="mass")
    model = GENOT(adata, flow_config=SMALL)
    model.train(validation_size=0.0, **BRIEF)
    mass = adata.obs["mass"].to_numpy()
    sources = model._training.train_rows[0]
    for forward, part in ((True, model.coupling_.parts[1]), (False, model.coupling_.swapped().parts[1])):
        given, even = part.masses if forward else part.masses[::-1]
        expected = mass[sources[part.source_rows if forward else part.target_rows]]
        np.testing.assert_allclose(given, expected / expected.sum(), atol=2e-3)
        np.testing.assert_allclose(even, 1 / len(even), atol=2e-3)
    backward = model.reverse(max_steps=40, batch_size=64, check_every=20, progress_bar=False)
    assert backward._spec.source.weights_key is None and backward._spec.target.weights_key == "mass"


# ---- One step, and several ----------------------------------------------------------------------------------------------


def test_cells_go_to_their_next_time(model, course):
    found = model.get_times()
    rows = np.flatnonzero(course.obs["day"].isin([2, 4]))
    assert list(found.index) == list(course.obs_names[rows])
    assert (found["from"] == course.obs["day"].iloc[rows]).all() and (found["to"] == found["from"] + 2).all()
    means = model.get_transported_mean()
    for day, to in ((2, 4), (4, 6)):
        for side, place in enumerate(PLACES[to]):
            some = (course.obs["day"].iloc[rows] == day) & (course.obs["branch"].iloc[rows] == ("left", "right")[side])
            np.testing.assert_allclose(means[some.to_numpy()].mean(axis=0), place, atol=0.6)


def test_steps_are_composed(model, course):
    rows = rows_at(course, 2)
    samples = model.sample(indices=rows, until=6)
    assert samples.shape == (60, 30, 3)
    right = (course.obs["branch"].iloc[rows] == "right").to_numpy()
    np.testing.assert_allclose(samples[~right].mean(axis=(0, 1)), PLACES[6][0], atol=0.7)
    np.testing.assert_allclose(samples[right].mean(axis=(0, 1)), PLACES[6][1], atol=0.7)
    # One step alone ends somewhere else.
    assert np.abs(samples[right] - model.sample(indices=rows)[right]).mean(axis=(0, 1))[2] > 3


def test_the_same_cell_goes_elsewhere_from_another_time(model, course):
    """Without the step, the network could not tell: the same cell, named as one of day 2 and as one of day 4."""
    twice = course[rows_at(course, 4)[:20]].copy()
    later = model.get_transported_mean(twice)
    twice.obs["day"] = 2.0
    earlier = model.get_transported_mean(twice)
    assert np.abs(later - earlier).max(axis=1).min() > 2


def test_all_cells_at_once_or_some_alone(model, course):
    whole = model.sample(until=6, n_samples=3)
    rows = np.flatnonzero(course.obs["day"].isin([2, 4]))
    some = np.array([0, 5, len(rows) - 1])
    np.testing.assert_allclose(model.sample(indices=rows[some], until=6, n_samples=3), whole[some], atol=1e-4)
    # The first samples are the same however many are drawn, and one step is a step.
    np.testing.assert_allclose(model.sample(until=6, n_samples=2), whole[:, :2], atol=1e-4)
    late = course.obs["day"].iloc[rows] == 4
    np.testing.assert_array_equal(whole[late], model.sample(indices=rows[late], n_samples=3))
    assert len(model.sample(until=4, n_samples=1)) == 60


def test_samples_go_ways_of_their_own(model, course):
    samples = model.sample(indices=rows_at(course, 2), until=6)
    spread = samples.std(axis=1).mean(axis=0)
    own = course.obsm["X_pca"][rows_at(course, 6)]
    right = (course.obs["branch"].iloc[rows_at(course, 6)] == "right").to_numpy()
    assert (spread > 0.5 * own[right].std(axis=0)).all()


def test_each_sample_of_an_ensemble_stays_with_its_member(course):
    model = GENOT(course, n_models=2, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 300, "learning_rate": 3e-3})
    # The second member does not move cells at all.
    halt = lambda leaf: leaf.at[1].set(0.0)
    weights = model._method.weights
    weights = dataclasses.replace(weights, params=jax.tree.map(halt, weights.params))
    model._method = dataclasses.replace(model._method, weights=weights)
    samples = model.sample(indices=rows_at(course, 2), until=6, n_samples=4)
    moved = np.linalg.norm(samples - course.obsm["X_pca"][rows_at(course, 2)][:, None], axis=-1).mean(axis=0)
    one = model.sample(indices=rows_at(course, 2), n_samples=4)
    stayed = np.linalg.norm(one - course.obsm["X_pca"][rows_at(course, 2)][:, None], axis=-1).mean(axis=0)
    # Two steps of standing still add noise; a step of the first member would add its way to day 6.
    assert (
        moved[[0, 2]].min() > 5 and np.abs(samples[:, 1::2, 2]).mean() < 1.6 * np.abs(one[:, 1::2, 2]).mean() + 0.5
    ), (moved, stayed)


@pytest.mark.once
def test_composition_of_gaussian_steps():
    """Two steps of Gaussians: the composed law is Gaussian, with mean and covariance from both entropic plans."""
    rng = np.random.default_rng(0)
    n, d = 400, 2
    roots = [np.diag(one) for one in ((1.0, 0.6), (0.7, 1.2), (1.1, 0.5))]
    means = np.array([[0, 0], [3, 0], [3, 3]])
    cells = [mean + rng.normal(size=(n, d)) @ root for mean, root in zip(means, roots, strict=True)]
    adata = ad.AnnData(obs=pd.DataFrame({"t": np.repeat([0, 1, 2], n)}, index=[str(i) for i in range(3 * n)]))
    adata.obsm["X_pca"] = np.concatenate(cells).astype(np.float32)
    GENOT.setup_anndata(adata, time_key="t")
    model = GENOT(adata, epsilon=0.05, flow_config=FlowConfig(hidden=(64, 64)))
    model.train(**FITTED | {"max_steps": 1500}, validation_size=0.0)
    half = 0.05 * float(model.coupling_summary()["scale"].iloc[0]) / 2

    def step(k):
        """Return slope and noise of y given x (METHODS, closed forms) from the cells' own covariances, diagonal nearly."""
        a, b = (np.diag(np.var(one, axis=0)) for one in (cells[k], cells[k + 1]))
        root = np.sqrt(4 * a @ b + half**2 * np.eye(d))
        cross = 0.5 * (root - half * np.eye(d))
        slope = cross @ np.linalg.inv(a)
        return slope, b - slope @ cross

    (first, noise), (second, more) = step(0), step(1)
    x = cells[0][:200]
    samples = model.sample(indices=np.arange(200), until=2, n_samples=200)
    centre = [one.mean(axis=0) for one in cells]
    expected = centre[2] + (x - centre[0]) @ first @ second
    spread = second @ noise @ second + more
    assert np.abs(samples.mean(axis=1) - expected).mean() < 0.15
    found = np.mean([np.cov(one.T) for one in samples], axis=0)
    np.testing.assert_allclose(np.diag(found), np.diag(spread), rtol=0.2)
    # The law of the second step alone is narrower, by what the first one adds: a composition of means would have it.
    assert (np.diag(spread) > 1.25 * np.diag(more)).any()


def test_back_in_time(backward, course):
    assert backward.times == (6, 4, 2) and list(backward.conditions.index) == ["4 to 2", "6 to 4"]
    rows = rows_at(course, 6)
    means = backward.get_transported_mean(indices=rows, until=2)
    right = (course.obs["branch"].iloc[rows] == "right").to_numpy()
    np.testing.assert_allclose(means[right].mean(axis=0), PLACES[2][1], atol=0.7)
    np.testing.assert_allclose(means[~right].mean(axis=0), PLACES[2][0], atol=0.7)
    with pytest.raises(ValueError, match="`until` must be one of '4.0', '2.0', got 6"):
        backward.sample(until=6)
    again = backward.reverse(max_steps=40, batch_size=64, check_every=20, progress_bar=False)
    assert again.times == (2, 4, 6)
    day = course.obs["day"].to_numpy()
    for part, early in zip(again.coupling_.parts, (2, 4), strict=True):
        assert set(day[again._training.train_rows[0][part.source_rows]]) == {early}


# ---- Getters -----------------------------------------------------------------------------------------------------------


def test_labels_are_asked_of_the_time_of_arrival(model, course):
    rows = rows_at(course, 2)
    found = model.get_label_probabilities(label_key="fate", indices=rows, until=6)
    assert list(found.columns) == ["left late", "right late"]
    right = (course.obs["branch"].iloc[rows] == "right").to_numpy()
    assert found["right late"][right].mean() > 0.9 and found["right late"][~right].mean() < 0.1
    with pytest.raises(ValueError, match="has no label for any"):
        model.get_label_probabilities(label_key="fate", indices=rows)
    frequencies = model.label_frequencies(label_key="branch", until=6)
    here = course.obs["branch"].iloc[rows_at(course, 6)].value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(frequencies, here)


def test_uncertainty_and_growth_over_steps(model, course):
    scores = model.get_uncertainty(until=6, label_key="fate")
    assert len(scores) == 120 and scores.notna().all().all()
    np.testing.assert_array_equal(model.get_growth(until=6), 1.0)
    with pytest.raises(ValueError, match="`until`=6 is for source cells"):
        model.get_growth(population="target", until=6)
    assert len(model.get_growth(population="target")) == 120


def test_growth_is_the_product_along_the_way():
    adata = make_course()
    # Cells of the right branch double from each day to the next.
    right = (adata.obs["branch"] == "right").to_numpy()
    drop = np.concatenate([np.flatnonzero(right & (adata.obs["day"] == day))[keep:] for day, keep in ((2, 6), (4, 12))])
    adata = adata[np.delete(np.arange(adata.n_obs), drop)].copy()
    GENOT.setup_anndata(adata, time_key="day")
    model = GENOT(adata, tau_source=0.9, flow_config=SMALL)
    model.train(validation_size=0.0, **BRIEF | {"max_steps": 200})
    rows = rows_at(adata, 2)
    branch = (adata.obs["branch"].iloc[rows] == "right").to_numpy()
    one, both = model.get_growth(indices=rows), model.get_growth(indices=rows, until=6)
    assert one[branch].mean() > 1.2 > one[~branch].mean()
    means = model.get_growth(indices=rows_at(adata, 4))
    late = (adata.obs["branch"].iloc[rows_at(adata, 4)] == "right").to_numpy()
    # The branches do not mix: growth of the branch on the second day, times that of the cell on the first.
    assert both[branch].mean() == pytest.approx(one[branch].mean() * means[late].mean(), rel=0.35)
    assert both[branch].mean() > one[branch].mean()


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        ({"until": 5}, "`until` must be one of the times of this model, got 5"),
        ({"until": 2}, "no cell of this model is at an earlier time"),
        ({"until": 4, "indices": "4"}, "60 of 60 cells cannot be taken to 4.0.*`until` must be a later time"),
        ({"indices": "6"}, "cannot be taken to a next time"),
        ({"conditions": "2 to 4"}, "`conditions`='2 to 4' was given to a model of a time course"),
    ],
)
def test_what_is_no_answer(model, course, ask, match):
    if "indices" in ask:
        ask = ask | {"indices": rows_at(course, int(ask["indices"]))}
    with pytest.raises(ValueError, match=match):
        model.sample(**ask)


def test_until_in_a_model_of_two_populations(trained):
    for ask in (trained.sample, trained.get_growth, trained.source_rows):
        with pytest.raises(ValueError, match="`until`=4 was given, but this model maps one population to another"):
            ask(until=4)
    with pytest.raises(ValueError, match="it has no times"):
        trained.get_times()
    assert trained.times is None


def test_other_data(model, course):
    new = course[rows_at(course, 4)[:5]].copy()
    np.testing.assert_allclose(model.sample(new, n_samples=2).shape, (5, 2, 3))
    del new.obs["day"]
    with pytest.raises(KeyError, match="`time_key`='day' is no column"):
        model.sample(new)


# ---- Files -------------------------------------------------------------------------------------------------------------


def test_saved_and_loaded(model, backward, course, tmp_path):
    for one, name in ((model, "forward"), (backward, "backward")):
        one.save(tmp_path / name)
        loaded = GENOT.load(tmp_path / name, course.copy())
        assert loaded.times == one.times
        pd.testing.assert_frame_equal(loaded.conditions, one.conditions, check_dtype=False)
        until = one.times[-1]
        np.testing.assert_array_equal(loaded.sample(until=until, n_samples=2), one.sample(until=until, n_samples=2))
        np.testing.assert_array_equal(loaded.train_indices_, one.train_indices_)
    alone = GENOT.load(tmp_path / "forward", adata=False)
    np.testing.assert_array_equal(alone.sample(course, until=6, n_samples=2), model.sample(until=6, n_samples=2))
    # Data without the last day are cells to map.
    early = GENOT.load(tmp_path / "forward", course[course.obs["day"] != 6].copy())
    assert len(early.sample(until=6, n_samples=1)) == 120
