"""`scgenot.tl` between modalities: labels, means, transported cells."""

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy
from tests.conftest import BRIEF, assert_same, make_adata, snapshot
from tests.model.modalities import build, make_mdata

import scgenot


@pytest.fixture(scope="module")
def cross():
    model = build(make_mdata())
    model.train(**BRIEF)
    return model


def test_transfer_labels_writes_probabilities_labels_and_entropy(cross):
    mdata = make_mdata()
    before = {name: snapshot(modality) for name, modality in mdata.mod.items()}
    rows = np.array([7, 3, 30])
    assert scgenot.tl.transfer_labels(mdata, cross, "kind", n_samples=6, rng=3, indices=rows) is None
    atac = mdata["atac"]
    found = cross.get_label_probabilities(label_key="kind", n_samples=6, rng=3, indices=rows)
    written = atac.obsm["genot_labels"]
    assert isinstance(written, pd.DataFrame) and list(written.columns) == ["down", "up"]
    pd.testing.assert_frame_equal(written.iloc[rows], found, check_column_type=False)
    assert list(atac.obs["genot_labels"].iloc[rows]) == list(found.idxmax(axis=1))
    np.testing.assert_allclose(atac.obs["genot_labels_entropy"].iloc[rows], entropy(found, axis=1), atol=1e-6)
    others = np.setdiff1d(np.arange(60), rows)
    assert written.iloc[others].isna().all(axis=None)
    assert atac.obs[["genot_labels", "genot_labels_entropy"]].iloc[others].isna().all(axis=None)
    params = atac.uns["genot_labels"]["params"]
    assert params["label_key"] == "kind" and (params["source_modality"], params["target_modality"]) == ("atac", "rna")
    del atac.obsm["genot_labels"], atac.uns["genot_labels"]
    atac.obs = atac.obs.drop(columns=["genot_labels", "genot_labels_entropy", "genot_labels_uncertainty"])
    for name, modality in mdata.mod.items():
        assert_same(modality, before[name])


def test_results_survive_a_file(cross, tmp_path):
    mdata = make_mdata()
    scgenot.tl.transfer_labels(mdata, cross, "kind", n_samples=2)
    scgenot.tl.transport(mdata, cross, n_samples=2)
    mdata.write_h5mu(tmp_path / "a.h5mu")
    again, atac = mudata.read_h5mu(tmp_path / "a.h5mu")["atac"], mdata["atac"]
    np.testing.assert_array_equal(again.obsm["genot"], atac.obsm["genot"])
    pd.testing.assert_frame_equal(again.obsm["genot_labels"], atac.obsm["genot_labels"], check_column_type=False)
    assert list(again.obs["genot_labels"]) == list(atac.obs["genot_labels"])
    assert dict(again.uns["genot"]["params"]) == atac.uns["genot"]["params"]


def test_the_source_modality_alone_and_copies(cross):
    mdata = make_mdata()
    before = snapshot(mdata["atac"])
    changed = scgenot.tl.transfer_labels(mdata, cross, "kind", n_samples=3, copy=True, key_added="t")
    alone = scgenot.tl.transfer_labels(mdata["atac"], cross, "kind", n_samples=3, copy=True, key_added="t")
    assert_same(mdata["atac"], before)
    assert isinstance(changed, mudata.MuData) and isinstance(alone, ad.AnnData)
    pd.testing.assert_frame_equal(changed["atac"].obsm["t"], alone.obsm["t"])


def test_labels_within_one_anndata(trained):
    adata = make_adata()
    scgenot.tl.transfer_labels(adata, trained, "donor", n_samples=4)
    control = (adata.obs["condition"] == "control").to_numpy()
    assert adata.obs["genot_labels"].notna().to_numpy().tolist() == control.tolist()
    assert list(adata.obs["genot_labels"].cat.categories) == ["a", "b"]


def test_a_failed_call_leaves_the_object_as_it_was(cross):
    mdata = make_mdata()
    before = snapshot(mdata["atac"])
    with pytest.raises(KeyError, match="`label_key`='kin'"):
        scgenot.tl.transfer_labels(mdata, cross, "kin")
    assert_same(mdata["atac"], before)


def test_transport_writes_to_the_source_modality(cross):
    mdata = make_mdata()
    before = snapshot(mdata["rna"])
    scgenot.tl.transport(mdata, cross, n_samples=5, store_samples=True)
    atac = mdata["atac"]
    np.testing.assert_array_equal(atac.obsm["genot_samples"], cross.sample(n_samples=5))
    assert atac.obsm["genot"].shape == (60, 2) and "population_key" not in atac.uns["genot"]["params"]
    assert_same(mdata["rna"], before)


def test_transported_cells_lie_in_the_target_space(cross, tmp_path):
    mdata = make_mdata()
    cells = scgenot.tl.transported_cells(mdata, cross, n_samples=2)
    assert cells.shape == (120, 2) and list(cells.var_names) == ["X_pca_0", "X_pca_1"]
    assert cells.obs["kind"].tolist() == np.repeat(mdata["atac"].obs["kind"].to_numpy(), 2).tolist()
    joined = ad.concat([mdata["rna"], cells], join="outer")
    assert joined.obsm["X_pca"].shape == (170, 2)
    cells.write_h5ad(tmp_path / "cells.h5ad")


@pytest.mark.parametrize(("rep", "names"), [("X", "rna_feature"), ("frame", "factor")])
def test_transported_cells_have_the_names_of_the_target_space(rep, names):
    mdata = make_mdata()
    mdata["rna"].obsm["frame"] = pd.DataFrame(
        mdata["rna"].obsm["X_pca"], index=mdata["rna"].obs_names, columns=["factor0", "factor1"]
    )
    model = build(mdata, setup={"target_rep": rep})
    model.train(**BRIEF | {"max_steps": 20})
    cells = scgenot.tl.transported_cells(mdata, model)
    assert list(cells.var_names) == [f"{names}{k}" for k in range(cells.n_vars)]
