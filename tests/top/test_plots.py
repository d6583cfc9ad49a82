"""`scgenot.pl`: that what is drawn is what was computed."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tests.conftest import make_adata
from tests.model.modalities import FEW, build, make_mdata

import scgenot

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
    with pytest.raises(ValueError, match="`value` must be one of 'uncertainty', 'variance'"):
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
