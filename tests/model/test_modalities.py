"""Two modalities: what setup accepts and answers, which cells a question is about, what is left alone."""

import mudata
import numpy as np
import pytest
import scipy.sparse as sp
from tests.conftest import BRIEF, SCVI_UNS, SMALL, assert_same, snapshot
from tests.model.modalities import FEW, SETUP, as_one_anndata, build, make_mdata

import scgenot
from scgenot import GENOT
from scgenot.coupling import solve_coupling
from scgenot.data import cost_arrays, hold_out
from scgenot.model import _training


def snapshots(mdata):
    return {name: snapshot(modality) for name, modality in mdata.mod.items()}, mdata.obs.copy(), dict(mdata.uns)


def assert_untouched(mdata, before, new_uns=()):
    modalities, obs, uns = before
    for name, one in modalities.items():
        assert_same(mdata.mod[name], one)
    assert mdata.obs.equals(obs)
    assert set(mdata.uns) == set(uns) | set(new_uns)


@pytest.fixture
def mdata():
    return make_mdata()


@pytest.fixture(scope="module")
def cross():
    model = build(make_mdata())
    model.train(**BRIEF)
    return model


# ---- Setup -----------------------------------------------------------------------------------------------------------


def test_setup_writes_two_identifiers_and_nothing_into_modalities(mdata):
    before = snapshots(mdata)
    model = build(mdata)
    assert_untouched(mdata, before, SCVI_UNS)
    model.train(**FEW)
    model.sample(n_samples=2)
    assert_untouched(mdata, before, SCVI_UNS)


FAILURES = {
    "modality": ({"source_modality": "atca"}, KeyError, "`source_modality`='atca'.*Did you mean 'atac'.*'atac', 'rna'"),
    "target modality": ({"target_modality": "prot"}, KeyError, "`target_modality`='prot' is no modality"),
    "twice": ({"target_modality": "atac"}, ValueError, "must be two modalities, got 'atac' for both"),
    "representation": ({"source_rep": "X_lsu"}, KeyError, r"mdata\['atac'\].obsm. Did you mean 'X_lsi'"),
    "target representation": ({"target_rep": "X_lsi"}, KeyError, r"`target_rep`='X_lsi'.*mdata\['rna'\].obsm"),
    "shared": ({"shared_rep": "X_share"}, KeyError, "`shared_rep`='X_share'.*Did you mean 'X_shared'"),
    "shared and pairs": ({"shared_rep": "X_shared", "pairs_key": "partner"}, ValueError, "not both"),
    "pairs": ({"pairs_key": "partners"}, KeyError, "`pairs_key`='partners'.*Did you mean 'partner'"),
    "weights": ({"weights_key": "maas"}, KeyError, "`weights_key`='maas'.*Did you mean 'mass'"),
    "distances": ({"source_distances": "fra"}, KeyError, "`source_distances`='fra'.*Did you mean 'far'"),
    "category": (
        {"population_key": "half", "source": "even", "target": "od"},
        ValueError,
        "`target`='od' is no category of mdata.'rna'..obs.'half'.*Did you mean 'odd'",
    ),
    "half of it": ({"population_key": "half"}, ValueError, "go together"),
    "misspelt": ({"source_repp": "X_lsi"}, TypeError, "no argument 'source_repp'"),
}


@pytest.mark.parametrize(("changes", "error", "message"), FAILURES.values(), ids=FAILURES)
def test_wrong_keys_are_answered_and_change_nothing(mdata, changes, error, message):
    before = snapshots(mdata)
    with pytest.raises(error, match=message):
        GENOT.setup_mudata(mdata, **SETUP | changes)
    assert_untouched(mdata, before)


def test_each_object_has_its_own_setup(mdata):
    with pytest.raises(TypeError, match="got AnnData. An AnnData has `setup_anndata`"):
        GENOT.setup_mudata(mdata["rna"], **SETUP)
    with pytest.raises(TypeError, match="got MuData. A MuData has `setup_mudata`"):
        GENOT.setup_anndata(mdata, population_key="assay", source="atac", target="rna")


def test_views_are_refused(mdata):
    with pytest.raises(ValueError, match="`mdata` is a view"):
        GENOT.setup_mudata(mdata[:40], **SETUP)
    views = mudata.MuData({"atac": mdata["atac"][:, :4], "rna": mdata["rna"].copy()})
    with pytest.raises(ValueError, match="the modality 'atac' is a view"):
        GENOT.setup_mudata(views, **SETUP)


def test_nan_is_counted_in_the_modality(mdata):
    mdata["atac"].obsm["X_lsi"][3, 0] = np.nan
    with pytest.raises(ValueError, match="'X_lsi' has NaN or inf in 1 of the 60 cells .*first: atac3"):
        GENOT.setup_mudata(mdata, **SETUP)


def test_columns_of_the_whole_object_are_found(mdata):
    mdata.obs["depth"] = np.linspace(1, 2, mdata.n_obs)
    model = build(mdata, setup={"weights_key": "depth"})
    source, target = _training.current_data(model).populations
    np.testing.assert_allclose(source.weights, mdata.obs["depth"].loc[mdata["atac"].obs_names])
    np.testing.assert_allclose(target.weights, mdata.obs["depth"].loc[mdata["rna"].obs_names])


def test_the_problem_is_read_off_setup(mdata):
    assert "problem: quadratic" in repr(build(mdata))
    # The same name in two modalities is not one space.
    for modality in mdata.mod.values():
        modality.obsm["X_rep"] = modality.obsm["X_shared"]
    assert "problem: quadratic" in repr(build(mdata, setup={"source_rep": "X_rep", "target_rep": "X_rep"}))
    within = {"target_modality": "atac", "target_rep": "X_lsi"}
    model = build(mdata, setup=within | {"population_key": "half", "source": "even", "target": "odd"})
    assert "problem: linear" in repr(model) and "atac even (30 cells) -> atac odd (30 cells)" in repr(model)
    with pytest.raises(ValueError, match="one space, got 3 features in 'X_lsi' and 2 in 'X_pca'"):
        build(mdata, problem="linear")
    with pytest.raises(ValueError, match="a fused problem needs .*`shared_rep` or `pairs_key`"):
        build(mdata, problem="fused")


def test_repr_shows_what_none_stands_for(mdata):
    text = repr(build(mdata))
    assert "atac (60 cells) -> rna (50 cells)" in text and "X_lsi -> X_pca (3 -> 2 features)" in text
    assert "cost euclidean" in text and "epsilon None" not in text
    assert "cost cosine / sqeuclidean, epsilon 0.01" in repr(build(mdata, cost=("cosine", "sqeuclidean"), epsilon=0.01))


def test_setup_is_shown(mdata, capsys):
    build(mdata).view_anndata_setup()
    shown = capsys.readouterr().out
    for part in ("atac", "rna", "X_lsi", "X_pca"):
        assert part in shown


# ---- The same from one AnnData ---------------------------------------------------------------------------------------


def test_one_anndata_with_two_slots_gives_the_same_model(cross):
    adata = as_one_anndata(make_mdata())
    before = snapshot(adata)
    setup = {"population_key": "assay", "source": "atac", "target": "rna"}
    GENOT.setup_anndata(adata, **setup, source_rep="X_lsi", target_rep="X_pca")
    assert_same(adata, before, new_uns=SCVI_UNS)
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF)
    np.testing.assert_array_equal(model.sample(n_samples=2), cross.sample(n_samples=2))


def test_paired_names_are_used_as_unpaired_cells():
    paired = make_mdata(paired=True)
    apart = mudata.MuData({name: modality.copy() for name, modality in paired.mod.items()})
    apart["rna"].obs_names = [f"other{i}" for i in range(apart["rna"].n_obs)]
    apart.update()
    results = []
    for one in (paired, apart):
        model = build(one)
        model.train(**FEW)
        results.append(model.sample(n_samples=2))
    np.testing.assert_array_equal(*results)


# ---- Which cells -----------------------------------------------------------------------------------------------------


def test_queries_take_the_whole_or_the_source_modality(cross):
    samples = cross.sample(n_samples=3)
    assert samples.shape == (60, 3, 2)
    atac = make_mdata()["atac"]
    for cells in (make_mdata(), atac, atac[:, :2]):
        np.testing.assert_array_equal(cross.sample(cells, n_samples=3), samples)
    np.testing.assert_array_equal(cross.sample(n_samples=3, indices=[4, 2]), samples[[4, 2]])
    view = make_mdata()[[f"atac{i}" for i in range(10)]]
    np.testing.assert_array_equal(cross.sample(view, n_samples=3), samples[:10])
    assert list(cross.get_uncertainty(n_samples=3).index) == list(atac.obs_names)
    del atac.obs["half"]
    assert len(cross.sample(atac, n_samples=1)) == 60


def test_wrong_data_are_answered(cross, trained):
    with pytest.raises(KeyError, match="'X_lsi' is neither.*'X_pca'"):
        cross.sample(make_mdata()["rna"])
    with pytest.raises(KeyError, match="`source_modality`='atac' is no modality"):
        cross.sample(mudata.MuData({"rna": make_mdata()["rna"]}))
    with pytest.raises(TypeError, match="set up with an AnnData, got a MuData.*'atac', 'rna'"):
        trained.sample(make_mdata())
    wide = make_mdata()["atac"]
    wide.obsm["X_lsi"] = np.ones((60, 5), np.float32)
    with pytest.raises(ValueError, match="trained with 3 features in 'X_lsi', this adata has 5"):
        cross.sample(wide)
    with pytest.raises(ValueError, match="`displacement=True` needs source and target in one space"):
        cross.get_uncertainty(displacement=True)


def test_some_cells_of_each_modality():
    # Halves of twice as many cells: of the size of all cells elsewhere, whose programs are there.
    mdata = make_mdata(120, 100)
    model = build(mdata, setup={"population_key": "half", "source": "even", "target": "odd"})
    assert (model.summary_stats.n_source_cells, model.summary_stats.n_target_cells) == (60, 50)
    model.train(**FEW)
    assert len(model.sample(n_samples=1)) == 60
    rows = np.flatnonzero(mdata["atac"].obs["half"] == "even")
    np.testing.assert_array_equal(model.source_rows(), rows)
    assert set(model.train_indices_["source"]) | set(model.validation_indices_["source"]) == set(rows)
    targets = np.concatenate([model.train_indices_["target"], model.validation_indices_["target"]])
    assert sorted(targets) == list(np.flatnonzero(mdata["rna"].obs["half"] == "odd"))


@pytest.fixture
def few_counts(mdata):
    """The same cells with as many counts as they have features in their representations: one network for both."""
    return mudata.MuData({"atac": mdata["atac"][:, :3].copy(), "rna": mdata["rna"][:, :2].copy()})


def test_counts_of_a_modality(few_counts):
    mdata = few_counts
    model = build(mdata, setup={"source_rep": "X", "target_rep": "X"})
    model.train(**FEW)
    assert model.var_names == list(mdata["atac"].var_names)
    assert model.target_var_names == list(mdata["rna"].var_names)
    with pytest.raises(ValueError, match="not those of training"):
        model.sample(mdata["atac"][:, ::-1])


def test_backed(few_counts, tmp_path):
    mdata = few_counts
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    backed = mudata.read_h5mu(tmp_path / "cells.h5mu", backed="r")
    results = []
    for one in (mdata, backed):
        model = build(one, setup={"source_rep": "X"})
        model.train(**FEW)
        results.append(model.sample(n_samples=2))
    assert backed.isbacked
    np.testing.assert_array_equal(*results)


# ---- Costs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What the coupling floor is asked for."""
    calls = []

    def recorder(key, source, target, **arguments):
        calls.append({"source": source, "target": target} | arguments)
        plain = {name: value for name, value in arguments.items() if name not in ("shared", "pairs")}
        plain |= {"problem": "quadratic", "config": scgenot.coupling.CouplingConfig(landmarks=50)}
        return solve_coupling(key, np.asarray(source)[:, :3], np.asarray(target)[:, :2], **plain)

    monkeypatch.setattr(_training, "solve_coupling", recorder)
    return calls


def test_options_reach_the_coupling(mdata, asked):
    options = {"cost": ("cosine", "pearson"), "epsilon": 0.02, "tau_source": 0.9, "tau_target": 0.8, "landmarks": 300}
    model = build(mdata, **options, setup={"weights_key": "mass"})
    model.train(**FEW, validation_size=0)
    (call,) = asked
    assert (call["problem"], call["kind"]) == ("quadratic", "global")
    for name, value in options.items():
        assert getattr(call["config"], name) == value
    np.testing.assert_array_equal(call["source"], mdata["atac"].obsm["X_lsi"])
    np.testing.assert_array_equal(call["target_weights"], mdata["rna"].obs["mass"])


@pytest.mark.parametrize("one", [True, False], ids=["AnnData", "MuData"])
def test_given_costs_are_those_of_the_training_cells(mdata, asked, one):
    if one:
        adata = as_one_anndata(mdata)
        GENOT.setup_anndata(
            adata,
            population_key="assay",
            source="atac",
            target="rna",
            source_rep="X_lsi",
            target_rep="X_pca",
            source_distances="far",
        )
        model = GENOT(adata, flow_config=SMALL)
    else:
        model = build(mdata, setup={"source_distances": "far"})
    model.train(**FEW, validation_size=0.0)
    (call,) = asked
    np.testing.assert_array_equal(call["source"], mdata["atac"].obsp["far"])
    np.testing.assert_array_equal(call["target"], mdata["rna"].obsm["X_pca"])
    assert call["config"].cost == ("precomputed", "euclidean")
    # Costs of held-out cells are costs to the training cells.
    found = hold_out(_training.current_data(model), np.random.default_rng(0), 0.2)
    split, held = found.split, _training.held_out(found)
    np.testing.assert_array_equal(
        held.source_costs, mdata["atac"].obsp["far"][np.ix_(split.source_held, split.source_train)]
    )
    assert held.target_costs is None and held.shared is None


@pytest.mark.once
def test_one_matrix_in_a_linear_problem(mdata):
    adata = as_one_anndata(mdata)
    # Of as many features as the other models within one space have.
    cells = np.random.default_rng(0).normal(size=(adata.n_obs, 3)).astype(np.float32)
    cells[:, :1] = adata.obsm["X_shared"]
    adata.obsm["X_both"] = cells
    adata.obsp["far"] = np.linalg.norm(cells[:, None] - cells[None], axis=-1)
    setup = {"population_key": "assay", "source": "rna", "target": "atac", "source_rep": "X_both"}
    models = []
    for distances, cost in ((None, "euclidean"), ("far", None)):
        GENOT.setup_anndata(adata, **setup, source_distances=distances)
        models.append(GENOT(adata, flow_config=SMALL, cost=cost))
        models[-1].train(**FEW)
    # The matrix holds what the plain model computes.
    assert "linear, global coupling, cost precomputed" in repr(models[1])
    summaries = [model.coupling_summary().iloc[0] for model in models]
    assert summaries[1]["objective"] == pytest.approx(summaries[0]["objective"], rel=1e-3)
    assert np.isfinite(models[1].history["validation_loss"]).all(axis=None)
    # Rows of the joint matrix, source cells first.
    found = hold_out(_training.current_data(models[1]), np.random.default_rng(0), 0.0)
    arrays = cost_arrays(found, found.training)
    joint = np.concatenate([np.arange(60, 110), np.arange(60)])
    got = np.concatenate([arrays.source, arrays.target])
    np.testing.assert_array_equal(got, adata.obsp["far"][np.ix_(joint, joint)])
    other = models[1].reverse(**FEW)
    assert other.sample(n_samples=1).shape == (60, 1, 3)


def test_a_graph_of_neighbours_is_no_matrix_of_costs(mdata):
    graph = sp.csr_matrix(np.where(mdata["atac"].obsp["far"] < 0.5, mdata["atac"].obsp["far"], 0))
    mdata["atac"].obsp["graph"] = graph
    with pytest.raises(ValueError, match=f"`source_distances`='graph' has only {graph.nnz} of 3600 entries.*Geodesic"):
        build(mdata, setup={"source_distances": "graph"})
    mdata["atac"].obsp["gap"] = np.where(mdata["atac"].obsp["far"] > 3, np.inf, mdata["atac"].obsp["far"])
    with pytest.raises(ValueError, match="`source_distances`='gap' has NaN or inf in the rows of"):
        build(mdata, setup={"source_distances": "gap"})


CONTRADICTIONS = {
    "both": ({"source_distances": "far", "target_distances": "far"}, "cosine", "`source_distances` was given"),
    "pair": ({"target_distances": "far"}, ("cosine", "cosine"), "`target_distances` was given"),
    "none": ({}, "precomputed", "`cost`='precomputed' needs `source_distances`"),
}


@pytest.mark.parametrize(("setup", "cost", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_costs_that_contradict_setup(mdata, setup, cost, message):
    with pytest.raises(ValueError, match=message):
        build(mdata, setup=setup, cost=cost)
