"""`tl.suggest_epsilon`: the scan read from and written to AnnData and MuData."""

import anndata as ad
import jax
import numpy as np
import pytest
from mudata import MuData
from tests.conftest import SETUP, assert_same, snapshot

import scgenot
from scgenot.coupling import scan_epsilons


def test_what_is_written_is_the_scan_of_these_cells(adata, tmp_path):
    before = snapshot(adata)
    assert scgenot.tl.suggest_epsilon(adata, **SETUP, epsilons=(0.5, 0.1), rng=3, progress_bar=False) is None
    assert_same(adata, before, new_uns=("genot_epsilons",))
    x, y = (adata.obsm["X_pca"][(adata.obs["condition"] == name).to_numpy()] for name in ("control", "stimulated"))
    found, written = scan_epsilons(jax.random.key(3), x, y, epsilons=(0.5, 0.1)), adata.uns["genot_epsilons"]
    assert (written["epsilon"], written["stable"], written["why"]) == (found.epsilon, found.stable, found.why)
    np.testing.assert_allclose(written["table"]["agreement"], found.table["agreement"], rtol=1e-4)
    assert written["params"]["problem"] == "linear"
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert ad.read_h5ad(tmp_path / "cells.h5ad").uns["genot_epsilons"]["why"] == found.why


def test_two_modalities_are_a_quadratic_problem(capsys):
    rng = np.random.default_rng(0)
    cells = (rng.gamma(1.5, size=(200, 3)) * [2.0, 1.0, 0.5]).astype(np.float32)
    names = [f"cell{i}" for i in range(200)]
    mods = {
        name: ad.AnnData(np.zeros((200, 1), np.float32), obsm={"X_pca": cells @ turn})
        for name, turn in (("rna", np.eye(3, dtype=np.float32)), ("atac", np.eye(3, 5, dtype=np.float32)))
    }
    for one in mods.values():
        one.obs_names = names
    data = MuData(mods)
    options = {"source_modality": "rna", "target_modality": "atac", "epsilons": (0.005,)}
    changed = scgenot.tl.suggest_epsilon(data, **options, copy=True)
    assert "genot_epsilons" not in data.uns and "Scan: epsilons" in capsys.readouterr().err
    found = changed.uns["genot_epsilons"]
    assert found["params"]["problem"] == "quadratic" and found["stable"] and found["epsilon"] == 0.005
    with pytest.raises(ValueError, match="`target_modality` is needed for a MuData"):
        scgenot.tl.suggest_epsilon(data, source_modality="rna")
    assert "genot_epsilons" not in data.uns


def test_bad_input_leaves_everything_as_it_was(adata):
    before = snapshot(adata)
    with pytest.raises(ValueError, match="`population_key` is needed for an AnnData"):
        scgenot.tl.suggest_epsilon(adata)
    with pytest.raises(ValueError, match="`problem` must be one of 'auto', 'linear', 'quadratic', got 'fused'"):
        scgenot.tl.suggest_epsilon(adata, **SETUP, problem="fused")
    with pytest.raises(ValueError, match="`epsilons` must be a finite number above 0"):
        scgenot.tl.suggest_epsilon(adata, **SETUP, epsilons=(-1.0,))
    assert_same(adata, before)
