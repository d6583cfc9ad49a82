"""`scgenot.tl`: what is written, where, and what is left alone."""

import anndata as ad
import numpy as np
import pytest
from tests.conftest import assert_same, make_adata, snapshot

import scgenot


def test_transport_writes_mean_uncertainty_and_parameters(trained):
    adata = make_adata(seed=1)
    before = snapshot(adata)
    assert scgenot.tl.transport(adata, trained, n_samples=7, store_samples=True, rng=3) is None
    control = (adata.obs["condition"] == "control").to_numpy()
    samples = trained.sample(adata, n_samples=7, rng=3)
    np.testing.assert_array_equal(adata.obsm["genot_samples"][control], samples)
    np.testing.assert_allclose(adata.obsm["genot"][control], samples.mean(axis=1), rtol=1e-5, atol=1e-6)
    frame = trained.get_uncertainty(adata, n_samples=7, rng=3)
    np.testing.assert_allclose(adata.obs["genot_uncertainty"][control], frame["cos_var"], rtol=1e-5)
    np.testing.assert_allclose(adata.obs["genot_variance"][control], frame["variance"], rtol=1e-5)
    assert np.isnan(adata.obsm["genot"][~control]).all()
    assert np.isnan(adata.obsm["genot_samples"][~control]).all()
    assert adata.obs.loc[~control, ["genot_uncertainty", "genot_variance"]].isna().all(axis=None)
    assert (adata.obs.loc[control, "genot_growth"] == 1.0).all()
    params = adata.uns["genot"]["params"]
    assert (params["source"], params["target"], params["n_samples"]) == ("control", "stimulated", 7)
    for key in ("genot", "genot_samples"):
        del adata.obsm[key]
    adata.obs = adata.obs.drop(columns=["genot_uncertainty", "genot_variance", "genot_growth"])
    del adata.uns["genot"]
    assert_same(adata, before)


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
    np.testing.assert_allclose(adata.obs["genot_uncertainty"].iloc[control], cosine.var(axis=1), rtol=1e-3, atol=1e-7)


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


def test_transported_cells_join_the_original_ones(trained, tmp_path):
    adata = make_adata()
    joined = ad.concat([adata, scgenot.tl.transported_cells(adata, trained)], join="outer")
    assert joined.obsm["X_pca"].shape == (180, 3)
    cells = scgenot.tl.transported_cells(adata, trained)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert ad.read_h5ad(tmp_path / "cells.h5ad").obs_names.tolist() == cells.obs_names.tolist()
