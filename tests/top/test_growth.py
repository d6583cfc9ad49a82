"""Growth through the model class, `tl` and `pl`: what it is, what it weighs, and what it leaves alone."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, SETUP, SMALL, make_adata
from tests.model.modalities import make_mdata

import scgenot
from scgenot.tl._transitions import transition_matrix
from scgenot.tl._writing import prior_mass


def with_death(n=240, seed=0):
    """Three clumps of control cells, of which the stimulated cells lack one, and have more of another."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 6.0, 0.0]])
    condition = np.repeat(["control", "stimulated"], n // 2)
    clump = np.concatenate([rng.choice(3, n // 2, p=[0.5, 0.25, 0.25]), rng.choice(2, n // 2, p=[0.4, 0.6])])
    adata = ad.AnnData(np.zeros((n, 1), np.float32))
    adata.obsm["X_pca"] = (centres[clump] + 0.4 * rng.normal(size=(n, 3))).astype(np.float32)
    adata.obs["condition"] = pd.Categorical(condition)
    adata.obs["clump"] = pd.Categorical(np.array(["first", "second", "third"])[clump])
    return adata


@pytest.fixture(scope="module")
def data():
    return with_death()


@pytest.fixture(scope="module")
def relaxed(data):
    scgenot.GENOT.setup_anndata(data, **SETUP)
    model = scgenot.GENOT(data, tau_source=0.9, tau_target=0.9, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 400})
    return model


def control(adata):
    return (adata.obs["condition"] == "control").to_numpy()


def test_a_clump_without_counterpart_hardly_grows(data, relaxed):
    growth = relaxed.get_growth()
    clump = data.obs["clump"][control(data)].to_numpy()
    means = {name: growth[clump == name].mean() for name in ("first", "second", "third")}
    assert growth.shape == (120,) and (growth > 0).all()
    assert means["third"] < 0.2 * min(means["first"], means["second"])
    assert means["second"] > 1.5 * means["first"]
    # Unseen cells of the same kinds, seen as source cells.
    other = with_death(seed=5)
    again = relaxed.get_growth(other)
    kinds = other.obs["clump"][control(other)].to_numpy()
    assert again[kinds == "third"].mean() < 0.2 * again[kinds == "second"].mean()


def test_mean_growth_is_the_mass_of_the_plan(relaxed):
    mass = float(relaxed.coupling_summary()["mass"].iloc[0])
    # A tenth of the cells is held out, so the two means differ a little.
    assert relaxed.get_growth().mean() == pytest.approx(mass, rel=0.1)
    assert relaxed.get_growth(population="target").mean() == pytest.approx(mass, rel=0.1)


def test_balanced_growth_is_one(trained):
    np.testing.assert_array_equal(trained.get_growth(), 1.0)
    np.testing.assert_array_equal(trained.get_growth(indices=[3, 4], population="target"), 1.0)


def test_bad_questions_get_answers(data, relaxed, trained):
    with pytest.raises(ValueError, match="`population` must be one of 'source', 'target', got 'sources'"):
        relaxed.get_growth(population="sources")
    scgenot.GENOT.setup_anndata(data, **SETUP)
    untrained = scgenot.GENOT(data, flow_config=SMALL)
    with pytest.raises(RuntimeError, match="not trained"):
        untrained.get_growth()


@pytest.mark.once
def test_minibatches_do_not_tell(data):
    scgenot.GENOT.setup_anndata(data, **SETUP)
    model = scgenot.GENOT(data, tau_source=0.9, coupling="minibatch", flow_config=SMALL)
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="minibatch"):
        model.get_growth()
    assert not model.knows_growth()
    written = scgenot.tl.transport(data, model, n_samples=2, copy=True)
    assert "genot_growth" not in written.obs and "genot" in written.obsm
    written.obsm["X_umap"] = written.obsm["X_pca"][:, :2]
    with pytest.raises(KeyError, match="no growth.*coupling='global'"):
        scgenot.pl.growth(written)


def test_growth_is_saved_and_written(data, relaxed, tmp_path):
    relaxed.save(tmp_path / "model")
    again = scgenot.GENOT.load(tmp_path / "model", adata=data)
    np.testing.assert_allclose(again.get_growth(), relaxed.get_growth(), rtol=1e-6)
    written = scgenot.tl.transport(data, relaxed, n_samples=2, copy=True)
    np.testing.assert_allclose(written.obs["genot_growth"][control(data)], relaxed.get_growth(), rtol=1e-6)
    assert written.obs.loc[~control(data), "genot_growth"].isna().all()
    assert "genot_growth" not in data.obs


def test_transported_cells_composed_by_growth(data, relaxed):
    plain = scgenot.tl.transported_cells(data, relaxed)
    weighted = scgenot.tl.transported_cells(data, relaxed, weight_by_growth=True)
    share = lambda cells: (
        cells.obs["clump"]
        .astype(str)
        .value_counts(normalize=True)
        .reindex(["first", "second", "third"], fill_value=0.0)
    )
    assert weighted.n_obs == plain.n_obs == 120
    assert weighted.obs_names.is_unique
    growth = relaxed.get_growth()
    clump = data.obs["clump"][control(data)].astype(str).to_numpy()
    expected = np.array([growth[clump == name].sum() for name in ("first", "second", "third")])
    np.testing.assert_allclose(share(weighted), expected / expected.sum(), atol=0.02)
    assert share(weighted)["third"] < 0.5 * share(plain)["third"]
    # A cell that comes twice is drawn twice.
    assert len(np.unique(weighted.X, axis=0)) == weighted.n_obs


def test_transitions_are_shares_and_follow_growth(data, relaxed):
    adata = data.copy()
    assert scgenot.tl.transitions(adata, relaxed, "clump", n_samples=10) is None
    table = adata.uns["genot_transitions"]["matrix"]
    assert list(table.index) == ["first", "second", "third"] and list(table.columns) == ["first", "second"]
    np.testing.assert_allclose(table.sum(axis=1), 1.0, rtol=1e-6)
    assert table.loc["first", "first"] > 0.9 and table.loc["second", "second"] > 0.9
    whole = scgenot.tl.transitions(adata, relaxed, "clump", n_samples=10, normalize=False, copy=True)
    mass = whole.uns["genot_transitions"]["matrix"].sum(axis=1)
    growth, clump = relaxed.get_growth(), adata.obs["clump"][control(adata)].astype(str).to_numpy()
    for name in ("first", "second", "third"):
        assert mass[name] == pytest.approx(growth[clump == name].sum() / 120, rel=1e-4)
    with pytest.raises(KeyError, match="`source_key`='clumb'.*Did you mean 'clump'"):
        scgenot.tl.transitions(adata, relaxed, "clumb", "clump")


def test_transitions_survive_a_file(data, relaxed, tmp_path):
    adata = scgenot.tl.transitions(data, relaxed, "clump", n_samples=4, copy=True)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad").uns["genot_transitions"]["matrix"]
    np.testing.assert_allclose(again.to_numpy(), adata.uns["genot_transitions"]["matrix"].to_numpy())
    assert list(again.index) == ["first", "second", "third"]


def test_plots(data, relaxed, tmp_path):
    adata = scgenot.tl.transport(data, relaxed, n_samples=3, copy=True)
    scgenot.tl.transitions(adata, relaxed, "clump", n_samples=3)
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    first, boxes = scgenot.pl.growth(adata, groupby="clump", save=tmp_path / "growth.png")
    assert first.collections[1].get_array().shape == (120,)
    assert "third" in boxes.get_yticklabels()[0].get_text()
    # White is the mean, and what is kept is marked.
    mean = np.log2(adata.obs["genot_growth"].mean())
    assert first.collections[1].norm.vcenter == pytest.approx(mean, abs=1e-6)
    assert sorted(line.get_xdata()[0] for line in boxes.lines[-2:]) == pytest.approx(sorted([0.0, mean]))
    ax = scgenot.pl.transitions(adata, save=tmp_path / "transitions.png")
    np.testing.assert_allclose(ax.images[0].get_array(), adata.uns["genot_transitions"]["matrix"].to_numpy())
    cells = adata.obs.loc[control(adata), "clump"].value_counts()
    rows = [f"{name} ({cells[name]})" for name in ("first", "second", "third")]
    assert [label.get_text() for label in ax.get_yticklabels()] == rows
    adata.uns["genot_transitions"]["n_cells"][1] = 3
    styles = [label.get_style() for label in scgenot.pl.transitions(adata).get_yticklabels()]
    assert styles == ["normal", "italic", "normal"]
    assert (tmp_path / "growth.png").stat().st_size > 5000
    with pytest.raises(KeyError, match="there are no transitions.*tl.transitions"):
        scgenot.pl.transitions(make_adata())


@pytest.fixture(scope="module", params=[1.0, 0.9], ids=["balanced", "relaxed"])
def heavy(request):
    """A model whose prior weights put 90 % of the source mass on one clump."""
    adata = with_death()
    source, clump = control(adata), adata.obs["clump"].astype(str).to_numpy()
    mass = np.ones(adata.n_obs)
    mass[source & (clump == "second")] = 0.9 / (source & (clump == "second")).sum()
    mass[source & (clump != "second")] = 0.1 / (source & (clump != "second")).sum()
    adata.obs["mass"] = mass
    scgenot.GENOT.setup_anndata(adata, **SETUP, weights_key="mass")
    model = scgenot.GENOT(adata, tau_source=request.param, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 400, "validation_size": 0.0})
    return adata, model


def test_prior_weights_count_in_transitions_and_transported_cells(heavy):
    adata, model = heavy
    marginal = np.asarray(model.coupling_.source_marginal, np.float64)
    clump = adata.obs["clump"][control(adata)].astype(str).to_numpy()
    plan = np.array([marginal[clump == name].sum() for name in ("first", "second", "third")])
    # By the number of cells it would be a quarter.
    assert plan[1] > 0.65
    written = scgenot.tl.transitions(adata, model, "clump", n_samples=10, normalize=False, copy=True)
    found = written.uns["genot_transitions"]["matrix"].sum(axis=1).to_numpy()
    np.testing.assert_allclose(found, plan, atol=0.02)
    cells = scgenot.tl.transported_cells(adata, model, weight_by_growth=True)
    share = cells.obs["clump"].astype(str).value_counts(normalize=True)
    share = share.reindex(["first", "second", "third"], fill_value=0.0).to_numpy()
    assert share[1] == pytest.approx(plan[1] / plan.sum(), abs=0.02)
    # 10 to 40 of the 120 cells are drawn from the two light clumps: three standard deviations of that.
    np.testing.assert_allclose(share, plan / plan.sum(), atol=0.05)


def test_prior_weights_that_are_missing_are_not_dropped_in_silence(heavy):
    adata, model = heavy
    bare = adata.copy()
    del bare.obs["mass"]
    with pytest.raises(KeyError, match="`weights_key`='mass'.*weight_by_growth=False"):
        scgenot.tl.transitions(bare, model, "clump", n_samples=2)
    with pytest.raises(KeyError, match="`weights_key`='mass'"):
        scgenot.tl.transported_cells(bare, model, weight_by_growth=True)
    scgenot.tl.transitions(bare, model, "clump", n_samples=2, weight_by_growth=False)


def test_prior_mass_is_read_from_the_modality_or_the_whole_mudata():
    mdata = make_mdata()
    mdata.obs["heft"] = np.arange(mdata.n_obs, dtype=float)
    model = SimpleNamespace(describe=lambda: {"weights_key": "heft"}, source_adata=lambda data: data["atac"])
    rows = np.array([3, 5])
    heft = mdata.obs["heft"].reindex(mdata["atac"].obs_names[rows]).to_numpy()
    np.testing.assert_allclose(prior_mass(model, mdata, rows), heft / heft.sum())
    mdata["atac"].obs["heft"] = 1.0
    np.testing.assert_allclose(prior_mass(model, mdata, rows), 0.5)
    mdata["atac"].obs.loc[mdata["atac"].obs_names[5], "heft"] = np.nan
    with pytest.raises(ValueError, match=r"`weights_key`='heft' must hold finite numbers.*1 of 2 are not"):
        prior_mass(model, mdata, rows)


def test_transition_matrix_by_hand():
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.25, 0.75]])
    mass = np.array([0.4, 0.2, 0.3, 0.1])
    found = transition_matrix(probabilities, np.array([0, 0, 1, -1]), mass)
    np.testing.assert_allclose(found, [[0.5, 0.1], [0.0, 0.3]])
