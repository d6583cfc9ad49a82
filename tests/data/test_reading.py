"""Reading cells: which belong to a category, how much memory it takes, who is held out."""

import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.conftest import BRIEF, SETUP, SMALL, assert_same, make_adata, snapshot

from scgenot import GENOT
from scgenot.data import Population, split_cells

NULLABLE = {
    "string": lambda labels: pd.array(labels, dtype="string"),
    "category of strings": lambda labels: pd.Categorical(pd.array(labels, dtype="string")),
    "objects": lambda labels: np.array([pd.NA if label is None else label for label in labels], dtype=object),
}


@pytest.mark.parametrize("kind", NULLABLE)
def test_columns_with_missing_values(adata, kind):
    labels = [None if label == "unused" else label for label in adata.obs["condition"].astype(str)]
    adata.obs["condition"] = NULLABLE[kind](labels)
    GENOT.setup_anndata(adata, **SETUP)
    model = GENOT(adata, flow_config=SMALL)
    assert (model.summary_stats.n_source_cells, model.summary_stats.n_target_cells) == (60, 50)
    assert len(model.source_rows()) == 60


def test_integers_with_missing_values(adata):
    adata.obs["day"] = pd.array([None if day == 9 else day for day in adata.obs["day"]], dtype="Int64")
    GENOT.setup_anndata(adata, **SETUP | {"population_key": "day", "source": 2, "target": 4})
    assert len(GENOT(adata, flow_config=SMALL).source_rows()) == 60


STORED = {
    "floats": ([2.0, 4.0, np.nan, 4.5], 4, [0, 1, 0, 0]),
    "text of a number": ([2.0, 4.0, np.nan, 4.5], "4", [0, 1, 0, 0]),
    "text of a float": ([2, 4, 4, 5], "4.0", [0, 1, 1, 0]),
    "text": (["4", "4.0", "a", None], "4", [1, 0, 0, 0]),
    "dates": (pd.to_datetime(["2024-01-01", "2024-01-02", None]), "2024-01-02 00:00:00", [0, 1, 0]),
    "booleans": ([True, False, True], "True", [1, 0, 1]),
    "nothing like it": ([2, 4], "x", [0, 0]),
}


@pytest.mark.parametrize(("values", "stored", "expected"), STORED.values(), ids=STORED)
@pytest.mark.parametrize("categorical", [True, False])
def test_a_category_is_found_again_by_what_was_stored(values, stored, expected, categorical):
    from scgenot.data import category_mask

    column = pd.Series(values)
    column = column.astype("category") if categorical else column
    mask = category_mask(column, stored)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, np.array(expected, bool))


def test_many_categories_are_counted_and_the_closest_comes_first(adata):
    adata.obs["guide"] = pd.Categorical([f"G{i % 26:02d}" if i % 26 < 25 else "NTC_1" for i in range(adata.n_obs)])
    with pytest.raises(ValueError, match=r"has 'NTC_1', 'G00'.*, and 6 more.*Did you mean 'NTC_1'"):
        GENOT.setup_anndata(adata, **SETUP | {"population_key": "guide", "source": "NTC", "target": "G01"})


@pytest.mark.parametrize("target", [["8h", "1d"], ("8h", "1d"), np.array(["8h", "1d"]), {"8h"}, np.nan])
def test_one_category_and_not_several(adata, target):
    before = snapshot(adata)
    with pytest.raises((TypeError, ValueError), match="`target` must be one category"):
        GENOT.setup_anndata(adata, **SETUP | {"target": target})
    assert_same(adata, before)


# ---- Memory ----------------------------------------------------------------------------------------------------------


def peak_of(call) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_setup_does_not_make_counts_dense():
    n, genes = 4000, 3000
    counts = sp.random(n, genes, density=0.001, format="csr", dtype=np.float32, random_state=0)
    obs = pd.DataFrame({"side": np.repeat(["a", "b"], n // 2)}, index=[f"c{i}" for i in range(n)])
    adata = ad.AnnData(counts, obs=obs)
    setup = {"population_key": "side", "source": "a", "target": "b", "source_rep": "X"}
    # Dense, one population alone is 24 MB.
    assert peak_of(lambda: GENOT.setup_anndata(adata, **setup)) < 6e6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cells_are_copied_once(dtype):
    from scgenot.data import dense_rows

    stored = np.ones((40_000, 50), dtype)
    rows = np.flatnonzero(np.arange(40_000) % 4)
    # 6 MB; a second copy would be as much again.
    assert peak_of(lambda: dense_rows(stored, rows)) < 1.4 * 4 * len(rows) * 50


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_array, pd.DataFrame])
def test_rows_in_any_order_and_twice(make):
    from scgenot.data import dense_rows

    values = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(dense_rows(make(values), np.array([3, 0, 3])), values[[3, 0, 3]])


WRONG_KINDS = {
    "text": lambda n: np.full((n, 3), "a", dtype=object),
    "complex": lambda n: np.full((n, 3), 1j),
    "frame of text": lambda n: pd.DataFrame({"a": ["x"] * n, "b": ["y"] * n}),
    "three axes": lambda n: np.ones((n, 3, 2), np.float32),
    "too large for float32": lambda n: np.full((n, 3), 1e200),
}


@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_representations_of_the_wrong_kind(adata, kind):
    values = WRONG_KINDS[kind](adata.n_obs)
    adata.obsm["rep"] = values.set_index(adata.obs_names) if isinstance(values, pd.DataFrame) else values
    with pytest.raises((TypeError, ValueError), match="`source_rep`='rep'"):
        GENOT.setup_anndata(adata, **SETUP | {"source_rep": "rep"})


# ---- Held-out cells --------------------------------------------------------------------------------------------------


def test_cells_are_held_out_on_both_sides_or_on_neither():
    sides = [Population(np.arange(n), np.zeros((n, 2), np.float32)) for n in (60, 4)]
    for pair in (sides, sides[::-1]):
        with pytest.warns(UserWarning, match="`validation_size`=0.1 holds out none of the 4 .* nothing is held out"):
            split = split_cells(np.random.default_rng(0), *pair, 0.1)
        assert sorted((len(split.source_train), len(split.target_train))) == [4, 60]
        assert not split.holds_out and len(split.source_held) == len(split.target_held) == 0


def test_few_cells_on_one_side_still_train_on_all():
    adata = make_adata(60, 4)
    GENOT.setup_anndata(adata, **SETUP)
    model = GENOT(adata, flow_config=SMALL)
    with pytest.warns(UserWarning, match="`validation_size`=0.1 holds out none"):
        model.train(**BRIEF | {"max_steps": 20})
    assert len(model.train_indices_) == 64 and len(model.validation_indices_) == 0
    with (
        pytest.warns(UserWarning, match="holds out none"),
        pytest.raises(ValueError, match="`early_stopping` needs held-out cells"),
    ):
        model.train(**BRIEF, early_stopping=True)
