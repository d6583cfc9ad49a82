"""Saving and loading models between modalities."""

import json

import mudata
import numpy as np
import pytest
from tests.conftest import BRIEF, SCVI_UNS, assert_same, make_adata, snapshot
from tests.conftest import SETUP as LINEAR
from tests.model.modalities import FEW, build, make_mdata

from scgenot import GENOT
from scgenot.costs import Geodesic


@pytest.fixture(scope="module")
def cross():
    model = build(make_mdata())
    model.train(**BRIEF)
    return model


@pytest.fixture
def saved(cross, tmp_path):
    cross.save(tmp_path / "model")
    return tmp_path / "model"


def test_with_the_mudata(cross, saved):
    mdata = make_mdata()
    before = {name: snapshot(modality) for name, modality in mdata.mod.items()}
    model = GENOT.load(saved, mdata)
    for name, modality in mdata.mod.items():
        assert_same(modality, before[name])
    assert set(mdata.uns) == set(SCVI_UNS) and model.adata is mdata
    assert repr(model) == repr(cross)
    np.testing.assert_array_equal(model.sample(n_samples=3), cross.sample(n_samples=3))
    model.train(**BRIEF)
    np.testing.assert_array_equal(model.sample(n_samples=3), cross.sample(n_samples=3))


def test_without_any_or_with_the_source_only(cross, saved):
    samples = cross.sample(n_samples=3)
    atac = make_mdata()["atac"]
    before = snapshot(atac)
    np.testing.assert_array_equal(GENOT.load(saved).sample(make_mdata(), n_samples=3), samples)
    for data in (atac, mudata.MuData({"atac": atac})):
        model = GENOT.load(saved, data)
        np.testing.assert_array_equal(model.sample(n_samples=3), samples)
        with pytest.raises(ValueError, match="no AnnData with both populations"):
            model.train(**FEW)
    assert_same(atac, before)


def test_with_the_mudata_saved_along(cross, tmp_path):
    cross.save(tmp_path / "model", save_anndata=True)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "mdata.h5mu",
        "scgenot.json",
        "weights.safetensors",
    ]
    model = GENOT.load(tmp_path / "model")
    assert isinstance(model.adata, mudata.MuData)
    np.testing.assert_array_equal(model.sample(n_samples=3), cross.sample(n_samples=3))


@pytest.mark.parametrize(("modality", "rep", "message"), [("atac", "X_lsi", "3 source"), ("rna", "X_pca", "2 target")])
def test_another_width(saved, modality, rep, message):
    mdata = make_mdata()
    mdata[modality].obsm[rep] = np.ones((mdata[modality].n_obs, 7), np.float32)
    with pytest.raises(ValueError, match=f"trained with {message} features, adata has 7 in '{rep}'"):
        GENOT.load(saved, mdata)
    assert not mdata.uns


def test_shared_features_of_another_width(tmp_path):
    build(make_mdata(), setup={"shared_rep": "X_shared"}).save(tmp_path / "model")
    mdata = make_mdata()
    for one in mdata.mod.values():
        one.obsm["X_shared"] = np.ones((one.n_obs, 3), np.float32)
    with pytest.raises(ValueError, match="trained with 1 shared features, adata has 3 in 'X_shared'"):
        GENOT.load(tmp_path / "model", mdata)


def test_data_of_another_kind(saved, trained, tmp_path):
    with pytest.raises(KeyError, match="`source_modality`='atac' is no modality.*'rna'"):
        GENOT.load(saved, mudata.MuData({"rna": make_mdata()["rna"]}))
    trained.save(tmp_path / "linear")
    with pytest.raises(TypeError, match="set up with an AnnData, got a MuData"):
        GENOT.load(tmp_path / "linear", make_mdata())
    with pytest.raises(TypeError, match="must be an AnnData, a MuData, None or False, got str"):
        GENOT.load(saved, "cells.h5mu")


def my_cost(x, y):
    return abs(x - y).sum()


COSTS = {
    "default": {},
    "pair": {"cost": ("cosine", "sqeuclidean")},
    "geodesic": {"cost": (Geodesic(n_neighbors=7, metric="cosine"), "euclidean")},
    "taus": {"tau_source": 0.9, "tau_target": 0.8, "epsilon": 0.01, "landmarks": 30},
}


@pytest.mark.parametrize("options", COSTS.values(), ids=COSTS)
def test_costs_come_back(options, tmp_path):
    model = build(make_mdata(), **options)
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model", make_mdata())
    assert loaded._coupling_config == model._coupling_config
    assert repr(loaded) == repr(model)


def test_given_costs_and_a_function_come_back(tmp_path):
    model = build(make_mdata(), setup={"source_distances": "far"}, cost=my_cost)
    assert "cost precomputed / my_cost" in repr(model)
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model", make_mdata())
    assert repr(loaded) == repr(model)
    with pytest.raises(ValueError, match="trained with the cost 'my_cost', a function; pass it to `load`"):
        loaded.train(**FEW)
    again = GENOT.load(tmp_path / "model", make_mdata(), cost=my_cost)
    assert again._coupling_config == model._coupling_config


def test_models_saved_before_there_were_modalities(trained, tmp_path):
    trained.save(tmp_path / "model")
    path = tmp_path / "model" / "scgenot.json"
    content = json.loads(path.read_text())
    del content["setup_method_name"], content["data_file"]
    content["setup_args"] = LINEAR | {"target_rep": None, "weights_key": None}
    path.write_text(json.dumps(content))
    loaded = GENOT.load(tmp_path / "model", make_adata())
    np.testing.assert_array_equal(loaded.sample(n_samples=2), trained.sample(n_samples=2))
