"""Data that are replaced or changed under a model."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, SCVI_UNS, SETUP, SMALL, assert_same, make_adata, snapshot
from tests.model.modalities import FEW, build, make_mdata

from scgenot import GENOT


@pytest.fixture
def model(ready):
    model = GENOT(ready, flow_config=SMALL)
    model.train(**FEW)
    return model


def test_other_data_take_over(model, tmp_path):
    samples, other = model.sample(n_samples=2), make_adata(70, 40, seed=3)
    expected = model.sample(other, n_samples=2)
    before = snapshot(other)
    model.adata = other
    assert_same(other, before, new_uns=SCVI_UNS)
    assert model.adata is other and "control (70 cells) -> stimulated (40 cells)" in repr(model)
    np.testing.assert_array_equal(model.sample(n_samples=2), expected)
    # Rows of the earlier data mean nothing here.
    assert model.train_indices_ is None and model.validation_indices_ is None and model.coupling_ is None
    with pytest.raises(RuntimeError, match="no coupling to reverse.*data were replaced.*`model.train"):
        model.reverse(**FEW)
    model.save(tmp_path / "model", save_anndata=True)
    np.testing.assert_array_equal(GENOT.load(tmp_path / "model").sample(n_samples=2), expected)
    model.train(**FEW)
    assert len(model.train_indices_) + len(model.validation_indices_) == 110
    assert model.reverse(**FEW).sample(n_samples=1).shape == (40, 1, 3)
    assert samples.shape == (60, 2, 3)


def test_the_same_data_again_change_nothing(model):
    coupling = model.coupling_
    model.adata = model.adata
    assert model.coupling_ is coupling and model.train_indices_ is not None


def test_a_loaded_model_gets_data(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model")
    loaded.adata = make_adata()
    np.testing.assert_array_equal(loaded.sample(n_samples=2), model.sample(n_samples=2))
    loaded.train(**FEW)
    cells = make_adata(9, 0)
    loaded.adata = cells
    assert loaded.sample(n_samples=1).shape == (9, 1, 3)
    with pytest.raises(ValueError, match="no AnnData with both populations"):
        loaded.train(**FEW)


UNFIT = {
    "view": (lambda: make_adata()[:100], "`adata` is a view"),
    "width": (lambda: _with(make_adata(), lambda a: a.obsm.__setitem__("X_pca", a.obsm["X_wide"])), "trained with 3"),
    "no cells": (lambda: _with(make_adata(), lambda a: a.obsm["X_pca"].fill(np.nan)), "NaN or inf"),
    "nothing": (lambda: None, "`adata` must be an AnnData or a MuData, got None"),
    "text": (lambda: "cells.h5ad", "`adata` must be an AnnData or a MuData, got str"),
    "modalities": (make_mdata, "set up with an AnnData, got a MuData"),
}


def _with(adata, change):
    change(adata)
    return adata


@pytest.mark.parametrize(("make", "message"), UNFIT.values(), ids=UNFIT)
def test_data_that_do_not_fit_are_refused(model, make, message):
    before, text, samples = model.adata, repr(model), model.sample(n_samples=1)
    with pytest.raises((TypeError, ValueError, KeyError), match=message):
        model.adata = make()
    assert model.adata is before and repr(model) == text and model.coupling_ is not None
    np.testing.assert_array_equal(model.sample(n_samples=1), samples)


def test_modalities_take_over():
    model = build(make_mdata())
    model.train(**FEW)
    other = make_mdata(30, 40, seed=4)
    model.adata = other
    assert model.sample(n_samples=1).shape == (30, 1, 2) and model.coupling_ is None


CHANGES = {
    "cells in another order": lambda adata: adata.obsm.__setitem__("X_pca", adata.obsm["X_pca"][::-1].copy()),
    "one number": lambda adata: adata.obsm["X_pca"].__setitem__((slice(None), 0), adata.obsm["X_pca"][:, 0] + 1e-3),
    "other weights": lambda adata: setattr(adata, "obs", adata.obs.assign(mass=adata.obs["mass"] * 2.0 + 0.1)),
    "other labels of as many cells": lambda adata: setattr(
        adata,
        "obs",
        adata.obs.assign(
            condition=adata.obs["condition"].cat.rename_categories({"control": "unused", "unused": "control"})
        ),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_coupling_of_other_numbers_is_not_reversed(change):
    adata = make_adata(60, 50, other=60)
    GENOT.setup_anndata(adata, **SETUP, weights_key="mass")
    model = GENOT(adata, flow_config=SMALL)
    model.train(**FEW)
    assert len(model.reverse(**FEW).sample(n_samples=1)) == 50
    CHANGES[change](adata)
    with pytest.raises(ValueError, match="adata was changed after training.*Call `model.train"):
        model.reverse(**FEW)


@pytest.fixture(scope="module")
def on_frame():
    adata = make_adata()
    GENOT.setup_anndata(adata, **SETUP | {"source_rep": "frame"})
    model = GENOT(adata, flow_config=SMALL)
    model.train(**FEW)
    return model


def test_columns_in_another_order_are_noticed(on_frame):
    new = make_adata(9, 3, seed=2)
    expected = on_frame.sample(new, n_samples=1)
    right = new.obsm["frame"]
    new.obsm["frame"] = right[["c", "a", "b"]]
    with pytest.raises(ValueError, match=r"`source_rep`='frame'.*not those of training.*0 are missing"):
        on_frame.sample(new)
    new.obsm["frame"] = right.rename(columns={"a": "z"})
    with pytest.raises(ValueError, match="not those of training.*1 are missing"):
        on_frame.sample(new)
    # An array has no names to compare.
    new.obsm["frame"] = right.to_numpy()
    np.testing.assert_array_equal(on_frame.sample(new, n_samples=1), expected)


def test_columns_of_labelled_targets_are_compared_too(on_frame):
    target = make_adata(9, 20, seed=2)
    target.obsm["frame"] = target.obsm["frame"][["c", "a", "b"]]
    with pytest.raises(ValueError, match="`target_rep`='frame'.*not those of training"):
        on_frame.get_label_probabilities(label_key="donor", target=target, n_samples=1)


def test_a_cell_that_is_asked_twice_gets_other_samples_the_second_time(trained):
    once, twice = trained.sample(indices=[3, 5], n_samples=4), trained.sample(indices=[5, 3, 5, 5], n_samples=4)
    np.testing.assert_allclose(twice[:2], once[::-1], rtol=1e-5, atol=1e-5)
    assert (np.abs(twice[2] - twice[0]) > 1e-3).any() and (np.abs(twice[3] - twice[2]) > 1e-3).any()
    # The second time is the same, whichever others are asked for.
    np.testing.assert_allclose(trained.sample(indices=[5, 5], n_samples=4)[1], twice[2], rtol=1e-5, atol=1e-5)


def test_backed_data_cannot_be_copied_in_memory(adata, tmp_path):
    from scgenot.data import check_copyable

    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    check_copyable(adata)
    with pytest.raises(ValueError, match=r"`copy=True` needs data in memory.*to_memory"):
        check_copyable(backed)
    backed.file.close()


def test_both_orders_of_label_and_data(trained):
    adata = make_adata(9, 20, seed=2)
    expected = trained.get_label_probabilities(adata, label_key="donor", n_samples=2)
    with pytest.warns(FutureWarning, match="`label_key` as a keyword"):
        pd.testing.assert_frame_equal(trained.get_label_probabilities("donor", adata, n_samples=2), expected)
    with pytest.raises(TypeError, match="`label_key`"):
        trained.get_label_probabilities(adata)


def test_a_layer_in_place_of_x(adata, tmp_path):
    adata.layers["other"] = adata.X * 2
    GENOT.setup_anndata(adata, **SETUP | {"source_rep": "X"}, layer="other")
    model = GENOT(adata, flow_config=SMALL)
    model.train(**FEW, validation_size=0)
    doubled = make_adata()
    doubled.X = doubled.X * 2
    GENOT.setup_anndata(doubled, **SETUP | {"source_rep": "X"})
    expected = GENOT(doubled, flow_config=SMALL)
    expected.train(**FEW, validation_size=0)
    np.testing.assert_array_equal(model.sample(n_samples=1), expected.sample(n_samples=1))
    assert model.var_names == list(adata.var_names)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(GENOT.load(tmp_path / "model", adata).sample(n_samples=1), model.sample(n_samples=1))
    with pytest.raises(KeyError, match="`layer`='oter' is no key of adata.layers. Did you mean 'other'"):
        GENOT.setup_anndata(adata, **SETUP | {"source_rep": "X"}, layer="oter")
    with pytest.raises(ValueError, match="`layer`='other' takes the place of X.*source_rep='X'"):
        GENOT.setup_anndata(adata, **SETUP, layer="other")


NUMBERS = {
    "epsilon": {"epsilon": "0.1"},
    "tau": {"tau_source": "0.5"},
    "alpha": {"alpha": "0.5"},
    "n_draws": {"n_draws": "3"},
    "tolerance": {"tolerance": "1e-3"},
}


@pytest.mark.parametrize("arguments", NUMBERS.values(), ids=NUMBERS)
def test_text_is_no_number_where_it_is_given(ready, arguments, plain_calls):
    with pytest.raises((TypeError, ValueError), match=f"`{next(iter(arguments))}`"):
        GENOT(ready, **arguments)


def test_whole_numbers_that_are_floats(ready, trained, plain_calls):
    # Either an answer that names the argument, or the same as the whole number.
    for call, name in (
        (lambda: trained.sample(n_samples=2.0), "n_samples"),
        (lambda: trained.sample(n_samples=2, batch_size=8.0), "batch_size"),
        (lambda: trained.get_label_probabilities(label_key="donor", n_samples=2, n_neighbors=3.0), "n_neighbors"),
        (lambda: GENOT(ready, flow_config=SMALL).train(**BRIEF | {"max_steps": 20.0}), "max_steps"),
        (lambda: GENOT(ready, flow_config=SMALL).train(1.0, batch_size=64, progress_bar=False), "max_epochs"),
    ):
        try:
            call()
        except (TypeError, ValueError) as error:
            assert f"`{name}`" in str(error)
