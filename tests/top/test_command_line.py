"""`scgenot demo`, `scgenot transport` and `scgenot decode`, as a person types them."""

import re
import subprocess
import sys
import warnings

import anndata as ad
import mudata
import numpy as np
import pytest
from tests.conftest import make_adata
from tests.model.modalities import make_mdata
from tests.top.test_decode import in_genes

import scgenot
from scgenot.__main__ import main


@pytest.fixture
def cells(tmp_path):
    path = tmp_path / "cells.h5ad"
    make_adata().write_h5ad(path)
    return path


def transport(cells, out, *more, source="control", target="stimulated", key="condition"):
    return main(
        ["transport", str(cells), "-o", str(out), "--population-key", key, "--source", source, "--target", target]
        + ["--max-steps", "30", "--n-samples", "4", "--quiet", *more]
    )


def test_transport_writes_what_the_functions_write(cells, tmp_path, capsys):
    out, kept = tmp_path / "out.h5ad", tmp_path / "model"
    assert transport(cells, out, "--save-model", str(kept), "--store-samples", "--epsilon", "0.1") == 0
    assert "trained, 30 steps" in capsys.readouterr().out
    written, model = ad.read_h5ad(out), scgenot.GENOT.load(kept)
    assert written.uns["genot"]["params"]["epsilon"] == pytest.approx(0.1)
    control = (written.obs["condition"] == "control").to_numpy()
    np.testing.assert_array_equal(
        written.obsm["genot_samples"][control], model.sample(ad.read_h5ad(cells), n_samples=4)
    )


def test_numbers_are_found_among_categories(cells, tmp_path):
    assert transport(cells, tmp_path / "out.h5ad", source="2", target="4", key="day") == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "quadratic"),
        (["--shared-rep", "X_shared", "--alpha", "0.3"], "fused"),
        (["--problem", "linear", "--target-rep", "X_moved"], "linear"),
    ],
    ids=["quadratic", "fused", "linear"],
)
def test_two_representations(cells, tmp_path, options, problem):
    adata = ad.read_h5ad(cells)
    adata.obsm["X_other"] = adata.obsm["X_pca"][:, :2] * 2
    adata.obsm["X_moved"] = adata.obsm["X_pca"] + 1
    adata.obsm["X_shared"] = adata.obsm["X_pca"][:, :1]
    adata.write_h5ad(cells)
    assert transport(cells, tmp_path / "out.h5ad", "--target-rep", "X_other", *options) == 0
    written = ad.read_h5ad(tmp_path / "out.h5ad").uns["genot"]["params"]
    assert written["problem"] == problem
    assert written["cost"] == ("sqeuclidean" if problem == "linear" else "euclidean")
    assert written.get("alpha") == (0.3 if problem == "fused" else None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "contrl"}, "Did you mean 'control'"),
        ({"key": "conditon"}, "Did you mean 'condition'"),
    ],
)
def test_wrong_names_end_with_a_message(cells, tmp_path, capsys, arguments, message):
    assert transport(cells, tmp_path / "out.h5ad", **arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out.h5ad").exists()


def test_wrong_values_and_files_end_with_a_message(cells, tmp_path, capsys):
    assert transport(cells, tmp_path / "out.h5ad", "--epsilon", "-1") == 2
    assert "`epsilon` must be" in capsys.readouterr().err
    assert transport(tmp_path / "nothing.h5ad", tmp_path / "out.h5ad") == 2
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "there.h5ad").write_text("mine")
    assert transport(cells, tmp_path / "there.h5ad") == 2
    assert (tmp_path / "there.h5ad").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-samples", "0"], "`--n-samples` must be a whole number of at least 1, got 0"),
        (["--max-steps", "0"], "`--max-steps` must be a whole number of at least 1, got 0"),
        (["--key-added", "a/b"], "`--key-added` must be a name without '/'"),
        (["--source-modality", "atac"], "--source-modality is not for an .h5ad file, which needs --population-key"),
    ],
)
def test_wrong_options_are_refused_before_any_work(cells, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setattr(scgenot.GENOT, "train", None)
    assert transport(cells, tmp_path / "out.h5ad", *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.h5mu"])
def test_a_corrupt_file_ends_with_a_message(cells, tmp_path, capsys, name):
    path = tmp_path / "cut" / name
    path.parent.mkdir()
    path.write_bytes(cells.read_bytes()[:3000])
    out = path.with_name(f"out{path.suffix}")
    options = ["--source-modality", "a", "--target-modality", "b"] if path.suffix == ".h5mu" else OF_CELLS
    assert main(["transport", str(path), "-o", str(out), *options]) == 2
    assert f"cannot be read as an {path.suffix} file" in capsys.readouterr().err
    # A file of the other kind under this name.
    wrong = tmp_path / "wrong.h5mu"
    wrong.write_bytes(cells.read_bytes())
    modalities = ["--source-modality", "a", "--target-modality", "b"]
    assert main(["transport", str(wrong), "-o", str(tmp_path / "o.h5mu"), *modalities]) == 2
    error = capsys.readouterr().err
    assert error.startswith("scgenot transport: ") and "Traceback" not in error


OF_CELLS = ["--population-key", "condition", "--source", "control", "--target", "stimulated"]


def test_two_modalities_of_a_file(tmp_path, capsys):
    path, out = tmp_path / "cells.h5mu", tmp_path / "out.h5mu"
    make_mdata().write_h5mu(path)
    start = ["transport", str(path), "-o", str(out)]
    modalities = ["--source-modality", "atac", "--target-modality", "rna"]
    assert main([*start, *OF_CELLS]) == 2
    assert "an .h5mu file needs --source-modality and --target-modality" in capsys.readouterr().err
    assert main(["transport", str(path), "-o", str(tmp_path / "out.h5ad"), *modalities]) == 2
    assert "`--output` must be a file of the same kind as the input (.h5mu)" in capsys.readouterr().err
    reps = ["--source-rep", "X_lsi", "--target-rep", "X_pca"]
    few = ["--max-steps", "20", "--n-samples", "4", "--quiet"]
    assert main([*start, *modalities, *reps, *few]) == 0
    assert re.search(r"uncertainty, from 0 .* median 0\.\d\d, 90 % of cells", capsys.readouterr().out)
    written = mudata.read_h5mu(out)["atac"]
    assert np.isfinite(written.obsm["genot"]).all() and written.uns["genot"]["params"]["problem"] == "quadratic"


def test_help_and_version_answer_without_heavy_imports():
    code = "import sys, scgenot.__main__ as m; sys.argv = ['scgenot', '--version']\ntry: m.main()\nexcept SystemExit: pass\n"
    code += "print(any(name in sys.modules for name in ('jax', 'torch', 'scanpy')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["scgenot", scgenot.__version__, "False"]


def scores(printed):
    """The two columns of the demonstration's table, by row."""
    rows = re.findall(r"^(\S.*?) +(\d+\.\d+) +(\d+\.\d+)$", printed, flags=re.MULTILINE)
    return {name: (float(first), float(second)) for name, first, second in rows}


# In its other environments `.ci/run` runs the demonstration itself; that its figures beat the baselines is said once.
@pytest.mark.once
def test_demo_finds_held_out_partners(tmp_path, capsys):
    """Real cells, fewer steps than the command's default; the bars are the baselines that it prints."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert main(["demo", "--out", str(tmp_path / "demo"), "--max-steps", "400", "--quiet"]) == 0
    found = scores(capsys.readouterr().out)
    (chance, guessed), (mean, right), (_, ceiling) = (
        found[name] for name in ("chance: any panel B cell", "scgenot, mean", "the true panel B profile")
    )
    assert mean < chance / 2
    assert right - guessed > ceiling - right
    written = mudata.read_h5mu(tmp_path / "demo" / "transported.h5mu")
    source, target = written["panel A"], written["panel B"]
    assert not set(source.var_names) & set(target.var_names)
    assert source.obsm["genot"].shape == (700, 20) and np.isfinite(source.obsm["genot"]).all()
    assert (source.obs["held_out"] == target.obs["held_out"]).all() and source.obs["held_out"].sum() == 140
    assert set(source.obs["genot_labels"]) <= set(target.obs["bulk_labels"])
    assert (tmp_path / "demo" / "modalities.png").stat().st_size > 10_000


@pytest.mark.once
def test_demo_within_one_space_beats_doing_nothing_and_the_mean_shift(tmp_path, capsys):
    assert main(["demo", "--perturbation", "--out", str(tmp_path / "demo"), "--max-steps", "600", "--quiet"]) == 0
    energy = scores(capsys.readouterr().out)
    assert energy["scgenot"] < energy["monocytes + mean shift"] < energy["monocytes as they are"]
    written = ad.read_h5ad(tmp_path / "demo" / "transported.h5ad")
    moved = ~np.isnan(written.obs["genot_uncertainty"])
    assert (written.obs["bulk_labels"][moved] == "CD14+ Monocyte").all()
    assert moved.sum() == 129
    assert (tmp_path / "demo" / "transport.png").stat().st_size > 10_000


@pytest.fixture
def result(trained, tmp_path):
    adata = in_genes(noise=0.3)
    scgenot.tl.transport(adata, trained, n_samples=3, store_samples=True)
    adata.write_h5ad(tmp_path / "result.h5ad")
    return tmp_path / "result.h5ad"


def test_decode_writes_what_the_function_gives(result, tmp_path, capsys):
    out = tmp_path / "new" / "genes.h5ad"
    command = ["decode", str(result), "-o", str(out), "--key", "genot", "--n-samples", "2", "--residual", "source"]
    assert main([*command, "--include-source"]) == 0
    assert "180 cells x 12 genes" in capsys.readouterr().out
    options = {"n_samples": 2, "residual": "source", "include_source": True}
    expected = scgenot.tl.decode(ad.read_h5ad(result), "genot", **options)
    written = ad.read_h5ad(out)
    np.testing.assert_array_equal(written.X, expected.X)
    assert written.obs_names.tolist() == expected.obs_names.tolist()


def test_decode_ends_wrong_input_in_one_line(result, cells, tmp_path, capsys):
    out = tmp_path / "genes.h5ad"
    (tmp_path / "broken.h5ad").write_text("no file")
    for arguments, message in (
        ([str(result), "-o", str(out), "--key", "genott"], "Did you mean 'genot'"),
        ([str(cells), "-o", str(out)], "no result of that name"),
        ([str(result), "-o", str(out), "--loadings", "PC"], "Did you mean 'PCs'"),
        ([str(result), "-o", str(out), "--layer", "scaled"], "no key of adata.layers"),
        ([str(result), "-o", str(out), "--n-samples", "4"], "has 3"),
        ([str(result), "-o", str(tmp_path / "genes.csv")], "must be an .h5ad file"),
        ([str(result), "-o", str(result)], "exists already"),
        ([str(tmp_path / "none.h5ad"), "-o", str(out)], "there is no file"),
        ([str(tmp_path / "broken.h5ad"), "-o", str(out)], "cannot be read"),
    ):
        assert main(["decode", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("scgenot decode: ") and message in error, error
    assert not out.exists()
