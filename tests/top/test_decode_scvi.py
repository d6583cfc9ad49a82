"""`scgenot.tl.decode` through a model of scvi-tools: what it would say itself of the same latent cells."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from tests.conftest import SETUP, SMALL, assert_same, snapshot

import scgenot

pytestmark = pytest.mark.filterwarnings("ignore")
GENES = 15


def cells_of(n: int = 80, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(["control", "stimulated"], n // 2))
    rates = rng.gamma(2.0, 2.0, GENES) * np.where((labels == "stimulated")[:, None] & (np.arange(GENES) < 5), 4.0, 1.0)
    size = rng.uniform(0.5, 3.0, (n, 1))
    obs = pd.DataFrame({"condition": pd.Categorical(labels), "patient": rng.choice(["p", "q"], n)})
    obs.index = [f"cell{k}" for k in range(n)]
    adata = ad.AnnData(np.zeros((n, GENES), np.float32), obs=obs)
    adata.var_names = [f"g{k}" for k in range(GENES)]
    adata.layers["counts"] = rng.poisson(rates * size).astype(np.float32)
    return adata


@pytest.fixture(scope="module")
def latent():
    """Cells with the latent space of a small model, the model, and a transport model in it."""
    import scvi

    adata = cells_of()
    own = adata.copy()
    scvi.model.SCVI.setup_anndata(own, layer="counts", batch_key="patient")
    scvi.settings.seed = 0
    vae = scvi.model.SCVI(own, n_latent=4, n_hidden=16)
    vae.train(max_epochs=2, batch_size=40, accelerator="cpu", enable_progress_bar=False, logger=False)
    adata.obsm["X_scVI"] = vae.get_latent_representation()
    adata.obs["patient"] = adata.obs["patient"].astype("category")
    scgenot.GENOT.setup_anndata(adata, **SETUP | {"source_rep": "X_scVI"})
    model = scgenot.GENOT(adata, flow_config=SMALL)
    model.train(max_steps=20, batch_size=64, check_every=20, progress_bar=False)
    return adata, vae, model


def expected(vae, adata, rows, values, *, library_size=1e4, transform_batch=None):
    """What the model's own `get_normalized_expression` says, with the latent cells put in the place of what it encodes."""
    part = adata[rows].copy()
    inference = vae.module.inference

    def placed(*arguments, **named):
        found = inference(*arguments, **named)
        return found | {"z": found["z"].new_tensor(values)}

    vae.module.inference = placed
    try:
        return vae.get_normalized_expression(
            part, library_size=library_size, transform_batch=transform_batch, batch_size=len(rows), return_numpy=True
        )
    finally:
        vae.module.inference = inference


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"library_size": None}, {"library_size": "latent"}),
        ({"transform_batch": "q", "library_size": 1.0}, {"transform_batch": ["q"], "library_size": 1}),
    ],
    ids=["normalized", "counts", "batch"],
)
def test_values_are_those_of_get_normalized_expression(latent, options, theirs):
    adata, vae, model = latent
    before = snapshot(adata)
    decoder = scgenot.tl.SCVIDecoder(vae, log1p=False, **options)
    cells = scgenot.tl.decode(adata, model, decoder=decoder, n_samples=2)
    assert_same(adata, before)
    rows = np.repeat(np.flatnonzero(adata.obs["condition"] == "control"), 2)
    np.testing.assert_allclose(cells.X, expected(vae, adata, rows, cells.obsm["X_scVI"], **theirs), rtol=1e-4)
    if options.get("library_size", 0) is not None:
        np.testing.assert_allclose(cells.X.sum(axis=1), options.get("library_size", 1e4), rtol=1e-4)


def test_the_model_itself_is_a_decoder_and_scanpy_takes_what_it_gives(latent, tmp_path):
    adata, vae, model = latent
    cells = scgenot.tl.decode(adata, model, decoder=vae, include_source=True)
    plain = scgenot.tl.decode(adata, model, decoder=scgenot.tl.SCVIDecoder(vae, log1p=False))
    np.testing.assert_allclose(cells.X[40:], np.log1p(plain.X), rtol=1e-5)
    assert cells.var_names.tolist() == adata.var_names.tolist() and cells.uns["log1p"] == {"base": None}
    cells.write_h5ad(tmp_path / "a.h5ad")
    sc.tl.rank_genes_groups(cells, "condition", reference="control")
    assert cells.uns["genot"]["params"]["decoder"] == "SCVI"
    with pytest.raises(ValueError, match="which SCVI has not"):
        scgenot.tl.decode(adata, model, decoder=vae, residual="source")


def test_responses_compare_decoded_with_decoded(latent):
    adata, vae, model = latent
    table = scgenot.tl.response(adata, model, groupby="patient", decoder=vae, n_samples=3).set_index(["group", "names"])
    del adata.uns["genot_response"]
    cells = scgenot.tl.decode(adata, model, decoder=vae, n_samples=3, include_source=True)
    here = (cells.obs["patient"] == "p").to_numpy()
    moved = (cells.obs["condition"] == "stimulated").to_numpy()
    change = cells.X[here & moved].mean(axis=0) - cells.X[here & ~moved].mean(axis=0)
    np.testing.assert_allclose(table.loc["p"].loc[adata.var_names, "change"], change, atol=1e-4)
    means = []
    for condition in ("stimulated", "control"):
        rows = np.flatnonzero((adata.obs["condition"] == condition) & (adata.obs["patient"] == "p"))
        means.append(np.log1p(expected(vae, adata, rows, adata.obsm["X_scVI"][rows])).mean(axis=0))
    np.testing.assert_allclose(table.loc["p"].loc[adata.var_names, "observed"], means[0] - means[1], atol=1e-4)


def test_wrong_models_are_refused(latent):
    import scvi

    adata, vae, model = latent
    before = snapshot(adata)
    with pytest.raises(ValueError, match="`transform_batch`='r' is no batch.*'p', 'q'"):
        scgenot.tl.decode(adata, model, decoder=scgenot.tl.SCVIDecoder(vae, transform_batch="r"))
    with pytest.raises(ValueError, match="`library_size` must be"):
        scgenot.tl.SCVIDecoder(vae, library_size=0)
    fresh = scvi.model.SCVI(vae.adata, n_latent=4)
    with pytest.raises(RuntimeError, match="SCVI that is not trained"):
        scgenot.tl.decode(adata, model, decoder=fresh)
    wide = scvi.model.SCVI(vae.adata, n_latent=5)
    wide.is_trained_ = True
    with pytest.raises(ValueError, match="has 5 dimensions, but 'X_scVI' has 4"):
        scgenot.tl.decode(adata, model, decoder=wide)
    other = adata[:, :10].copy()
    with pytest.raises(ValueError, match="none that this SCVI can read"):
        scgenot.tl.decode(other, model, decoder=vae)
    assert_same(adata, before)
