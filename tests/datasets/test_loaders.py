"""Loaders: what is fetched is checked, kept, and prepared as the shared files are; without a connection one clear error."""

import functools
import http.server
import os
import sys
import threading
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from scgenot import datasets
from scgenot.datasets import _download, _loaders
from scgenot.datasets._download import RemoteFile

SHARED = Path(os.environ.get("SCGENOT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of an empty folder in place of GitHub's; the folder, and the paths that were asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setattr(_download, "SERVER", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setenv("SCGENOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SCGENOT_DATA", raising=False)
    yield folder, asked
    running.shutdown()
    running.server_close()


def serve(folder, one: RemoteFile, content: bytes) -> None:
    path = folder / one.repository / one.commit / one.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def replaced(monkeypatch, name: str, content: bytes) -> RemoteFile:
    import dataclasses
    import hashlib

    one = dataclasses.replace(_loaders.FILES[name], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(_loaders.FILES, name, one)
    return one


def small_snareseq(monkeypatch, folder):
    import io

    file = io.BytesIO()
    np.save(file, np.arange(6.0).reshape(3, 2))
    table = b"Barcode\tCellType\tLabelID\nA\tGM\t2\nB\tBJ\t3\nC\tGM\t2\n"
    for name, content in (("snareseq_rna", file.getvalue()), ("snareseq_cells", table)):
        serve(folder, replaced(monkeypatch, name, content), content)


def test_it_is_fetched_once(server, monkeypatch):
    folder, asked = server
    small_snareseq(monkeypatch, folder)
    adata = datasets.snareseq(progress_bar=False)
    np.testing.assert_array_equal(adata.X, np.arange(6.0).reshape(3, 2))
    assert list(adata.obs_names) == ["A", "B", "C"] and list(adata.obs["cell_type"]) == ["GM", "BJ", "GM"]
    assert list(adata.obs["pair_id"]) == ["p0", "p1", "p2"] and "rsinghlab/SCOT" in adata.uns["source"]
    assert len(asked) == 2
    again = datasets.snareseq(progress_bar=False)
    assert len(asked) == 2
    np.testing.assert_array_equal(again.X, adata.X)


def test_another_file_is_refused_and_not_kept(server, monkeypatch, tmp_path):
    folder, _ = server
    small_snareseq(monkeypatch, folder)
    serve(folder, _loaders.FILES["snareseq_rna"], b"something else")
    with pytest.raises(ValueError, match=r"SNAREseq_rna_feat.npy is not the file that was meant"):
        datasets.snareseq(progress_bar=False)
    assert not list((tmp_path / "cache").glob("*rna*"))


def test_without_a_connection(server, monkeypatch):
    monkeypatch.setattr(_download, "SERVER", "http://127.0.0.1:9")
    with pytest.raises(
        ConnectionError,
        match=r"'Lineage.npy' is not in .* could not be fetched from http://127.0.0.1:9/yuto.*\$SCGENOT_DATA",
    ):
        datasets.larry("2d", progress_bar=False)


def test_a_file_that_is_gone(server):
    with pytest.raises(ConnectionError, match="could not be fetched"):
        datasets.larry("2d", progress_bar=False)


def test_prepared_files_come_first(server, monkeypatch, tmp_path):
    ad.AnnData(np.ones((2, 2), np.float32)).write_h5ad(tmp_path / "larry_2d.h5ad")
    monkeypatch.setenv("SCGENOT_DATA", str(tmp_path))
    assert datasets.larry("2d").shape == (2, 2) and server[1] == []


def test_wrong_modality(plain_calls):
    with pytest.raises(ValueError, match="`modality` must be one of 'rna', 'atac', got 'protein'"):
        datasets.snareseq("protein")
    with pytest.raises(ValueError, match="`modality` must be one of 'rna', 'atac', got 'protein'"):
        datasets.scicar("protein")
    with pytest.raises(ValueError, match="`which` must be one of 'clones', '2d', got '3d'"):
        datasets.larry("3d")


@pytest.mark.parametrize("load", [datasets.scicar, datasets.gbm_panobinostat, datasets.cytof_stimulation])
def test_without_rdata(load, server, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(ImportError, match=r'pip install "scgenot\[datasets\]"'):
        load(progress_bar=False)
    assert server[1] == []


LOADERS = {
    "kang_ifnb_pbmc": (datasets.kang, ("kang",)),
    "larry_2d": (functools.partial(datasets.larry, "2d"), ("larry_2d",)),
    "larry_clonal_subset": (functools.partial(datasets.larry, "clones"), ("larry",)),
    "schiebinger_serum_d10_d11": (datasets.schiebinger, ("schiebinger",)),
    "snareseq_celllines_rna": (functools.partial(datasets.snareseq, "rna"), ("snareseq_rna", "snareseq_cells")),
    "snareseq_celllines_atac": (functools.partial(datasets.snareseq, "atac"), ("snareseq_atac", "snareseq_cells")),
    "scicar_a549_rna": (functools.partial(datasets.scicar, "rna"), ("scicar",)),
    "scicar_a549_atac": (functools.partial(datasets.scicar, "atac"), ("scicar",)),
    "gbm_panobinostat": (datasets.gbm_panobinostat, ("gbm_panobinostat",)),
    "cytof_stim_chi11": (datasets.cytof_stimulation, ("cytof_stimulation",)),
    "drosophila_bdtnp": (datasets.drosophila, ("drosophila_genes", "drosophila_places")),
}


@pytest.mark.data
@pytest.mark.parametrize("name", LOADERS)
def test_the_shared_files_are_reproduced(name, server, monkeypatch):
    """From raw files in ``$SCGENOT_RAW``, as mirrors of the repositories have them."""
    raw, (load, files) = Path(os.environ.get("SCGENOT_RAW", "/nowhere")), LOADERS[name]
    if not (SHARED / f"{name}.h5ad").is_file() or not raw.is_dir():
        pytest.skip("needs the shared file, and the raw files in $SCGENOT_RAW")
    for one in files:
        serve(server[0], _loaders.FILES[one], (raw / Path(_loaders.FILES[one].path).name).read_bytes())
    found, expected = load(progress_bar=False), ad.read_h5ad(SHARED / f"{name}.h5ad")
    dense = lambda x: np.asarray(x.toarray() if hasattr(x, "toarray") else x)
    assert list(found.obs_names) == list(expected.obs_names) and list(found.var_names) == list(expected.var_names)
    assert list(found.obs) == list(expected.obs) and set(found.var) == set(expected.var)
    np.testing.assert_allclose(dense(found.X), dense(expected.X), atol=1e-5)
    assert set(found.uns) == set(expected.uns)
    for slot in ("obsm", "varm", "layers"):
        mine, theirs = getattr(found, slot), getattr(expected, slot)
        assert set(mine) == set(theirs)
        for key in theirs:
            # The logarithms of LARRY's counts are rounded otherwise by other versions of NumPy (5e-7), and components with close
            # variances pass that on: 1.5e-5 of values up to 24.
            atol = 2e-5 if (name, key) == ("larry_clonal_subset", "X_pca") else 1e-5
            # NOT to 1e-5: the file's LSI is a randomised SVD that did not converge, apparently in single precision, and rounding grows.
            # Five variants of the same formula in single precision were all .010 to .020 away (values up to tens); ours, in double, .0131.
            atol = 2e-2 if (name, key) == ("scicar_a549_atac", "X_lsi") else atol
            np.testing.assert_allclose(dense(mine[key]), dense(theirs[key]), atol=atol)
    for table in ("obs", "var"):
        for column in getattr(expected, table):
            mine, theirs = getattr(found, table)[column], getattr(expected, table)[column]
            assert mine.dtype == theirs.dtype
            if theirs.dtype.kind == "f":
                np.testing.assert_allclose(mine, theirs, atol=1e-5)
            else:
                assert list(mine) == list(theirs)
