"""Small two-modality data for tests."""

import anndata as ad
import mudata
import numpy as np
import pandas as pd
from tests.conftest import BRIEF, SMALL

SETUP = {"source_modality": "atac", "target_modality": "rna", "source_rep": "X_lsi", "target_rep": "X_pca"}
FEW = BRIEF | {"max_steps": 20}


def make_mdata(n_atac: int = 60, n_rna: int = 50, *, paired: bool = False, seed: int = 0) -> mudata.MuData:
    """ATAC cells in three dimensions and RNA cells in two, from one pair of factors; some or all names agree."""
    rng = np.random.default_rng(seed)
    n_rna = n_atac if paired else n_rna
    scales = np.array([2.0, 1.0], np.float32)
    factors = {"atac": rng.normal(size=(n_atac, 2)).astype(np.float32) * scales}
    factors["rna"] = factors["atac"] if paired else rng.normal(size=(n_rna, 2)).astype(np.float32) * scales
    modalities = {}
    for name, hidden in factors.items():
        n = len(hidden)
        label = np.where(hidden[:, 0] > 0, "up", "down")
        names = [f"cell{i}" for i in range(n)] if paired else [f"{name}{i}" for i in range(n)]
        obs = pd.DataFrame({"kind": pd.Categorical(label), "mass": rng.uniform(0.5, 2.0, n)}, index=names)
        obs["half"] = np.where(np.arange(n) % 2, "odd", "even")
        obs["partner"] = [f"p{i}" if i < 20 else None for i in range(n)]
        adata = ad.AnnData(rng.poisson(1.0, (n, 5)).astype(np.float32), obs=obs)
        adata.var_names = [f"{name}_feature{k}" for k in range(5)]
        adata.obsm["X_shared"] = hidden[:, :1] + rng.normal(scale=0.1, size=(n, 1)).astype(np.float32)
        adata.obsm["X_lsi" if name == "atac" else "X_pca"] = (
            np.concatenate([hidden, rng.normal(scale=0.1, size=(n, 1)).astype(np.float32)], axis=1)
            if name == "atac"
            else hidden @ np.array([[0.6, 0.8], [-0.8, 0.6]], np.float32)
        )
        rep = adata.obsm["X_lsi" if name == "atac" else "X_pca"]
        adata.obsp["far"] = np.linalg.norm(rep[:, None] - rep[None], axis=-1)
        modalities[name] = adata
    mdata = mudata.MuData(modalities)
    mdata.obs["batch"] = [f"b{i % 2}" for i in range(mdata.n_obs)]
    return mdata


def as_one_anndata(mdata: mudata.MuData) -> ad.AnnData:
    """Both modalities below each other, each with its own slot, NaN elsewhere."""
    n = {name: modality.n_obs for name, modality in mdata.mod.items()}
    whole = ad.AnnData(obs=pd.concat([mdata[name].obs.assign(assay=name) for name in mdata.mod]))
    for name, rep in (("atac", "X_lsi"), ("rna", "X_pca")):
        values = np.full((whole.n_obs, mdata[name].obsm[rep].shape[1]), np.nan, np.float32)
        values[(whole.obs["assay"] == name).to_numpy()] = mdata[name].obsm[rep]
        whole.obsm[rep] = values
    whole.obsm["X_shared"] = np.concatenate([mdata[name].obsm["X_shared"] for name in mdata.mod])
    far = np.zeros((whole.n_obs, whole.n_obs), np.float32)
    split = n["atac"]
    far[:split, :split], far[split:, split:] = mdata["atac"].obsp["far"], mdata["rna"].obsp["far"]
    whole.obsp["far"] = far
    return whole


def build(mdata, *, setup=None, **arguments):
    from scgenot import GENOT

    GENOT.setup_mudata(mdata, **SETUP | (setup or {}))
    return GENOT(mdata, flow_config=SMALL, **arguments)
