"""Public data sets, prepared as this package's examples use them. AnnData is imported when one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scgenot._messages import one_of
from scgenot.datasets._download import RemoteFile, prepared_file, principal_components

if TYPE_CHECKING:
    from anndata import AnnData

_SCOT = ("rsinghlab/SCOT", "14649be6e14017dcfe7ba619091b33d1df55f6a9")
_BDTNP = ("rajewsky-lab/novosparc", "a3c9f3d76e59c7a601cfcd0e211630e2458d79a3")
FILES = {
    "kang": RemoteFile(
        "theislab/scgen",
        "dd7e178f9b42b9dfef9eb18d0da4b8e3caea4cf7",
        "data/valid.h5ad",
        "83f89f5356a4c01f65bbcee225eb45d8d8b13b6c962724431a26c1bf568ff09e",
    ),  # fmt: skip
    "larry": RemoteFile(
        "AllonKleinLab/cospar",
        "ca54cad8a9db9a72152ba8a8b6d67d57eace4acb",
        "tests/data/test_adata_preprocessed.h5ad",
        "3c9a5d728f402ff2b87cfecb3cd6639a7fa342fe3a7d44ad57ac526a5ef674af",
    ),  # fmt: skip
    "larry_2d": RemoteFile(
        "yutongo/TIGON",
        "1ed92cfcc250415fc01b4d344a308b0680cc9635",
        "Input/Lineage.npy",
        "b963f114d2d215767f88aa4daf15d591941502d40961308ecd4cc66682c86607",
    ),  # fmt: skip
    "schiebinger": RemoteFile(
        "theislab/moscot",
        "478af4cd95e148207ecf8fc85b5bfdc673158b9d",
        "tests/data/moscot_temporal_tests.h5ad",
        "8f1c763f31a399e7cb10232cc99f9a07a5e877c1f2c294d8d738438b078733a4",
    ),  # fmt: skip
    "snareseq_atac": RemoteFile(
        *_SCOT, "data/SNARE/SNAREseq_atac_feat.npy", "80d685b6517c100a7fd612846ad38209b64ed9caf095d1630af5a1d7797bd79c"
    ),  # fmt: skip
    "snareseq_rna": RemoteFile(
        *_SCOT, "data/SNARE/SNAREseq_rna_feat.npy", "a8a2c2bbfc036dea5b350d01dd2180b93bb3b1c0008bed49493080348da96a9b"
    ),  # fmt: skip
    "snareseq_cells": RemoteFile(
        *_SCOT, "data/SNARE/SNAREseq_metadata.txt", "4bfd15c9205ff47e4d37bb0f9d7a9efbe9131b6f660a80f8ad22fccb61c87562"
    ),  # fmt: skip
    "drosophila_genes": RemoteFile(
        *_BDTNP, "novosparc/datasets/bdtnp/dge.txt", "54f92f3e20e392f23b39b87d5b8d19a2158fed761f1ce7a0a5b7fb4ec176d388"
    ),  # fmt: skip
    "drosophila_places": RemoteFile(
        *_BDTNP,
        "novosparc/datasets/bdtnp/geometry.txt",
        "7db4e560581020bf647df915d39941f8ec3d472c351883aeff836d7aa6069762",
    ),  # fmt: skip
    "scicar": RemoteFile(
        "sqjin/scAI",
        "9bd4bdbe9daa15399d2b49eb376cabaf40aa07ca",
        "data/data_A549.rda",
        "b5cceb564496c92bf037d01ff15cbde56beecf702e3370189f26603be33197f6",
    ),  # fmt: skip
    "gbm_panobinostat": RemoteFile(
        "const-ae/lemur",
        "0e62bc1287b17deec678f7db435ec09098a475f2",
        "data/glioblastoma_example_data.rda",
        "4e56d9cff16fb6750dd0054a0f7f05a7429c612906dc610c8dd44cb3e60de37e",
    ),  # fmt: skip
    "cytof_stimulation": RemoteFile(
        "niaid/HDStIM",
        "b42e3d83871fe6077362e5a36ab065360a25184e",
        "data/chi11.rda",
        "20951c412a5814e7d169b5b1a0d4b8aac348799cc77aa05b068be931cffb9b1b",
    ),  # fmt: skip
}
_FEWEST_CELLS = 5
_KANG_GENES, _COMPONENTS = 2000, 50


def kang(*, progress_bar: bool = True) -> AnnData:
    """Load blood cells before and after interferon beta (Kang et al. 2018, Nat Biotechnol 36:89; GEO GSE96583).

    The validation split of scGen's file, 1975 cells and 5520 genes seen in at least 5 of them; ``obs``: ``condition`` (control,
    stimulated), ``cell_type``; ``X`` log-normalised; ``obsm["X_pca"]`` 50 components of 2000 variable genes, ``varm["PCs"]`` and
    ``var["pca_mean"]`` to go back. From theislab/scgen (licence of the repository: GPL-3.0; the data are public on GEO).

    Parameters
    ----------
    progress_bar
        Whether to show one while the file (2 MB) is fetched, once.

    Raises
    ------
    ConnectionError
        If the file is not in the cache and cannot be fetched; the message says what to do.
    ValueError
        If what was fetched is not the file that was meant.

    Examples
    --------
    >>> adata = scgenot.datasets.kang()  # doctest: +SKIP
    """
    if (there := _prepared("kang_ifnb_pbmc")) is not None:
        return there
    import scanpy as sc

    raw = _read("kang", progress_bar)
    adata = raw[:, np.asarray((raw.X > 0).sum(axis=0)).ravel() >= _FEWEST_CELLS].copy()
    variable = sc.pp.highly_variable_genes(adata, n_top_genes=_KANG_GENES, inplace=False)["highly_variable"].to_numpy()
    scores, loadings, mean = principal_components(adata[:, variable].X.toarray(), _COMPONENTS)
    columns = ["condition", "cell_type", "n_counts", "n_genes"]
    found = _anndata(adata.X, adata.obs[columns], adata.var_names, "kang")
    found.obs_names.name = None
    found.var["highly_variable"], found.var["pca_mean"] = variable, np.float32(0)
    found.var.loc[variable, "pca_mean"] = mean
    found.varm["PCs"] = np.zeros((found.n_vars, _COMPONENTS), np.float32)
    found.varm["PCs"][variable] = loadings
    found.obsm["X_pca"] = scores
    return found


def larry(which: Literal["clones", "2d"] = "clones", *, progress_bar: bool = True) -> AnnData:
    """Load blood formation on days 2, 4 and 6 (Weinreb et al. 2020, Science 367:eaaw3381; GEO GSE140802).

    Parameters
    ----------
    which
        ``"clones"``: 781 cells and 2481 genes, log-normalised, of CoSpar's tests; ``obs``: ``time`` in days, ``cell_type``, ``clone``
        (one a cell); ``obsm["X_pca"]`` 50 components. From AllonKleinLab/cospar (licence: MIT). ``"2d"``: 10,998 cells in two
        dimensions, as TIGON has them (Sha et al. 2023), without clones and genes. From yutongo/TIGON (licence: MIT).
    progress_bar
        Whether to show one while the file (1.5 MB, 176 kB) is fetched, once.

    Raises
    ------
    ConnectionError, ValueError
        As :func:`kang`; also if `which` is neither.

    Examples
    --------
    >>> adata = scgenot.datasets.larry()  # doctest: +SKIP
    """
    if which not in ("clones", "2d"):
        raise ValueError(one_of("which", which, ("clones", "2d")))
    if (there := _prepared({"clones": "larry_clonal_subset", "2d": "larry_2d"}[which])) is not None:
        return there
    return _larry_clones(progress_bar) if which == "clones" else _larry_2d(progress_bar)


def _larry_clones(progress_bar: bool) -> AnnData:
    raw = _read("larry", progress_bar)
    values = raw.X.log1p()
    told = {
        "time": raw.obs["time_info"].astype(str).astype(float),
        "cell_type": raw.obs["state_info"],
        "clone": np.asarray(raw.obsm["X_clone"].argmax(axis=1)).ravel().astype(np.int32),
        "n_counts": raw.obs["n_counts"],
    }
    found = _anndata(values, pd.DataFrame(told, index=raw.obs_names), raw.var_names, "larry")
    found.var["highly_variable"] = raw.var["highly_variable"].to_numpy()
    found.obsm["X_emb"] = raw.obsm["X_emb"].astype(np.float32)
    found.obsm["X_pca"] = principal_components(values.toarray(), _COMPONENTS)[0]
    found.obsm["X_pca_shipped"] = raw.obsm["X_pca"].astype(np.float32)
    return found


def _larry_2d(progress_bar: bool) -> AnnData:
    # Three arrays of unequal length make a pickle. The checksum says that it is the one that was looked at.
    days = np.ravel(np.load(FILES["larry_2d"].fetch(progress_bar), allow_pickle=True))
    cells = np.concatenate(list(days)).astype(np.float32)
    index = np.repeat(np.arange(3), [len(day) for day in days])
    obs = pd.DataFrame({"time": np.array([2.0, 4.0, 6.0])[index], "time_index": index}, index=_names("c", len(cells)))
    found = _anndata(cells, obs, ["0", "1"], "larry_2d")
    found.obsm["X_emb"] = cells.copy()
    return found


def schiebinger(*, progress_bar: bool = True) -> AnnData:
    """Load reprogramming of fibroblasts in serum, days 10, 10.5 and 11 (Schiebinger et al. 2019, Cell 176:928; GEO GSE122662).

    1000 cells and 1479 variable genes, log-normalised; ``obs``: ``time``, ``cell_type``, ``batch``; ``obsm["X_pca"]`` with
    ``varm["PCs"]`` and ``var["pca_mean"]``. From the tests of theislab/moscot (licence: BSD-3-Clause).

    Parameters
    ----------
    progress_bar
        Whether to show one while the file (3 MB) is fetched, once.

    Raises
    ------
    ConnectionError, ValueError
        As :func:`kang`.

    Examples
    --------
    >>> adata = scgenot.datasets.schiebinger()  # doctest: +SKIP
    """
    if (there := _prepared("schiebinger_serum_d10_d11")) is not None:
        return there
    raw = _read("schiebinger", progress_bar)
    values = raw.X.toarray() if hasattr(raw.X, "toarray") else np.asarray(raw.X)
    scores, loadings, mean = principal_components(values, _COMPONENTS)
    obs = raw.obs.rename(columns={"day": "time"})
    obs["time"], obs["batch"] = obs["time"].astype(float), pd.Categorical(obs["batch"].astype(str))
    found = _anndata(raw.X, obs[["time", "cell_type", "batch"]], raw.var_names, "schiebinger")
    found.obs_names.name = None
    found.var["pca_mean"], found.varm["PCs"], found.obsm["X_pca"] = mean, loadings, scores
    return found


def snareseq(modality: Literal["rna", "atac"] = "rna", *, progress_bar: bool = True) -> AnnData:
    """Load one modality of four cell lines, measured together (Chen, Lake and Zhang 2019, Nat Biotechnol 37:1452; GEO GSE126074).

    1047 cells as SCOT prepared them: 10 components of RNA, or 19 topics of chromatin, in ``X``. ``obs["pair_id"]`` names a cell in both.
    From rsinghlab/SCOT (licence: MIT).

    Parameters
    ----------
    modality
        Which one.
    progress_bar
        Whether to show one while the files (180 kB) are fetched, once.

    Raises
    ------
    ConnectionError, ValueError
        As :func:`kang`; also if `modality` is neither.

    Examples
    --------
    >>> rna, atac = (scgenot.datasets.snareseq(name) for name in ("rna", "atac"))  # doctest: +SKIP
    """
    if modality not in ("rna", "atac"):
        raise ValueError(one_of("modality", modality, ("rna", "atac")))
    if (there := _prepared(f"snareseq_celllines_{modality}")) is not None:
        return there
    values = np.load(FILES[f"snareseq_{modality}"].fetch(progress_bar), allow_pickle=False).astype(np.float32)
    cells = pd.read_csv(FILES["snareseq_cells"].fetch(progress_bar), sep="\t")
    told = {
        "cell_type": pd.Categorical(cells["CellType"].to_numpy()),
        "modality": pd.Categorical([modality] * len(cells)),
        "pair_id": pd.Categorical(_names("p", len(cells))),
    }
    obs = pd.DataFrame(told, index=cells["Barcode"].astype(str).to_numpy())
    return _anndata(values, obs, _names("", values.shape[1]), f"snareseq_{modality}")


def drosophila(*, progress_bar: bool = True) -> AnnData:
    """Load a fruit fly embryo: genes and places of the same cells (BDTNP: Fowlkes et al. 2008, Cell 133:364).

    One half of a stage 5 embryo, 3039 cells and 84 marker genes scaled to [0, 1], as novoSpaRc has them (Nitzan et al. 2019);
    ``obsm["spatial"]`` in micrometres, ``obsm["X_pca"]`` 30 components. From rajewsky-lab/novosparc (licence: BSD-3-Clause).

    Parameters
    ----------
    progress_bar
        Whether to show one while the files (2.4 MB) are fetched, once.

    Raises
    ------
    ConnectionError, ValueError
        As :func:`kang`.

    Examples
    --------
    >>> adata = scgenot.datasets.drosophila()  # doctest: +SKIP
    """
    if (there := _prepared("drosophila_bdtnp")) is not None:
        return there
    genes = pd.read_csv(FILES["drosophila_genes"].fetch(progress_bar), sep="\t")
    places = pd.read_csv(FILES["drosophila_places"].fetch(progress_bar), sep=r"\s+")
    values = genes.to_numpy(np.float32)
    obs = pd.DataFrame({"pair_id": pd.Categorical(_names("p", len(values)))}, index=_names("c", len(values)))
    found = _anndata(values, obs, genes.columns, "drosophila_genes")
    # The second half of the places is the mirror image.
    found.obsm["spatial"] = places.to_numpy(np.float32)[: len(values)]
    # Of the numbers in single precision, as they are in X.
    found.obsm["X_pca"] = principal_components(values, 30)[0]
    return found


def _prepared(name: str) -> AnnData | None:
    path = prepared_file(name)
    if path is None:
        return None
    from anndata import read_h5ad

    return read_h5ad(path)


def _read(name: str, progress_bar: bool) -> AnnData:
    from anndata import read_h5ad

    return read_h5ad(FILES[name].fetch(progress_bar))


def _anndata(values: Any, obs: pd.DataFrame, names: Any, file: str) -> AnnData:
    from anndata import AnnData

    told = FILES[file]
    found = AnnData(values, obs=obs.copy(), var=pd.DataFrame(index=pd.Index(names).astype(str)))
    found.uns["source"] = (
        f"github:{told.repository} {told.path} @{told.commit[:8]}; see the docstring of the loader for paper and licence"
    )
    return found


def _names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]
