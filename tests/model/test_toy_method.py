"""A door for other methods: one file with a method and a model class that names it trains, samples, saves and loads."""

import dataclasses
from typing import ClassVar

import jax
import numpy as np
import pytest
from tests.conftest import SETUP, assert_same, make_adata, snapshot
from tests.model.modalities import SETUP as MODALITIES
from tests.model.modalities import make_mdata

from scgenot import GENOT
from scgenot.flow import Stopped, TrainResult
from scgenot.methods import Abilities, Method
from scgenot.model import TransportModel


@dataclasses.dataclass(frozen=True)
class NearestConfig:
    """How strongly the linear map is held back."""

    ridge: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Nearest(Method):
    """A linear map between pairs, by ridge regression; the answer is the training target that is nearest to its value."""

    name: ClassVar = "nearest"
    needs: ClassVar = "pairs"
    can: ClassVar = Abilities(stochastic=False)
    config_type: ClassVar = NearestConfig

    def learn(self, key, data, train_config, *, progress_bar=True):
        x = np.asarray(data.source)
        (drawn,) = (np.asarray(data.coupling.conditional(key, np.arange(len(x)), 8)),)
        y = np.asarray(data.target)[drawn].mean(axis=1)
        with_one = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)
        gram = with_one.T @ with_one + self.config.ridge * np.eye(with_one.shape[1])
        weights = {"map": np.linalg.solve(gram, with_one.T @ y).astype(np.float32), "targets": np.asarray(data.target)}
        told = {"marginal_kinds": tuple(data.coupling.marginal_kinds), "training_cells": (len(x), len(data.target))}
        learned = dataclasses.replace(self, weights=jax.tree.map(jax.numpy.asarray, weights), **told)
        return learned, TrainResult(None, {"train_loss": ([1], [0.5])}, 1, Stopped.MAX_STEPS)

    def sample_blocks(self, rng, x, n_samples=30, *, condition=None, ode=None, cell_ids=None, rows=None):
        weights, x = self.trained(), self.cells(x)
        value = x @ np.asarray(weights["map"])[:-1] + np.asarray(weights["map"])[-1]
        targets = np.asarray(weights["targets"])
        nearest = targets[((value[:, None] - targets[None]) ** 2).sum(-1).argmin(axis=1)]
        for start in range(0, len(x), 16):
            some = slice(start, min(start + 16, len(x)))
            yield some, np.repeat(nearest[some, None], n_samples, axis=1)

    def weights_template(self):
        shapes = {"map": (self.source_dim + 1, self.target_dim), "targets": (self.training_cells[1], self.target_dim)}
        return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}


class NearestModel(TransportModel):
    """The model class of the method: its name is all that it needs."""

    method_class = Nearest


@dataclasses.dataclass(frozen=True)
class Mean(Nearest):
    """The mean of the targets, for any cell: it needs no coupling."""

    name: ClassVar = "mean"
    needs: ClassVar = "samples"

    def learn(self, key, data, train_config, *, progress_bar=True):
        assert data.coupling is None
        mass = np.ones(len(data.target)) if data.target_weights is None else data.target_weights
        mean = np.average(np.asarray(data.target), axis=0, weights=mass).astype(np.float32)
        weights = {"map": np.zeros((self.source_dim + 1, self.target_dim), np.float32), "targets": mean[None]}
        learned = dataclasses.replace(self, weights=weights, training_cells=(len(data.source), 1))
        return learned, TrainResult(None, {}, 1, Stopped.MAX_STEPS)


class MeanModel(TransportModel):
    method_class = Mean


@pytest.fixture(scope="module")
def toy():
    adata = make_adata()
    before = snapshot(adata)
    NearestModel.setup_anndata(adata, **SETUP)
    model = NearestModel(adata, epsilon=0.05, method_config=NearestConfig(ridge=0.01))
    model.train(progress_bar=False)
    assert_same(adata, before, new_uns=("_scvi_uuid", "_scvi_manager_uuid"))
    return model


def test_it_trains_and_samples(toy):
    samples = toy.sample(n_samples=3)
    assert samples.shape == (60, 3, 3)
    cells = toy.adata.obsm["X_pca"]
    targets = cells[(toy.adata.obs["condition"] == "stimulated").to_numpy()]
    # Each sample is a target cell, and a deterministic method gives one and the same.
    assert (np.abs(samples[:, 0, None] - targets[None]).sum(-1).min(axis=1) == 0).all()
    np.testing.assert_array_equal(samples[:, 0], samples[:, 2])
    # Populations differ by a shift: a cell's target is the one near its shifted place, not near another's.
    sources = cells[(toy.adata.obs["condition"] == "control").to_numpy()]
    shift = targets.mean(axis=0) - sources.mean(axis=0)
    near = np.linalg.norm(samples[:, 0] - sources - shift, axis=1).mean()
    far = np.linalg.norm(samples[::-1, 0] - sources - shift, axis=1).mean()
    assert near < 0.7 * far
    assert "NearestModel model: control (60 cells)" in repr(toy) and "method: nearest" in repr(toy)
    assert len(toy.coupling_summary()) == 1 and toy.get_uncertainty(n_samples=2)["variance"].max() == 0
    np.testing.assert_array_equal(toy.get_growth(), 1)


def test_it_saves_and_loads(toy, tmp_path):
    toy.save(tmp_path / "model")
    for data in (None, make_adata()):
        loaded = NearestModel.load(tmp_path / "model", data)
        assert loaded._method.config == NearestConfig(ridge=0.01) and repr(loaded) == repr(toy)
        np.testing.assert_array_equal(loaded.sample(make_adata(), n_samples=2), toy.sample(n_samples=2))
    loaded.train(progress_bar=False)
    np.testing.assert_array_equal(loaded.sample(n_samples=2), toy.sample(n_samples=2))
    with pytest.raises(ValueError, match="holds a NearestModel, not a GENOT"):
        GENOT.load(tmp_path / "model")


def test_it_is_reversed_and_labelled(toy):
    other = toy.reverse(progress_bar=False)
    assert isinstance(other, NearestModel) and other.sample(n_samples=1).shape == (50, 1, 3)
    assert other._method.config == toy._method.config
    assert toy.get_label_probabilities(label_key="donor", n_samples=1).sum(axis=1).round(6).eq(1).all()


def test_a_method_that_needs_no_coupling(tmp_path):
    adata = make_adata()
    MeanModel.setup_anndata(adata, **SETUP, weights_key="mass")
    model = MeanModel(adata)
    model.train(validation_size=0, progress_bar=False)
    stimulated = (adata.obs["condition"] == "stimulated").to_numpy()
    mean = np.average(adata.obsm["X_pca"][stimulated], axis=0, weights=adata.obs["mass"][stimulated])
    np.testing.assert_allclose(model.sample(n_samples=1)[0, 0], mean, rtol=1e-5)
    assert model.coupling_ is None and "no coupling" in repr(model) and "epsilon" not in model.describe()
    with pytest.raises(RuntimeError, match="'mean' learns from the two samples: there is no coupling"):
        model.coupling_summary()
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(
        MeanModel.load(tmp_path / "model").sample(adata, n_samples=1), model.sample(n_samples=1)
    )
    assert len(model.reverse(progress_bar=False).sample(n_samples=1)) == 50


def test_a_method_of_one_space_says_so():
    mdata = make_mdata()
    NearestModel.setup_mudata(mdata, **MODALITIES)
    with pytest.raises(ValueError, match="'nearest' works within one space, got 'X_lsi' and 'X_pca'"):
        NearestModel(mdata)


def test_options_of_another_method(ready):
    with pytest.raises(TypeError, match="`flow_config` must be a FlowConfig, got NearestConfig"):
        GENOT(ready, flow_config=NearestConfig())


def test_the_model_floor_names_a_method_once():
    import scgenot.model

    named = [path.name for path in __import__("pathlib").Path(scgenot.model.__file__).parent.rglob("*.py")
             if "GENOTSolver" in path.read_text()]  # fmt: skip
    assert named == ["_genot.py"]
