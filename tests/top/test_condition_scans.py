"""`tl.suggest_tau` and `tl.suggest_epsilon` of several conditions: what is scanned, what is written, what is drawn."""

import anndata as ad
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from tests.conftest import assert_same, snapshot
from tests.model.test_conditions import SCREEN, make_screen

from scgenot import GENOT, pl, tl
from scgenot.coupling import CouplingConfig, scan_block_epsilons, scan_block_taus
from scgenot.tl import _scanned

GRID = {"taus": (1.0, 0.95), "epsilons": (0.05,), "progress_bar": False}
NAMES = [f"{drug} | {donor}" for drug in "ABC" for donor in "ab"]


@pytest.fixture(scope="module")
def screen():
    return make_screen()


def blocks_of(adata):
    """Return cells and blocks by hand: controls and treated cells of each donor."""
    drug, donor = adata.obs["drug"].to_numpy(), adata.obs["donor"].to_numpy()
    rows = np.flatnonzero(drug == "control"), np.flatnonzero(drug != "control")
    cells = [adata.obsm["X_pca"][one] for one in rows]
    return cells, [
        (np.flatnonzero(donor[rows[0]] == name[-1]), np.flatnonzero((drug + " | " + donor)[rows[1]] == name))
        for name in NAMES
    ]


def test_what_is_written_is_the_scan_of_these_blocks(screen, tmp_path):
    adata = screen.copy()
    before = snapshot(adata)
    assert tl.suggest_tau(adata, **SCREEN, **GRID, rng=3) is None
    assert_same(adata, before, new_uns=("genot_taus",))
    cells, blocks = blocks_of(adata)
    found = scan_block_taus(jax.random.key(3), *cells, blocks, names=NAMES, taus=(1.0, 0.95), epsilons=(0.05,))
    written = adata.uns["genot_taus"]
    assert (written["tau"], written["epsilon"], written["why"]) == (found.tau, found.epsilon, found.why)
    assert list(written["conditions"]["condition"]) == NAMES
    for name, scan in zip(NAMES, found.scans, strict=True):
        own = written["table"]["condition"] == name
        np.testing.assert_allclose(written["table"]["mass"][own], scan.table["mass"], rtol=1e-5)
        place = NAMES.index(name)
        assert written["conditions"]["mass"][place] == scan.table["mass"][scan.table["tau"] == found.tau][0]
        assert written["conditions"]["n_target"][place] == 60
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert again.uns["genot_taus"]["conditions"]["why"][0] == found.scans[0].why
    axes = pl.tau_scan(again, condition="B | a", show=False)
    own = written["table"]["condition"] == "B | a"
    lines = {line.get_label(): line.get_ydata() for line in axes[0].lines}
    np.testing.assert_array_equal(lines["0.05"], written["table"]["mass"][own])
    assert axes[0].figure.get_suptitle().startswith("B | a: tau")
    plt.close("all")
    with pytest.raises(ValueError, match="`condition` must name one of the 6 that were scanned, got None"):
        pl.tau_scan(again)


def test_epsilons_of_named_conditions(screen):
    asked = ["C | b", "A"]
    changed = tl.suggest_epsilon(
        screen, **SCREEN, conditions=asked, epsilons=(0.1, 0.05), rng=3, progress_bar=False, copy=True
    )
    assert not screen.uns
    written = changed.uns["genot_epsilons"]
    assert list(written["conditions"]["condition"]) == ["A | a", "A | b", "C | b"]
    cells, blocks = blocks_of(screen)
    found = scan_block_epsilons(jax.random.key(3), *cells, blocks, scanned=[0, 1, 5], epsilons=(0.1, 0.05))
    assert (written["epsilon"], written["stable"]) == (found.epsilon, found.stable)
    np.testing.assert_allclose(
        written["table"]["agreement"], np.concatenate([one.table["agreement"] for one in found.scans]), rtol=1e-4
    )
    axes = pl.epsilon_scan(changed, condition="C | b", show=False)
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), written["table"]["agreement"][-2:])
    plt.close("all")


def test_doses_strata_and_the_way_back(screen):
    """What setup takes is taken here: slots, strata that the model does not see, and conditions mapped back to control."""
    adata = screen.copy()
    adata.obs["dose"] = np.where(adata.obs["drug"] == "control", 0.0, 2.0)
    keys = {"condition_keys": {"drug": "drug", "dose": "dose"}, "match_keys": "donor", "context_keys": ()}
    tl.suggest_tau(adata, **SCREEN | keys, **GRID)
    forth = adata.uns["genot_taus"]["conditions"]
    assert list(forth["condition"]) == [f"{drug} 2 | donor={donor}" for drug in "ABC" for donor in "ab"]
    back = SCREEN | {"source": None, "target": "control"}
    tl.suggest_tau(adata, **back, **GRID, conditions=["B"], key_added="back")
    found = adata.uns["back"]["conditions"]
    assert list(found["condition"]) == ["B | a", "B | b"] and set(found["n_source"]) == {60}
    # Costs are symmetric, and both taus are the same.
    there = [name.startswith("B") for name in adata.uns["genot_taus"]["table"]["condition"]]
    np.testing.assert_allclose(
        adata.uns["back"]["table"]["mass"], adata.uns["genot_taus"]["table"]["mass"][there], rtol=1e-3
    )


def test_a_matched_pair_and_two_modalities(screen):
    adata = screen.copy()
    pair = {"population_key": "drug", "source": "control", "target": "A", "source_rep": "X_pca", "match_keys": "donor"}
    tl.suggest_tau(adata, **pair, **GRID)
    assert list(adata.uns["genot_taus"]["conditions"]["condition"]) == ["A | donor=a", "A | donor=b"]
    sides = [adata[(adata.obs["drug"] == drug).to_numpy()].copy() for drug in ("control", "A")]
    data = MuData({"rna": sides[0], "atac": sides[1]})
    told = {"source_modality": "rna", "target_modality": "atac", "match_keys": "donor", "problem": "quadratic"}
    tl.suggest_epsilon(data, **told, source_rep="X_pca", epsilons=(0.02,), progress_bar=False)
    found = data.uns["genot_epsilons"]
    assert list(found["conditions"]["condition"]) == ["atac | donor=a", "atac | donor=b"]
    assert found["table"]["effective_targets"].max() < 60


def test_what_is_not_scanned_is_said(screen, monkeypatch):
    """Of many plans the largest of each perturbation, and none of few cells."""
    monkeypatch.setattr(_scanned, "MOST_BLOCKS", 3)
    obs = screen.obs
    name = (obs["drug"].astype(str) + obs["donor"].astype(str)).to_numpy()
    few = [np.flatnonzero(name == one)[most:] for one, most in (("Ba", 10), ("Ca", 40), ("Ab", 50))]
    adata = screen[np.setdiff1d(np.arange(len(name)), np.concatenate(few))].copy()
    tl.suggest_tau(adata, **SCREEN, taus=(1.0,), epsilons=(0.1,), progress_bar=False)
    found = adata.uns["genot_taus"]
    assert list(found["conditions"]["condition"]) == ["A | a", "B | b", "C | b"]
    assert "Of 5 plans 3 were scanned, the largest of each perturbation in turn" in found["why"]
    assert "fewer than 20 cells on one side, and not scanned: 'B | a'" in found["why"]
    with pytest.raises(ValueError, match="none of the 1 plans that are meant has at least 20 cells on both sides"):
        tl.suggest_tau(adata, **SCREEN, conditions="B | a", progress_bar=False)


def test_known_growth_shows_at_the_tau_that_is_suggested():
    """One drug kills a third of the cells, the other none; both move them a little, one with few cells."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    parts = []
    for drug, groups, count in (("control", (0, 1, 2), 60), ("mild", (0, 1, 2), 20), ("toxic", (0, 1), 60)):
        group = np.repeat(groups, count)
        cells = centres[group] + 0.7 * rng.normal(size=(len(group), 2)) + 0.3 * (drug != "control")
        parts.append(pd.DataFrame(cells, columns=["x", "y"]).assign(drug=drug, group=group))
    frame = pd.concat(parts).reset_index(drop=True)
    obs = frame[["drug", "group"]].astype("category")
    obs.index = obs.index.map("cell{}".format)
    adata = ad.AnnData(np.zeros((len(frame), 1), np.float32), obs=obs)
    adata.obsm["X_pca"] = frame[["x", "y"]].to_numpy(np.float32)
    setup = {"population_key": "drug", "source": "control", "source_rep": "X_pca"}
    tl.suggest_tau(adata, **setup, progress_bar=False)
    found = adata.uns["genot_taus"]
    told = pd.DataFrame(found["conditions"]).set_index("condition")
    # The common one is what the harder of the two needs; there both keep nine tenths of what has a counterpart.
    assert found["tau"] == told["tau"].max() < 1.0 and told["kept"].min() >= 0.9
    assert told.loc["mild", "mass"] > 0.9
    # A third of the source goes, and the target's mass falls to the others: the square root of 2 / 3 of all where taus are equal.
    assert told.loc["toxic", "mass"] == pytest.approx(np.sqrt(2 / 3), abs=0.06)
    GENOT.setup_anndata(adata, **setup)
    from scgenot.coupling import solve_blocks

    drug, group = frame["drug"].to_numpy(), frame["group"].to_numpy()
    cells = [adata.obsm["X_pca"][drug == "control"], adata.obsm["X_pca"][drug != "control"]]
    treated = drug[drug != "control"]
    blocks = [(np.arange(180), np.flatnonzero(treated == one)) for one in ("mild", "toxic")]
    config = CouplingConfig(epsilon=found["epsilon"], tau_source=found["tau"], tau_target=found["tau"])
    coupled = solve_blocks(jax.random.key(0), *cells, blocks, config=config)
    for part, name in zip(coupled.parts, ("mild", "toxic"), strict=True):
        assert part.coupling.diagnostics.mass == pytest.approx(told.loc[name, "mass"], abs=0.01)
        growth = [180 * part.masses[0][group[:180] == k].mean() for k in range(3)]
        assert (growth[2] < 0.2) == (name == "toxic") and min(growth[:2]) > 0.9


def test_bad_input_leaves_everything_as_it_was(screen):
    adata = screen.copy()
    before = snapshot(adata)
    for tool in (tl.suggest_tau, tl.suggest_epsilon):
        with pytest.raises(
            ValueError, match="`conditions` has 'D', which is no condition of these data.*There are: 'A',"
        ):
            tool(adata, **SCREEN, conditions=["D"])
        with pytest.raises(ValueError, match="`conditions` names none"):
            tool(adata, **SCREEN, conditions=[])
        with pytest.raises(TypeError, match="`conditions` must be a name, several, or None, got 3"):
            tool(adata, **SCREEN, conditions=3)
        pair = {"population_key": "drug", "source": "control", "target": "A", "source_rep": "X_pca"}
        with pytest.raises(ValueError, match="`conditions`='A' was given for one pair of populations. Leave it out"):
            tool(adata, **pair, conditions="A")
        with pytest.raises(ValueError, match="`source` and `target` are both None. Name the category of untreated"):
            tool(adata, **SCREEN | {"source": None})
        with pytest.raises(ValueError, match="`condition_keys` must have as many slots"):
            tool(adata, **SCREEN | {"condition_keys": {"drug": ("drug",), "dose": ("a", "b")}})
        with pytest.raises(KeyError, match="`context_keys`='doner' is no column"):
            tool(adata, **SCREEN | {"context_keys": "doner"})
        with pytest.raises(ValueError, match="several conditions have no scale in common"):
            tool(adata, **SCREEN, cost="geodesic")
    with pytest.raises(ValueError, match="`displaced`=True takes one common move off"):
        tl.suggest_tau(adata, **SCREEN, displaced=True)
    assert_same(adata, before)
    lonely = adata[((adata.obs["drug"] != "control") | (adata.obs["donor"] == "a")).to_numpy()].copy()
    with pytest.raises(ValueError, match="the stratum donor='b' of 'A | b' has 60 treated cells and 0 controls"):
        tl.suggest_tau(lonely, **SCREEN)
    tl.suggest_tau(adata, **pair, **GRID)
    with pytest.raises(ValueError, match="`condition`='A' was given, but the scan is of one pair"):
        pl.tau_scan(adata, condition="A")
