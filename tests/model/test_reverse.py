"""The model of the opposite direction: the same coupling, seen from the other side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.conftest import BRIEF, SETUP, SMALL, assert_same, make_adata, snapshot
from tests.model.modalities import FEW, build, make_mdata

from scgenot import GENOT


@pytest.fixture(scope="module")
def both():
    """A linear model with much that is not symmetric, and its reverse."""
    adata = make_adata()
    GENOT.setup_anndata(adata, **SETUP, weights_key="mass")
    model = GENOT(adata, flow_config=SMALL, tau_source=0.9, tau_target=0.8, epsilon=0.02)
    model.train(**BRIEF)
    before = snapshot(adata)
    other = model.reverse(**BRIEF)
    assert_same(adata, before)
    return model, other


def test_the_plan_is_the_same(both):
    model, other = both
    there, back = model.coupling_, other.coupling_
    np.testing.assert_allclose(there.source_marginal, back.target_marginal, rtol=1e-4)
    np.testing.assert_allclose(there.target_marginal, back.source_marginal, rtol=1e-4)
    n, m = len(there.source_marginal), len(there.target_marginal)
    plans = []
    for coupling, size in ((there, (n, m)), (back, (m, n))):
        drawn = np.asarray(coupling.conditional(jax.random.key(0), np.arange(size[0]), 5000))
        rows = np.stack([np.bincount(row, minlength=size[1]) for row in drawn]) / drawn.shape[1]
        plans.append(rows * np.asarray(coupling.source_marginal)[:, None])
    np.testing.assert_allclose(plans[0], plans[1].T, atol=4e-4)


def test_direction_taus_and_held_out_cells(both):
    model, other = both
    assert "stimulated (50 cells) -> control (60 cells)" in repr(other)
    assert "tau 0.8 / 0.9" in repr(other) and "epsilon 0.02" in repr(other)
    np.testing.assert_array_equal(other.train_indices_, model.train_indices_)
    np.testing.assert_array_equal(other.validation_indices_, model.validation_indices_)
    assert np.isfinite(other.history["validation_loss"]).all(axis=None)
    assert other.sample(n_samples=2).shape == (50, 2, 3)


def test_the_first_model_and_its_setup_stay(both):
    model, _ = both
    samples = model.sample(n_samples=2)
    assert "control (60 cells) -> stimulated" in repr(GENOT(model.adata, flow_config=SMALL))
    model.reverse(**FEW)
    np.testing.assert_array_equal(model.sample(n_samples=2), samples)


def test_same_seed_same_weights(both):
    model, other = both
    np.testing.assert_array_equal(model.reverse(**BRIEF).sample(n_samples=2), other.sample(n_samples=2))
    assert (model.reverse(**BRIEF, rng=1).sample(n_samples=2) != other.sample(n_samples=2)).any()


def test_there_and_back(both):
    model, other = both
    again = other.reverse(**FEW)
    assert repr(again).splitlines()[:3] == repr(model).splitlines()[:3]
    np.testing.assert_allclose(again.coupling_.source_marginal, model.coupling_.source_marginal, rtol=1e-4)


def test_it_saves_and_loads(both, tmp_path):
    _, other = both
    other.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model", make_adata())
    assert repr(loaded) == repr(other)
    np.testing.assert_array_equal(loaded.sample(n_samples=2), other.sample(n_samples=2))
    assert loaded.coupling_ is None
    with pytest.raises(RuntimeError, match="no coupling to reverse.*Call `model.train"):
        loaded.reverse()
    loaded.train(**FEW)


def test_wrong_options(both, ready):
    model, _ = both
    with pytest.raises(TypeError, match="no argument 'max_step'. Did you mean 'max_steps'"):
        model.reverse(max_step=3)
    with pytest.raises(ValueError, match="`max_epochs` or `max_steps`, not both"):
        model.reverse(max_epochs=3, max_steps=3)
    with pytest.raises(RuntimeError, match="not trained"):
        GENOT(ready).reverse()


def test_between_modalities(tmp_path):
    mdata = make_mdata()
    model = build(mdata, cost=("cosine", "euclidean"))
    model.train(**FEW)
    other = model.reverse(**FEW)
    assert other.sample(n_samples=2).shape == (50, 2, 3)
    assert "rna (50 cells) -> atac (60 cells)" in repr(other) and "cost euclidean / cosine" in repr(other)
    # Rows of the ATAC modality are the source of one and the target of the other.
    np.testing.assert_array_equal(other.train_indices_["target"], model.train_indices_["source"])
    other.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model", make_mdata()["rna"])
    np.testing.assert_array_equal(loaded.sample(n_samples=2), other.sample(n_samples=2))


def test_a_cost_that_has_a_direction(ready):
    def uphill(x, y):
        return ((y - 2.0 * x) ** 2).sum()

    model = GENOT(ready, flow_config=SMALL, cost=uphill)
    model.train(**FEW)
    other = model.reverse(**FEW)
    x, y = jnp.ones((2, 3)), jnp.arange(9.0).reshape(3, 3)
    np.testing.assert_allclose(other._coupling_config.cost(y, x), ((y[:, None] - 2.0 * x[None]) ** 2).sum(-1))


def test_held_out_cells_are_coupled_at_costs_of_the_same_direction(monkeypatch):
    # Going there costs one thing, coming back another: the reverse has the plan of the way there, also between held-out cells.
    from scgenot.coupling._start_plan import dense_plan
    from scgenot.flow import HeldOut

    adata = make_adata()
    cells = np.asarray(adata.obsm["X_pca"], np.float64)
    apart = cells[None, :, 0] - cells[:, None, 0]
    adata.obsp["uphill"] = np.where(apart > 0, 4 * apart**2, 0.25 * apart**2)
    GENOT.setup_anndata(adata, **SETUP, source_distances="uphill")
    model = GENOT(adata, flow_config=SMALL)
    found, coupled_by = [], HeldOut.coupled_by

    def spied(held, coupling):
        found.append(coupled_by(held, coupling))
        return found[-1]

    monkeypatch.setattr(HeldOut, "coupled_by", spied)
    few = BRIEF | {"max_steps": 10}
    model.train(**few | {"validation_size": 0.2})
    model.reverse(max_steps=10, progress_bar=False)
    # An extended plan keeps the marginal of its source: what is compared is the cost between the cells of each pair, which a plan
    # tells up to a number for each row and one for each column.
    there, back = (np.log(dense_plan(one).astype(np.float64)) for one in found)
    centred = lambda logs: logs - logs.mean(axis=0) - logs.mean(axis=1)[:, None] + logs.mean()
    np.testing.assert_allclose(centred(there), centred(back.T), atol=2e-2)
    assert np.abs(centred(there)).max() > 1
