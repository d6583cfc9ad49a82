"""`tl.suggest_epsilon`: the scan read from and written to AnnData and MuData."""

import anndata as ad
import jax
import matplotlib.pyplot as plt
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


@pytest.mark.parametrize("gap", [[0.2, 0.0005], [np.inf, np.inf]], ids=["several plans", "one plan"])
def test_what_is_drawn_is_the_scan(adata, gap, tmp_path):
    table = {"epsilon": [0.02, 0.005], "effective_targets": [40.0, 2.5], "agreement": [0.95, -0.1], "gap": gap}
    table |= {"objective": [1.0, 1.0], "converged": [True, False]}
    table = {name: np.asarray(column) for name, column in table.items()}
    adata.uns["genot_epsilons"] = {
        "table": table,
        "epsilon": 0.02,
        "stable": True,
        "why": "so",
        "params": {"n_target": 50},
    }
    axes = scgenot.pl.epsilon_scan(adata, save=tmp_path / "scan.png")
    drawn = ["effective_targets", "agreement", "gap"][: 3 if np.isfinite(gap).all() else 2]
    assert len(axes) == len(drawn) and (tmp_path / "scan.png").stat().st_size > 0
    for ax, name in zip(axes, drawn, strict=True):
        line, converged, not_converged, star = ax.lines
        np.testing.assert_array_equal(line.get_ydata(), table[name])
        np.testing.assert_array_equal(converged.get_ydata(), table[name][:1])
        np.testing.assert_array_equal(not_converged.get_ydata(), table[name][1:])
        assert not_converged.get_markerfacecolor() == "white" and star.get_ydata() == table[name][0]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0.02", "0.005"]
    # Grey from a twentieth of the target cells on; nothing lies outside of the axes.
    grey = axes[0].patches[0].get_extents().transformed(axes[0].transData.inverted())
    assert grey.y0 == pytest.approx(2.5) and grey.y1 == pytest.approx(50.0)
    low, high = axes[1].get_ylim()
    assert low < -0.1 + 1e-9 and high > 0.95
    with pytest.raises(ValueError, match=f"`axes` must hold {len(drawn)} axes"):
        scgenot.pl.epsilon_scan(adata, axes=axes[:1])
    with pytest.raises(KeyError, match="`key`='genot_epsilon': there is no scan.*Did you mean 'genot_epsilons'"):
        scgenot.pl.epsilon_scan(adata, key="genot_epsilon")
    plt.close("all")
