"""`scgenot.tl`: what is written, where, and what is left alone."""

import copy
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, SETUP, SMALL, assert_same, make_adata, snapshot

import scgenot
from scgenot.flow import TargetRegions


def test_transport_writes_mean_uncertainty_and_parameters(trained):
    adata = make_adata(seed=1)
    before = snapshot(adata)
    assert scgenot.tl.transport(adata, trained, n_samples=7, store_samples=True, rng=3) is None
    control = (adata.obs["condition"] == "control").to_numpy()
    samples = trained.sample(adata, n_samples=7, rng=3)
    np.testing.assert_array_equal(adata.obsm["genot_samples"][control], samples)
    np.testing.assert_allclose(adata.obsm["genot"][control], samples.mean(axis=1), rtol=1e-5, atol=1e-6)
    frame = trained.get_uncertainty(adata, n_samples=7, rng=3)
    for name in ("uncertainty", "cos_var", "variance"):
        np.testing.assert_allclose(adata.obs[f"genot_{name}"][control], frame[name], rtol=1e-5)
    np.testing.assert_allclose(frame["variance"], samples.var(axis=1, ddof=1).sum(axis=1), rtol=1e-4)
    stimulated = adata_of(trained).obsm["X_pca"][(adata_of(trained).obs["condition"] == "stimulated").to_numpy()]
    # Without the few cells held out; regions are made of training cells.
    assert np.corrcoef(frame["uncertainty"], TargetRegions.of(stimulated).entropy(samples))[0, 1] > 0.8
    assert np.isnan(adata.obsm["genot"][~control]).all()
    assert np.isnan(adata.obsm["genot_samples"][~control]).all()
    assert adata.obs.loc[~control, ["genot_uncertainty", "genot_cos_var", "genot_variance"]].isna().all(axis=None)
    assert (adata.obs.loc[control, "genot_growth"] == 1.0).all()
    params = adata.uns["genot"]["params"]
    assert (params["source"], params["target"], params["n_samples"]) == ("control", "stimulated", 7)
    for key in ("genot", "genot_samples"):
        del adata.obsm[key]
    adata.obs = adata.obs.drop(columns=["genot_uncertainty", "genot_cos_var", "genot_variance", "genot_growth"])
    del adata.uns["genot"]
    assert_same(adata, before)


def adata_of(model):
    return model.adata


def test_uncertainty_does_not_need_the_data_and_one_sample_has_none(trained, tmp_path):
    adata = make_adata()
    expected = trained.get_uncertainty(adata, n_samples=5)["uncertainty"].to_numpy()
    trained.save(tmp_path / "model", overwrite=True)
    loaded = scgenot.GENOT.load(tmp_path / "model", adata=False)
    np.testing.assert_allclose(loaded.get_uncertainty(adata, n_samples=5)["uncertainty"], expected, rtol=1e-5)
    scgenot.tl.transport(adata, loaded, n_samples=1)
    assert adata.obs[["genot_uncertainty", "genot_cos_var", "genot_variance"]].isna().all(axis=None)
    assert np.isfinite(adata.obsm["genot"][(adata.obs["condition"] == "control").to_numpy()]).all()


def test_label_uncertainty_is_told(trained):
    adata = make_adata()
    found = trained.get_uncertainty(adata, n_samples=5, label_key="donor")
    assert list(found.columns) == ["uncertainty", "cos_var", "variance", "entropy", "label_uncertainty"]
    scgenot.tl.transfer_labels(adata, trained, "donor", n_samples=5)
    np.testing.assert_allclose(adata.obs["genot_labels_uncertainty"].dropna(), found["label_uncertainty"], atol=1e-6)


def test_transport_survives_a_file(trained, tmp_path):
    adata = make_adata()
    scgenot.tl.transport(adata, trained, n_samples=3, store_samples=True)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obsm["genot_samples"], adata.obsm["genot_samples"])
    assert dict(again.uns["genot"]["params"]) == adata.uns["genot"]["params"]


def test_transport_copy_and_key_leave_the_object_alone(trained):
    adata = make_adata()
    before = snapshot(adata)
    changed = scgenot.tl.transport(adata, trained, n_samples=2, key_added="moved", copy=True)
    assert_same(adata, before)
    assert {"moved"} <= set(changed.obsm)
    assert {"moved_uncertainty", "moved_variance"} <= set(changed.obs)


def test_failed_transport_leaves_the_object_as_it_was(trained):
    adata = make_adata()
    control = np.flatnonzero(adata.obs["condition"] == "control")
    adata.obsm["X_pca"][control[0], 1] = np.nan
    before = {key: value.copy() for key, value in adata.obsm.items()}
    with pytest.raises(ValueError, match="NaN or inf in 1 of the 60"):
        scgenot.tl.transport(adata, trained)
    assert set(adata.obsm) == set(before)
    assert "genot" not in adata.uns
    assert "genot_uncertainty" not in adata.obs


def test_displacement_is_measured_from_the_cell(trained):
    adata = make_adata()
    scgenot.tl.transport(adata, trained, n_samples=9, displacement=True)
    control = np.flatnonzero(adata.obs["condition"] == "control")
    steps = trained.sample(adata, n_samples=9) - adata.obsm["X_pca"][control][:, None]
    mean = steps.mean(axis=1, keepdims=True)
    cosine = (steps * mean).sum(-1) / np.linalg.norm(steps, axis=-1) / np.linalg.norm(mean, axis=-1)
    np.testing.assert_allclose(
        adata.obs["genot_cos_var"].iloc[control], cosine.var(axis=1, ddof=1), rtol=1e-3, atol=1e-7
    )


def test_transported_cells_carry_obs_and_order(trained):
    adata = make_adata()
    before = snapshot(adata)
    cells = scgenot.tl.transported_cells(adata, trained, n_samples=3, rng=5)
    assert_same(adata, before)
    control = adata[adata.obs["condition"] == "control"]
    assert cells.shape == (180, 3)
    assert cells.obs_names.is_unique
    assert cells.obs["source_cell"].tolist() == np.repeat(control.obs_names, 3).tolist()
    assert cells.obs["donor"].tolist() == np.repeat(control.obs["donor"].to_numpy(), 3).tolist()
    np.testing.assert_array_equal(cells.X.reshape(60, 3, 3), trained.sample(adata, n_samples=3, rng=5))
    np.testing.assert_array_equal(cells.obsm["X_pca"], cells.X)


def test_a_second_transport_leaves_nothing_of_the_first(trained):
    adata = make_adata()
    scgenot.tl.transport(adata, trained, n_samples=3, store_samples=True)
    # As an earlier model with known growth would have left it.
    assert {"genot_samples"} <= set(adata.obsm) and "genot_growth" in adata.obs
    adata.obs["genot_mine"] = 1.0
    again = adata.copy()
    scgenot.tl.transport(again, without_growth(trained), n_samples=3)
    assert "genot_samples" not in again.obsm and "genot_growth" not in again.obs
    assert (again.obs["genot_mine"] == 1.0).all()


def without_growth(model):
    """The same model, as one of minibatches would be: it does not know growth."""
    other = copy.copy(model)
    other.knows_growth = lambda population="source": False
    return other


@pytest.mark.parametrize("tool", ["transport", "transfer_labels", "transitions"])
def test_what_cannot_be_written_is_refused_before_the_work(trained, tmp_path, monkeypatch, tool):
    make_adata().write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    monkeypatch.setattr(type(trained), "sample", None)
    monkeypatch.setattr(type(trained), "summarize", None)
    monkeypatch.setattr(type(trained), "get_label_probabilities", None)
    arguments = () if tool == "transport" else ("donor",)
    with pytest.raises(ValueError, match=r"`copy=True` needs data in memory.*to_memory"):
        getattr(scgenot.tl, tool)(backed, trained, *arguments, copy=True)
    with pytest.raises(ValueError, match="`key_added` must be a name without '/', got 'a/b'"):
        getattr(scgenot.tl, tool)(make_adata(), trained, *arguments, key_added="a/b")
    backed.file.close()


def test_labels_with_a_slash_are_written_safely(trained, tmp_path):
    adata = make_adata()
    adata.obs["kind"] = adata.obs["donor"].cat.rename_categories({"a": "CD4+/RA+", "b": "CD4+|RA+"})
    scgenot.tl.transfer_labels(adata, trained, "kind", n_samples=2, target=adata)
    scgenot.tl.transitions(adata, trained, "kind", n_samples=2, target=adata)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert list(again.obsm["genot_labels"].columns) == ["CD4+|RA+", "CD4+|RA+ (2)"]
    assert list(again.uns["genot_labels"]["labels"]) == ["CD4+/RA+", "CD4+|RA+"]
    assert list(again.obs["genot_labels"].cat.categories) == ["CD4+/RA+", "CD4+|RA+"]
    assert list(again.uns["genot_transitions"]["target_labels"]) == ["CD4+/RA+", "CD4+|RA+"]
    assert list(again.uns["genot_transitions"]["matrix"].index) == ["CD4+/RA+", "CD4+|RA+"]


def test_transported_cells_join_the_original_ones(trained, tmp_path):
    adata = make_adata()
    joined = ad.concat([adata, scgenot.tl.transported_cells(adata, trained)], join="outer")
    assert joined.obsm["X_pca"].shape == (180, 3)
    cells = scgenot.tl.transported_cells(adata, trained)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert ad.read_h5ad(tmp_path / "cells.h5ad").obs_names.tolist() == cells.obs_names.tolist()


def test_transported_cells_are_of_the_target_population(trained):
    adata = make_adata()
    cells = scgenot.tl.transported_cells(adata, trained)
    assert (cells.obs["condition"] == "stimulated").all() and (cells.obs["source_condition"] == "control").all()
    assert isinstance(cells.obs["condition"].dtype, pd.CategoricalDtype)
    joined = ad.concat([adata, cells], join="outer")
    assert joined.obs["condition"].value_counts()["stimulated"] == 110
    assert joined.obs_names.is_unique


def test_steps_are_chained_and_keep_the_first_cell(trained):
    adata = make_adata()
    adata.obsm["X_pca"][(adata.obs["condition"] == "stimulated").to_numpy()] -= 1.0
    back = make_adata()
    setup = SETUP | {"source": "stimulated", "target": "unused"}
    scgenot.GENOT.setup_anndata(back, **setup)
    second = scgenot.GENOT(back, flow_config=SMALL)
    second.train(**BRIEF | {"max_steps": 20})
    first = scgenot.tl.transported_cells(adata, trained, n_samples=2)
    chained = scgenot.tl.transported_cells(first, second, n_samples=2)
    assert chained.n_obs == 240 and chained.obs_names.is_unique
    assert set(chained.obs["source_cell"]) == set(adata.obs_names[adata.obs["condition"] == "control"])
    assert (chained.obs["condition"] == "unused").all() and (chained.obs["source_condition"] == "control").all()
    root = chained.obs["source_cell"].iloc[0]
    assert list(chained.obs_names[:4]) == [f"{root}-transported-{k}" for k in ("0.0", "0.1", "1.0", "1.1")]
    with pytest.raises(ValueError, match="no source cells.*'control'.*`indices`"):
        scgenot.tl.transported_cells(chained, trained)


def test_a_cell_that_is_named_twice_is_drawn_twice(trained):
    adata = make_adata()
    rows = np.flatnonzero(adata.obs["condition"] == "control")[[4, 9, 4]]
    cells = scgenot.tl.transported_cells(adata, trained, indices=rows, n_samples=2)
    assert cells.obs_names.is_unique and len(np.unique(cells.X, axis=0)) == 6
    once = trained.sample(adata, indices=rows[:2], n_samples=4)
    np.testing.assert_array_equal(
        cells.X, np.stack([once[0, 0], once[0, 1], once[1, 0], once[1, 1], once[0, 2], once[0, 3]])
    )


def test_no_more_samples_are_drawn_than_asked_for(trained, monkeypatch):
    drawn = []
    sample = type(trained).sample

    def counting(self, adata=None, **arguments):
        found = sample(self, adata, **arguments)
        drawn.append(found.shape[0] * found.shape[1])
        return found

    monkeypatch.setattr(type(trained), "sample", counting)
    rows = np.flatnonzero(make_adata().obs["condition"] == "control")
    rows = np.concatenate([rows[:20], np.full(30, rows[0])])
    assert scgenot.tl.transported_cells(make_adata(), trained, indices=rows).n_obs == 50
    assert sum(drawn) == 50
