"""The potential of a time course: what it writes, from which plans, and what it refuses."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, SMALL, assert_same, snapshot

from scgenot import GENOT, pl, tl
from scgenot.methods import LinearPotential, NetworkPotential

DAYS = (2.0, 3.0, 6.0)
DOWN = np.array([0.4, 0.2, 0.1])
LINEAR = LinearPotential(n_centers=0)


def make_bowl(n: int = 80, *, seed: int = 0, names: bool = False) -> ad.AnnData:
    """Cells that run down ``y' D y / 2`` by implicit steps, the same ones each day in another order: a plan can find its pairs."""
    rng = np.random.default_rng(seed)
    start = 2.0 * rng.normal(size=(n, 3)) + 1.0
    middle = start / (1.0 + DOWN)
    day = np.repeat([*DAYS, np.nan], [n] * len(DAYS) + [5])
    order = rng.permutation(len(day))
    day, cells = day[order], np.concatenate([start, middle, middle / (1.0 + 3.0 * DOWN), start[:5]])[order]
    obs = pd.DataFrame(
        {"day": day, "mass": rng.uniform(0.5, 2.0, len(day))}, index=[f"cell{i}" for i in range(len(day))]
    )
    if names:
        obs["day"] = pd.Categorical(
            obs["day"].map({2.0: "early", 3.0: "mid", 6.0: "late"}), ["early", "mid", "late"], ordered=True
        )
    adata = ad.AnnData(np.zeros((len(obs), 2), np.float32), obs=obs)
    adata.obsm["X_pca"] = cells.astype(np.float32)
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2].copy()
    return adata


def trained_on(adata: ad.AnnData, **options) -> GENOT:
    backwards = options.pop("backwards", False)
    GENOT.setup_anndata(adata, time_key="day", source_rep="X_pca", backwards=backwards)
    model = GENOT(adata, flow_config=SMALL, **{"epsilon": 0.01} | options)
    model.train(validation_size=0, **BRIEF)
    return model


@pytest.fixture(scope="module")
def model() -> GENOT:
    return trained_on(make_bowl())


@pytest.fixture
def course(model) -> ad.AnnData:
    return model.adata.copy()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def off(adata: ad.AnnData, key: str = "genot_potential") -> float:
    at = adata.obs["day"].notna().to_numpy()
    true = -DOWN * adata.obsm["X_pca"][at]
    return float(np.square(adata.obsm[f"{key}_drift"][at] - true).sum() / np.square(true).sum())


def test_what_it_writes(model, course, tmp_path):
    assert tl.potential(course, model, form=LINEAR, ahead=1.0) is None
    at = course.obs["day"].notna().to_numpy()
    for values in (course.obs["genot_potential"].to_numpy()[:, None], course.obsm["genot_potential_drift"]):
        assert np.isfinite(values[at]).all() and np.isnan(values[~at]).all()
    assert off(course) < 0.02
    np.testing.assert_allclose(
        course.obsm["genot_potential_ahead"][at],
        course.obsm["X_pca"][at] / (1.0 + DOWN),
        atol=0.2,
    )
    fit = course.uns["genot_potential"]["fit"]
    assert fit["by_drift"] + 0.2 < fit["held_out"] <= fit["explained"] <= 1.0
    assert course.uns["genot_potential"]["params"]["passed"] == list(DAYS)
    course.write_h5ad(tmp_path / "course.h5ad")
    read = ad.read_h5ad(tmp_path / "course.h5ad")
    axes = pl.potential(read, basis="umap", show=False)
    assert len(axes.collections) == 3 and "of velocities explained" in axes.get_title()
    # What an earlier call wrote does not stay behind.
    tl.potential(course, model, form=LINEAR)
    assert "genot_potential_ahead" not in course.obsm
    assert len(pl.potential(course, show=False).collections) == 2


def test_a_copy_other_cells_and_a_network(model, course):
    before = snapshot(course)
    short = NetworkPotential(hidden=(16,), steps=200)
    copied = tl.potential(course, model, form=short, indices=[3, 1], key_added="net", copy=True)
    assert_same(course, before)
    assert np.flatnonzero(copied.obs["net"].notna()).tolist() == [1, 3]
    assert copied.uns["net"]["params"]["form"] == "NetworkPotential"
    new = make_bowl(seed=3)
    tl.potential(new, model, form=LINEAR)
    assert off(new) < 0.05


def test_times_as_they_pass(model, course):
    # Days that are said to be equally far apart give another landscape, and hours the same in another unit.
    tl.potential(course, model, form=LINEAR, times=(0, 2, 4), key_added="alike")
    tl.potential(course, model, form=LINEAR, times=(48, 72, 144), key_added="hours")
    tl.potential(course, model, form=LINEAR)
    at = course.obs["day"].notna().to_numpy()
    days, hours = course.obsm["genot_potential_drift"][at], course.obsm["hours_drift"][at]
    np.testing.assert_allclose(24.0 * hours, days, rtol=1e-2, atol=1e-3)
    assert off(course, "alike") > 5 * off(course)


def test_names_of_times(model):
    adata = make_bowl(names=True)
    other = trained_on(adata)
    with pytest.raises(ValueError, match="'early', 'mid', 'late' of this model are names.*Give `times`"):
        tl.potential(adata, other)
    tl.potential(adata, other, form=LINEAR, times=DAYS)
    assert off(adata) < 0.02


def test_models_that_go_back_see_the_same(model, course):
    tl.potential(course, model, form=LINEAR)
    tl.potential(course, model.reverse(**BRIEF), form=LINEAR, key_added="back")
    at = course.obs["day"].notna().to_numpy()
    np.testing.assert_allclose(course.obs["back"][at], course.obs["genot_potential"][at], rtol=1e-3, atol=1e-3)
    assert course.uns["back"]["params"]["passed"] == list(DAYS)


@pytest.mark.once
def test_unbalanced_plans_and_minibatches():
    adata = make_bowl()
    for options in ({"tau_source": 0.999, "tau_target": 0.999}, {"coupling": "minibatch"}):
        tl.potential(adata, trained_on(adata, **options), form=LINEAR)
        assert off(adata) < 0.05, options


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda a, m: tl.potential(a, m, form="liner"), ValueError, "`form` must be one of .*Did you mean 'linear'"),
        (lambda a, m: tl.potential(a, m, times=(1, 2)), ValueError, "`times` must hold one number for each of"),
        (lambda a, m: tl.potential(a, m, times=(1, 3, 2)), ValueError, "`times` must increase"),
        (lambda a, m: tl.potential(a, m, ahead=0), ValueError, "`ahead` must be a finite number above 0"),
        (lambda a, m: tl.potential(a, m, key_added="a/b"), ValueError, "`key_added`"),
        (lambda a, m: tl.potential(a[a.obs["day"].isna()].copy(), m), ValueError, "no cell at any of the times"),
        (lambda a, m: pl.potential(a), KeyError, "no potential of that name.*tl.potential"),
        (lambda a, m: pl.potential(a, n_arrows=-1), ValueError, "`n_arrows`"),
    ],
)
def test_what_is_refused(model, course, call, error, match):
    before = snapshot(course)
    with pytest.raises(error, match=match):
        call(course, model)
    assert_same(course, before)


def test_models_without_times_or_couplings(trained, model, course, tmp_path):
    with pytest.raises(ValueError, match="maps one population to another"):
        tl.potential(trained.adata.copy(), trained)
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model", adata=course)
    with pytest.raises(RuntimeError, match="no coupling to read.*loaded from a file.*Call `model.train"):
        tl.potential(course, loaded)
