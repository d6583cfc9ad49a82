"""An ensemble through the model class: what it reports of disagreement, written, saved and loaded."""

import numpy as np
import pytest
from tests.conftest import BRIEF, make_adata

import scgenot
from scgenot import GENOT


@pytest.fixture(scope="module")
def ensemble():
    adata = make_adata()
    GENOT.setup_anndata(adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca")
    model = GENOT(adata, n_models=3, flow_config=scgenot.flow.FlowConfig(hidden=(32, 32), time_frequencies=4))
    model.train(**BRIEF)
    return model


@pytest.mark.once
def test_disagreement_grows_away_from_the_training_cells(ensemble):
    near = make_adata()
    far = make_adata()
    far.obsm["X_pca"] = far.obsm["X_pca"] + 8 * far.obsm["X_pca"].std()
    columns = [ensemble.get_uncertainty(cells, n_samples=60) for cells in (near, far)]
    assert all("model_variance" in one for one in columns)
    means = [one["model_variance"].mean() for one in columns]
    assert 0 < means[0] < means[1] / 3
    # One model says nothing of it.
    assert ensemble.get_uncertainty(near, n_samples=5)["model_variance"].isna().all()


def test_it_is_written_saved_and_loaded(ensemble, trained, tmp_path):
    adata = make_adata()
    scgenot.tl.transport(adata, ensemble, n_samples=6)
    written = adata.obs["genot_model_variance"]
    assert written.notna().sum() == 60 and (written.dropna() >= 0).all()
    ensemble.save(tmp_path / "model")
    again = GENOT.load(tmp_path / "model", make_adata())
    assert repr(again) == repr(ensemble) and "3 models" in repr(again)
    np.testing.assert_array_equal(again.sample(n_samples=6), ensemble.sample(n_samples=6))
    scgenot.tl.transport(adata, trained, n_samples=6)
    assert "genot_model_variance" not in adata.obs
