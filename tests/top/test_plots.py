"""`scgenot.pl`: that what is drawn is what was computed."""

import copy

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from tests.conftest import make_adata
from tests.model.modalities import FEW, build, make_mdata

import scgenot
from scgenot.pl._common import group_names

matplotlib.use("Agg")


@pytest.fixture
def result(trained):
    adata = make_adata()
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2].astype(np.float64)
    scgenot.tl.transport(adata, trained, n_samples=5)
    yield adata
    plt.close("all")


def test_arrows_lead_from_source_cells_to_target_cells_near_their_mean(result):
    ax = scgenot.pl.transport(result, n_arrows=60)
    arrows = next(found for found in ax.collections if isinstance(found, matplotlib.quiver.Quiver))
    control = (result.obs["condition"] == "control").to_numpy()
    stimulated = (result.obs["condition"] == "stimulated").to_numpy()
    start = np.column_stack([arrows.X, arrows.Y])
    end = start + np.column_stack([arrows.U, arrows.V])
    assert {tuple(row) for row in start} == {tuple(row) for row in result.obsm["X_umap"][control]}
    targets = {tuple(np.round(row, 5)) for row in result.obsm["X_umap"][stimulated]}
    assert {tuple(np.round(row, 5)) for row in end} <= targets
    # The landing place is among the five target cells nearest to the transported mean.
    means = result.obsm["genot"][control]
    away = np.linalg.norm(result.obsm["X_pca"][stimulated][None] - means[:, None], axis=2)
    nearest = np.argsort(away, axis=1)[:, :5]
    places = result.obsm["X_umap"][stimulated][nearest]
    distance = np.abs(places - end[:, None]).sum(axis=2).min(axis=1)
    assert distance.max() < 1e-5
    uncertainty = result.obs["genot_uncertainty"].to_numpy()[control]
    np.testing.assert_allclose(np.sort(arrows.get_array()), np.sort(uncertainty))


def test_fewer_arrows_are_chosen_without_repeats(result):
    ax = scgenot.pl.transport(result, n_arrows=7, basis="umap")
    arrows = next(found for found in ax.collections if isinstance(found, matplotlib.quiver.Quiver))
    assert len({(x, y) for x, y in zip(arrows.X, arrows.Y, strict=True)}) == 7


def test_few_arrows_stand_for_all_cells(result):
    ax = scgenot.pl.transport(result, n_arrows=5)
    arrows = next(found for found in ax.collections if isinstance(found, matplotlib.quiver.Quiver))
    dots = next(found for found in ax.collections if len(found.get_offsets()) == 5 and found is not arrows)
    size = dots.get_sizes()
    assert len(arrows.X) == 5 and size.max() > size.min()
    uncertainty = result.obs["genot_uncertainty"].dropna().to_numpy()
    assert uncertainty.min() < arrows.get_array().min() and arrows.get_array().max() < uncertainty.max()


def test_arrows_of_groups_start_in_their_group(result):
    result.obs["half"] = np.where(result.obsm["X_umap"][:, 0] > np.median(result.obsm["X_umap"][:, 0]), "right", "left")
    ax = scgenot.pl.transport(result, groupby="half")
    arrows = next(found for found in ax.collections if isinstance(found, matplotlib.quiver.Quiver))
    control = result[result.obs["condition"] == "control"]
    found = {tuple(row): half for row, half in zip(control.obsm["X_umap"], control.obs["half"], strict=True)}
    starts = [found[x, y] for x, y in zip(arrows.X, arrows.Y, strict=True)]
    assert set(starts) == set(control.obs["half"]) and len(starts) <= 4


def test_cells_and_arrows_by_a_column(result):
    result.obs["donor"] = result.obs["donor"].astype("category")
    result.uns["donor_colors"] = ["#112233", "#445566"]
    ax = scgenot.pl.transport(result, color="donor", n_arrows=60)
    arrows = next(found for found in ax.collections if isinstance(found, matplotlib.quiver.Quiver))
    control = result[result.obs["condition"] == "control"]
    donor = {tuple(row): name for row, name in zip(control.obsm["X_umap"], control.obs["donor"], strict=True)}
    expected = [to_rgba({"a": "#112233", "b": "#445566"}[donor[x, y]]) for x, y in zip(arrows.X, arrows.Y, strict=True)]
    np.testing.assert_allclose(arrows.get_facecolor(), expected)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    ax = scgenot.pl.transport(result, color="mass", n_arrows=60)
    arrows = next(found for found in ax.collections if isinstance(found, matplotlib.quiver.Quiver))
    np.testing.assert_allclose(np.sort(arrows.get_array()), np.sort(control.obs["mass"]))
    with pytest.raises(KeyError, match="`color`='doner'.*Did you mean 'donor'"):
        scgenot.pl.transport(result, color="doner")


@pytest.mark.parametrize("stored", [[2.0, 4.0], ["2", "4"], [2, 4]], ids=["float", "text", "int"])
def test_numbers_as_categories_are_found(result, stored):
    """Days are 2.0 where the column has missing values, and text where it was categorical."""
    days = np.select([result.obs["condition"] == "control", result.obs["condition"] == "stimulated"], stored, stored[0])
    result.obs["day"] = days
    result.uns["genot"]["params"] |= {"population_key": "day", "source": "2", "target": "4"}
    ax = scgenot.pl.transport(result, n_arrows=3)
    stimulated = (result.obs["condition"] == "stimulated").to_numpy()
    np.testing.assert_allclose(ax.collections[1].get_offsets(), result.obsm["X_umap"][stimulated])
    result.uns["genot"]["params"] |= {"target": "4.0"}
    ax = scgenot.pl.transport(result, n_arrows=3)
    np.testing.assert_allclose(ax.collections[1].get_offsets(), result.obsm["X_umap"][stimulated])


def test_groups_stand_in_natural_order():
    assert group_names(pd.Series(["d24", "d8", "d16", "d8"])) == ["d8", "d16", "d24"]
    assert group_names(pd.Series(pd.Categorical(["a", "c", "a"], categories=["c", "b", "a"]))) == ["c", "a"]
    assert group_names(pd.Series([10, 9, np.nan])) == ["9.0", "10.0"]


def test_one_sample_has_no_uncertainty_to_draw(trained):
    adata = make_adata()
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    scgenot.tl.transport(adata, trained, n_samples=1)
    with pytest.raises(ValueError, match="one sample does not tell"):
        scgenot.pl.uncertainty(adata)


def test_uncertainty_colours_the_transported_cells_only(result):
    ax = scgenot.pl.uncertainty(result)
    coloured = ax.collections[-1]
    values = result.obs["genot_uncertainty"].dropna()
    np.testing.assert_allclose(np.sort(coloured.get_array()), np.sort(values))


def test_groups_are_ordered_by_their_median(result):
    _, boxes = scgenot.pl.uncertainty(result, groupby="donor", value="variance")
    labels = [label.get_text() for label in boxes.get_yticklabels()]
    medians = result.obs.groupby("donor", observed=True)["genot_variance"].median().sort_values()
    assert [label.split(" ")[0] for label in labels] == medians.index.tolist()


def test_history_has_lines_to_compare_the_divergence_with(trained):
    divergence = scgenot.pl.history(trained)[1]
    lines = {line.get_label(): line.get_ydata()[0] for line in divergence.lines if not line.get_label().startswith("_")}
    assert set(lines) == {"floor", "doing nothing"}
    adata = trained.adata
    held = adata[trained.validation_indices_]
    control, stimulated = (held.obsm["X_pca"][held.obs["condition"] == name] for name in ("control", "stimulated"))
    assert lines["doing nothing"] == pytest.approx(scgenot.metrics.sinkhorn_divergence(control, stimulated), rel=1e-4)
    # Cells that are right are nearer than cells that did not move.
    assert 0 <= lines["floor"] < 0.2 * lines["doing nothing"]
    assert len(scgenot.pl.history(trained, lines=False)[1].lines) == 1
    recorded = copy.copy(trained)
    name = "validation_sinkhorn_divergence_floor"
    recorded.history_ = trained.history_ | {name: pd.DataFrame({name: [0.5, 0.25]})}
    found = [line for line in scgenot.pl.history(recorded)[1].lines if line.get_label() == "floor"]
    assert found[0].get_ydata()[0] == 0.25
    plt.close("all")


def test_history_draws_both_losses(trained):
    axes = scgenot.pl.history(trained)
    lines = {line.get_label(): line.get_ydata() for line in axes[0].lines}
    np.testing.assert_array_equal(lines["training"], trained.history["train_loss"].iloc[:, 0])
    np.testing.assert_array_equal(lines["held-out"], trained.history["validation_loss"].iloc[:, 0])
    assert len(axes) == 2


def test_figures_are_saved(result, tmp_path):
    scgenot.pl.transport(result, save=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_wrong_names_get_an_answer(result):
    with pytest.raises(KeyError, match=r"There are: .*'X_umap'"):
        scgenot.pl.transport(result, basis="X_tsne")
    with pytest.raises(KeyError, match="tl.transport"):
        scgenot.pl.uncertainty(result, key="genott")
    with pytest.raises(ValueError, match="`value` must be one of 'uncertainty', 'cos_var', 'variance'"):
        scgenot.pl.uncertainty(result, value="entropy")
    with pytest.raises(KeyError, match="Did you mean 'donor'"):
        scgenot.pl.uncertainty(result, groupby="doner")
    with pytest.raises(ValueError, match="no 'stimulated' cells"):
        scgenot.pl.transport(result[result.obs["condition"] != "stimulated"].copy())


@pytest.fixture(scope="module")
def across():
    mdata = make_mdata()
    model = build(mdata)
    model.train(**FEW)
    scgenot.tl.transport(mdata, model, n_samples=5)
    yield mdata
    plt.close("all")


def drawn(ax):
    return [np.asarray(points.get_offsets()) for points in ax.collections]


def test_both_modalities_are_drawn_and_means_lie_where_they_are(across):
    unsure, landing = scgenot.pl.modalities(across)
    background, means = drawn(landing)
    np.testing.assert_allclose(background, across["rna"].obsm["X_pca"])
    order = np.argsort(across["atac"].obs["genot_uncertainty"].to_numpy())
    np.testing.assert_allclose(means, across["atac"].obsm["genot"][order], rtol=1e-6)
    for ax in (unsure, landing):
        np.testing.assert_allclose(ax.collections[1].get_array(), across["atac"].obs["genot_uncertainty"].iloc[order])
    np.testing.assert_allclose(drawn(unsure)[0], across["atac"].obsm["X_lsi"][:, :2])


def test_groups_of_source_cells_keep_their_colour_in_the_target_space(across):
    before, landing, _ = scgenot.pl.modalities(across, color="kind")
    labels = across["atac"].obs["kind"]
    for ax, places in ((before, across["atac"].obsm["X_lsi"][:, :2]), (landing, across["atac"].obsm["genot"])):
        groups = {points.get_label(): points for points in ax.collections[1:]}
        assert set(groups) == {"up", "down"}
        for name, points in groups.items():
            found = np.asarray(points.get_offsets())
            np.testing.assert_allclose(np.sort(found[:, 0]), np.sort(places[labels == name, 0]), rtol=1e-6)
    colors = [[tuple(points.get_facecolor()[0]) for points in ax.collections[1:]] for ax in (before, landing)]
    assert colors[0] == colors[1] and len(set(colors[0])) == 2


def test_groups_have_scanpys_colours_and_targets_those_of_their_truth(across):
    mdata = across.copy()
    for name in ("atac", "rna"):
        mdata[name].obs["kind"] = pd.Categorical(mdata[name].obs["kind"], categories=["up", "down"])
    mdata["atac"].uns["kind_colors"] = ["#ff0000", "#0000ff"]
    before, landing, _ = scgenot.pl.modalities(mdata, color="kind")
    assert [points.get_label() for points in before.collections[1:]] == ["up", "down"]
    np.testing.assert_allclose(before.collections[1].get_facecolor()[0], to_rgba("#ff0000"))
    truth = np.where((mdata["rna"].obs["kind"] == "up").to_numpy(), 0, 1)
    painted = np.asarray(landing.collections[0].get_facecolor())[:, :3]
    np.testing.assert_allclose(painted, np.array([[1, 0, 0], [0, 0, 1]])[truth])


def test_a_wide_X_is_no_picture(across):
    mdata = across.copy()
    params = mdata["rna"].uns, mdata["atac"].uns["genot"]["params"]
    params[1]["target_rep"] = "X"
    mdata["atac"].obsm["genot"] = np.zeros((60, 5), np.float32)
    del mdata["rna"].obsm["X_pca"]
    with pytest.raises(ValueError, match="`target_basis`='X' has 5 columns"):
        scgenot.pl.modalities(mdata)
    mdata["rna"].obsm["X_umap"] = np.ones((50, 2))
    assert scgenot.pl.modalities(mdata)[1].get_xlabel() == "UMAP 1"


def test_other_plots_take_mudata(across):
    across["atac"].obsm["X_umap"] = across["atac"].obsm["X_lsi"][:, :2]
    _, boxes = scgenot.pl.uncertainty(across, groupby="kind")
    assert len(boxes.get_yticklabels()) == 2
    across.obs["of_all"] = "x"
    assert scgenot.pl.uncertainty(across, groupby="of_all")[1].get_yticklabels()[0].get_text() == "x (60)"
    assert scgenot.pl.growth(across).collections[1].get_array().shape == (60,)
    with pytest.raises(ValueError, match="between two modalities.*pl.modalities"):
        scgenot.pl.transport(across)
    with pytest.raises(KeyError, match="no modality has a result of that name.*tl.transitions"):
        scgenot.pl.transitions(across)
    with pytest.raises(TypeError, match="must be an AnnData or a MuData, got DataFrame"):
        scgenot.pl.uncertainty(pd.DataFrame())


def test_on_another_embedding_means_lie_amid_target_cells(across):
    across["rna"].obsm["X_umap"] = across["rna"].obsm["X_pca"][:, ::-1].astype(np.float64) ** 3
    landing = scgenot.pl.modalities(across, target_basis="umap")[1]
    background, means = drawn(landing)
    assert {tuple(row) for row in means} <= {tuple(row) for row in background}


def test_two_populations_of_one_object(result):
    landing = scgenot.pl.modalities(result)[1]
    background, means = drawn(landing)
    stimulated = (result.obs["condition"] == "stimulated").to_numpy()
    np.testing.assert_allclose(background, result.obsm["X_pca"][stimulated, :2])
    assert len(means) == 60


def test_modalities_answers_wrong_names(across):
    with pytest.raises(KeyError, match="no modality has a result of that name.*tl.transport"):
        scgenot.pl.modalities(across, key="genott")
    with pytest.raises(KeyError, match="`color`='kin'.*Did you mean 'kind'"):
        scgenot.pl.modalities(across, color="kin")
    with pytest.raises(ValueError, match="`axes` must hold 2 axes"):
        scgenot.pl.modalities(across, axes=plt.subplots(1, 3)[1])
