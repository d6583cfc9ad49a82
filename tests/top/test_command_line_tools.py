"""Kept models on the command line: `transport --model`, `labels`, `transitions` and `plot`; and time courses."""

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from tests.conftest import make_adata
from tests.model.modalities import FEW, build, make_mdata
from tests.model.test_times import make_course

import scgenot
from scgenot.__main__ import PLOTS, main

FEWER = ["--n-samples", "4"]


@pytest.fixture
def cells(tmp_path):
    """Cells of :func:`make_adata`, with groups and a picture of two dimensions."""
    adata = make_adata()
    adata.obs["kind"] = pd.Categorical(np.where(adata.obsm["X_pca"][:, 1] > 0, "up", "down/under"))
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture
def kept(trained, tmp_path):
    trained.save(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def trains(monkeypatch):
    """Fails whatever trains."""
    monkeypatch.setattr(scgenot.GENOT, "train", None)


def test_a_kept_model_transports_other_cells(cells, kept, trained, trains, tmp_path, capsys):
    out = tmp_path / "new" / "out.h5ad"
    assert main(["transport", str(cells), "-o", str(out), "--model", kept, "--store-samples", *FEWER]) == 0
    assert "trained in" not in capsys.readouterr().out
    expected = ad.read_h5ad(cells)
    scgenot.tl.transport(expected, trained, n_samples=4, store_samples=True)
    written = ad.read_h5ad(out)
    np.testing.assert_array_equal(written.obsm["genot_samples"], expected.obsm["genot_samples"])
    assert written.obs["genot_uncertainty"].notna().sum() == 60


def test_labels_and_transitions_write_what_the_functions_write(cells, kept, trained, trains, tmp_path, capsys):
    first, second = tmp_path / "labels.h5ad", tmp_path / "both.h5ad"
    assert main(["labels", str(cells), "-o", str(first), "--model", kept, "--label-key", "kind", *FEWER]) == 0
    assert "60 cells: " in capsys.readouterr().out
    command = ["transitions", str(first), "-o", str(second), "--model", kept, "--source-key", "donor"]
    assert main([*command, "--target-key", "kind", *FEWER]) == 0
    printed = capsys.readouterr().out
    expected = ad.read_h5ad(cells)
    model = scgenot.GENOT.load(kept, adata=False)
    scgenot.tl.transfer_labels(expected, model, "kind", n_samples=4)
    scgenot.tl.transitions(expected, model, "donor", "kind", n_samples=4)
    written = ad.read_h5ad(second)
    assert written.obs["genot_labels"].astype(str).equals(expected.obs["genot_labels"].astype(str))
    table = expected.uns["genot_transitions"]["matrix"]
    np.testing.assert_array_equal(written.uns["genot_transitions"]["matrix"], table)
    assert "down|under" in printed and f"{table.iloc[0, 0]:.2f}".rstrip("0") in printed


def test_labels_of_target_cells_in_another_file(cells, kept, trains, tmp_path):
    adata = ad.read_h5ad(cells)
    new, reference, out = tmp_path / "new.h5ad", tmp_path / "reference.h5ad", tmp_path / "out.h5ad"
    source = adata[adata.obs["condition"] == "control"].copy()
    del source.obs["kind"]
    source.write_h5ad(new)
    adata[adata.obs["condition"] == "stimulated"].copy().write_h5ad(reference)
    command = ["labels", str(new), "-o", str(out), "--model", kept, "--label-key", "kind", *FEWER]
    assert main(command) == 2
    assert main([*command, "--targets", str(reference)]) == 0
    # The same question, asked of the function.
    labelled, model = ad.read_h5ad(new), scgenot.GENOT.load(kept, adata=False)
    scgenot.tl.transfer_labels(labelled, model, "kind", target=ad.read_h5ad(reference), n_samples=4)
    np.testing.assert_array_equal(ad.read_h5ad(out).obsm["genot_labels"], labelled.obsm["genot_labels"])


def test_modalities(tmp_path, capsys):
    mdata = make_mdata()
    model = build(mdata)
    model.train(**FEW)
    model.save(tmp_path / "model")
    path, moved, out = tmp_path / "in.h5mu", tmp_path / "moved.h5mu", tmp_path / "out.h5mu"
    for name, key in (("atac", "X_lsi"), ("rna", "X_pca")):
        mdata[name].obsm["X_umap"] = mdata[name].obsm[key][:, :2]
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    mdata.write_h5mu(path)
    kept = ["--model", str(tmp_path / "model")]
    assert main(["transport", str(path), "-o", str(moved), *kept, *FEWER]) == 0
    assert main(["labels", str(moved), "-o", str(out), *kept, "--label-key", "kind", *FEWER]) == 0
    written = mudata.read_h5mu(out)["atac"]
    assert set(written.obs["genot_labels"]) <= {"up", "down"} and np.isfinite(written.obsm["genot"]).all()
    figure = tmp_path / "modalities.png"
    assert main(["plot", "modalities", str(out), "-o", str(figure), "--color", "kind"]) == 0
    assert figure.stat().st_size > 10_000
    capsys.readouterr()
    wrong = ["transport", str(tmp_path / "cells.h5ad"), "-o", str(tmp_path / "o.h5ad"), *kept]
    assert main(wrong) == 2
    assert "maps cells of an .h5mu file" in capsys.readouterr().err


def test_a_time_course(tmp_path, capsys):
    path, out = tmp_path / "course.h5ad", tmp_path / "out.h5ad"
    course = make_course()
    course.write_h5ad(path)
    start = ["transport", str(path), "--time-key", "day", "--max-steps", "5", "--quiet", *FEWER]
    kept = ["--model", str(tmp_path / "model")]
    assert main([*start, "-o", str(out), "--until", "5"]) == 2
    assert "`--until` must be one of '2.0', '4.0', '6.0'" in capsys.readouterr().err
    assert main([*start, "-o", str(out), "--until", "6", "--save-model", kept[1]]) == 0
    written = ad.read_h5ad(out)
    early = course.obs["day"].isin([2, 4]).to_numpy()
    assert np.array_equal(np.isfinite(written.obsm["genot"]).all(axis=1), early)
    model = scgenot.GENOT.load(kept[1], adata=False)
    np.testing.assert_array_equal(written.obsm["genot"][early], model.summarize(course, n_samples=4, until=6).mean)
    # Each cell to its next day, which is another question, to the same model.
    assert main(["transport", str(path), "-o", str(tmp_path / "next.h5ad"), *kept, *FEWER]) == 0
    after = ad.read_h5ad(tmp_path / "next.h5ad").obsm["genot"]
    second = (course.obs["day"] == 2).to_numpy()
    assert np.abs(after[second] - written.obsm["genot"][second]).max() > 0.1
    fates = tmp_path / "fates.h5ad"
    command = ["transitions", str(path), *kept, "--source-key", "branch", "--target-key", "fate", *FEWER]
    assert main([*command, "-o", str(fates), "--until", "6"]) == 0
    assert list(ad.read_h5ad(fates).uns["genot_transitions"]["matrix"].columns) == ["left late", "right late"]


def test_plots_are_those_of_the_room():
    assert set(PLOTS) <= set(scgenot.pl.__all__)


def test_plot(cells, kept, tmp_path, capsys):
    out, both, figure = tmp_path / "out.h5ad", tmp_path / "both.h5ad", tmp_path / "new" / "figure.png"
    assert main(["transport", str(cells), "-o", str(out), "--model", kept, *FEWER]) == 0
    command = ["transitions", str(out), "-o", str(both), "--model", kept, "--source-key", "kind", *FEWER]
    assert main(command) == 0
    for kind, options in (
        ("transport", ["--color", "kind"]),
        ("uncertainty", ["--groupby", "kind"]),
        ("transitions", []),
    ):
        assert main(["plot", kind, str(both), "-o", str(figure), *options, "--overwrite"]) == 0
        assert figure.read_bytes().startswith(b"\x89PNG") and figure.stat().st_size > 10_000
    capsys.readouterr()
    there = tmp_path / "there.png"
    there.write_text("mine")
    fresh = str(tmp_path / "fresh.png")
    for arguments, message in (
        (["transport", str(cells), "-o", fresh], "no result of that name"),
        (["transport", str(both), "-o", fresh, "--key", "genott"], "Did you mean 'genot'"),
        (["transport", str(both), "-o", fresh, "--basis", "X_tsne"], "X_tsne"),
        (["uncertainty", str(both), "-o", fresh, "--color", "kind"], "`--color` is no option of uncertainty"),
        (["transitions", str(cells), "-o", fresh], "genot_transitions"),
        (["transport", str(both), "-o", str(tmp_path / "figure.xyz")], "format of figures"),
        (["transport", str(both), "-o", str(there)], "exists already"),
        (["transport", str(tmp_path / "none.h5ad"), "-o", fresh], "there is no file"),
    ):
        assert main(["plot", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("scgenot plot: ") and message in error, error
    assert there.read_text() == "mine" and not (tmp_path / "fresh.png").exists()


def test_wrong_input_ends_in_one_line(cells, kept, trains, tmp_path, capsys):
    out = str(tmp_path / "out.h5ad")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.h5ad").write_text("no file")
    ask, give = [str(cells), "-o", out], ["--model", kept]
    pair = ["--population-key", "condition", "--source", "control", "--target", "stimulated"]
    label = ["--label-key", "kind"]
    for command, arguments, message in (
        ("transport", [*ask, *give, *pair], "--population-key and --source and --target is for training"),
        ("transport", [*ask, *give, "--max-steps", "9"], "--max-steps is for training"),
        ("transport", [*ask, *give, "--save-model", "x"], "--save-model is for training"),
        ("transport", [*ask, *give, "--until", "6"], "`--until` needs a model of a time course"),
        ("transport", [*ask, *pair, "--until", "6"], "`--until` needs a time course"),
        ("transport", [*ask, *pair, "--time-key", "day"], "does not go together with --time-key"),
        ("transport", [*ask, "--time-key", "dai"], "Did you mean 'day'"),
        ("transport", [*ask, "--model", str(tmp_path / "empty")], "empty"),
        ("labels", [*ask, "--model", str(tmp_path / "none"), *label], "there is no folder"),
        ("labels", [*ask, *give, "--label-key", "kinds"], "Did you mean 'kind'"),
        ("labels", [*ask, *give, *label, "--n-neighbors", "0"], "`--n-neighbors` must be"),
        ("labels", [*ask, *give, *label, "--condition", "control"], "condition"),
        ("labels", [*ask, *give, *label, "--targets", str(tmp_path / "none.h5ad")], "there is no file"),
        ("labels", [*ask, *give, *label, "--targets", str(tmp_path / "broken.h5ad")], "cannot be read"),
        ("labels", [str(cells), "-o", str(cells), *give, *label], "exists already"),
        ("transitions", [*ask, *give, "--source-key", "kinds"], "Did you mean 'kind'"),
        ("transitions", [str(tmp_path / "broken.h5ad"), "-o", out, *give, "--source-key", "kind"], "cannot be read"),
    ):
        assert main([command, *arguments]) == 2, (command, arguments)
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith(f"scgenot {command}: ") and message in error, error
    assert not (tmp_path / "out.h5ad").exists()
