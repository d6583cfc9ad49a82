"""Data that stay in files: read in blocks, each part of a file once, never dense as a whole; results are written back."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.conftest import BRIEF, SETUP, SMALL, assert_same, make_adata, snapshot
from tests.data.test_reading import peak_of

import scgenot
from scgenot import GENOT
from scgenot.data import dense_rows, read_representation


def lazy(adata, path):
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    write = adata.write_h5ad if path.suffix == ".h5ad" else adata.write_zarr
    write(path)
    return ad.experimental.read_lazy(path)


def trained_on(adata, rep="X_pca"):
    GENOT.setup_anndata(adata, **SETUP | {"source_rep": rep})
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 20})
    return model


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_lazy_data_give_what_data_in_memory_give(tmp_path, suffix):
    whole = make_adata()
    found = lazy(whole, tmp_path / f"cells.{suffix}")
    for adata in (whole, found):
        model = trained_on(adata)
        scgenot.tl.transport(adata, model, n_samples=2)
        scgenot.tl.transitions(adata, model, "donor", n_samples=2)
    cells = [scgenot.tl.transported_cells(adata, model, n_samples=2) for adata in (whole, found)]
    pd.testing.assert_frame_equal(cells[0].obs, cells[1].obs)
    np.testing.assert_array_equal(cells[0].X, cells[1].X)
    # Nothing was read for good.
    assert hasattr(found.X, "compute") and hasattr(found.obsm["X_pca"], "compute")
    read = found.to_memory()
    np.testing.assert_array_equal(read.obsm["genot"], whole.obsm["genot"])
    np.testing.assert_array_equal(read.obs["genot_uncertainty"], whole.obs["genot_uncertainty"])
    matrices = [one.uns["genot_transitions"]["matrix"] for one in (whole, read)]
    np.testing.assert_array_equal(*map(np.asarray, matrices))


@pytest.mark.parametrize("rep", ["X", "frame", "sparse"])
def test_lazy_representations_of_any_kind(tmp_path, rep):
    whole = make_adata()
    whole.obsm["sparse"] = sp.csr_matrix(whole.obsm["X_pca"])
    found = lazy(whole, tmp_path / "cells.h5ad")
    models = []
    for adata in (whole, found):
        GENOT.setup_anndata(adata, **SETUP | {"source_rep": rep})
        models.append(GENOT(adata, flow_config=SMALL))
    stats = [dict(model.summary_stats) for model in models]
    assert stats[0] == stats[1] and models[0].target_var_names == models[1].target_var_names
    rows = np.array([7, 3, 3, 110])
    np.testing.assert_array_equal(read_representation(found, rep, rows), read_representation(whole, rep, rows))


def test_what_is_not_finite_is_found_in_lazy_data(tmp_path):
    whole = make_adata()
    whole.X[np.flatnonzero(whole.obs["condition"] == "control")[0], 2] = np.nan
    with pytest.raises(ValueError, match="`source_rep`='X' has NaN or inf in 1 of the 60 cells"):
        GENOT.setup_anndata(lazy(whole, tmp_path / "cells.h5ad"), **SETUP | {"source_rep": "X"})


def test_each_chunk_is_read_once_and_only_where_it_is_needed():
    da = pytest.importorskip("dask.array")
    values, read = np.arange(3000.0).reshape(1000, 3), []

    def chunk(block_id=None):
        read.append(block_id[0])
        return values[100 * block_id[0] :][:100]

    stored = da.map_blocks(chunk, chunks=((100,) * 10, (3,)), dtype=values.dtype, meta=values[:0])
    rows = np.r_[250:320, 310:330, 5, 910]
    np.testing.assert_array_equal(dense_rows(stored, rows), values[rows])
    assert len(read) == len(set(read)) == 4


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix])
def test_sparse_rows_of_a_file(tmp_path, make):
    values = sp.random(2500, 40, density=0.1, random_state=0, dtype=np.float32)
    with h5py.File(tmp_path / "values.h5", "w") as file:
        ad.io.write_elem(file, "x", make(values))
        stored = ad.io.sparse_dataset(file["x"])
        # Of several reads, one of which is of nothing.
        rows = np.r_[2400, 3:900:7, 2001, 2400]
        np.testing.assert_array_equal(dense_rows(stored, rows), values.toarray()[rows])


@pytest.mark.parametrize("how", ["backed", "lazy"])
def test_setup_does_not_hold_counts_that_are_in_a_file(tmp_path, how):
    n, genes = 4000, 3000
    counts = sp.random(n, genes, density=0.02, format="csr", dtype=np.float32, random_state=0)
    obs = pd.DataFrame({"side": np.repeat(["a", "b"], n // 2)}, index=[f"c{i}" for i in range(n)])
    adata, path = ad.AnnData(counts, obs=obs), tmp_path / "cells.h5ad"
    found = lazy(adata, path) if how == "lazy" else None
    if found is None:
        adata.write_h5ad(path)
        found = ad.read_h5ad(path, backed="r")
    setup = {"population_key": "side", "source": "a", "target": "b", "source_rep": "X"}
    GENOT.setup_anndata(found, **setup)
    # The counts of one population are 1 MB, sparse; dense they are 24 MB. A chunk of 1000 cells is half an MB.
    assert peak_of(lambda: GENOT.setup_anndata(found, **setup)) < 6e6


def test_results_are_written_into_the_file_that_backs_the_data(tmp_path):
    path, whole = tmp_path / "cells.h5ad", make_adata()
    whole.write_h5ad(path)
    adata = ad.read_h5ad(path, backed="r+")
    model = trained_on(adata)
    scgenot.tl.transport(adata, model, n_samples=2, store_samples=True)
    adata.write_h5ad()
    adata.file.close()
    again = ad.read_h5ad(path)
    assert (again.X != whole.X).nnz == 0
    np.testing.assert_array_equal(
        again.obsm["genot_samples"][model.source_rows(whole)], model.sample(whole, n_samples=2)
    )
    assert again.obs["genot_uncertainty"].notna().sum() == 60


# ---- Transported cells in a file -------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch):
    """Seven cells of four features at once, so that there are many blocks."""
    monkeypatch.setattr("scgenot.tl._transported_cells.rows_per_block", lambda width: 7)


def saved_and_opened(cells, path):
    cells.copy().write_h5ad(path)
    return ad.read_h5ad(path)


@pytest.mark.parametrize("rep", ["X_pca", "X"])
def test_cells_written_in_blocks_are_those_in_memory(tmp_path, small_blocks, monkeypatch, rep):
    adata = make_adata()
    model, before = trained_on(adata, rep), snapshot(adata)
    # Of one cell that is named twice, other samples the second time, whichever block it is in.
    rows = np.r_[model.source_rows(adata)[:30], model.source_rows(adata)[:3]]
    asked = {"n_samples": 3, "indices": rows, "rng": 4}
    held = scgenot.tl.transported_cells(adata, model, **asked)
    sample, drawn = model.sample, []
    monkeypatch.setattr(model, "sample", lambda *a, **o: drawn.append(sample(*a, **o)) or drawn[-1])
    cells = scgenot.tl.transported_cells(adata, model, **asked, file=tmp_path / "cells.h5ad")
    # Of a cell that comes again, its first samples are drawn again.
    assert len(drawn) >= 15 and max(one.shape[0] * one.shape[1] for one in drawn) <= 12 < cells.n_obs == 99
    assert_same(adata, before)
    assert cells.isbacked and [one.name for one in tmp_path.iterdir()] == ["cells.h5ad"]
    pd.testing.assert_frame_equal(cells.obs, saved_and_opened(held, tmp_path / "held.h5ad").obs)
    assert isinstance(cells.X, h5py.Dataset) and all(isinstance(one, h5py.Dataset) for one in cells.obsm.values())
    np.testing.assert_array_equal(cells[5:8].X, held.X[5:8])
    for found in (cells.to_memory(), ad.read_h5ad(tmp_path / "cells.h5ad")):
        np.testing.assert_array_equal(found.X, held.X)
        assert list(found.obsm) == list(held.obsm) == ([] if rep == "X" else [rep])
        for key in held.obsm:
            np.testing.assert_array_equal(found.obsm[key], held.obsm[key])
        assert list(found.var_names) == list(held.var_names)
        assert found.uns["genot"]["params"]["n_samples"] == 3
    # They can be asked about again, as those in memory.
    means = [model.get_transported_mean(one, indices=np.arange(40), n_samples=2) for one in (held, cells)]
    np.testing.assert_array_equal(*means)


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    adata = make_adata()
    model, before = trained_on(adata), snapshot(adata)
    monkeypatch.setattr(model, "sample", lambda *args, **options: pytest.fail("sampled"))
    there, folder = tmp_path / "there.h5ad", tmp_path / "folder.h5ad"
    there.write_bytes(b"of someone else")
    folder.mkdir()
    for file, kind, message in [
        (there, FileExistsError, "`file`='.*there.h5ad' is there already. Remove it first"),
        (folder, FileExistsError, "folder.h5ad' is there already"),
        (
            tmp_path / "none" / "cells.h5ad",
            FileNotFoundError,
            "cannot be written .*Name a file in a folder that is there",
        ),
        (there / "cells.h5ad", NotADirectoryError, "cannot be written"),
        (tmp_path / "cells.zarr", ValueError, r"must end in '\.h5ad'"),
        (3, TypeError, "must be the path of a new .h5ad file, got int"),
    ]:
        with pytest.raises(kind, match=message):
            scgenot.tl.transported_cells(adata, model, file=file)
    assert_same(adata, before)
    assert there.read_bytes() == b"of someone else"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder.h5ad", "there.h5ad"]


def test_what_fails_while_cells_are_written_leaves_no_file(tmp_path, small_blocks, monkeypatch):
    adata = make_adata()
    model, before = trained_on(adata), snapshot(adata)
    sample, calls = model.sample, []

    def failing(*args, **options):
        calls.append(None)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return sample(*args, **options)

    monkeypatch.setattr(model, "sample", failing)
    with pytest.raises(KeyboardInterrupt):
        scgenot.tl.transported_cells(adata, model, file=tmp_path / "cells.h5ad")
    assert len(calls) == 4 and not list(tmp_path.iterdir())
    assert_same(adata, before)
