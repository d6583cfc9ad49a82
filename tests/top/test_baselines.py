"""The other solvers behind the model class: AnnData in, results out, saved, loaded, and what they cannot do."""

import numpy as np
import pytest
from tests.conftest import BRIEF, SETUP, SMALL, assert_same, make_adata, snapshot
from tests.model.modalities import SETUP as MODALITIES
from tests.model.modalities import make_mdata

import scgenot
from scgenot.baselines import OTCFM, EntropicMap, LightSB

SOLVERS = {
    "lightsb": (LightSB, {"n_components": 10}),
    "otcfm": (OTCFM, {"flow_config": SMALL}),
    "entropic": (EntropicMap, {}),
    "plan": (EntropicMap, {"samples": "plan"}),
    "progressive": (EntropicMap, {"map": "progressive"}),
}


@pytest.fixture(scope="module", params=SOLVERS)
def trained(request):
    kind, options = SOLVERS[request.param]
    adata = make_adata()
    kind.setup_anndata(adata, **SETUP)
    model = kind(adata, epsilon=0.02, **options)
    before = snapshot(adata)
    model.train(**BRIEF | {"max_steps": 400, "learning_rate": 1e-2})
    assert_same(adata, before)
    return model


def test_cells_are_carried_to_the_other_population(trained):
    samples = trained.sample(n_samples=20)
    assert samples.shape == (60, 20, 3) and np.isfinite(samples).all()
    spread = np.ptp(samples, axis=1).max()
    assert spread > 0 if trained._method.can.stochastic else spread == 0
    cells, labels = trained.adata.obsm["X_pca"], trained.adata.obs["condition"]
    source, target = (cells[(labels == one).to_numpy()] for one in ("control", "stimulated"))
    left = scgenot.metrics.energy_distance(samples[:, 0], target)
    assert left < 0.1 * scgenot.metrics.energy_distance(source, target)


def test_every_solver_tells_its_epsilon(trained):
    assert trained.describe()["epsilon"] == 0.02 and "epsilon 0.02" in repr(trained)


def test_results_are_written_and_saved(trained, tmp_path):
    adata = trained.adata.copy()
    scgenot.tl.transport(adata, trained, n_samples=5, key_added="other")
    assert np.isfinite(adata.obsm["other"][(adata.obs["condition"] == "control").to_numpy()]).all()
    trained.save(tmp_path / "model")
    loaded = type(trained).load(tmp_path / "model")
    assert repr(loaded) == repr(trained) and loaded._method.config == trained._method.config
    np.testing.assert_array_equal(loaded.sample(adata, n_samples=3), trained.sample(n_samples=3))
    assert trained.reverse(progress_bar=False, **_brief()).sample(n_samples=1).shape == (50, 1, 3)


def _brief():
    return {name: one for name, one in BRIEF.items() if name != "progress_bar"}


@pytest.mark.parametrize("name", SOLVERS)
def test_unbalanced(name):
    kind, options = SOLVERS[name]
    adata = make_adata()
    kind.setup_anndata(adata, **SETUP)
    model = kind(adata, epsilon=0.02, tau_source=0.9, tau_target=0.9, **options)
    model.train(**BRIEF)
    scgenot.tl.transport(adata, model, n_samples=5)
    assert np.isfinite(adata.obsm["genot"][(adata.obs["condition"] == "control").to_numpy()]).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_two_spaces_and_conditions_are_refused(name):
    kind, options = SOLVERS[name]
    mdata = make_mdata()
    kind.setup_mudata(mdata, **MODALITIES)
    with pytest.raises(ValueError, match="works within one space"):
        kind(mdata, **options)
    adata = make_adata()
    kind.setup_anndata(adata, **SETUP, match_keys="donor")
    with pytest.raises(ValueError, match="learns one pair of populations"):
        kind(adata, **options)


def test_refused_at_once():
    adata = make_adata()
    EntropicMap.setup_anndata(adata, **SETUP)
    with pytest.raises(ValueError, match="`cost` must be 'sqeuclidean' for EntropicMap, got 'euclidean'"):
        EntropicMap(adata, cost="euclidean")
    with pytest.raises(ValueError, match="`coupling` must be 'global' for EntropicMap, got 'minibatch'"):
        EntropicMap(adata, coupling="minibatch")
