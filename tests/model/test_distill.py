"""Few-step sampling of a model: kept beside the trained field, saved with it, used where it is asked for."""

import copy

import numpy as np
import pytest
from tests.conftest import BRIEF, SMALL, make_adata

import scgenot
from scgenot import GENOT
from scgenot.flow import ODEConfig

ONE = ODEConfig("distilled")
SHORT = {"max_steps": 40, "batch_size": 64, "check_every": 20, "pool_size": 512, "fresh": 128, "progress_bar": False}


@pytest.fixture(scope="module")
def few(trained):
    """The trained model with a distilled field beside it; the one it was made from stays as it was."""
    model = copy.copy(trained)
    model.distill(steps=2, rng=0, **SHORT | {"max_steps": 400})
    return model


def test_samples_in_one_step_are_those_of_many(few, trained):
    many, one = few.sample(n_samples=20), few.sample(n_samples=20, ode=ONE)
    np.testing.assert_array_equal(many, trained.sample(n_samples=20))
    assert one.shape == many.shape and (one != many).any()
    # Of three features with variances of 1, .5 and .16.
    assert np.sqrt(np.mean((one - many) ** 2)) < 0.2
    assert few.history["distillation_loss"].index[-1] == 400 and "distillation_loss" not in trained.history


def test_tools_take_it(few):
    adata = make_adata()
    scgenot.tl.transport(adata, few, n_samples=3, ode=ONE)
    rows = few.source_rows(adata)
    np.testing.assert_allclose(
        adata.obsm["genot"][rows], few.get_transported_mean(adata, n_samples=3, ode=ONE), atol=1e-5
    )


@pytest.mark.parametrize("distilled", [True, False])
def test_saved_with_and_without(few, trained, tmp_path, distilled):
    model = few if distilled else trained
    model.save(tmp_path / "model")
    again = GENOT.load(tmp_path / "model", make_adata())
    np.testing.assert_array_equal(again.sample(n_samples=3), model.sample(n_samples=3))
    if distilled:
        np.testing.assert_array_equal(again.sample(n_samples=3, ode=ONE), model.sample(n_samples=3, ode=ONE))
    else:
        with pytest.raises(RuntimeError, match="there is no distilled field. Call `distill` first"):
            again.sample(n_samples=3, ode=ONE)
    # A model that was loaded can be distilled, too: source cells will do.
    cells = make_adata()
    again.distill(adata=cells[cells.obs["condition"] == "control"].copy(), **SHORT)
    assert again.sample(n_samples=3, ode=ONE).shape == (60, 3, 3)


def test_training_anew_forgets_it(ready):
    model = GENOT(ready, flow_config=SMALL)
    with pytest.raises(RuntimeError, match="not trained"):
        model.distill(**SHORT)
    model.train(**BRIEF)
    model.distill(**SHORT)
    model.sample(n_samples=2, ode=ONE)
    model.train(**BRIEF)
    with pytest.raises(RuntimeError, match="there is no distilled field"):
        model.sample(n_samples=2, ode=ONE)


def test_a_failed_call_leaves_the_model_as_it_was(few):
    method, history = few._method, dict(few.history)
    with pytest.raises(ValueError, match="`steps` must be one of"):
        few.distill(steps=3, **SHORT)
    with pytest.raises(TypeError, match="has no argument 'pool'.*Did you mean 'pool_size'"):
        few.distill(pool=3)
    with pytest.raises(RuntimeError, match="diverged within .* left as it was. Try a smaller `learning_rate`"):
        few.distill(**SHORT | {"learning_rate": 1e30})
    assert few._method is method and dict(few.history) == history


@pytest.mark.once
def test_all_conditions_are_distilled():
    adata = make_adata(60, 50, other=40)
    GENOT.setup_anndata(adata, population_key="condition", source="control", target=None, source_rep="X_pca")
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 200})
    model.distill(**SHORT | {"max_steps": 400})
    names = ["stimulated", "unused"]
    many, one = (model.sample(conditions=names, n_samples=20, ode=ode) for ode in (None, ONE))
    for name in names:
        assert np.sqrt(np.mean((one[name] - many[name]) ** 2)) < 0.3
    # The two conditions lie some 4.5 apart.
    assert np.linalg.norm((one["stimulated"] - one["unused"]).mean(axis=(0, 1))) > 2
