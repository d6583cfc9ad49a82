"""Saving and loading: the same model, no pickle, and an answer where it cannot be."""

import dataclasses
import json

import anndata as ad
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ott.geometry import costs as ott_costs
from tests.conftest import BRIEF, SCVI_UNS, SETUP, SHIFT, SMALL, assert_same, make_adata, snapshot

from scgenot import GENOT
from scgenot.coupling import displaced_cost
from scgenot.flow import ODEConfig


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "model")
    return tmp_path / "model"


def source_cells(adata):
    return adata[adata.obs["condition"] == "control"].copy()


def test_with_the_anndata(trained, saved):
    adata = make_adata()
    before = snapshot(adata)
    model = GENOT.load(saved, adata)
    assert_same(adata, before, new_uns=SCVI_UNS)
    assert model.adata is adata
    np.testing.assert_array_equal(model.sample(n_samples=3), trained.sample(n_samples=3))


def test_without_any(trained, saved):
    for model in (GENOT.load(saved), GENOT.load(saved, adata=False)):
        assert model.adata is None
        np.testing.assert_array_equal(model.sample(make_adata(), n_samples=3), trained.sample(n_samples=3))
        with pytest.raises(ValueError, match="loaded without data. Pass `adata`"):
            model.sample()
        with pytest.raises(ValueError, match="no AnnData with both populations"):
            model.train(**BRIEF)


def test_with_source_cells_only(trained, saved):
    cells = source_cells(make_adata())
    before = snapshot(cells)
    model = GENOT.load(saved, cells)
    assert_same(cells, before)
    np.testing.assert_array_equal(model.sample(n_samples=3), trained.sample(cells, n_samples=3))
    with pytest.raises(ValueError, match="no AnnData with both populations"):
        model.train(**BRIEF)


def test_with_source_cells_without_the_column(trained, saved):
    cells = source_cells(make_adata())
    del cells.obs["condition"]
    np.testing.assert_array_equal(GENOT.load(saved, cells).sample(n_samples=3), trained.sample(cells, n_samples=3))


def test_with_the_anndata_saved_along(trained, tmp_path):
    before = snapshot(trained.adata)
    trained.save(tmp_path / "model", save_anndata=True)
    assert_same(trained.adata, before)
    model = GENOT.load(tmp_path / "model")
    assert model.adata is not None and model.adata.n_obs == 120
    np.testing.assert_array_equal(model.sample(n_samples=3), trained.sample(n_samples=3))
    assert GENOT.load(tmp_path / "model", adata=False).adata is None
    model.train(**BRIEF | {"max_steps": 20})


def test_everything_comes_back(trained, saved):
    model = GENOT.load(saved, make_adata())
    assert repr(model) == repr(trained)
    assert set(model.history) == set(trained.history)
    for name, frame in trained.history.items():
        pd.testing.assert_frame_equal(model.history[name], frame)
    pd.testing.assert_frame_equal(model.coupling_summary(), trained.coupling_summary())
    assert model.is_trained_ and (model.steps_, model.stopped_) == (200, "max_steps")


def test_a_loaded_model_trains_as_the_first_did(trained, saved):
    model = GENOT.load(saved, make_adata())
    model.train(**BRIEF | {"max_steps": 200})
    np.testing.assert_array_equal(model.sample(n_samples=3), trained.sample(n_samples=3))


def test_saving_a_loaded_model_changes_nothing(trained, saved, tmp_path):
    for k, model in enumerate([GENOT.load(saved, make_adata()), GENOT.load(saved)]):
        model.save(tmp_path / str(k))
        again = GENOT.load(tmp_path / str(k))
        np.testing.assert_array_equal(again.sample(make_adata(), n_samples=2), trained.sample(n_samples=2))
        # What is needed to set up an AnnData again survives a model that had none.
        GENOT.load(tmp_path / str(k), make_adata()).train(**BRIEF | {"max_steps": 20})


def test_a_model_that_is_not_trained(ready, tmp_path):
    GENOT(ready, flow_config=SMALL, epsilon=0.02).save(tmp_path / "model")
    model = GENOT.load(tmp_path / "model", make_adata())
    assert not model.is_trained_ and "epsilon 0.02" in repr(model) and model.history is None
    with pytest.raises(RuntimeError, match="not trained"):
        model.sample()
    model.train(**BRIEF | {"max_steps": 20})


def test_no_pickle(saved):
    files = sorted(path.name for path in saved.rglob("*") if path.is_file())
    assert files == ["scgenot.json", "weights.safetensors"]
    content = json.loads((saved / "scgenot.json").read_text())
    assert content["setup_args"]["population_key"] == "condition"
    weights = (saved / "weights.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    # Weights and target cells; rows of training and held-out cells.
    kinds = {name: "I64" if name.startswith("rows/") else "F32" for name in header if name != "__metadata__"}
    assert {name: header[name]["dtype"] for name in kinds} == kinds and "rows/train/source" in kinds
    # Every pickle of protocol 2 or later starts with these bytes, and `torch.save` writes zip files.
    for path in saved.iterdir():
        assert path.read_bytes()[:1] not in (b"\x80",) and path.read_bytes()[:2] != b"PK"


def test_an_existing_directory_is_not_written_to(trained, saved):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(FileExistsError, match="exists already.*overwrite=True"):
        trained.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_overwriting(trained, ready, saved):
    other = GENOT(ready, flow_config=SMALL)
    other.train(**BRIEF, rng=5)
    other.save(saved, overwrite=True)
    np.testing.assert_array_equal(GENOT.load(saved, make_adata()).sample(n_samples=2), other.sample(n_samples=2))


def test_overwriting_forgets_the_earlier_anndata(trained, tmp_path):
    trained.save(tmp_path / "model", save_anndata=True)
    trained.save(tmp_path / "model", overwrite=True)
    assert GENOT.load(tmp_path / "model").adata is None


@pytest.mark.parametrize("failing", ["json.dumps", "scgenot.model.saving._files.save_file"])
def test_a_save_that_fails_leaves_the_earlier_model(trained, ready, saved, monkeypatch, failing):
    other = GENOT(ready, flow_config=SMALL)
    other.train(**BRIEF, rng=5)

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(OSError, match="no space"):
            other.save(saved, overwrite=True)
    np.testing.assert_array_equal(GENOT.load(saved, make_adata()).sample(n_samples=2), trained.sample(n_samples=2))


@pytest.mark.parametrize("failing", ["json.dumps", "scgenot.model.saving._files.save_file"])
def test_a_first_save_that_fails_leaves_no_directory_in_the_way(trained, tmp_path, monkeypatch, failing):
    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(OSError, match="no space"):
            trained.save(tmp_path / "model")
    trained.save(tmp_path / "model")
    GENOT.load(tmp_path / "model")


def test_prefixes_keep_models_apart(trained, ready, tmp_path):
    other = GENOT(ready, flow_config=SMALL)
    other.train(**BRIEF, rng=5)
    trained.save(tmp_path / "model", prefix="a_")
    other.save(tmp_path / "model", prefix="b_", overwrite=True)
    for prefix, model in (("a_", trained), ("b_", other)):
        loaded = GENOT.load(tmp_path / "model", make_adata(), prefix=prefix)
        np.testing.assert_array_equal(loaded.sample(n_samples=2), model.sample(n_samples=2))
    with pytest.raises(FileNotFoundError, match="`prefix`"):
        GENOT.load(tmp_path / "model")


@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_that_is_no_model(tmp_path, exists):
    if exists:
        (tmp_path / "other.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match="holds no saved model: there is no scgenot.json. Pass the directory"):
        GENOT.load(tmp_path if exists else tmp_path / "nothing")


def test_a_model_without_its_weights(saved):
    (saved / "weights.safetensors").unlink()
    with pytest.raises((FileNotFoundError, ValueError), match="weights.safetensors"):
        GENOT.load(saved)


def test_a_model_of_a_later_format(saved):
    content = json.loads((saved / "scgenot.json").read_text())
    (saved / "scgenot.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(ValueError, match="later format.*Update scgenot"):
        GENOT.load(saved)


def test_another_kind_of_model(saved):
    content = json.loads((saved / "scgenot.json").read_text())
    (saved / "scgenot.json").write_text(json.dumps(content | {"model": "SCVI"}))
    with pytest.raises(ValueError, match="holds a SCVI, not a GENOT"):
        GENOT.load(saved)


def test_json_that_is_cut_off(saved):
    (saved / "scgenot.json").write_text((saved / "scgenot.json").read_text()[:100])
    with pytest.raises(ValueError, match="scgenot.json' is damaged, cut off"):
        GENOT.load(saved)


@pytest.mark.parametrize("only_source", [True, False])
def test_cells_of_another_width(saved, only_source):
    adata = make_adata()
    adata.obsm["X_pca"] = adata.obsm["X_wide"]
    adata = source_cells(adata) if only_source else adata
    before = snapshot(adata)
    with pytest.raises(ValueError, match="trained with 3 .*features.* 6"):
        GENOT.load(saved, adata)
    assert_same(adata, before)


def test_cells_without_the_representation(saved):
    adata = make_adata()
    del adata.obsm["X_pca"]
    before = snapshot(adata)
    with pytest.raises(KeyError, match="'X_pca' is neither"):
        GENOT.load(saved, adata)
    assert_same(adata, before)


def test_something_that_is_no_anndata(saved):
    with pytest.raises((TypeError, ValueError), match="adata"):
        GENOT.load(saved, "cells.h5ad")


def my_cost(x, y):
    return jnp.sum(jnp.abs(x - y) ** 1.5)


@pytest.mark.parametrize("cost", [my_cost, ott_costs.PNormP(1.5)], ids=["function", "ott"])
def test_a_cost_that_is_no_name(ready, tmp_path, cost):
    model = GENOT(ready, flow_config=SMALL, cost=cost)
    model.train(**BRIEF | {"max_steps": 20})
    model.save(tmp_path / "model")
    samples = model.sample(n_samples=2)
    # Sampling needs no cost; training again does.
    for loaded in (
        GENOT.load(tmp_path / "model", make_adata()),
        GENOT.load(tmp_path / "model", make_adata(), cost=cost),
    ):
        np.testing.assert_array_equal(loaded.sample(n_samples=2), samples)
    loaded.train(**BRIEF | {"max_steps": 20})
    np.testing.assert_array_equal(loaded.sample(n_samples=2), samples)
    with pytest.raises(ValueError, match="cost"):
        GENOT.load(tmp_path / "model", make_adata()).train(**BRIEF | {"max_steps": 20})


def test_a_displaced_cost_comes_back(ready, tmp_path):
    model = GENOT(ready, flow_config=SMALL, cost=displaced_cost("cosine", SHIFT), tau_source=0.9, tau_target=0.9)
    assert "cosine, displaced" in repr(model)
    model.train(**BRIEF)
    model.save(tmp_path / "model")
    again = GENOT.load(tmp_path / "model", make_adata())
    assert "cosine, displaced" in repr(again)
    np.testing.assert_array_equal(again.get_growth(), model.get_growth())
    # The cost itself is there, not only its name: it can be trained again.
    again.train(**BRIEF)
    np.testing.assert_array_equal(again.coupling_.source_marginal, model.coupling_.source_marginal)


def test_a_displaced_function_keeps_its_name(ready, tmp_path):
    GENOT(ready, flow_config=SMALL, cost=displaced_cost(my_cost, SHIFT)).save(tmp_path / "model")
    again = GENOT.load(tmp_path / "model", make_adata())
    assert "my_cost, displaced" in repr(again)
    with pytest.raises(ValueError, match="my_cost.*a function"):
        again.train(**BRIEF)


def test_costs_and_options_come_back(ready, tmp_path):
    model = GENOT(
        ready,
        flow_config=SMALL,
        cost="cosine",
        epsilon=0.03,
        tau_source=0.9,
        scale_cost=2.0,
        coupling="minibatch",
        max_iterations=70,
    )
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model")
    assert loaded._coupling_config == model._coupling_config
    assert repr(loaded) == repr(model)


def test_counts_keep_their_genes(adata, tmp_path):
    GENOT.setup_anndata(adata, **SETUP | {"source_rep": "X"})
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 20})
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model")
    assert loaded.var_names == list(adata.var_names)
    with pytest.raises(ValueError, match="not those of training"):
        loaded.sample(adata[:, ::-1].copy())
    with pytest.raises(ValueError, match="not those of training"):
        GENOT.load(tmp_path / "model", adata[:, ::-1].copy()).sample()


def test_a_view_of_source_cells_can_be_attached(trained, saved):
    adata = make_adata()
    view = adata[adata.obs["condition"] == "control"]
    np.testing.assert_array_equal(GENOT.load(saved, view).sample(n_samples=2), trained.sample(view, n_samples=2))


def test_paths_may_be_text(trained, tmp_path):
    trained.save(str(tmp_path / "deep" / "model"))
    assert isinstance(GENOT.load(str(tmp_path / "deep" / "model"), make_adata()).adata, ad.AnnData)


def test_a_start_that_was_learned_is_saved_and_distilled_from(tmp_path):
    adata = make_adata()
    GENOT.setup_anndata(adata, **SETUP)
    model = GENOT(adata, flow_config=dataclasses.replace(SMALL, start="linear"))
    model.train(**BRIEF, validation_size=0.2)
    samples = model.sample(n_samples=2)
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model", adata=adata)
    np.testing.assert_array_equal(loaded.sample(n_samples=2), samples)
    # Its slope is not that of a blank one, which would be read where nothing was saved.
    assert np.abs(loaded._method.weights.path.slope).max() > 0.01
    few = {"max_steps": 20, "pool_size": 512, "fresh": 128, "batch_size": 64, "check_every": 10, "progress_bar": False}
    loaded.distill(steps=1, **few)
    # Some 20 steps learn little, but samples start where those of the model do: far from noise around the middle of all targets.
    distilled = loaded.sample(n_samples=2, ode=ODEConfig("distilled"))
    assert np.abs(distilled.mean(axis=(0, 1)) - samples.mean(axis=(0, 1))).max() < 1.0
