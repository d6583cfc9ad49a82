"""Setting up an AnnData and building a model on it: what is accepted, what is answered, what is left alone."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.conftest import BRIEF, SCVI_UNS, SETUP, SMALL, assert_same, make_adata, snapshot

from scgenot import GENOT
from scgenot.flow import FlowConfig


def setup(adata, **changes):
    GENOT.setup_anndata(adata, **SETUP | changes)


# ---- Left alone ------------------------------------------------------------------------------------------------------


def test_setup_writes_two_identifiers_and_nothing_else(adata):
    before = snapshot(adata)
    setup(adata)
    assert_same(adata, before, new_uns=SCVI_UNS)


def test_model_and_training_write_nothing(ready):
    before = snapshot(ready)
    model = GENOT(ready, flow_config=SMALL)
    model.train(**BRIEF)
    assert_same(ready, before)


FAILURES = {
    "no such column": (
        {"population_key": "conditon"},
        KeyError,
        "`population_key`='conditon'.*Did you mean 'condition'",
    ),
    "no such source": (
        {"source": "contrl"},
        ValueError,
        "`source`='contrl' is no category of adata.obs.'condition'., which has .*Did you mean 'control'",
    ),
    "no such target": ({"target": "stimulate"}, ValueError, "`target`='stimulate'.*Did you mean 'stimulated'"),
    "no such representation": (
        {"source_rep": "X_pcs"},
        KeyError,
        "`source_rep`='X_pcs' is neither 'X' nor a key of adata.obsm. Did you mean 'X_pca'.*There are: 'X_pca', 'X_wid",
    ),
    "no such target representation": ({"target_rep": "wide"}, KeyError, "`target_rep`='wide'.*Did you mean 'X_wide'"),
    "no such weights": ({"weights_key": "maas"}, KeyError, "`weights_key`='maas'.*Did you mean 'mass'"),
    "weights of another kind": ({"weights_key": "donor"}, ValueError, "`weights_key`='donor' must hold finite numbers"),
    "twice the same": (
        {"target": "control"},
        ValueError,
        "`source` and `target` must be two categories, got 'control'",
    ),
}


@pytest.mark.parametrize(("changes", "error", "message"), FAILURES.values(), ids=FAILURES)
def test_wrong_keys_are_answered_and_change_nothing(adata, changes, error, message):
    before = snapshot(adata)
    with pytest.raises(error, match=message):
        setup(adata, **changes)
    assert_same(adata, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cells_that_are_not_finite_are_counted_and_named(adata, bad):
    rows = np.flatnonzero(adata.obs["condition"] == "control")[[3, 8]]
    adata.obsm["X_pca"][rows, 1] = bad
    before = snapshot(adata)
    names = ", ".join(adata.obs_names[rows])
    with pytest.raises(ValueError, match=rf"'X_pca' has NaN or inf in 2 of the 60 cells .*\(first: {names}\)"):
        setup(adata)
    assert_same(adata, before)


def test_cells_of_other_populations_may_hold_anything(adata):
    adata.obsm["X_pca"][(adata.obs["condition"] == "unused").to_numpy()] = np.nan
    setup(adata)
    GENOT(adata, flow_config=SMALL).train(**BRIEF | {"max_steps": 20})


@pytest.mark.parametrize(
    ("values", "count"), [({0: -1.0, 1: np.nan, 2: np.inf}, 3), (dict.fromkeys(range(60), 0.0), 0)], ids=["bad", "zero"]
)
def test_wrong_weights(adata, values, count):
    rows = np.flatnonzero(adata.obs["condition"] == "control")
    for place, value in values.items():
        adata.obs.iloc[rows[place], adata.obs.columns.get_loc("mass")] = value
    before = snapshot(adata)
    with pytest.raises(
        ValueError, match=f"`weights_key`='mass' must hold finite.*not all 0, in the source.*{count} of 60"
    ):
        setup(adata, weights_key="mass")
    assert_same(adata, before)


@pytest.mark.parametrize(("kept", "message"), [(1, "has only 1 cell .*at least 2"), (0, "is no category")])
def test_too_few_cells(adata, kept, message):
    rows = np.flatnonzero(adata.obs["condition"] == "stimulated")[kept:]
    few = adata[np.setdiff1d(np.arange(adata.n_obs), rows)].copy()
    with pytest.raises(ValueError, match=f"`target`='stimulated' {message}"):
        setup(few)


def test_two_cells_a_side_are_enough():
    tiny = make_adata(2, 2)
    setup(tiny)
    model = GENOT(tiny, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 20}, validation_size=0.5)
    assert model.sample(n_samples=3).shape == (2, 3, 3)


def test_views_are_refused_with_the_remedy(adata):
    view = adata[:100]
    with pytest.raises(ValueError, match=r"`adata` is a view.*`adata = adata.copy\(\)`"):
        setup(view)
    assert view.is_view and not any(key in adata.uns for key in SCVI_UNS)


def test_missing_values_in_the_population_column_belong_to_neither(adata):
    adata.obs["condition"] = adata.obs["condition"].cat.remove_categories("unused")
    setup(adata)
    assert GENOT(adata).summary_stats.n_source_cells == 60


def test_x_that_is_missing():
    adata = make_adata()
    del adata.X
    with pytest.raises(KeyError, match="'X', but adata.X is None.*'X_pca'"):
        setup(adata, source_rep="X")


def test_unknown_setup_argument(adata):
    with pytest.raises(TypeError, match="no argument 'populaton_key'|unexpected keyword argument|missing 1 required"):
        GENOT.setup_anndata(adata, populaton_key="condition", source="control", target="stimulated")


# ---- Categories and representations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [(2, 4), (np.int64(2), np.int32(4))], ids=["int", "numpy"])
@pytest.mark.parametrize("categorical", [True, False])
def test_categories_that_are_numbers(adata, days, categorical, tmp_path):
    if categorical:
        adata.obs["day"] = adata.obs["day"].astype("category")
    setup(adata, population_key="day", source=days[0], target=days[1])
    model = GENOT(adata, flow_config=SMALL)
    assert (model.summary_stats.n_source_cells, model.summary_stats.n_target_cells) == (60, 50)
    model.train(**BRIEF | {"max_steps": 20})
    samples = model.sample(n_samples=2)
    assert samples.shape == (60, 2, 3)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(GENOT.load(tmp_path / "model", adata).sample(n_samples=2), samples)
    np.testing.assert_array_equal(GENOT.load(tmp_path / "model", adata=False).sample(adata, n_samples=2), samples)


def test_a_number_as_text_is_no_category_and_the_closest_is_named(adata):
    with pytest.raises(ValueError, match="`source`='2' is no category of adata.obs.'day'., which has 2, 4, 9"):
        setup(adata, population_key="day", source="2", target=4)


REPRESENTATIONS = {
    "float64": lambda adata: adata.obsm.__setitem__("rep", adata.obsm["X_pca"].astype(np.float64)),
    "DataFrame": lambda adata: adata.obsm.__setitem__(
        "rep", pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names, columns=list("abc"))
    ),
    "csr": lambda adata: adata.obsm.__setitem__("rep", sp.csr_matrix(adata.obsm["X_pca"])),
    "csc": lambda adata: adata.obsm.__setitem__("rep", sp.csc_matrix(adata.obsm["X_pca"])),
    "csr array": lambda adata: adata.obsm.__setitem__("rep", sp.csr_array(adata.obsm["X_pca"])),
}


@pytest.mark.parametrize("kind", REPRESENTATIONS)
def test_any_kind_of_representation_gives_the_same_model(adata, trained, kind):
    REPRESENTATIONS[kind](adata)
    setup(adata, source_rep="rep")
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 200})
    np.testing.assert_array_equal(model.sample(n_samples=2), trained.sample(n_samples=2))


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray], ids=["csr", "csc", "dense"])
def test_counts_as_representation(adata, make):
    adata.X = make(adata.X.toarray())
    setup(adata, source_rep="X")
    before = snapshot(adata)
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 20})
    assert model.sample(n_samples=2).shape == (60, 2, 6)
    assert model.var_names == list(adata.var_names)
    assert_same(adata, before)
    assert type(adata.X) is (np.ndarray if make is np.asarray else make)


@pytest.mark.parametrize("rep", ["X", "X_pca"])
@pytest.mark.parametrize("sparse", [True, False])
def test_backed(adata, rep, sparse, tmp_path):
    import anndata as ad

    if not sparse:
        adata.X = adata.X.toarray()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    results = []
    for one in (backed, adata):
        setup(one, source_rep=rep)
        model = GENOT(one, flow_config=SMALL)
        model.train(**BRIEF | {"max_steps": 20})
        results.append(model.sample(n_samples=2))
        # Rows in any order and twice: files are read in ascending order only.
        results.append(model.sample(n_samples=2, indices=[5, 3, 5]))
    assert backed.isbacked
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[3])
    backed.file.close()


# ---- The model's own arguments ---------------------------------------------------------------------------------------

ARGUMENTS = {
    "epsilon": ({"epsilon": 0.0}, ValueError, "`epsilon` must be a finite number above 0, got 0.0"),
    "epsilon that is text": ({"epsilon": "0.1x"}, ValueError, "`epsilon` must be a finite number above 0"),
    "tau_source": ({"tau_source": 0.0}, ValueError, r"`tau_source` must lie in \(0, 1\], got 0.0"),
    "tau_target": ({"tau_target": 1.5}, ValueError, r"`tau_target` must lie in \(0, 1\], got 1.5"),
    "alpha": ({"alpha": 1.0}, ValueError, r"`alpha` must lie in \(0, 1\), got 1.0"),
    "coupling": ({"coupling": "minibach"}, ValueError, "`coupling` must be one of .*Did you mean 'minibatch'"),
    "problem": ({"problem": "liner"}, ValueError, "`problem` must be one of 'auto', 'linear'.*Did you mean 'linear'"),
    "cost": ({"cost": "sqeuclidian"}, ValueError, "`cost` must be one of .*Did you mean 'sqeuclidean'"),
    "cost of another kind": ({"cost": 3}, TypeError, "`cost` must be a name"),
    "unknown": ({"epsilom": 0.1}, TypeError, "no argument 'epsilom'. Did you mean 'epsilon'"),
    "scale": ({"scale_cost": "men"}, ValueError, "`scale_cost` must be one of .*Did you mean 'mean'"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_wrong_arguments_are_answered_where_they_are_given(ready, arguments, error, message, plain_calls):
    before = snapshot(ready)
    with pytest.raises(error, match=message):
        GENOT(ready, **arguments)
    assert_same(ready, before)


def test_two_representations_are_no_linear_problem_unless_said(adata):
    setup(adata, target_rep="frame")
    assert "problem: quadratic" in repr(GENOT(adata, flow_config=SMALL))
    model = GENOT(adata, problem="linear", flow_config=SMALL)
    assert "problem: linear" in repr(model) and model.summary_stats.n_target_features == 3


def test_widths_of_a_linear_problem_must_agree(adata):
    setup(adata, target_rep="X_wide")
    with pytest.raises(ValueError, match="one space, got 3 features in 'X_pca' and 6 in 'X_wide'"):
        GENOT(adata, problem="linear")


def test_model_without_setup(adata):
    with pytest.raises(ValueError, match="setup_anndata"):
        GENOT(adata)


def test_repr_says_what_the_model_is_and_whether_it_is_trained(ready, trained):
    text = repr(GENOT(ready, epsilon=0.03, tau_source=0.9, cost="cosine", flow_config=FlowConfig(hidden=(8, 9))))
    for part in ("control (60 cells) -> stimulated (50 cells)", "'condition'", "X_pca (3 -> 3 features)", "cosine"):
        assert part in text
    for part in ("epsilon 0.03", "tau 0.9 / 1", "(8, 9)", "status: not trained", "linear, global coupling"):
        assert part in text
    assert "status: trained, 200 steps (max_steps)" in repr(trained)


def test_repr_names_a_cost_that_is_a_function(ready):
    def my_cost(x, y):
        return ((x - y) ** 2).sum()

    assert "my_cost" in repr(GENOT(ready, cost=my_cost))


def test_setup_is_shown(ready, capsys):
    GENOT(ready).view_anndata_setup(ready)
    shown = capsys.readouterr().out
    for part in ("control", "stimulated", "X_pca"):
        assert part in shown


def test_two_models_on_one_anndata(ready):
    first = GENOT(ready, flow_config=SMALL)
    GENOT.setup_anndata(ready, **SETUP | {"source": "stimulated", "target": "control"})
    second = GENOT(ready, flow_config=SMALL)
    for model in (first, second):
        model.train(**BRIEF | {"max_steps": 20})
    assert len(first.sample(n_samples=1)) == 60 and len(second.sample(n_samples=1)) == 50


def test_a_copy_has_to_be_set_up_itself(ready):
    with pytest.raises(ValueError, match="setup|set up|copy"):
        GENOT(ready.copy())


def test_setting_up_a_copy_leaves_the_first_model_usable(ready):
    first = GENOT(ready, flow_config=SMALL)
    other = ready.copy()
    GENOT.setup_anndata(other, **SETUP)
    other.obsm["X_pca"] += 1
    second = GENOT(other, flow_config=SMALL)
    for model in (first, second):
        model.train(**BRIEF | {"max_steps": 20})
    assert first.adata is ready and second.adata is other
    assert (first.sample(n_samples=1) != second.sample(n_samples=1)).any()


def test_devices(trained):
    assert trained.device == "cpu:0" or trained.device.split(":")[0] in ("gpu", "tpu")
    before = trained.sample(n_samples=2)
    trained.to_device("cpu")
    np.testing.assert_array_equal(trained.sample(n_samples=2), before)
    with pytest.raises(ValueError, match="`device` must be one of .*'cpu:0'.*got 'cpuu'. Did you mean 'cpu:0'"):
        trained.to_device("cpuu")
