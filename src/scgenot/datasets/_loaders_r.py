"""Public data sets that lie in R's files. Prepared as the others are, after `rdata`, an optional dependency, has read them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scgenot._messages import one_of
from scgenot.datasets._download import principal_components
from scgenot.datasets._loaders import FILES, _anndata, _names, _prepared

if TYPE_CHECKING:
    from anndata import AnnData

_HOURS = {0: "control", 1: "DEX_1h", 3: "DEX_3h"}


def scicar(modality: Literal["rna", "atac"] = "rna", *, progress_bar: bool = True) -> AnnData:
    """Load one modality of A549 cells under dexamethasone, measured together (Cao et al. 2018, Science 361:1380; GEO GSE117089).

    2641 cells of sci-CAR after 0, 1 and 3 hours, as scAI has them; ``obs``: ``time`` in hours, ``condition``, ``pair_id``, which names a
    cell in both. RNA: 1185 genes, log-normalised; ``obsm["X_pca"]`` 50 components, ``varm["PCs"]`` and ``var["pca_mean"]`` to go back.
    Chromatin: 4748 peaks open in at least 2 % of cells; ``obsm["X_lsi"]`` components 2 to 51 of TF-IDF of all peaks open in at least
    10 cells (the first follows depth); ``obs["n_peaks"]``. From sqjin/scAI (licence: GPL-3.0; the data are public on GEO).

    Parameters
    ----------
    modality
        Which one.
    progress_bar
        Whether to show one while the file (3 MB) is fetched, once.

    Raises
    ------
    ImportError
        If ``rdata`` is not installed and there is no prepared file.
    ConnectionError, ValueError
        As :func:`kang`; also if `modality` is neither.

    Examples
    --------
    >>> rna, atac = (scgenot.datasets.scicar(name) for name in ("rna", "atac"))  # doctest: +SKIP
    """
    if modality not in ("rna", "atac"):
        raise ValueError(one_of("modality", modality, ("rna", "atac")))
    if (there := _prepared(f"scicar_a549_{modality}")) is not None:
        return there
    raw = _read_r("scicar", progress_bar)["data_A549"]
    matrix = raw["data"][modality.upper()]
    names, cells = matrix.Dimnames
    hours = raw["labels"]["Time"].to_numpy().astype(int)
    told = {
        "time": hours.astype(float),
        "condition": pd.Categorical([_HOURS[hour] for hour in hours]),
        "modality": pd.Categorical([modality] * len(hours)),
        "pair_id": pd.Categorical(_names("p", len(hours))),
    }
    obs, values = pd.DataFrame(told, index=cells.astype(str)), _sparse(matrix)
    if modality == "rna":
        return _with_components(_anndata(values, obs, names, "scicar"), 50)
    present = values > 0
    obs["n_peaks"] = np.asarray(present.sum(axis=1), np.float32).ravel()
    common = np.asarray(present.sum(axis=0)).ravel() >= 0.02 * len(obs)
    found = _anndata(values[:, common], obs, names[common], "scicar")
    found.obsm["X_lsi"] = _latent_semantic(present)
    return found


def gbm_panobinostat(*, progress_bar: bool = True) -> AnnData:
    """Load glioblastoma slices of five patients with and without panobinostat (Zhao et al. 2021, Genome Med 13:82; GEO GSE148842).

    5000 cells and 300 genes, 500 cells for each patient and ``condition`` (ctrl, panobinostat), without cell types; ``X`` log-normalised,
    ``layers["counts"]`` the raw counts; ``obs``: ``patient``, ``sample``, ``treatment``, ``gender``, ``age``, ``location``;
    ``obsm["X_pca"]`` 50 components, ``varm["PCs"]`` and ``var["pca_mean"]`` to go back. From const-ae/lemur (licence: MIT).

    Parameters
    ----------
    progress_bar
        Whether to show one while the file (3 MB) is fetched, once.

    Raises
    ------
    ImportError
        As :func:`scicar`.
    ConnectionError, ValueError
        As :func:`kang`.

    Examples
    --------
    >>> adata = scgenot.datasets.gbm_panobinostat()  # doctest: +SKIP
    """
    if (there := _prepared("gbm_panobinostat")) is not None:
        return there
    raw = _read_r("gbm_panobinostat", progress_bar)["glioblastoma_example_data"]
    cells, genes = raw.colData, raw.rowRanges.elementMetadata.listData
    columns = {
        "condition": "condition", "patient": "patient_id", "sample": "sample_id", "treatment": "treatment",
        "gender": "gender", "age": "age", "location": "location",
    }  # fmt: skip
    told = {new: np.asarray(cells.listData[old]) for new, old in columns.items()}
    told |= {name: pd.Categorical(column.astype(str)) for name, column in told.items() if name != "age"}
    assays = raw.assays.data.listData
    obs = pd.DataFrame(told, index=cells.rownames.astype(str))
    found = _anndata(_sparse(assays["logcounts"]), obs, genes["gene_id"], "gbm_panobinostat")
    found.layers["counts"] = _sparse(assays["counts"])
    found.var["symbol"] = pd.Categorical(genes["symbol"].astype(str))
    # The prepared file was made with this solver; the others end with other signs.
    return _with_components(found, 50, solver="randomized")


def cytof_stimulation(*, progress_bar: bool = True) -> AnnData:
    """Load blood cells of one donor under four stimuli, by mass cytometry (example of HDStIM; Farmer et al. 2023).

    4000 cells, 100 for each ``condition`` (A, G, L, T, control) and ``cell_type`` (eight); 20 markers of type and 10 of state
    (``var["marker_class"]``), arcsinh-transformed; ``obsm["X_pca"]`` 20 components. The repository does not spell the stimuli out; by the
    panel presumably interferon alpha and gamma, LPS and the T cell receptor. From niaid/HDStIM (a work of the US government, in the
    public domain; its LICENSE has NIAID's terms).

    Parameters
    ----------
    progress_bar
        Whether to show one while the file (550 kB) is fetched, once.

    Raises
    ------
    ImportError
        As :func:`scicar`.
    ConnectionError, ValueError
        As :func:`kang`.

    Examples
    --------
    >>> adata = scgenot.datasets.cytof_stimulation()  # doctest: +SKIP
    """
    if (there := _prepared("cytof_stim_chi11")) is not None:
        return there
    raw = _read_r("cytof_stimulation", progress_bar)["chi11"]
    markers = {"type": raw["type_markers"].astype(str), "state": raw["state_markers"].astype(str)}
    table, names = raw["expr_data"], np.concatenate(list(markers.values()))
    stimulus = table["stim_type"].astype(str).replace(dict.fromkeys(raw["unstim_label"].astype(str), "control"))
    told = {
        "condition": stimulus,
        "cell_type": table["merging1"],
        "sample": table["sample_id"],
        "donor": table["patient_id"],
    }
    obs = pd.DataFrame(
        {name: pd.Categorical(np.asarray(column, dtype=object)) for name, column in told.items()},
        index=_names("c", len(table)),
    )
    found = _anndata(table[list(names)].to_numpy(np.float32), obs, names, "cytof_stimulation")
    found.var["marker_class"] = pd.Categorical(np.repeat(list(markers), [len(one) for one in markers.values()]))
    found.obsm["X_pca"] = principal_components(found.X, 20)[0]
    return found


def _read_r(name: str, progress_bar: bool) -> Any:
    """Read a file of R. Objects of classes that `rdata` does not know become namespaces; it warns of each."""
    try:
        import rdata
    except ImportError as error:
        raise ImportError(
            f'`scgenot.datasets.{name}` reads a file of R, which needs rdata. Run `pip install "scgenot[datasets]"`, or set '
            "$SCGENOT_DATA to a folder with the prepared .h5ad file."
        ) from error
    path = FILES[name].fetch(progress_bar)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rdata.read_rda(path)


def _sparse(matrix: Any) -> Any:
    """Cells x features from R's dgCMatrix, which has cells in columns."""
    from scipy.sparse import csc_matrix

    return csc_matrix((matrix.x, matrix.i, matrix.p), shape=tuple(matrix.Dim)).T.tocsr().astype(np.float32)


def _with_components(found: AnnData, count: int, solver: str = "auto") -> AnnData:
    scores, loadings, mean = principal_components(found.X.toarray(), count, solver)
    found.var["pca_mean"], found.varm["PCs"], found.obsm["X_pca"] = mean, loadings, scores
    return found


def _latent_semantic(present: Any, count: int = 50, fewest: int = 10) -> np.ndarray:
    """Components 2 to count + 1 of log(1 + 10^4 TF-IDF) of the peaks open in at least `fewest` cells; TF is of all peaks.

    With scikit-learn's five iterations the randomised SVD has not converged; more of them give other components than the prepared file
    has, which this reproduces to about .01 only: probably that was made in single precision.
    """
    from scipy.sparse import diags
    from sklearn.decomposition import TruncatedSVD

    present = present.astype(np.float64)
    opened, depth = (np.asarray(present.sum(axis=axis)).ravel() for axis in (0, 1))
    kept = opened >= fewest
    weights = np.log1p(len(depth) / opened[kept])
    values = (1e4 * diags(1 / depth) @ present[:, kept] @ diags(weights)).tocsr().log1p()
    return TruncatedSVD(count + 1, random_state=0).fit_transform(values)[:, 1:].astype(np.float32)
