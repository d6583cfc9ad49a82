"""The extended coupling through a model: trained on, reported, saved, loaded, turned round."""

import numpy as np
import pytest
from tests.conftest import BRIEF, SETUP, SMALL, make_adata

from scgenot import GENOT

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:The extended coupling's marginals")]
FEW = BRIEF | {"max_steps": 20}


@pytest.fixture(scope="module")
def trained():
    adata = make_adata()
    GENOT.setup_anndata(adata, **SETUP, weights_key="mass")
    model = GENOT(adata, coupling="extended", n_cells=30, n_sweeps=1, tau_source=0.9, flow_config=SMALL)
    model.train(**FEW, rng=3)
    return model


def test_what_is_reported(trained):
    told = trained.coupling_summary().iloc[0]
    assert told["kind"].startswith("linear, extended from ") and np.isfinite(told["objective"])
    assert 0.0 < told["marginal_violation"] < 2.0 and told["violation_error"] >= 0.0
    assert told["mass"] == pytest.approx(trained.coupling_.source_marginal.sum())
    assert "extended coupling" in repr(trained)


def test_saved_and_loaded(trained, tmp_path):
    trained.save(tmp_path / "model")
    again = GENOT.load(tmp_path / "model", make_adata())
    assert again._coupling_kind == "extended" and again._coupling_config == trained._coupling_config
    assert again.coupling_summary().equals(trained.coupling_summary())
    again.train(**FEW, rng=3)
    np.testing.assert_array_equal(again.sample(n_samples=2), trained.sample(n_samples=2))


def test_turned_round(trained):
    back = trained.reverse(**FEW)
    assert back._coupling_kind == "extended" and back._coupling_config.tau_target == 0.9
    plan = trained.coupling_.push(np.eye(trained.coupling_.a.size))
    np.testing.assert_allclose(back.coupling_.pull(np.eye(back.coupling_.b.size)), plan, rtol=1e-4, atol=1e-9)


def test_conditions_choose_for_themselves():
    adata = make_adata()
    adata.obs["drug"] = np.where(adata.obs["condition"] == "control", "none", adata.obs["donor"])
    GENOT.setup_anndata(adata, **SETUP, condition_keys={"drug": ("drug",)})
    model = GENOT(adata, flow_config=SMALL)
    assert model._coupling_kind == "auto"
    assert GENOT(adata, n_cells=20, flow_config=SMALL)._coupling_kind == "extended"
