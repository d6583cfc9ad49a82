"""What users of scvi-tools expect of a model: registries, arguments, names."""

import numpy as np
import pytest
from tests.conftest import BRIEF, SETUP, SMALL, make_adata
from tests.model.modalities import FEW, build, make_mdata

from scgenot import GENOT


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "model")
    return tmp_path / "model"


def test_the_registry_of_a_directory(trained, saved, tmp_path):
    registry = GENOT.load_registry(saved)
    assert registry["setup_args"] == trained.registry_["setup_args"]
    assert registry["model_name"] == "GENOT" and registry["setup_method_name"] == "setup_anndata"
    trained.save(tmp_path / "other", prefix="p_")
    assert GENOT.load_registry(str(tmp_path / "other"), prefix="p_")["setup_args"] == registry["setup_args"]
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        GENOT.load_registry(tmp_path / "nothing")


def test_setup_arguments_of_a_directory_are_shown(saved, capsys):
    GENOT.view_setup_args(saved)
    shown = capsys.readouterr().out
    for part in ("population_key", "condition", "stimulated", "X_pca"):
        assert part in shown


def test_training_and_validation_cells_come_back(trained, saved):
    for model in (GENOT.load(saved), GENOT.load(saved, make_adata())):
        np.testing.assert_array_equal(model.train_indices, trained.train_indices)
        np.testing.assert_array_equal(model.validation_indices, trained.validation_indices)
    # Of other data, these rows mean nothing.
    assert GENOT.load(saved, make_adata(60, 50, seed=5)).train_indices is None
    renamed = make_adata()
    renamed.obs_names = [f"new{k}" for k in range(renamed.n_obs)]
    assert GENOT.load(saved, renamed).train_indices is None


def test_training_cells_of_modalities_come_back(tmp_path):
    model = build(make_mdata())
    model.train(**FEW)
    model.save(tmp_path / "model")
    for loaded in (GENOT.load(tmp_path / "model", make_mdata()), GENOT.load(tmp_path / "model")):
        for side in ("source", "target"):
            np.testing.assert_array_equal(loaded.train_indices[side], model.train_indices[side])
            np.testing.assert_array_equal(loaded.validation_indices[side], model.validation_indices[side])


def test_accelerator_and_devices_are_accepted(ready):
    model = GENOT(ready, flow_config=SMALL)
    model.train(**FEW, accelerator="cpu", devices=1)
    plain = GENOT(ready, flow_config=SMALL)
    plain.train(**FEW, accelerator="auto", devices="auto")
    np.testing.assert_array_equal(model.sample(n_samples=1), plain.sample(n_samples=1))
    with pytest.raises(ValueError, match="`accelerator` must be one of .*got 'cuda0'"):
        model.train(**FEW, accelerator="cuda0")
    with pytest.raises(ValueError, match="`devices`=2, and JAX sees 1"):
        model.train(**FEW, devices=2)


OURS = {
    "train_size": (0.9, "`validation_size`"),
    "plan_kwargs": ({"lr": 1e-3}, "`learning_rate`"),
    "early_stopping_patience": (5, "`patience`"),
    "check_val_every_n_epoch": (1, "`check_every`"),
    "enable_progress_bar": (False, "`progress_bar`"),
}


@pytest.mark.parametrize("name", OURS)
def test_arguments_of_scvi_tools_are_answered_with_ours(ready, name):
    value, ours = OURS[name]
    with pytest.raises(TypeError, match=f"'{name}'.*{ours}"):
        GENOT(ready, flow_config=SMALL).train(**BRIEF, **{name: value})


def test_summary_string_says_what_the_model_is(trained):
    assert trained.summary_string == repr(trained)


ABSENT = ["get_normalized_expression", "differential_abundance", "get_normalized_function_name", "convert_legacy_save"]


@pytest.mark.parametrize("name", ABSENT)
def test_what_it_does_not_do_is_not_offered(trained, name):
    assert name not in dir(trained) and not hasattr(trained, name)
    with pytest.raises(AttributeError, match=f"GENOT has no `{name}`"):
        getattr(trained, name)
    assert "sample" in dir(trained) and "get_uncertainty" in dir(trained)


def test_setup_again_with_the_registry_of_another_model(trained):
    # As scvi-tools does when it transfers a setup.
    adata = make_adata()
    GENOT.setup_anndata(adata, source_registry=trained.registry_, **SETUP)
    assert "control (60 cells)" in repr(GENOT(adata, flow_config=SMALL))
