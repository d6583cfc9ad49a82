"""`scgenot.tl.decode`: back to genes, exactly where nothing was lost, and a refusal where it would be other genes."""

import copy

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.decomposition import PCA
from tests.conftest import assert_same, make_adata, snapshot
from tests.model.modalities import FEW, build, make_mdata

import scgenot

GENES = 12


def in_genes(seed: int = 0, *, noise: float = 0.0, mask: bool = False, scaled: bool = False) -> ad.AnnData:
    """Cells of :func:`make_adata` whose genes are linear in three factors, so that three components hold all; scanpy's PCA."""
    adata = make_adata(seed=seed)
    rng = np.random.default_rng(7)
    factors = adata.obsm["X_pca"].astype(np.float64)
    x = factors @ rng.normal(size=(3, GENES)) + rng.uniform(3, 9, GENES) + noise * rng.normal(size=(adata.n_obs, GENES))
    found = ad.AnnData(x.astype(np.float32), obs=adata.obs)
    found.var_names = [f"g{k}" for k in range(GENES)]
    found.var["symbol"] = [f"s{k}" for k in range(GENES)]
    found.var["highly_variable"] = np.arange(GENES) % 3 != 1 if mask else True
    if scaled:
        found.layers["scaled"] = sc.pp.scale(found, copy=True).X
        found.var["mean"], found.var["std"] = x.mean(axis=0), x.std(axis=0, ddof=1)
    sc.pp.pca(found, n_comps=3, layer="scaled" if scaled else None)
    del found.uns["pca"]
    return found


@pytest.fixture(scope="module")
def taught(trained):
    """The shared model, which takes any three components."""
    return trained


def exact(adata: ad.AnnData, values: np.ndarray) -> np.ndarray:
    """Genes of components by least squares on the cells themselves: another way to the same answer."""
    design = np.column_stack([adata.obsm["X_pca"], np.ones(adata.n_obs)])
    weights = np.linalg.lstsq(design.astype(np.float64), np.asarray(adata.X, np.float64), rcond=None)[0]
    return np.column_stack([values, np.ones(len(values))]) @ weights


def test_exact_components_decode_exactly(taught):
    adata = in_genes()
    before = snapshot(adata)
    cells = scgenot.tl.decode(adata, taught, n_samples=2, rng=3, include_source=True)
    assert_same(adata, before)
    moved = scgenot.tl.transported_cells(adata, taught, n_samples=2, rng=3)
    assert cells.shape == (60 + 120, GENES)
    control = (adata.obs["condition"] == "control").to_numpy()
    np.testing.assert_allclose(cells.X[:60], adata.X[control], atol=2e-4)
    np.testing.assert_allclose(cells.X[60:], exact(adata, moved.X), atol=1e-3)
    np.testing.assert_array_equal(cells.obsm["X_pca"][60:], moved.X)
    assert cells.obs["condition"].tolist() == ["control"] * 60 + ["stimulated"] * 120
    assert isinstance(cells.obs["condition"].dtype, pd.CategoricalDtype)
    assert cells.obs_names[60:].tolist() == moved.obs_names.tolist()
    assert cells.obs["source_cell"].iloc[:60].tolist() == adata.obs_names[control].tolist()
    assert cells.var["symbol"].tolist() == adata.var["symbol"].tolist()
    assert cells.uns["genot"]["params"]["decoder"] == "PCs"


def test_scanpy_ranks_genes_of_decoded_cells(taught, tmp_path):
    adata = in_genes(noise=0.1)
    adata.uns["log1p"] = {"base": 2.0}
    cells = scgenot.tl.decode(adata, taught, include_source=True)
    assert cells.uns["log1p"] == {"base": 2.0}
    cells.write_h5ad(tmp_path / "genes.h5ad")
    cells = ad.read_h5ad(tmp_path / "genes.h5ad")
    sc.tl.rank_genes_groups(cells, "condition", reference="control")
    frame = sc.get.rank_genes_groups_df(cells, "stimulated")
    change = (cells[cells.obs["condition"] == "stimulated"].X - cells[cells.obs["condition"] == "control"].X).mean(0)
    top = frame.iloc[0]
    assert top["scores"] > 0 and change[cells.var_names.get_loc(top["names"])] > 0


@pytest.mark.parametrize("kind", ["csr", "csc", "frame"])
def test_stored_matrices_of_any_kind(taught, kind):
    adata = in_genes(noise=0.3)
    expected = scgenot.tl.decode(adata, taught).X
    if kind == "frame":
        adata.obsm["X_pca"] = pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names)
    else:
        adata.X = getattr(sp, f"{kind}_matrix")(adata.X)
    np.testing.assert_allclose(scgenot.tl.decode(adata, taught).X, expected, rtol=1e-5, atol=1e-5)


def test_genes_outside_the_mask_are_left_out(taught):
    adata = in_genes(mask=True)
    cells = scgenot.tl.decode(adata, taught)
    seen = adata.var["highly_variable"].to_numpy()
    assert cells.var_names.tolist() == adata.var_names[seen].tolist()
    moved = scgenot.tl.transported_cells(adata, taught)
    np.testing.assert_allclose(cells.X, exact(adata, moved.X)[:, seen], atol=1e-3)


def test_means_are_those_of_the_cells_at_hand_and_of_the_reference(taught):
    whole = in_genes(noise=1.0)
    some = whole[whole.obs["donor"] == "a"].copy()
    # The loadings are right for a part of the cells as well, though their means are other ones.
    here = scgenot.tl.decode(some, taught)
    there = scgenot.tl.decode(some, taught, decoder=scgenot.tl.PCDecoder(reference=whole))
    moved = here.obsm["X_pca"]
    full = whole.X.mean(axis=0) + (moved - whole.obsm["X_pca"].mean(axis=0)) @ whole.varm["PCs"].T
    np.testing.assert_allclose(there.X, full, atol=1e-4)
    assert np.abs(here.X - there.X).max() > 0.01
    # Within the components both say the same.
    np.testing.assert_allclose(here.X @ whole.varm["PCs"], there.X @ whole.varm["PCs"], atol=1e-3)


def test_uncentred_components(taught):
    adata = in_genes()
    adata.X = adata.X - adata.X.mean(axis=0) + 1.0
    sc.pp.pca(adata, n_comps=4, zero_center=False)
    adata.obsm["X_pca"] = adata.obsm["X_pca"][:, :3]
    cells = scgenot.tl.decode(adata, taught)
    loadings = adata.varm["PCs"][:, :3]
    np.testing.assert_allclose(cells.X @ loadings, cells.obsm["X_pca"], atol=1e-3)


def test_scaled_data(taught):
    adata = in_genes(scaled=True)
    with pytest.raises(ValueError, match=r"not the loadings of 'X_pca'.*PCDecoder\(layer"):
        scgenot.tl.decode(adata, taught)
    cells = scgenot.tl.decode(adata, taught, decoder=scgenot.tl.PCDecoder(layer="scaled"))
    back = scgenot.tl.decode(adata, taught, decoder=scgenot.tl.PCDecoder(layer="scaled", unscale=True))
    moved = scgenot.tl.transported_cells(adata, taught)
    np.testing.assert_allclose(back.X, exact(adata, moved.X), atol=2e-3)
    np.testing.assert_allclose(cells.X, (back.X - adata.X.mean(axis=0)) / adata.X.std(axis=0, ddof=1), atol=2e-3)
    del adata.var["std"]
    with pytest.raises(KeyError, match="'std' is missing"):
        scgenot.tl.decode(adata, taught, decoder=scgenot.tl.PCDecoder(layer="scaled", unscale=True))


def wrong_components(adata):
    adata.varm["PCs"] = np.linalg.qr(np.random.default_rng(0).normal(size=(GENES, 3)))[0]


def turned(adata):
    adata.obsm["X_pca"] = adata.obsm["X_pca"] * np.array([1, -1, 1], np.float32)


def none_at_all(adata):
    del adata.varm["PCs"]


def too_few(adata):
    adata.varm["PCs"] = adata.varm["PCs"][:, :2]


def zero(adata):
    adata.varm["PCs"] = np.zeros((GENES, 3))


def no_genes(adata):
    adata.X = None


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (wrong_components, ValueError, r"not the loadings of 'X_pca': X @ PCs misses it by \d+ % .*allowed: 10 %"),
        (turned, ValueError, "not the loadings of 'X_pca'"),
        (none_at_all, KeyError, r"`loadings`='PCs' is no key of adata.varm.*sc.pp.pca"),
        (too_few, ValueError, r"shape \(12, 2\), but 'X_pca' has 3 features"),
        (zero, ValueError, "nothing but 0"),
        (no_genes, KeyError, "adata.X is None"),
    ],
)
def test_components_of_other_data_are_refused(taught, monkeypatch, spoil, error, message):
    adata = in_genes()
    spoil(adata)
    before = snapshot(adata)
    # Before anything is drawn.
    monkeypatch.setattr(type(taught), "sample", None)
    with pytest.raises(error, match=message):
        scgenot.tl.decode(adata, taught)
    assert_same(adata, before)


def test_a_fitted_pca_of_scikit_learn_decodes_as_loadings_do(taught):
    adata = in_genes(noise=0.5)
    pca = PCA(3).fit(adata.X)
    adata.obsm["X_pca"] = pca.transform(adata.X).astype(np.float32)
    adata.varm["PCs"] = pca.components_.T
    ours = scgenot.tl.decode(adata, taught)
    theirs = scgenot.tl.decode(adata, taught, decoder=pca)
    np.testing.assert_allclose(ours.X, theirs.X, atol=1e-4)
    np.testing.assert_allclose(theirs.X, pca.inverse_transform(theirs.obsm["X_pca"]), rtol=1e-5)
    with_residual = [scgenot.tl.decode(adata, taught, decoder=one, residual="source").X for one in (None, pca)]
    np.testing.assert_allclose(*with_residual, atol=1e-4)


def test_a_transform_names_its_genes_or_is_asked_to(taught):
    adata = in_genes()
    names = [f"h{k}" for k in range(5)]
    pca = PCA(3).fit(pd.DataFrame(adata.X[:, :5], columns=names))
    assert scgenot.tl.decode(adata, taught, decoder=pca).var_names.tolist() == names
    unnamed = PCA(3).fit(adata.X[:, :5])
    with pytest.raises(ValueError, match=r"gives 5 features, got none of their names \(adata has 12 genes\)"):
        scgenot.tl.decode(adata, taught, decoder=unnamed)
    decoder = scgenot.tl.TransformDecoder(unnamed, genes=list("abcde"))
    assert scgenot.tl.decode(adata, taught, decoder=decoder).var_names.tolist() == list("abcde")
    with pytest.raises(ValueError, match="has not in this adata"):
        scgenot.tl.decode(adata, taught, decoder=decoder, residual="source")
    with pytest.raises(ValueError, match="cannot decode the 3 features of 'X_pca'"):
        scgenot.tl.decode(adata, taught, decoder=PCA(2).fit(adata.X))
    with pytest.raises(ValueError, match="cannot decode"):
        scgenot.tl.decode(adata, taught, decoder=PCA(3))
    with pytest.raises(TypeError, match="`decoder` must be None.*got int"):
        scgenot.tl.decode(adata, taught, decoder=3)


def test_what_components_lost_is_given_back(taught):
    adata = in_genes(noise=0.5)
    plain = scgenot.tl.decode(adata, taught, n_samples=2, include_source=True)
    full = scgenot.tl.decode(adata, taught, n_samples=2, include_source=True, residual="source")
    control = (adata.obs["condition"] == "control").to_numpy()
    np.testing.assert_allclose(full.X[:60], adata.X[control], atol=1e-5)
    lost = adata.X[control] - plain.X[:60]
    np.testing.assert_allclose(full.X[60:], plain.X[60:] + np.repeat(lost, 2, axis=0), atol=1e-4)
    # Changes are the same.
    change = lambda cells: cells.X[60:].mean(axis=0) - cells.X[:60].mean(axis=0)
    np.testing.assert_allclose(change(full), change(plain), atol=1e-4)
    assert (full.X.var(axis=0) > plain.X.var(axis=0)).all()


@pytest.mark.parametrize("stored", [False, True], ids=["means", "samples"])
def test_results_are_decoded_without_the_model(taught, tmp_path, stored):
    adata = in_genes(noise=0.5)
    scgenot.tl.transport(adata, taught, n_samples=4, store_samples=stored)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    found = scgenot.tl.decode(again, "genot", n_samples=3 if stored else 1)
    if stored:
        expected = scgenot.tl.decode(adata, taught, n_samples=4)
        expected = expected[np.arange(expected.n_obs) % 4 < 3]
    else:
        expected = scgenot.tl.decode(adata, taught)
        control = (adata.obs["condition"] == "control").to_numpy()
        expected.X = exact_of(adata, adata.obsm["genot"][control])
    np.testing.assert_allclose(found.X, expected.X, atol=1e-4)
    assert found.obs_names.tolist() == expected.obs_names.tolist()
    assert found.obs["condition"].tolist() == ["stimulated"] * found.n_obs
    with pytest.raises(
        ValueError, match=r"`n_samples`=5, but the result 'genot' has " + ("4" if stored else "1; only means")
    ):
        scgenot.tl.decode(again, "genot", n_samples=5)


def exact_of(adata, values):
    loadings = adata.varm["PCs"]
    return adata.X.mean(axis=0) + (values - adata.obsm["X_pca"].mean(axis=0)) @ loadings.T


def test_wrong_keys_and_options_get_an_answer(taught):
    adata = in_genes()
    scgenot.tl.transport(adata, taught, n_samples=2)
    before = snapshot(adata)
    with pytest.raises(KeyError, match="no result of that name.*Did you mean 'genot'"):
        scgenot.tl.decode(adata, "genott")
    with pytest.raises(ValueError, match="'indices', 'weight_by_growth' cannot be chosen"):
        scgenot.tl.decode(adata, "genot", indices=[1], weight_by_growth=True)
    with pytest.raises(ValueError, match="`residual` must be one of 'None', 'source', got 'target'"):
        scgenot.tl.decode(adata, "genot", residual="target")
    with pytest.raises(TypeError, match="must be an AnnData or a MuData"):
        scgenot.tl.decode(adata.obs, "genot")
    assert_same(adata, before)
    adata.obsm["genot"][:] = np.nan
    with pytest.raises(ValueError, match="no transported cells"):
        scgenot.tl.decode(adata, "genot")


@pytest.fixture(scope="module")
def across():
    mdata = make_mdata()
    rna = mdata["rna"]
    rna.X = (rna.obsm["X_pca"] @ np.random.default_rng(1).normal(size=(2, 5)) + 4).astype(np.float32)
    sc.pp.pca(rna, n_comps=2)
    model = build(mdata)
    model.train(**FEW)
    return mdata, model


def test_from_one_modality_to_genes_of_the_other(across):
    mdata, model = across
    cells = scgenot.tl.decode(mdata, model)
    assert cells.shape == (60, 5) and cells.var_names.tolist() == mdata["rna"].var_names.tolist()
    moved = scgenot.tl.transported_cells(mdata, model).X
    np.testing.assert_allclose(cells.X, exact(mdata["rna"], moved), atol=1e-3)
    written = scgenot.tl.transport(mdata, model, n_samples=3, store_samples=True, copy=True)
    np.testing.assert_allclose(scgenot.tl.decode(written, "genot", n_samples=3).X[::3], cells.X, atol=1e-4)
    with pytest.raises(ValueError, match="need source cells in the space that is decoded"):
        scgenot.tl.decode(mdata, model, residual="source")
    with pytest.raises(ValueError, match="lies in the space of the modality 'rna'.*Pass the MuData"):
        scgenot.tl.decode(written["atac"], "genot")


def test_an_untrained_model_and_genes_themselves(taught):
    adata = in_genes()
    fresh = copy.copy(taught)
    fresh.is_trained_ = False
    with pytest.raises(RuntimeError, match="not trained"):
        scgenot.tl.decode(adata, fresh)
