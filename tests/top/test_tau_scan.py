"""`tl.suggest_tau` and `pl.tau_scan`: the scan read from and written to an AnnData, and drawn."""

import anndata as ad
import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tests.conftest import SETUP, assert_same, make_adata, snapshot

import scgenot
from scgenot.coupling import CouplingConfig, displaced_cost, scan_taus

matplotlib.use("Agg")
GRID = {"taus": (1.0, 0.98, 0.9), "epsilons": (0.1, 0.05)}


@pytest.fixture(scope="module")
def scanned():
    adata = make_adata()
    scgenot.tl.suggest_tau(adata, **SETUP, **GRID, label_key="donor")
    yield adata
    plt.close("all")


def test_what_is_written_is_the_scan_of_these_cells(adata):
    before = snapshot(adata)
    assert scgenot.tl.suggest_tau(adata, **SETUP, **GRID, cost="cosine", displaced=True, rng=3) is None
    assert_same(adata, before, new_uns=("genot_taus",))
    x, y = (adata.obsm["X_pca"][(adata.obs["condition"] == name).to_numpy()] for name in ("control", "stimulated"))
    config = CouplingConfig(cost=displaced_cost("cosine", y.mean(0) - x.mean(0)))
    found, written = scan_taus(jax.random.key(3), x, y, **GRID, config=config), adata.uns["genot_taus"]
    assert (written["tau"], written["epsilon"], written["why"]) == (found.tau, found.epsilon, found.why)
    for name, column in found.table.items():
        np.testing.assert_allclose(written["table"][name], column, rtol=1e-4)
    assert written["params"]["n_source"] == 60 and "purity" not in written["table"]


def test_copy_and_other_names(adata):
    before = snapshot(adata)
    changed = scgenot.tl.suggest_tau(adata, **SETUP, taus=(1.0,), epsilons=(0.1,), key_added="mine", copy=True)
    assert_same(adata, before)
    assert set(changed.uns) == {"note", "mine"}


def test_weights_are_used(adata):
    options = SETUP | {"taus": (0.9,), "epsilons": (0.1,), "copy": True}
    plain = scgenot.tl.suggest_tau(adata, **options).uns["genot_taus"]["table"]
    weighted = scgenot.tl.suggest_tau(adata, **options, weights_key="mass").uns["genot_taus"]["table"]
    assert abs(plain["objective"][0] - weighted["objective"][0]) > 1e-4


def test_results_survive_a_file(scanned, tmp_path):
    scanned.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert again.uns["genot_taus"]["why"] == scanned.uns["genot_taus"]["why"]
    assert len(scgenot.pl.tau_scan(again)) == 3


def test_lines_are_the_table_and_stars_the_suggestion(scanned):
    axes = scgenot.pl.tau_scan(scanned)
    scan = scanned.uns["genot_taus"]
    for ax, name in zip(axes, ("mass", "effective_targets", "purity"), strict=True):
        lines = {line.get_label(): line.get_ydata() for line in ax.lines}
        for epsilon in (0.1, 0.05):
            here = scan["table"]["epsilon"] == epsilon
            np.testing.assert_array_equal(lines[f"{epsilon:g}"], scan["table"][name][here])
        star = next(line for line in ax.lines if line.get_marker() == "*")
        place = (scan["table"]["tau"] == scan["tau"]) & (scan["table"]["epsilon"] == scan["epsilon"])
        assert star.get_ydata() == scan["table"][name][place]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "0.98", "0.9"]
    assert axes[0].get_legend().get_texts()[-1].get_text() == "halves of one"
    # Powers of ten are no way to write 20 cells.
    axes[1].figure.canvas.draw()
    assert not any("$" in label.get_text() for label in axes[1].get_yticklabels(which="both"))


def test_no_purity_without_labels_and_own_axes(adata):
    scgenot.tl.suggest_tau(adata, **SETUP, taus=(1.0,), epsilons=(0.1,))
    _, axes = plt.subplots(1, 2)
    assert scgenot.pl.tau_scan(adata, axes=axes) == list(axes)
    with pytest.raises(ValueError, match="`axes` must hold 2 axes"):
        scgenot.pl.tau_scan(adata, axes=axes[:1])


def test_bad_input_leaves_everything_as_it_was(adata):
    before = snapshot(adata)
    with pytest.raises(KeyError, match="`label_key`='doner' is no column"):
        scgenot.tl.suggest_tau(adata, **SETUP, label_key="doner")
    with pytest.raises(ValueError, match="`target`='stimulate' is no category"):
        scgenot.tl.suggest_tau(adata, **SETUP | {"target": "stimulate"})
    with pytest.raises(ValueError, match="`taus` must lie in"):
        scgenot.tl.suggest_tau(adata, **SETUP, taus=(2.0,))
    assert_same(adata, before)
    adata.obs["donor"] = adata.obs["donor"].where(adata.obs["condition"] != "control")
    with pytest.raises(ValueError, match="`label_key`='donor' is missing for 60 cells"):
        scgenot.tl.suggest_tau(adata, **SETUP, label_key="donor")
    with pytest.raises(KeyError, match="tl.suggest_tau"):
        scgenot.pl.tau_scan(adata)
