"""Labels of target cells, carried through samples."""

import mudata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy
from sklearn.neighbors import KNeighborsClassifier
from tests.conftest import BRIEF, assert_same, make_adata, snapshot
from tests.model.modalities import build, make_mdata

from scgenot import GENOT
from scgenot.model import _labels


@pytest.fixture(scope="module")
def cross():
    model = build(make_mdata())
    model.train(**BRIEF)
    return model


def test_probabilities_are_those_of_a_classifier_averaged_over_samples(cross):
    found = cross.get_label_probabilities(label_key="kind", n_samples=7, n_neighbors=3, rng=2)
    rna = cross.adata["rna"]
    classifier = KNeighborsClassifier(3).fit(rna.obsm["X_pca"], rna.obs["kind"].astype(str))
    samples = cross.sample(n_samples=7, rng=2)
    expected = classifier.predict_proba(samples.reshape(-1, 2)).reshape(60, 7, 2).mean(axis=1)
    assert list(found.columns) == list(classifier.classes_) and list(found.index) == list(cross.adata["atac"].obs_names)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)


def test_entropy_stands_beside_the_other_uncertainties(cross):
    scores = cross.get_uncertainty(n_samples=7, label_key="kind", rng=2)
    expected = entropy(cross.get_label_probabilities(label_key="kind", n_samples=7, rng=2).to_numpy(), axis=1)
    np.testing.assert_allclose(scores["entropy"], expected, atol=1e-6)
    assert scores["entropy"].max() <= np.log(2) + 1e-6
    pd.testing.assert_frame_equal(
        scores[["uncertainty", "cos_var", "variance"]], cross.get_uncertainty(n_samples=7, rng=2)
    )


def test_one_generator_gives_one_set_of_samples(cross):
    scores = cross.get_uncertainty(n_samples=3, label_key="kind", rng=np.random.default_rng(5))
    generator = np.random.default_rng(5)
    again = cross.get_uncertainty(n_samples=3, label_key="kind", rng=generator)
    pd.testing.assert_frame_equal(scores, again)
    assert generator.integers(2**32) != np.random.default_rng(5).integers(2**32)


def test_samples_are_asked_block_by_block(cross, monkeypatch):
    asked = []

    class Watched(_labels.NearestNeighbors):
        def kneighbors(self, X, return_distance):
            asked.append(len(X))
            return super().kneighbors(X, return_distance=return_distance)

    whole = cross.get_label_probabilities(label_key="kind", n_samples=5)
    monkeypatch.setattr(_labels, "NearestNeighbors", Watched)
    blocks = cross.get_label_probabilities(label_key="kind", n_samples=5, batch_size=16)
    assert max(asked) <= 16 * 5 and sum(asked) == 60 * 5
    np.testing.assert_allclose(blocks, whole, atol=0.05)


def test_target_cells_without_a_label_are_not_asked(cross):
    mdata = make_mdata()
    kind = mdata["rna"].obs["kind"].astype(object)
    kind[::2] = None
    mdata["rna"].obs["kind"] = pd.Categorical(kind, categories=["up", "down", "never"])
    found = cross.get_label_probabilities(label_key="kind", target=mdata, n_samples=4)
    kept = mdata["rna"][mdata["rna"].obs["kind"].notna()].copy()
    # An AnnData of the target modality alone will do.
    np.testing.assert_array_equal(found, cross.get_label_probabilities(label_key="kind", target=kept, n_samples=4))
    # In the order of the categories; those that no cell has are left out.
    assert list(found.columns) == ["up", "down"]


def test_labels_that_are_numbers(trained):
    adata = make_adata()
    found = trained.get_label_probabilities(adata, label_key="day", target=adata, n_samples=2)
    assert list(found.columns) == [4] and (found == 1.0).all(axis=None)


def test_the_data_of_the_query_serve_a_model_without(cross, tmp_path):
    cross.save(tmp_path / "model")
    model = GENOT.load(tmp_path / "model")
    expected = cross.get_label_probabilities(label_key="kind", n_samples=3)
    np.testing.assert_array_equal(model.get_label_probabilities(make_mdata(), label_key="kind", n_samples=3), expected)
    mdata = make_mdata()
    got = model.get_label_probabilities(mdata["atac"], label_key="kind", target=mdata["rna"], n_samples=3)
    np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match="loaded without target cells. Pass `target`"):
        model.get_label_probabilities(mdata["atac"], label_key="kind", n_samples=3)


FAILURES = {
    "key": (
        {"label_key": "kinds"},
        KeyError,
        "`label_key`='kinds' is no column of mdata.'rna'..obs. Did you mean 'kind'",
    ),
    "neighbours": (
        {"n_neighbors": 51},
        ValueError,
        "`n_neighbors` must be at most 50, the labelled target cells, got 51",
    ),
    "none": ({"n_neighbors": 0}, ValueError, "`n_neighbors` must be a whole number of at least 1"),
    "empty": ({"label_key": "void"}, ValueError, "`label_key`='void' has no label for any of the target cells"),
}


@pytest.mark.parametrize(("changes", "error", "message"), FAILURES.values(), ids=FAILURES)
def test_wrong_arguments_are_answered(cross, changes, error, message):
    mdata = make_mdata()
    mdata["rna"].obs["void"] = None
    before = snapshot(mdata["rna"])
    with pytest.raises(error, match=message):
        cross.get_label_probabilities(**{"label_key": "kind"} | changes, target=mdata)
    assert_same(mdata["rna"], before)


def test_target_cells_of_another_width(cross):
    rna = make_mdata()["rna"]
    rna.obsm["X_pca"] = np.ones((50, 4), np.float32)
    with pytest.raises(ValueError, match="maps to 2 features, the target cells have 4 in 'X_pca'"):
        cross.get_label_probabilities(label_key="kind", target=mudata.MuData({"rna": rna}))
