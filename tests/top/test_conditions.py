"""Conditions from the top: the picture, the command line, and two spaces that cannot be compared."""

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, SMALL
from tests.model.test_conditions import DOSED, FITTED, SCREEN, make_doses, make_screen

from scgenot import GENOT, pl
from scgenot.__main__ import main
from scgenot.flow import FlowConfig
from scgenot.model import condition_effects, dose_effects


@pytest.fixture(scope="module")
def fitted():
    adata = make_screen()
    GENOT.setup_anndata(adata, **SCREEN)
    model = GENOT(adata, flow_config=FlowConfig(hidden=(64, 64)))
    model.train(validation_conditions=["A | b"], **FITTED)
    return adata, model


def test_effects_are_distances_between_means(fitted):
    adata, model = fitted
    table = condition_effects(model, adata)
    assert list(table.index) == list(model.conditions.index)
    for name, row in table.iterrows():
        drug, donor = name.split(" | ")
        means = [
            adata.obsm["X_pca"][((adata.obs["drug"] == one) & (adata.obs["donor"] == donor)).to_numpy()].mean(axis=0)
            for one in (drug, "control")
        ]
        np.testing.assert_allclose(row["observed"], np.linalg.norm(means[0] - means[1]), rtol=1e-4)
        assert abs(row["predicted"] - row["observed"]) < (1.5 if name == "A | b" else 0.5), name


@pytest.mark.parametrize("kind", ["predicted", "heatmap"])
def test_the_picture_shows_each_condition(fitted, kind):
    adata, model = fitted
    ax = pl.conditions(adata, model, kind=kind, show=False)
    if kind == "predicted":
        assert "A | b" in {text.get_text() for text in ax.texts} <= set(model.conditions.index)
        assert [len(one.get_offsets()) for one in ax.collections] == [5, 1]
    else:
        drawn = ax.images[0].get_array()
        expected = condition_effects(model, adata)["predicted"].to_numpy().reshape(3, 2)
        np.testing.assert_allclose(np.asarray(drawn), expected, rtol=1e-5)
    plt.close("all")
    with pytest.raises(ValueError, match="`kind` must be"):
        pl.conditions(adata, model, kind="bars")


def test_names_do_not_lie_over_each_other():
    """Of 30 conditions in two crowds: what training has not seen is named, others as they find room."""
    from scgenot.pl._conditions import _against_observed

    rng = np.random.default_rng(0)
    effects = rng.normal([[2.0, 2.0]] * 15 + [[6.0, 6.0]] * 15, 0.1)
    table = pd.DataFrame(
        effects, columns=["observed", "predicted"], index=[f"drug {k} | cell line {k}" for k in range(30)]
    )
    table["trained"] = np.arange(30) != 20
    figure, ax = plt.subplots()
    _against_observed(table, ax)
    assert [len(one.get_offsets()) for one in ax.collections] == [29, 1]
    assert ax.texts[0].get_text() == "drug 20 | cell line 20" and 2 <= len(ax.texts) < 15
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])
    assert max(box.x1 for box in boxes) <= ax.get_window_extent().x1
    plt.close(figure)


def test_curves_over_doses_go_through_the_effects_of_conditions(fitted):
    adata = make_doses()
    GENOT.setup_anndata(adata, **DOSED)
    model = GENOT(adata, flow_config=FlowConfig(hidden=(32, 32)))
    model.train(**BRIEF)
    table = dose_effects(model, doses=[0.0, 5.0, 20.0])
    assert list(table["perturbation"]) == ["A"] * 5 + ["B"] * 4
    assert list(table["dose"]) == [0.0, 1.0, 5.0, 10.0, 20.0, 0.0, 5.0, 10.0, 20.0]
    measured = table.dropna().assign(name=lambda rows: rows["perturbation"] + rows["dose"].map(" {:g}".format))
    expected = condition_effects(model).loc[measured["name"]]
    assert list(measured["name"]) == ["A 1", "A 10", "B 10"]
    for column in ("predicted", "observed"):
        np.testing.assert_allclose(measured[column], expected[column], rtol=1e-4)
    # Dose 0 of either drug is the same control.
    assert table["predicted"][table["dose"] == 0].nunique() == 1
    ax = pl.conditions(adata, model, kind="doses", show=False)
    assert [line.get_label() for line in ax.lines] == ["A", "B"]
    assert [len(one.get_offsets()) for one in ax.collections] == [2, 1]
    plt.close("all")
    with pytest.raises(ValueError, match="`doses` must be finite and not below 0"):
        dose_effects(model, doses=[-1.0])
    with pytest.raises(ValueError, match="Use kind='doses'"):
        pl.conditions(adata, model, doses=[1.0])
    with pytest.raises(ValueError, match="dose curves need one covariate of numbers"):
        dose_effects(fitted[1])


def test_the_command_line_predicts_conditions(tmp_path, capsys):
    path, out = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    make_screen().write_h5ad(path)
    command = ["transport", str(path), "-o", str(out), "--population-key", "drug", "--source", "control", "--quiet"]
    command += ["--context-keys", "donor", "--conditions", "A", "C | a", "--n-samples", "2", "--max-steps", "5"]
    kept = ["--save-model", str(tmp_path / "model")]
    assert main([*command, *kept]) == 0
    told = capsys.readouterr().out
    assert "conditions: 6, plans: 6" in told and "C | a: uncertainty" in told
    written = ad.read_h5ad(out)
    assert np.isfinite(written.obsm["genot_A"]).all(axis=1).sum() == 140
    assert np.isfinite(written.obsm["genot_C | a"]).all(axis=1).sum() == 70
    assert main([*command, "--overwrite", "--condition-keys", "drug"]) == 2
    assert "COVARIATE=COLUMN" in capsys.readouterr().err
    assert "--overwrite" not in command and main(command) == 2
    assert "exists already" in capsys.readouterr().err
    # All conditions of the model that was kept, by default; and one of them.
    again, ask = tmp_path / "again.h5ad", ["--model", kept[1], "--n-samples", "2"]
    assert main(["transport", str(path), "-o", str(again), *ask]) == 0
    found = ad.read_h5ad(again)
    assert {"genot_A", "genot_B"} <= set(found.obsm)
    np.testing.assert_array_equal(found.obsm["genot_A"], written.obsm["genot_A"])
    labelled = tmp_path / "labelled.h5ad"
    assert main(["labels", str(path), "-o", str(labelled), *ask, "--label-key", "donor", "--condition", "A"]) == 0
    assert ad.read_h5ad(labelled).obs["genot_labels"].notna().sum() == 140


@pytest.mark.once
def test_conditions_between_two_spaces_share_one_orientation():
    """Shapes that look alike from either side: alone, each condition could come out mirrored."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]
    parts = []
    for drug, count in (("control", 120), ("A", 100), ("B", 100)):
        cells = rng.normal(size=(count, 2)) * [3.0, 1.0]
        # A tail on one side tells left from right, weakly.
        cells[: count // 4, 0] = 7.0 + 0.5 * rng.normal(size=count // 4)
        parts.append(pd.DataFrame(cells, columns=["x", "y"]).assign(drug=drug))
    frame = pd.concat(parts).reset_index(drop=True)
    adata = ad.AnnData(
        np.zeros((len(frame), 1), np.float32),
        obs=pd.DataFrame({"drug": pd.Categorical(frame["drug"])}, index=[f"cell{i}" for i in range(len(frame))]),
    )
    adata.obsm["flat"] = frame[["x", "y"]].to_numpy(np.float32)
    adata.obsm["turned"] = (adata.obsm["flat"] @ turn).astype(np.float32)
    GENOT.setup_anndata(adata, population_key="drug", source="control", source_rep="flat", target_rep="turned")
    model = GENOT(adata, epsilon=0.02, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 20})
    assert (model.conditions["agreement"] > 0.8).all()
    sent, rows = [], model._training.train_rows
    for part in model.coupling_.parts:
        mean = np.asarray(part.coupling.barycentric(adata.obsm["turned"][rows[1][part.target_rows]]))
        sent.append((mean @ turn.T)[:, 0])
    # The long axis: both conditions send each control to the same end.
    assert np.corrcoef(*sent)[0, 1] > 0.9
    assert np.abs(np.corrcoef(sent[0], adata.obsm["flat"][rows[0], 0])[0, 1]) > 0.9
