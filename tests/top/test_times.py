"""Tools and plots of time courses: fates, ancestors, cells in between, matrices for CellRank, growth priors, figures."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.conftest import assert_same, snapshot
from tests.model.test_times import FITTED, make_course, rows_at

from scgenot import GENOT, pl, tl
from scgenot.flow import FlowConfig
from scgenot.tl._growth_priors import APOPTOSIS, PROLIFERATION


@pytest.fixture(scope="module")
def model() -> GENOT:
    adata = make_course()
    adata.uns["branch_colors"] = ["#ff0000", "#0000ff"]
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2].copy()
    GENOT.setup_anndata(adata, time_key="day")
    model = GENOT(adata, flow_config=FlowConfig(hidden=(64, 64)))
    model.train(validation_size=0.2, **FITTED)
    return model


@pytest.fixture(scope="module")
def backward(model) -> GENOT:
    return model.reverse(**FITTED)


@pytest.fixture
def course(model) -> ad.AnnData:
    return model.adata.copy()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def is_right(adata: ad.AnnData, rows: np.ndarray) -> np.ndarray:
    return (adata.obs["branch"].iloc[rows] == "right").to_numpy()


# ---- Fates and ancestors -----------------------------------------------------------------------------------------------


def test_fates(model, course):
    assert tl.fates(course, model, "branch") is None
    table = course.obsm["genot_fates"]
    early = np.flatnonzero(course.obs["day"].isin([2, 4]))
    assert table.notna().all(axis=1).sum() == len(early) == 120
    np.testing.assert_allclose(table.iloc[early].sum(axis=1), 1.0, rtol=1e-5)
    right = table["right"].iloc[early].to_numpy()
    assert right[is_right(course, early)].mean() > 0.9 and right[~is_right(course, early)].mean() < 0.1
    assert list(course.uns["genot_fates_colors"]) == ["#ff0000", "#0000ff"]
    # Also among cells that all have one fate, whose other labels and their colours anndata takes away.
    some = course[course.obs["genot_fates"] == "right"].copy()
    ax = pl.fates(some, show=False)
    assert [plt.matplotlib.colors.to_hex(bars[0].get_facecolor()) for bars in ax.containers] == ["#ff0000", "#0000ff"]
    assert list(course.obs["genot_fates"].cat.categories) == ["left", "right"]
    assert course.uns["genot_fates"]["params"]["until"] == 6
    expected = model.get_label_probabilities(label_key="branch", until=6)
    np.testing.assert_allclose(table.iloc[early], expected, rtol=1e-6)


def test_fates_at_a_time_between_and_in_a_copy(model, course):
    before = snapshot(course)
    copied = tl.fates(course, model, "branch", until=4, key_added="soon", n_samples=3, copy=True)
    assert_same(course, before)
    assert copied.obsm["soon"].notna().all(axis=1).sum() == 60
    # Labels without colours leave none behind.
    tl.fates(copied, model, "fate", key_added="soon", n_samples=3)
    assert "soon_colors" not in copied.uns and list(copied.obsm["soon"].columns) == ["left late", "right late"]


def test_results_survive_files(model, course, tmp_path):
    tl.fates(course, model, "branch", n_samples=3)
    course.write_h5ad(tmp_path / "course.h5ad")
    read = ad.read_h5ad(tmp_path / "course.h5ad")
    pd.testing.assert_frame_equal(read.obsm["genot_fates"], course.obsm["genot_fates"])
    pl.fates(read)


def test_ancestors(backward, course):
    tl.ancestors(course, backward, "branch")
    late = np.flatnonzero(course.obs["day"].isin([4, 6]))
    table = course.obsm["genot_ancestors"]
    assert table.notna().all(axis=1).sum() == len(late)
    right = table["right"].iloc[late].to_numpy()
    assert right[is_right(course, late)].mean() > 0.9 and right[~is_right(course, late)].mean() < 0.1
    assert course.uns["genot_ancestors"]["params"]["until"] == 2
    tl.ancestors(course, backward, "branch", since=4, key_added="near", n_samples=3)
    assert course.obsm["near"].notna().all(axis=1).sum() == 60


def test_ancestors_of_a_forward_model(model, course):
    short = GENOT(model.adata, flow_config=FlowConfig(hidden=(32, 32)))
    short.train(max_steps=40, batch_size=64, check_every=20, progress_bar=False)
    tl.ancestors(course, short, "branch", n_samples=2)
    assert course.uns["genot_ancestors"]["params"]["times"] == [6, 4, 2]
    assert short.times == (2, 4, 6)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda a, m: tl.fates(a, m, "brnach"), KeyError, "'brnach'.*Did you mean 'branch'"),
        (lambda a, m: tl.fates(a, m, "branch", until=2), ValueError, "`until` must be one of '4.0', '6.0', got 2"),
        (lambda a, m: tl.fates(a, m, "branch", key_added="a/b"), ValueError, "`key_added`"),
        (lambda a, m: tl.ancestors(a, m, "branch", since=3), ValueError, "`since` must be one of the times"),
        (lambda a, m: tl.ancestors(a, m, "brnach"), KeyError, "`label_key`='brnach'"),
        (lambda a, m: tl.interpolate(a, m, 4), ValueError, "`time`=4 is one of the times.*measured"),
        (lambda a, m: tl.interpolate(a, m, 7.5), ValueError, "`time` must lie between two of"),
        (lambda a, m: tl.interpolate(a, m, "noon"), TypeError, "`time` must be a number"),
        (lambda a, m: tl.interpolate(a[a.obs["day"] == 4], m, 3), ValueError, "no cell"),
        (lambda a, m: tl.interpolate(a, m, 3, indices=rows_at(a, 4)[:2]), ValueError, "cannot be taken|not at 2"),
        (lambda a, m: tl.interpolate(a, m, 3, n_samples=0), ValueError, "`n_samples`"),
        (lambda a, m: tl.couplings(a[a.obs["day"] != 6], m), ValueError, "0 cells at the time 6.0"),
        (lambda a, m: tl.couplings(a, m, n_neighbors=100), ValueError, "`n_neighbors`=100"),
        (lambda a, m: pl.fates(a), KeyError, "there are no fates of that name.*tl.fates"),
        (lambda a, m: pl.conditions(a, m), ValueError, "effects of conditions"),
        (lambda a, m: pl.sankey(a, m, "brnach"), KeyError, "`label_key`='brnach'"),
        (lambda a, m: pl.sankey(a, m, "fate"), ValueError, "no cell at the time 2 has a group"),
    ],
)
def test_what_tools_refuse(model, course, call, error, match):
    before = snapshot(course)
    with pytest.raises(error, match=match):
        call(course, model)
    assert_same(course, before)


@pytest.mark.parametrize("tool", [tl.fates, tl.ancestors, pl.sankey], ids=["fates", "ancestors", "sankey"])
def test_models_of_two_populations_have_no_times(trained, tool):
    with pytest.raises(ValueError, match="maps one population to another.*`time_key`"):
        tool(trained.adata.copy(), trained, "donor")
    with pytest.raises(ValueError, match="`time_key`"):
        tl.interpolate(trained.adata, trained, 3.0)


# ---- Tools that knew two populations -----------------------------------------------------------------------------------


def test_transport_and_transitions(model, course):
    tl.transport(course, model, until=6, n_samples=5)
    assert np.isfinite(course.obsm["genot"]).all(axis=1).sum() == 120
    np.testing.assert_allclose(
        course.obsm["genot"][rows_at(course, 2)],
        model.get_transported_mean(indices=rows_at(course, 2), until=6, n_samples=5),
    )
    tl.transitions(course, model, "branch", until=6, n_samples=5)
    matrix = course.uns["genot_transitions"]["matrix"].to_numpy()
    assert np.diag(matrix).min() > 0.85 and course.uns["genot_transitions"]["n_cells"].sum() == 120
    tl.transfer_labels(course, model, "fate", until=6, n_samples=5)
    assert course.obs["genot_labels"].notna().sum() == 120
    pl.transport(course, basis="umap")


def test_transported_cells_know_their_time_and_their_first_cell(model, course):
    cells = tl.transported_cells(course, model, until=6, n_samples=2)
    assert cells.n_obs == 240 and (cells.obs["day"] == 6).all() and cells.obs["day"].dtype == course.obs["day"].dtype
    assert (cells.obs["source_day"] == course.obs.loc[cells.obs["source_cell"], "day"].to_numpy()).all()
    # Step by step leads back to the first cell, too.
    first = tl.transported_cells(course, model, indices=rows_at(course, 2))
    assert (first.obs["day"] == 4).all()
    second = tl.transported_cells(first, model, n_samples=2)
    assert (second.obs["day"] == 6).all() and (second.obs["source_day"] == 2).all()
    assert list(second.obs["source_cell"][::2]) == list(course.obs_names[rows_at(course, 2)])
    # Each goes on from its own time.
    mixed = tl.transported_cells(course, model)
    assert set(zip(mixed.obs["source_day"], mixed.obs["day"], strict=True)) == {(2, 4), (4, 6)}


def test_transported_cells_of_a_categorical_time(model, course):
    course.obs["day"] = course.obs["day"].astype("category")
    cells = tl.transported_cells(course, model, until=6)
    assert cells.obs["day"].dtype == course.obs["day"].dtype and (cells.obs["day"] == 6).all()
    between = tl.interpolate(course, model, 3)
    assert (between.obs["day"] == 3).all()


# ---- Cells in between --------------------------------------------------------------------------------------------------


def test_interpolation(model, course):
    between = tl.interpolate(course, model, 4.5)
    rows = rows_at(course, 4)
    assert between.n_obs == 60 and (between.obs["day"] == 4.5).all() and (between.obs["source_day"] == 4).all()
    ends = model.sample(course, indices=rows, n_samples=1)[:, 0]
    np.testing.assert_allclose(between.X, 0.75 * course.obsm["X_pca"][rows] + 0.25 * ends, atol=1e-4)
    np.testing.assert_array_equal(between.obsm["X_pca"], between.X)
    assert list(between.obs["source_cell"]) == list(course.obs_names[rows])


def test_interpolation_back_in_time(backward, course):
    between = tl.interpolate(course, backward, 5.5, n_samples=2)
    assert (between.obs["source_day"] == 6).all() and between.n_obs == 120
    # A quarter of the way has passed.
    right = (between.obs["branch"] == "right").to_numpy()
    np.testing.assert_allclose(between.X[right].mean(axis=0), [4, 6, -3], atol=0.5)


@pytest.mark.once
def test_interpolation_of_gaussians():
    """Half-way between Gaussians lies a Gaussian: a quarter of both covariances and of the plan's cross-covariances."""
    rng = np.random.default_rng(0)
    n = 400
    cells = [rng.normal(size=(n, 2)) * (1.0, 0.6), rng.normal(size=(n, 2)) * (0.5, 1.2) + (4, 0)]
    adata = ad.AnnData(obs=pd.DataFrame({"t": np.repeat([0.0, 1.0], n)}, index=[str(i) for i in range(2 * n)]))
    adata.obsm["X_pca"] = np.concatenate(cells).astype(np.float32)
    GENOT.setup_anndata(adata, time_key="t")
    model = GENOT(adata, epsilon=0.05, flow_config=FlowConfig(hidden=(64, 64)))
    model.train(**FITTED | {"max_steps": 1500}, validation_size=0.0)
    half = 0.05 * float(model.coupling_summary()["scale"].iloc[0]) / 2
    a, b = (np.var(one, axis=0) for one in cells)
    cross = (np.sqrt(4 * a * b + half**2) - half) / 2
    between = tl.interpolate(adata, model, 0.5, n_samples=10)
    np.testing.assert_allclose(between.X.mean(axis=0), (cells[0].mean(axis=0) + cells[1].mean(axis=0)) / 2, atol=0.08)
    np.testing.assert_allclose(between.X.var(axis=0), (a + b + 2 * cross) / 4, rtol=0.12)
    # Without the plan, pairs at random would be narrower.
    assert (between.X.var(axis=0) > 1.2 * (a + b) / 4).all()


def test_named_times_have_none_in_between():
    adata = make_course(20)
    adata.obs["day"] = adata.obs["day"].map({2: "zero", 4: "one", 6: "two"})
    GENOT.setup_anndata(adata, time_key="day", times=["zero", "one", "two"])
    model = GENOT(adata)
    with pytest.raises(ValueError, match="'zero', 'one', 'two' of this model are categories"):
        tl.interpolate(adata, model, 4.5)


# ---- Matrices for CellRank ---------------------------------------------------------------------------------------------


def test_couplings(model, course):
    before = snapshot(course)
    found = tl.couplings(course, model, n_samples=10)
    assert_same(course, before)
    assert list(found) == [(2, 4), (4, 6)]
    for (early, late), one in found.items():
        assert sp.issparse(one.X) and one.shape == (60, 60)
        assert list(one.obs_names) == list(course.obs_names[rows_at(course, early)])
        assert list(one.var_names) == list(course.obs_names[rows_at(course, late)])
        np.testing.assert_allclose(np.asarray(one.X.sum(axis=1)).ravel(), 1.0)
        right = is_right(course, rows_at(course, late))
        stays = np.asarray(one.X[is_right(course, rows_at(course, early))][:, right].sum(axis=1))
        assert stays.mean() > 0.9
    weighed = tl.couplings(course, model, n_samples=2, weight_by_growth=True)
    assert all(one.X.sum() == pytest.approx(1.0) for one in weighed.values())


def test_couplings_lead_forward(backward, course):
    with pytest.raises(ValueError, match="goes back in time"):
        tl.couplings(course, backward)


def test_cellrank_reads_couplings(model, course):
    kernels = pytest.importorskip("cellrank.kernels", reason="needs the optional extra `cellrank`")
    course = course[course.obs["day"].notna()].copy()
    course.obs["day"] = course.obs["day"].astype("category")
    kernel = kernels.RealTimeKernel(course, time_key="day", couplings=tl.couplings(course, model))
    kernel.compute_transition_matrix(threshold=None, self_transitions="diagonal")
    matrix = kernel.transition_matrix
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1.0, atol=1e-6)
    early, late = rows_at(course, 2), rows_at(course, 4)
    expected = tl.couplings(course, model)[2, 4].X.toarray()
    np.testing.assert_allclose(matrix[early][:, late].toarray(), expected, atol=1e-6)


# ---- Growth priors -----------------------------------------------------------------------------------------------------


@pytest.fixture
def genes() -> ad.AnnData:
    """Cells of which the first proliferate, the next die, and the others do neither."""
    rng = np.random.default_rng(0)
    names = [gene.capitalize() for gene in (*PROLIFERATION[:20], *APOPTOSIS[:10])] + [f"Gene{i}" for i in range(200)]
    values = rng.poisson(1.0, size=(90, len(names))).astype(np.float32)
    values[:30, :20] += 4
    values[30:60, 20:30] += 4
    obs = pd.DataFrame({"day": np.tile([2.0, 4.0, 7.0], 30)}, index=[f"cell{i}" for i in range(90)])
    adata = ad.AnnData(sp.csr_matrix(np.log1p(values)), obs=obs, var=pd.DataFrame(index=names))
    adata.layers["log"] = adata.X.copy()
    return adata


def test_growth_priors(genes):
    before = snapshot(genes)
    copied = tl.growth_priors(genes, copy=True)
    assert_same(genes, before)
    prior = copied.obs["growth_prior"].to_numpy()
    assert prior[:30].min() > 1.2 > 0.8 > prior[30:60].max()
    p, a = (copied.obs[f"growth_prior_{name}"].to_numpy() for name in ("proliferation", "apoptosis"))
    rate = 1.4 / (1 + np.exp(-(p - 0.25) / 0.125)) - 1.4 / (1 + np.exp(-(a - 0.1) / 0.05))
    np.testing.assert_allclose(prior, np.exp(rate), rtol=1e-6)
    tl.growth_priors(genes, time_key="day", layer="log", key_added="mass")
    days = genes.obs["day"].map({2: 2, 4: 3, 7: 0})
    np.testing.assert_allclose(genes.obs["mass"], prior**days, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"duration": 0}, ValueError, "`duration`"),
        ({"proliferation": ["Gene1", "Gene2"]}, KeyError, "`proliferation`: 2 of 2 genes.*at least 5"),
        ({"apoptosis": "Gene1"}, TypeError, "`apoptosis` must be names"),
        ({"time_key": "dya"}, KeyError, "`time_key`='dya'"),
        ({"layer": "raw"}, KeyError, "`layer`='raw'"),
    ],
)
def test_what_growth_priors_refuse(genes, options, error, match):
    before = snapshot(genes)
    with pytest.raises(error, match=match):
        tl.growth_priors(genes, **options)
    assert_same(genes, before)


# ---- Figures -----------------------------------------------------------------------------------------------------------


def test_figures(model, course, tmp_path):
    tl.fates(course, model, "branch", n_samples=5)
    ax = pl.fates(course, save=tmp_path / "bars.png")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["2 (60)", "4 (60)"]
    assert ax.get_title() == "branch at day 6"
    widths = np.array([[bar.get_width() for bar in bars] for bars in ax.containers])
    np.testing.assert_allclose(widths.sum(axis=0), 1.0, rtol=1e-4)
    axes = pl.fates(course, basis="umap")
    assert [one.get_title() for one in axes.flat] == ["left", "right"]
    pl.fates(course, groupby="branch", ax=plt.subplots()[1])
    with pytest.raises(ValueError, match="`basis` draws one panel per fate"):
        pl.fates(course, basis="umap", groupby="branch")
    ax = pl.sankey(course, model, "branch", n_samples=3, save=tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 0
    assert [one.get_text() for one in ax.get_xticklabels()] == ["2", "4", "6"]


def test_flows_keep_mass(model, course):
    from scgenot.pl._sankey import group_flows

    flows = group_flows(course, model, "branch", n_samples=5)
    assert flows.groups == ["left", "right"]
    np.testing.assert_allclose(flows.shares, 0.5, atol=0.02)
    for moved in flows.moved:
        assert moved.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(moved.sum(axis=1), 0.5, atol=0.02)
        assert np.diag(moved).sum() > 0.9


# ---- Genes -------------------------------------------------------------------------------------------------------------


def test_changes_of_genes_over_several_steps(model, course):
    from sklearn.preprocessing import FunctionTransformer

    # Two "genes" that are two of the three features.
    back = FunctionTransformer(inverse_func=lambda cells: cells[:, [0, 2]], check_inverse=False)
    asked = {"decoder": back, "indices": rows_at(course, 2)}
    genes = tl.decode(course, model, until=6, **asked)
    assert set(genes.obs["day"]) == {6} and set(genes.obs["source_day"]) == {2}
    ends = model.sample(course, indices=rows_at(course, 2), n_samples=1, until=6)[:, 0]
    np.testing.assert_allclose(genes.X, ends[:, [0, 2]], rtol=1e-5)
    table = tl.response(course, model, groupby="branch", until=6, n_samples=10, **asked)
    right = table[table["group"] == "right"].set_index("names")
    # Day 6 alone is what is observed, not all later days.
    late, early = (rows_at(course, day)[is_right(course, rows_at(course, day))] for day in (6, 2))
    cells = course.obsm["X_pca"][:, [0, 2]]
    observed = cells[late].mean(axis=0) - cells[early].mean(axis=0)
    np.testing.assert_allclose(right.loc[course.var_names, "observed"], observed, rtol=1e-4)
    np.testing.assert_allclose(right.loc[course.var_names, "change"], observed, atol=0.6)
    with pytest.raises(ValueError, match="`until` is needed: cells of this time course arrive at"):
        tl.response(course, model, decoder=back, n_samples=2)
    tl.transport(course, model, n_samples=2)
    with pytest.raises(ValueError, match="until.* cannot be chosen for a result that is there"):
        tl.decode(course, "genot", decoder=back, until=6)
