"""Fused problems: shared features and known pairs, from the data to the coupling and back."""

import numpy as np
import pytest
from tests.conftest import SMALL
from tests.model.modalities import FEW, as_one_anndata, build, make_mdata

from scgenot import GENOT
from scgenot.data import hold_out, known_pairs, split_cells
from scgenot.flow import HeldOut
from scgenot.model import _training

ONE = {"population_key": "assay", "source": "atac", "target": "rna", "source_rep": "X_lsi", "target_rep": "X_pca"}


class Stop(Exception):
    """Ends training once the coupling has been asked for."""


@pytest.fixture
def asked(monkeypatch):
    calls = []

    def recorder(key, source, target, **arguments):
        calls.append({"source": source, "target": target} | arguments)
        raise Stop

    monkeypatch.setattr(_training, "solve_coupling", recorder)
    return calls


def call_of(model, asked, **options):
    with pytest.raises(Stop):
        model.train(**FEW | options)
    return asked[-1]


# ---- What the coupling is asked for ----------------------------------------------------------------------------------


def test_shared_features_make_the_problem_fused(asked):
    mdata = make_mdata()
    model = build(mdata, setup={"shared_rep": "X_shared"}, alpha=0.3)
    assert "problem: fused" in repr(model) and "alpha 0.3" in repr(model)
    call = call_of(model, asked, validation_size=0)
    assert call["problem"] == "fused" and call["config"].alpha == 0.3 and "pairs" not in call
    for side, name in enumerate(("atac", "rna")):
        np.testing.assert_array_equal(call["shared"][side], mdata[name].obsm["X_shared"])


def test_shared_features_of_one_anndata(asked):
    adata = as_one_anndata(make_mdata())
    GENOT.setup_anndata(adata, **ONE, shared_rep="X_shared")
    call = call_of(GENOT(adata, flow_config=SMALL), asked, validation_size=0)
    np.testing.assert_array_equal(np.concatenate(call["shared"]), adata.obsm["X_shared"])


def test_shared_features_are_left_out_if_asked(asked):
    model = build(make_mdata(), setup={"shared_rep": "X_shared"}, problem="quadratic")
    call = call_of(model, asked)
    assert call["problem"] == "quadratic" and not {"shared", "pairs"} & set(call)


def test_shared_features_must_be_the_same():
    mdata = make_mdata()
    mdata["rna"].obsm["X_shared"] = np.ones((50, 2))
    with pytest.raises(ValueError, match="`shared_rep`='X_shared' must have the same features.*got 1 and 2"):
        build(mdata, setup={"shared_rep": "X_shared"})


def test_held_out_cells_bring_their_shared_features(asked, plain_calls):
    mdata = make_mdata()
    model = build(mdata, setup={"shared_rep": "X_shared"})
    found = hold_out(_training.current_data(model), np.random.default_rng(0), 0.2)
    split, held = found.split, _training.held_out(found)
    np.testing.assert_array_equal(held.shared[0], mdata["atac"].obsm["X_shared"][split.source_held])
    np.testing.assert_array_equal(held.shared[1], mdata["rna"].obsm["X_shared"][split.target_held])
    assert held.source_costs is None

    class Extended:
        def extend(self, source, target, *, shared):
            return source, target, shared

    x, y = np.zeros((2, 3), np.float32), np.ones((4, 2), np.float32)
    costs, shared = np.full((2, 7), 2.0, np.float32), (x[:, :1], y[:, :1])
    got = HeldOut(x, y, source_costs=costs, shared=shared).coupled_by(Extended())
    assert got[0] is costs and got[1] is y and got[2] is shared


# ---- Known pairs -----------------------------------------------------------------------------------------------------


def test_equal_values_are_pairs(asked):
    mdata = make_mdata()
    order = np.random.default_rng(1).permutation(50)
    mdata["rna"].obs["partner"] = mdata["rna"].obs["partner"].to_numpy()[order]
    model = build(mdata, setup={"pairs_key": "partner"})
    assert "problem: fused" in repr(model) and model.summary_stats.n_known_pairs == 20
    call = call_of(model, asked, validation_size=0)
    assert "shared" not in call and call["pairs"].shape == (20, 2)
    names = [mdata[name].obs["partner"].to_numpy() for name in ("atac", "rna")]
    for i, j in call["pairs"]:
        assert names[0][i] == names[1][j]


def test_pairs_are_numbered_among_the_training_cells(asked):
    mdata = make_mdata()
    call = call_of(build(mdata, setup={"pairs_key": "partner"}), asked, validation_size=0.4)
    # Rows of the pairs, found again through the features.
    cells = [mdata["atac"].obsm["X_lsi"], mdata["rna"].obsm["X_pca"]]
    for i, j in call["pairs"]:
        at = [
            np.flatnonzero((c == x).all(axis=1))[0]
            for c, x in zip(cells, (call["source"][i], call["target"][j]), strict=True)
        ]
        assert at[0] == at[1] < 20
    assert 0 < len(call["pairs"]) < 20


def test_few_pairs_are_lost_to_validation():
    mdata = make_mdata(60, 60)
    for modality in mdata.mod.values():
        modality.obs["partner"] = [f"p{i}" for i in range(60)]
    source, target = _training.current_data(build(mdata, setup={"pairs_key": "partner"})).populations
    split = split_cells(np.random.default_rng(0), source, target, 0.25)
    assert len(split.source_held) == len(split.target_held) == 15
    assert len(known_pairs(source, target, split.source_train, split.target_train)) == 45


def test_repeated_values_pair_all_with_all():
    mdata = make_mdata()
    for modality in mdata.mod.values():
        modality.obs["clone"] = ["a", "a", "b"] + [None] * (modality.n_obs - 3)
    model = build(mdata, setup={"pairs_key": "clone"})
    source, target = _training.current_data(model).populations
    pairs = known_pairs(source, target, np.arange(60), np.arange(50))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    assert len(known_pairs(source, target, np.array([2, 5]), np.array([2]))) == 1


def test_pairs_that_do_not_meet():
    mdata = make_mdata()
    mdata["rna"].obs["partner"] = mdata["rna"].obs["partner"].str.upper()
    with pytest.raises(ValueError, match="`pairs_key`='partner' has no value that both .*'p0' first.*'P0'"):
        build(mdata, setup={"pairs_key": "partner"})


def test_a_label_is_no_pair(monkeypatch):
    monkeypatch.setattr("scgenot.data._links._MOST_PAIRS", 100)
    with pytest.raises(ValueError, match="`pairs_key` names .* pairs: a name is shared by many cells.*`shared_rep`"):
        build(make_mdata(), setup={"pairs_key": "kind"})


def test_all_pairs_held_out(asked):
    mdata = make_mdata()
    for modality in mdata.mod.values():
        modality.obs["one"] = ["x"] + [None] * (modality.n_obs - 1)
    model = build(mdata, setup={"pairs_key": "one"})
    with pytest.raises(ValueError, match="none of the known pairs is among the training cells"):
        for seed in range(20):
            with pytest.raises(Stop):
                model.train(**FEW, validation_size=0.5, rng=seed)


# ---- Through the solver ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("tie", [{"shared_rep": "X_shared"}, {"pairs_key": "partner"}], ids=["shared", "pairs"])
def test_a_tie_chooses_between_mirror_images(tie, sign):
    """Each cell has its mirror image, so that a quadratic problem alone has optima that are as good, of either sign."""
    mdata = make_mdata(60, paired=True)
    for name, rep in (("atac", "X_lsi"), ("rna", "X_pca")):
        half = mdata[name].obsm[rep][:30]
        mdata[name].obsm[rep] = np.concatenate([half, -half])
    # The tie knows the first factor in ATAC, and in RNA the same or its mirror image.
    factor = mdata["atac"].obsm["X_lsi"][:, :1]
    mdata["atac"].obsm["X_shared"], mdata["rna"].obsm["X_shared"] = factor, sign * factor
    if sign < 0:
        mdata["rna"].obs["partner"] = np.roll(mdata["rna"].obs["partner"].to_numpy(), 30)
    model = build(mdata, setup=tie)
    model.train(max_steps=400, batch_size=64, check_every=20, progress_bar=False, validation_size=0, learning_rate=3e-3)
    first = np.array([0.6, 0.8])
    mean = model.get_transported_mean(n_samples=10)
    correlation = np.corrcoef(mean @ first, mdata["rna"].obsm["X_pca"] @ first)[0, 1]
    assert sign * correlation > 0.8


@pytest.mark.parametrize("tie", [{"shared_rep": "X_shared"}, {"pairs_key": "partner"}], ids=["shared", "pairs"])
def test_fused_models_train_validate_save_and_reverse(tie, tmp_path):
    mdata = make_mdata()
    model = build(mdata, setup=tie, alpha=0.4)
    model.train(**FEW)
    assert np.isfinite(model.history["validation_loss"]).all(axis=None)
    model.save(tmp_path / "model")
    again = GENOT.load(tmp_path / "model", make_mdata())
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again.sample(n_samples=2), model.sample(n_samples=2))
    assert model.reverse(**FEW).sample(n_samples=2).shape == (50, 2, 3)


def test_held_out_cells_with_given_costs():
    mdata = make_mdata()
    # The populations are drawn apart: at a smaller epsilon their plan does not settle, and rounding decides.
    model = build(mdata, setup={"source_distances": "far", "target_distances": "far"}, epsilon=0.02)
    model.train(**FEW)
    assert (
        np.isfinite(model.history["validation_loss"]).all(axis=None) and model.coupling_summary()["converged"].iloc[0]
    )
    plain = build(make_mdata(), epsilon=0.02)
    plain.train(**FEW)
    # The matrices are the Euclidean distances that a plain model computes.
    np.testing.assert_allclose(model.sample(n_samples=2), plain.sample(n_samples=2), atol=1e-3)
