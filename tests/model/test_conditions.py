"""Models of several conditions: what setup reads, what is coupled with what, and what is predicted."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, assert_same, snapshot

from scgenot import GENOT, tl
from scgenot.flow import FlowConfig

DONORS = {"a": 0.0, "b": 4.0}
# Where each drug moves cells, the same for both donors.
MOVES = {"A": (0.0, 3.0, 0.0), "B": (0.0, 0.0, 3.0), "C": (0.0, -3.0, -3.0)}
SCREEN = {"population_key": "drug", "source": "control", "source_rep": "X_pca", "context_keys": ("donor",)}
FITTED = {"max_steps": 600, "batch_size": 256, "check_every": 100, "learning_rate": 3e-3, "progress_bar": False}


def make_screen(*, n: int = 60, controls: int = 70, seed: int = 0) -> ad.AnnData:
    """Controls and cells under three drugs, of two donors far apart, in random order."""
    rng = np.random.default_rng(seed)
    parts = []
    for donor, place in DONORS.items():
        for drug in ("control", *MOVES):
            count = controls if drug == "control" else n
            cells = 0.4 * rng.normal(size=(count, 3)) + [place, 0, 0] + np.array(MOVES.get(drug, (0, 0, 0)))
            parts.append(pd.DataFrame(cells, columns=list("xyz")).assign(donor=donor, drug=drug))
    frame = pd.concat(parts).sample(frac=1.0, random_state=seed).reset_index(drop=True)
    obs = frame[["donor", "drug"]].astype("category")
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = ad.AnnData(np.zeros((len(obs), 2), np.float32), obs=obs)
    adata.obsm["X_pca"] = frame[list("xyz")].to_numpy(np.float32)
    return adata


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    adata = make_screen()
    GENOT.setup_anndata(adata, **SCREEN)
    return adata


@pytest.fixture(scope="module")
def model(screen) -> GENOT:
    """A model that never saw drug A in donor b."""
    model = GENOT(screen, flow_config=FlowConfig(hidden=(64, 64)))
    model.train(validation_conditions=["A | b"], **FITTED)
    return model


def test_the_table_says_what_was_coupled(model, screen):
    table = model.conditions
    assert list(table.index) == [f"{drug} | {donor}" for drug in MOVES for donor in DONORS]
    assert set(table["cells"]) == {60} and set(table["controls"]) == {70}
    assert table.index[~table["trained"]].tolist() == ["A | b"]
    trained = table[table["trained"]]
    assert trained["converged"].astype(bool).all()
    np.testing.assert_allclose(trained["mass"].astype(float), 1.0, atol=1e-3)
    assert pd.isna(table.loc["A | b", "mass"])


def test_flows_of_conditions_start_at_the_source_cell_unless_told_otherwise(model, screen, trained, tmp_path):
    assert model._method.config.start == "source" and trained._method.config.start == "noise"
    model.save(tmp_path / "model")
    assert GENOT.load(tmp_path / "model")._method.config.start == "source"
    adata = screen.copy()
    GENOT.setup_anndata(adata, **SCREEN)
    assert GENOT(adata, flow_config=FlowConfig(start="noise"))._method.config.start == "noise"
    # Of one width, but not one space: a move means nothing.
    adata.obsm["X_other"] = adata.obsm["X_pca"][:, ::-1].copy()
    GENOT.setup_anndata(adata, **SCREEN | {"target_rep": "X_other"})
    assert GENOT(adata)._method.config.start == "noise"


def test_no_control_is_coupled_with_another_donor(model, screen):
    donors = screen.obs["donor"].to_numpy()
    rows = model._training.train_rows
    for part in model.coupling_.parts:
        told = {*donors[rows[0][part.source_rows]], *donors[rows[1][part.target_rows]]}
        assert len(told) == 1


def test_cells_held_out_as_a_condition_never_train(model, screen):
    left_out = np.flatnonzero((screen.obs["drug"] == "A") & (screen.obs["donor"] == "b"))
    assert not np.isin(left_out, model.train_indices_).any()
    assert not np.isin(left_out, model.validation_indices_).any()


def test_each_condition_moves_cells_as_it_should(model, screen):
    controls = np.flatnonzero(screen.obs["drug"] == "control")
    x = screen.obsm["X_pca"][controls]
    found = model.sample(conditions=list(MOVES), n_samples=8)
    assert list(found) == list(MOVES)
    for name, samples in found.items():
        assert samples.shape == (len(controls), 8, 3)
        for donor in DONORS:
            own = screen.obs["donor"].to_numpy()[controls] == donor
            moved = samples[own].mean(axis=(0, 1)) - x[own].mean(axis=0)
            # The pair that was left out is the harder one.
            assert np.abs(moved - MOVES[name]).max() < (1.5 if (name, donor) == ("A", "b") else 0.5), (name, donor)


def test_an_unseen_pair_is_predicted_better_than_by_doing_nothing(model):
    ratio = model.history["validation_energy_ratio"].to_numpy().ravel()
    assert ratio[-1] < 0.5
    assert len(ratio) == 6


def test_names_rows_and_frames_ask_for_the_same(model, screen):
    options = {"n_samples": 2}
    by_name = model.sample(conditions="B", **options)
    controls = model.source_rows()
    donors = screen.obs["donor"].to_numpy()[controls]
    by_row = model.sample(conditions="B | b", **options)
    frame = model.sample(conditions=pd.DataFrame({"drug": ["B"], "donor": ["b"]}), **options)
    assert list(frame) == ["B | b"]
    np.testing.assert_array_equal(by_row, frame["B | b"])
    np.testing.assert_allclose(by_row, by_name[donors == "b"], atol=1e-5)
    np.testing.assert_array_equal(model.source_rows(conditions="B | b"), controls[donors == "b"])
    # A context that is asked for takes the place of a cell's own.
    elsewhere = model.sample(conditions=pd.DataFrame({"drug": ["B"], "donor": ["b"]}), indices=controls[:3], **options)
    assert not np.allclose(elsewhere["B | b"][donors[:3] == "a"], by_name[:3][donors[:3] == "a"], atol=1e-3)


def test_saved_and_loaded_it_predicts_the_same(model, screen, tmp_path):
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model", adata=False)
    pd.testing.assert_frame_equal(loaded.conditions, model.conditions, check_dtype=False)
    asked = {"conditions": ["A | b", "C"], "n_samples": 2}
    for name, samples in loaded.sample(screen, **asked).items():
        np.testing.assert_array_equal(samples, model.sample(**asked)[name])
    again = GENOT.load(tmp_path / "model", adata=screen)
    assert "conditions: 6, plans: 6" in repr(again)


def test_all_getters_and_tools_take_conditions(model, screen):
    adata = screen.copy()
    options = {"n_samples": 3}
    assert set(model.get_uncertainty(conditions=["A", "B"], **options)) == {"A", "B"}
    mean = model.get_transported_mean(conditions="B", **options)
    np.testing.assert_allclose(mean, model.sample(conditions="B", **options).mean(axis=1), atol=1e-5)
    labels = model.get_label_probabilities(label_key="drug", conditions="C", **options)
    assert labels["C"].mean() > 0.9
    tl.transport(adata, model, conditions="B", **options)
    controls = model.source_rows()
    np.testing.assert_allclose(adata.obsm["genot"][controls], mean, atol=1e-5)
    assert adata.uns["genot"]["params"]["condition"] == "B"
    tl.transport(adata, model, conditions=["A", "B | b"], **options)
    assert {"genot_A", "genot_B | b"} <= set(adata.obsm)
    assert np.isfinite(adata.obsm["genot_B | b"]).all(axis=1).sum() == 70
    tl.transitions(adata, model, "donor", "drug", conditions="C", **options)
    assert adata.uns["genot_transitions"]["matrix"].loc["a", "C"] > 0.9
    with pytest.raises(TypeError, match="one condition"):
        tl.transitions(adata, model, "donor", "drug", conditions=["A", "C"], **options)
    cells = tl.transported_cells(adata, model, conditions=pd.DataFrame({"drug": ["A", "C"], "donor": ["b", "a"]}))
    # Each context has controls of its own.
    assert cells.n_obs == 140 and cells.obs_names.is_unique
    assert cells.obs.groupby("condition", observed=True).size().to_dict() == {"A | b": 70, "C | a": 70}
    assert set(cells.obs.loc[cells.obs["condition"] == "A | b", "donor"]) == {"b"}
    assert set(cells.obs["source_drug"]) == {"control"}
    assert set(cells.obs.loc[cells.obs["condition"] == "C | a", "drug"]) == {"C"}


def test_the_model_of_the_opposite_direction_takes_each_cell_back(model, screen, tmp_path):
    back = model.reverse(**FITTED)
    assert back.conditions["trained"].tolist() == model.conditions["trained"].tolist()
    assert back.conditions[["cells", "controls"]].equals(model.conditions[["cells", "controls"]])
    rows = back.source_rows()
    np.testing.assert_array_equal(rows, np.flatnonzero(screen.obs["drug"] != "control"))
    x, drugs = screen.obsm["X_pca"][rows], screen.obs["drug"].to_numpy()[rows]
    moved = back.get_transported_mean(n_samples=8) - x
    for drug, move in MOVES.items():
        # Each cell is in a condition of its own.
        seen = (drugs == drug) & ((drug != "A") | (screen.obs["donor"].to_numpy()[rows] != "b"))
        np.testing.assert_allclose(moved[seen].mean(axis=0), np.negative(move), atol=0.5)
    cells = tl.transported_cells(screen, back)
    assert set(cells.obs["drug"]) == {"control"} and cells.n_obs == len(rows)
    back.save(tmp_path / "back")
    loaded = GENOT.load(tmp_path / "back", adata=False)
    np.testing.assert_array_equal(loaded.sample(screen, n_samples=1), back.sample(n_samples=1))
    # The model itself, and its setup, are as they were.
    assert GENOT(screen).conditions.index.tolist() == model.conditions.index.tolist()


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        (None, ValueError, "`conditions` is needed: the model knows 3"),
        ("D", ValueError, "'D', which is no condition of this model.*data frame"),
        (["A", 3], TypeError, "`conditions` must be a name"),
        ([], ValueError, "names none"),
        (pd.DataFrame({"drug": ["D"]}), ValueError, "condition_reps"),
        (pd.DataFrame({"drug": ["A"], "donor": ["c"]}), ValueError, "'c', which was in no condition"),
        (pd.DataFrame({"drugs": ["A"]}), ValueError, "Did you mean 'drug'"),
        (pd.DataFrame({"donor": ["a"]}), ValueError, "at least one of the slots"),
        (pd.DataFrame({"drug": []}), ValueError, "no rows"),
        (pd.DataFrame({"drug": ["A", "A"]}), ValueError, "twice"),
    ],
)
def test_what_cannot_be_asked_is_said(model, screen, asked, error, match):
    before = snapshot(screen)
    with pytest.raises(error, match=match):
        model.sample(conditions=asked, n_samples=1)
    assert_same(screen, before)


# ---- Doses, combinations, representations ----------------------------------------------------------------------------


def make_doses(seed: int = 0) -> ad.AnnData:
    """Drugs at doses, alone and together, in either order of the slots; no values where a slot is empty."""
    rng = np.random.default_rng(seed)
    rows = [("control", 0.0, "control", 0.0)] * 40
    rows += [("A", 1.0, "control", 0.0)] * 20 + [("A", 10.0, None, np.nan)] * 20 + [("control", 0.0, "B", 10.0)] * 20
    rows += [("A", 10.0, "B", 10.0)] * 15 + [("B", 10.0, "A", 10.0)] * 15
    obs = pd.DataFrame(rows, columns=["drug1", "dose1", "drug2", "dose2"], index=[f"cell{i}" for i in range(len(rows))])
    obs["treated"] = np.where(np.arange(len(obs)) < 40, "control", "treated")
    adata = ad.AnnData(np.zeros((len(obs), 2), np.float32), obs=obs)
    adata.obsm["X_pca"] = rng.normal(size=(len(obs), 3)).astype(np.float32)
    adata.uns["fingerprints"] = pd.DataFrame(rng.normal(size=(3, 4)), index=["A", "B", "unseen"])
    return adata


DOSED = {
    "population_key": "treated",
    "source": "control",
    "source_rep": "X_pca",
    "condition_keys": {"drug": ("drug1", "drug2"), "dose": ("dose1", "dose2")},
}


@pytest.mark.parametrize("kind", ["object", "category"])
def test_slots_are_linked_by_position_and_their_order_says_nothing(kind):
    adata = make_doses()
    for column in ("drug1", "drug2"):
        adata.obs[column] = adata.obs[column].astype(kind)
    GENOT.setup_anndata(adata, **DOSED)
    table = GENOT(adata).conditions
    assert table["cells"].to_dict() == {"A 1": 20, "A 10": 20, "A 10 + B 10": 30, "B 10": 20}
    assert set(table["controls"]) == {40}


@pytest.fixture(scope="module")
def dosed() -> GENOT:
    adata = make_doses()
    GENOT.setup_anndata(adata, **DOSED, condition_reps={"drug": "fingerprints"})
    model = GENOT(adata, flow_config=FlowConfig(hidden=(32, 32)))
    model.train(**BRIEF)
    return model


def test_a_dose_of_zero_is_exactly_control(dosed):
    frame = pd.DataFrame(
        {
            "drug1": ["A", "control", "B"],
            "dose1": [0.0, 5.0, 0.0],
            "drug2": [None, "A", "unseen"],
            "dose2": [0.0, 0.0, 0.0],
        },
        index=["nothing", "of control", "zeros"],
    )
    found = dosed.sample(conditions=frame, n_samples=2)
    np.testing.assert_array_equal(found["nothing"], found["of control"])
    np.testing.assert_array_equal(found["nothing"], found["zeros"])
    other = dosed.sample(conditions="A 10", n_samples=2)
    assert not np.allclose(found["nothing"], other, atol=1e-4)


def test_the_order_of_slots_and_empty_ones_change_no_sample(dosed):
    frame = pd.DataFrame(
        {
            "drug1": ["A", "B", "A"],
            "dose1": [10.0, 10.0, 10.0],
            "drug2": ["B", "A", "control"],
            "dose2": [10.0, 10.0, 0.0],
        },
        index=["AB", "BA", "A alone"],
    )
    found = dosed.sample(conditions=frame, n_samples=2)
    np.testing.assert_allclose(found["AB"], found["BA"], atol=1e-5)
    np.testing.assert_allclose(found["A alone"], dosed.sample(conditions="A 10", n_samples=2), atol=1e-5)


def test_unseen_doses_and_described_drugs_are_predicted(dosed):
    frame = pd.DataFrame({"drug1": ["A", "unseen"], "dose1": [3.0, 10.0]})
    found = dosed.sample(conditions=frame, n_samples=2)
    assert list(found) == ["A 3", "unseen 10"]
    assert np.isfinite(np.concatenate(list(found.values()))).all()


@pytest.mark.parametrize(
    ("change", "frame", "match"),
    [
        ("sample", pd.DataFrame({"drug1": ["A"]}), "lacks 'dose1', which belongs to 'drug1'"),
        ("sample", pd.DataFrame({"drug1": ["A"], "dose1": [-1.0]}), "none below 0"),
        ("sample", pd.DataFrame({"drug1": ["A"], "dose1": [np.inf]}), "finite doses"),
        ("sample", pd.DataFrame({"drug1": ["Z"], "dose1": [1.0]}), "has no row in uns"),
    ],
)
def test_wrong_frames_are_refused(dosed, change, frame, match):
    with pytest.raises(ValueError, match=match):
        dosed.sample(conditions=frame, n_samples=1)


def _negative_dose(adata, options):
    adata.obs["dose1"] = adata.obs["dose1"].to_numpy() - 2.0


def _infinite_dose(adata, options):
    adata.obs.loc["cell45", "dose1"] = np.inf


def _nothing_done(adata, options):
    adata.obs.loc["cell45", ["drug1", "dose1"]] = ["control", 0.0]


def _unequal_slots(adata, options):
    options["condition_keys"] = {"drug": ("drug1", "drug2"), "dose": ("dose1",)}


def _missing_rows(adata, options):
    adata.uns["fingerprints"] = adata.uns["fingerprints"].drop(index="B")


def _not_finite_rows(adata, options):
    adata.uns["fingerprints"].iloc[0, 0] = np.nan


def _stratum_without_controls(adata, options):
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) < 45, "a", "b")
    options["match_keys"] = "donor"


def _no_such_rep(adata, options):
    options["condition_reps"] = {"drug": "fingerprint"}


def _rep_of_nothing(adata, options):
    options["condition_reps"] = {"drag": "fingerprints"}


def _no_such_column(adata, options):
    options["context_keys"] = ("donor",)


def _given_costs(adata, options):
    adata.obsp["costs"] = np.ones((adata.n_obs, adata.n_obs), np.float32)
    options["source_distances"] = "costs"


def _not_a_mapping(adata, options):
    options["condition_keys"] = ["drug1"]


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (_negative_dose, ValueError, r"none below 0; \d+ are not"),
        (_infinite_dose, ValueError, "finite doses"),
        (_nothing_done, ValueError, "1 target cells have no perturbation"),
        (_unequal_slots, ValueError, "as many slots for each covariate.*'drug': 2, 'dose': 1"),
        (_missing_rows, ValueError, "lacks 1 of 2 categories of 'drug', such as 'B'"),
        (_not_finite_rows, ValueError, "must hold finite numbers; those of 'A'"),
        (_stratum_without_controls, ValueError, "donor='b'.*0 controls"),
        (_no_such_rep, KeyError, "Did you mean 'fingerprints'"),
        (_rep_of_nothing, ValueError, "no covariate and no context.*Did you mean 'drug'"),
        (_no_such_column, KeyError, "donor"),
        (_given_costs, ValueError, "precomputed costs do not go together with conditions"),
        (_not_a_mapping, TypeError, "must map covariates to columns"),
    ],
)
def test_bad_setup_is_refused_and_changes_nothing(spoil, error, match):
    adata = make_doses()
    options = dict(DOSED) | {"condition_reps": {"drug": "fingerprints"}}
    spoil(adata, options)
    before = snapshot(adata)
    with pytest.raises(error, match=match):
        GENOT.setup_anndata(adata, **options)
    assert_same(adata, before)


@pytest.mark.parametrize(
    ("held_out", "error", "match"),
    [
        (["A", "B"], ValueError, "condition_reps"),
        ("Z", ValueError, "no condition of this model"),
        (1.5, ValueError, "must lie in"),
        (["A", "B", "C"], ValueError, "holds out all 6"),
        (3j, TypeError, "names, a data frame or a share"),
        (pd.DataFrame({"drug": ["Z"]}), ValueError, "no condition of adata"),
    ],
)
def test_conditions_that_cannot_be_held_out_are_refused(screen, held_out, error, match):
    model = GENOT(screen)
    with pytest.raises(error, match=match):
        model.train(validation_conditions=held_out, **BRIEF)
    assert not model.is_trained


def test_a_plain_pair_may_be_matched_by_donor(screen):
    adata = make_screen()
    GENOT.setup_anndata(
        adata, population_key="drug", source="control", target="A", source_rep="X_pca", match_keys="donor"
    )
    model = GENOT(adata, tau_source=0.9, flow_config=FlowConfig(hidden=(32, 32)))
    model.train(**BRIEF)
    assert model.coupling_.blocks == 2
    assert model.sample(n_samples=1).shape == (140, 1, 3)
    assert np.isfinite(model.get_growth()).all()
    with pytest.raises(ValueError, match="set up without any"):
        model.sample(conditions="A")
    with pytest.raises(ValueError, match="has no conditions"):
        model.train(validation_conditions="A", **BRIEF)


def test_a_slot_may_be_called_condition():
    adata = make_screen()
    adata.obs = adata.obs.rename(columns={"drug": "condition"})
    GENOT.setup_anndata(adata, **SCREEN | {"population_key": "condition"})
    model = GENOT(adata, flow_config=FlowConfig(hidden=(32, 32)))
    model.train(**BRIEF)
    assert list(model.conditions.columns[:3]) == ["perturbation", "condition", "donor"]
    assert model.conditions["perturbation"].tolist() == [drug for drug in MOVES for _ in DONORS]
    cells = tl.transported_cells(adata, model, conditions=["A", "B | a"])
    assert cells.obs.groupby(["condition", "donor"], observed=True).size().to_dict() == {
        ("A", "a"): 70,
        ("A", "b"): 70,
        ("B", "a"): 70,
    }
    with pytest.raises(ValueError, match="no condition of this model"):
        model.sample(conditions="D")
    adata.obs = adata.obs.rename(columns={"donor": "mass"})
    with pytest.raises(ValueError, match="is called 'mass'.*Rename it"):
        GENOT.setup_anndata(adata, **SCREEN | {"population_key": "condition", "context_keys": "mass"})


def test_growth_is_that_of_each_condition(screen):
    adata = make_screen()
    # Under A, target cells lie at donor a's mean alone: of donor b's controls few find a partner near.
    GENOT.setup_anndata(adata, **SCREEN | {"match_keys": ()})
    model = GENOT(adata, tau_source=0.8, flow_config=FlowConfig(hidden=(32, 32)))
    model.train(**BRIEF)
    donors = adata.obs["donor"].to_numpy()[model.source_rows()]
    grown = model.get_growth(conditions=["A | a", "A | b"], indices=model.source_rows())
    ratio = {name: values[donors == "a"].mean() / values[donors == "b"].mean() for name, values in grown.items()}
    assert ratio["A | a"] > 1.2 > 0.8 > ratio["A | b"]


def test_a_context_described_by_its_controls_needs_no_treated_cells():
    adata = make_screen()
    # Donor b has controls only.
    adata = adata[(adata.obs["donor"] == "a") | (adata.obs["drug"] == "control")].copy()
    tl.context_means(adata, "donor", population_key="drug", source="control")
    means = adata.uns["context_means"]
    for donor in DONORS:
        own = ((adata.obs["drug"] == "control") & (adata.obs["donor"] == donor)).to_numpy()
        np.testing.assert_allclose(means.loc[donor], adata.obsm["X_pca"][own].mean(axis=0), atol=1e-5)
    GENOT.setup_anndata(adata, **SCREEN, condition_reps={"donor": "context_means"})
    model = GENOT(adata, flow_config=FlowConfig(hidden=(32, 32)))
    model.train(**BRIEF)
    assert list(model.conditions["donor"]) == ["a"] * 3
    assert model.sample(conditions="A", n_samples=1).shape == (140, 1, 3)
    of_b = np.flatnonzero(adata.obs["donor"] == "b")
    few = adata[np.setdiff1d(np.arange(adata.n_obs), of_b[1:])].copy()
    with pytest.raises(ValueError, match="'b' have fewer than 2 controls"):
        tl.context_means(few, "donor", population_key="drug", source="control")
