"""What a trained model answers, for which cells, in which order, and what it leaves alone."""

import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, SETUP, SMALL, assert_same, make_adata, snapshot

from scgenot import GENOT
from scgenot.flow import ODEConfig, conditional_mean, conditional_variance, cosine_variance
from scgenot.flow import _sampler as sampler


@pytest.fixture(scope="module")
def sources(trained):
    return np.flatnonzero(trained.adata.obs["condition"] == "control")


def test_shapes_and_names(trained, sources):
    samples = trained.sample(n_samples=4)
    assert samples.shape == (60, 4, 3) and samples.dtype == np.float32
    mean = trained.get_transported_mean(n_samples=4)
    assert mean.shape == (60, 3) and mean.dtype == np.float32
    scores = trained.get_uncertainty(n_samples=4)
    assert isinstance(scores, pd.DataFrame) and list(scores.columns) == ["uncertainty", "cos_var", "variance"]
    assert list(scores.index) == list(trained.adata.obs_names[sources])


def test_thirty_samples_by_default(trained):
    assert trained.sample(indices=[0]).shape == (1, 30, 3)


def test_summaries_are_those_of_the_samples(trained, sources):
    samples = trained.sample(n_samples=9, rng=4)
    np.testing.assert_array_equal(trained.get_transported_mean(n_samples=9, rng=4), conditional_mean(samples))
    scores = trained.get_uncertainty(n_samples=9, rng=4)
    np.testing.assert_array_equal(scores["cos_var"], cosine_variance(samples))
    np.testing.assert_allclose(scores["variance"], conditional_variance(samples).sum(1), rtol=1e-6)
    cells = trained.adata.obsm["X_pca"][sources]
    displaced = trained.get_uncertainty(n_samples=9, rng=4, displacement=True)
    np.testing.assert_array_equal(displaced["cos_var"], cosine_variance(samples, cells))
    assert (displaced["cos_var"] != scores["cos_var"]).any()
    found = trained.summarize(n_samples=9, rng=4, keep_samples=True)
    np.testing.assert_array_equal(found.samples, samples)
    np.testing.assert_array_equal(found.rows, sources)
    assert trained.summarize(n_samples=9).samples is None


def test_getters_write_nothing(trained):
    before = snapshot(trained.adata)
    trained.sample(n_samples=2)
    trained.get_transported_mean(n_samples=2)
    trained.get_uncertainty(n_samples=2)
    trained.coupling_summary()
    repr(trained)
    assert_same(trained.adata, before)


def test_getters_write_nothing_to_another_anndata(trained):
    other = make_adata(seed=1)
    before = snapshot(other)
    trained.sample(other, n_samples=2)
    trained.get_uncertainty(other, n_samples=2)
    assert_same(other, before)


def test_seeds(trained):
    first, again, other = (trained.sample(n_samples=2, rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.99
    np.testing.assert_array_equal(
        trained.sample(n_samples=2, rng=np.random.default_rng(0)),
        trained.sample(n_samples=2, rng=np.random.default_rng(0)),
    )


# ---- Which cells -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every(trained):
    """Samples of every cell by its row: what any choice of cells must agree with."""
    return trained.sample(indices=np.arange(trained.adata.n_obs), n_samples=3)


def test_source_cells_by_default_in_their_order(trained, every, sources):
    np.testing.assert_array_equal(trained.sample(n_samples=3), every[sources])


CHOICES = {
    "ints": ([5, 2, 90], [5, 2, 90]),
    "one": ([7], [7]),
    "repeated": ([4, 4, 1], [4, 4, 1]),
    "negative": ([-1, 0, -120], [119, 0, 0]),
    "unsigned": (np.array([3, 1], np.uint64), [3, 1]),
    "int8": (np.array([100, 3], np.int8), [100, 3]),
    "mask": (np.arange(120) % 40 == 3, [3, 43, 83]),
    "list mask": ([i in (2, 100) for i in range(120)], [2, 100]),
    "index": (pd.Index([8, 9]), [8, 9]),
    "series mask": (pd.Series(np.arange(120) == 6), [6]),
}


@pytest.mark.parametrize(("indices", "rows"), CHOICES.values(), ids=CHOICES)
def test_any_choice_of_cells(trained, every, indices, rows):
    samples = trained.sample(indices=indices, n_samples=3)
    # The first time that a cell is asked for; a repeat has samples of its own.
    first = np.unique(rows, return_index=True)[1]
    np.testing.assert_array_equal(samples[first], every[np.asarray(rows)[first]])
    again = np.setdiff1d(np.arange(len(rows)), first)
    assert (samples[again] != every[np.asarray(rows)[again]]).all()
    scores = trained.get_uncertainty(indices=indices, n_samples=3)
    assert list(scores.index) == list(trained.adata.obs_names[rows])
    mean = trained.get_transported_mean(indices=indices, n_samples=3)
    np.testing.assert_array_equal(mean, conditional_mean(samples))


WRONG = {
    "too large": ({"indices": [0, 120]}, IndexError, "`indices` holds 120, but adata has 120 cells"),
    "too small": ({"indices": [-121]}, IndexError, "`indices` holds -121, but adata has 120 cells"),
    "mask of another length": (
        {"indices": np.ones(3, bool)},
        ValueError,
        r"`indices` as a mask must.*120 cells.*\(3,\)",
    ),
    "fractions": ({"indices": [0.5]}, TypeError, "`indices` must be row numbers or a boolean mask, got float64"),
    "names": ({"indices": ["cell0"]}, TypeError, "`indices` must be row numbers or a boolean mask"),
    "two axes": ({"indices": [[0, 1]]}, TypeError, r"`indices` must be .*shape \(1, 2\)"),
    "one number": ({"indices": 3}, TypeError, "`indices` must be row numbers"),
    "none": ({"indices": []}, ValueError, "`indices`"),
    "an empty mask": ({"indices": np.zeros(120, bool)}, ValueError, "`indices`"),
    "no samples": ({"n_samples": 0}, ValueError, "`n_samples` must be a whole number of at least 1, got 0"),
    "fewer than no samples": (
        {"n_samples": -1},
        ValueError,
        "`n_samples` must be a whole number of at least 1, got -1",
    ),
    "part of a sample": ({"n_samples": 2.5}, ValueError, "`n_samples` must be a whole number"),
    "no batch": ({"batch_size": 0}, ValueError, "`batch_size` must be a whole number of at least 1, got 0"),
    "rng": ({"rng": 0.5}, TypeError, "`rng` must be an int, a numpy.random.Generator or None, got float"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("getter", ["sample", "get_transported_mean", "get_uncertainty"])
def test_wrong_arguments(trained, getter, arguments, error, message, plain_calls):
    before = snapshot(trained.adata)
    with pytest.raises(error, match=message):
        getattr(trained, getter)(**arguments)
    assert_same(trained.adata, before)


@pytest.mark.parametrize("getter", ["sample", "get_transported_mean", "get_uncertainty"])
def test_a_model_that_is_not_trained(ready, getter):
    with pytest.raises(RuntimeError, match=r"not trained.*Call `model.train\(\)` first"):
        getattr(GENOT(ready), getter)()


def test_batch_size_changes_nothing(trained):
    expected = trained.sample(n_samples=3)
    # Matrix products of other sizes may round otherwise.
    for batch_size in (1, 7, 1000):
        np.testing.assert_allclose(trained.sample(n_samples=3, batch_size=batch_size), expected, rtol=1e-4, atol=1e-4)


def test_careful_solver_is_near_the_fast_one(trained):
    fast, careful = trained.sample(n_samples=3), trained.sample(n_samples=3, ode=ODEConfig(solver="tsit5"))
    assert np.abs(fast - careful).max() < 0.05  # cells have a spread of 1
    assert (fast != careful).any()


def test_other_numbers_of_cells_compile_nothing(trained):
    trained.sample(n_samples=3)
    before = sampler._solve_rows._cache_size()
    trained.sample(indices=[1, 2], n_samples=11)
    trained.get_uncertainty(n_samples=40)
    trained.sample(make_adata(7, 9, seed=3), n_samples=2)
    assert sampler._solve_rows._cache_size() == before


# ---- Other AnnData ---------------------------------------------------------------------------------------------------


def test_new_cells_with_the_population_column(trained):
    new = make_adata(11, 4, seed=5)
    samples = trained.sample(new, n_samples=2)
    assert samples.shape == (11, 2, 3)
    assert list(trained.get_uncertainty(new).index) == list(new.obs_names[new.obs["condition"] == "control"])
    everything = trained.sample(new, indices=np.arange(new.n_obs), n_samples=2)
    np.testing.assert_array_equal(samples, everything[(new.obs["condition"] == "control").to_numpy()])


def test_new_cells_without_the_population_column_are_all_source_cells(trained):
    new = make_adata(11, 4, seed=5)
    expected = trained.sample(new, indices=np.arange(new.n_obs), n_samples=2)
    del new.obs["condition"]
    np.testing.assert_array_equal(trained.sample(new, n_samples=2), expected)


def test_new_cells_that_are_all_of_another_population(trained):
    new = make_adata(0, 5)
    with pytest.raises(ValueError, match="no cells to map: .*'condition'.* has no cell 'control'.*`indices`"):
        trained.sample(new)


def test_the_samples_of_new_cells_lie_where_those_of_old_ones_do(trained):
    new = make_adata(200, 4, seed=5)
    # Standard error of the mean of 200 cells with a spread of about 1: .07; of 60: .13.
    difference = trained.sample(new).mean((0, 1)) - trained.sample().mean((0, 1))
    assert np.abs(difference).max() < 5 * 0.15


def test_views_can_be_mapped(trained, every):
    view = trained.adata[20:60]
    assert view.is_view
    rows = np.flatnonzero(view.obs["condition"] == "control")
    samples = trained.sample(view, n_samples=3)
    assert view.is_view and samples.shape == (len(rows), 3, 3)
    np.testing.assert_array_equal(samples, trained.sample(view.copy(), n_samples=3))


def test_a_copy_of_the_models_anndata_gives_the_same(trained):
    np.testing.assert_array_equal(trained.sample(trained.adata.copy(), n_samples=2), trained.sample(n_samples=2))


OTHERS = {
    "no representation": (lambda new: new.obsm.__delitem__("X_pca"), KeyError, "'X_pca' is neither 'X' nor a key"),
    "another width": (
        lambda new: new.obsm.__setitem__("X_pca", new.obsm["X_wide"]),
        ValueError,
        "trained with 3 features in 'X_pca', this adata has 6",
    ),
    "not finite": (
        lambda new: new.obsm["X_pca"].__setitem__(slice(None), np.nan),
        ValueError,
        "NaN or inf in 11 of the 11",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), OTHERS.values(), ids=OTHERS)
def test_new_cells_that_do_not_fit(trained, change, error, message):
    new = make_adata(11, 4, seed=5)
    change(new)
    before = None if message.startswith("NaN") else snapshot(new)
    with pytest.raises(error, match=message):
        trained.sample(new)
    if before:
        assert_same(new, before)


@pytest.fixture(scope="module")
def on_counts():
    adata = make_adata()
    GENOT.setup_anndata(adata, **SETUP | {"source_rep": "X"})
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 20})
    return model


def test_counts_of_new_cells(on_counts):
    new = make_adata(9, 3, seed=2)
    assert on_counts.sample(new, n_samples=2).shape == (9, 2, 6)


def test_genes_in_another_order_are_noticed(on_counts):
    new = make_adata(9, 3, seed=2)[:, ::-1].copy()
    with pytest.raises(
        ValueError, match=r"not those of training, in order \(0 are missing\).*adata\[:, model.var_names\]"
    ):
        on_counts.sample(new)
    again = new[:, on_counts.var_names].copy()
    assert on_counts.sample(again, n_samples=1).shape == (9, 1, 6)


def test_other_genes_are_noticed(on_counts):
    new = make_adata(9, 3, seed=2)
    new.var_names = ["gene0", "gene1", "gene2", "gene3", "gene4", "other"]
    with pytest.raises(ValueError, match="1 are missing"):
        on_counts.sample(new)


def test_genes_of_a_superset_get_the_remedy(on_counts):
    import anndata as ad

    new = make_adata(9, 3, seed=2)
    more = ad.concat([new, ad.AnnData(np.ones((new.n_obs, 1), np.float32), obs=new.obs, var=pd.DataFrame(index=["extra"]))],
                     axis=1, merge="same")  # fmt: skip
    with pytest.raises(ValueError, match="features in 'X', this adata has 7|not those of training"):
        on_counts.sample(more)
    assert on_counts.sample(more[:, on_counts.var_names], n_samples=1).shape == (9, 1, 6)
