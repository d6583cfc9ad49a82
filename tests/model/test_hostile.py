"""Hundreds of hostile calls: each ends in a right answer, or in a message that names an argument, and data stay as they were."""

import copy
import json
import shutil
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import SCVI_UNS, SMALL, assert_same, make_adata, snapshot

from scgenot import GENOT

OURS = (ValueError, TypeError, KeyError, IndexError, RuntimeError, FileNotFoundError, NotImplementedError)


def careful(examples: int):
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(derandomize=True, max_examples=examples, deadline=None, suppress_health_check=checks, database=None)


def outcome(call, adata, *, names=("`",)):
    """Return what a call gives, or ``None`` where it is answered with one of our messages; data must be left alone."""
    before = None if adata is None or not isinstance(adata, ad.AnnData) else snapshot(adata)
    had = set() if before is None else set(before["uns"])
    result = error = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = call()
        except OURS as raised:
            error = raised
    if error is not None:
        assert any(name in str(error) for name in names), f"no argument is named: {error!r}"
    if before is not None:
        assert_same(adata, before, new_uns=tuple(set(SCVI_UNS) - had) if set(adata.uns) - had else ())
    return result


# ---- Changes that leave the numbers of the representation as they are, and changes that do not ------------------------


def _put(adata, values):
    adata.obsm["X_pca"] = values


def _with_labels(adata, labels):
    adata.obs["condition"] = labels


REPS = {
    "nothing": lambda a: None,
    "float64": lambda a: _put(a, a.obsm["X_pca"].astype(np.float64)),
    "csr": lambda a: _put(a, sp.csr_matrix(a.obsm["X_pca"])),
    "csc array": lambda a: _put(a, sp.csc_array(a.obsm["X_pca"])),
    "frame": lambda a: _put(a, _frame(a)),
    "nullable frame": lambda a: _put(a, _frame(a).astype("Float32")),
    "fortran order": lambda a: _put(a, np.asfortranarray(a.obsm["X_pca"])),
    "big endian": lambda a: _put(a, a.obsm["X_pca"].astype(">f4")),
    "NaN elsewhere": lambda a: a.obsm["X_pca"].__setitem__((a.obs["condition"] == "unused").to_numpy(), np.nan),
}
LABELS = {
    "nothing": lambda a: None,
    "strings": lambda a: _with_labels(a, a.obs["condition"].astype("string")),
    "objects": lambda a: _with_labels(a, a.obs["condition"].astype(object)),
    "missing": lambda a: _with_labels(a, a.obs["condition"].astype(object).replace({"unused": None})),
    "nullable": lambda a: _with_labels(a, a.obs["condition"].astype("string").replace({"unused": pd.NA})),
    "ordered": lambda a: _with_labels(a, a.obs["condition"].cat.as_ordered()),
    "unused category": lambda a: _with_labels(a, a.obs["condition"].cat.add_categories(["never"])),
}
REST = {
    "nothing": lambda a: None,
    "duplicated names": lambda a: setattr(a, "obs_names", ["same"] * a.n_obs),
    "numbers as names": lambda a: setattr(a, "obs_names", [str(k) for k in range(a.n_obs)]),
    "no X": lambda a: a.__delattr__("X"),
    "dense X": lambda a: setattr(a, "X", a.X.toarray()),
}
KEEPING = st.tuples(*(st.sampled_from(sorted(group)) for group in (REST, REPS, LABELS)))


def _frame(adata):
    return pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names, columns=list("xyz"))


def changed(adata, keeping, breaking):
    """Change names and X, the representation, the labels, in this order; then, maybe, something that breaks."""
    for group, name in zip((REST, REPS, LABELS), keeping, strict=True):
        group[name](adata)
    if breaking is not None:
        BREAKING[breaking](adata)


BREAKING = {
    "text": lambda a: _put(a, np.full((a.n_obs, 3), "a", dtype=object)),
    "complex": lambda a: _put(a, np.ones((a.n_obs, 3), np.complex64)),
    "NaN": lambda a: _put(a, np.full((a.n_obs, 3), np.nan)),
    "inf in one": lambda a: _put(a, np.where(np.arange(a.n_obs * 3).reshape(-1, 3) % 50 == 7, np.inf, 1.0)),
    "too large": lambda a: _put(a, np.full((a.n_obs, 3), 1e300)),
    "three axes": lambda a: _put(a, np.ones((a.n_obs, 3, 1), np.float32)),
    "no features": lambda a: _put(a, np.ones((a.n_obs, 0), np.float32)),
    "missing in frame": lambda a: _put(
        a, pd.DataFrame({"x": pd.array([None] * a.n_obs, dtype="Float64")}, index=a.obs_names)
    ),
    "gone": lambda a: a.obsm.__delitem__("X_pca"),
    "no column": lambda a: setattr(a, "obs", a.obs.drop(columns="condition")),
    "one label": lambda a: _with_labels(a, "control"),
    "numbers for labels": lambda a: _with_labels(a, np.arange(a.n_obs)),
    "all labels missing": lambda a: _with_labels(a, pd.array([None] * a.n_obs, dtype="string")),
    "two columns of a name": lambda a: setattr(a, "obs", pd.concat([a.obs, a.obs[["condition"]].astype(str)], axis=1)),
}
SAID = st.sampled_from(
    [None, "", "condition", "X_pca", "X", "mass", "donor", "nothing", 3, 0.5, True, ["X_pca"], np.nan, ()]
)
CATEGORY = st.sampled_from(
    ["control", "stimulated", "unused", "contrl", "", None, 2, 4.0, True, np.nan, pd.NA, ["control"], {}]
)


@careful(120)
@given(
    keeping=KEEPING,
    breaking=st.one_of(st.none(), st.none(), st.sampled_from(sorted(BREAKING))),
    changes=st.dictionaries(
        st.sampled_from(
            ["source_rep", "target_rep", "weights_key", "pairs_key", "shared_rep", "population_key", "layer"]
        ),
        SAID,
        max_size=2,
    ),
    categories=st.dictionaries(st.sampled_from(["source", "target"]), CATEGORY, max_size=1),
    options=st.dictionaries(
        st.sampled_from(
            [
                "epsilon",
                "tau_source",
                "tau_target",
                "alpha",
                "cost",
                "coupling",
                "problem",
                "scale_cost",
                "n_draws",
                "flow_config",
            ]
        ),
        st.sampled_from([0.5, 1, 0, -1.0, "a", "0.5", None, np.nan, np.inf, True, [], ("cosine",), "euclidean", {}]),
        max_size=1,
    ),
    view=st.integers(0, 9).map(lambda k: k == 0),
)
def test_setup_and_constructor(plain_calls, keeping, breaking, changes, categories, options, view):
    adata = make_adata(12, 9, other=4)
    changed(adata, keeping, breaking)
    # AnnData itself makes no view of two columns of one name.
    data = adata[:20] if view and breaking != "two columns of a name" else adata
    arguments = {"population_key": "condition", "source": "control", "target": "stimulated", "source_rep": "X_pca"}
    arguments |= changes | categories

    def call():
        GENOT.setup_anndata(data, **arguments)
        return GENOT(data, **{"flow_config": SMALL} | options)

    model = outcome(call, adata)
    harmless = not (breaking or changes or categories or options or view)
    assert model is not None or not harmless
    if model is None:
        return
    # What was accepted is what was meant, counted independently.
    assert breaking is None or arguments["source_rep"] == "X" or breaking in ("one label", "numbers for labels")
    column = list(data.obs[arguments["population_key"]].astype(object))
    for side in ("source", "target"):
        wanted = arguments[side]
        count = sum(1 for value in column if not pd.isna(value) and value == wanted)
        assert model.summary_stats[f"n_{side}_cells"] == count >= 2
    rep = arguments["source_rep"]
    width = adata.n_vars if rep == "X" else adata.obsm[rep].shape[1]
    assert model.summary_stats.n_source_features == width


@careful(80)
@given(
    keeping=KEEPING,
    breaking=st.one_of(st.none(), st.none(), st.sampled_from(sorted(BREAKING))),
    indices=st.one_of(
        st.none(),
        st.lists(st.integers(-30, 30), max_size=6),
        st.sampled_from(
            [[0.5], ["cell0"], 3, [[0, 1]], [True] * 25, [True], "all", {}, [None], slice(0, 3), [[0], [1, 2]]]
        ),
    ),
    n_samples=st.sampled_from([1, 2, 3, 2.0, np.int64(2), 0, -1, 2.5, "2", None, True, np.nan]),
    others=st.dictionaries(
        st.sampled_from(["batch_size", "rng", "ode"]),
        st.sampled_from([None, 1, 7, 0, 2.5, "a", -3, np.int32(4), 5.0, [], np.nan]),
        max_size=1,
    ),
    view=st.booleans(),
)
def test_sampling(plain_calls, trained, keeping, breaking, indices, n_samples, others, view):
    clean = make_adata(12, 9, other=4, seed=3)
    adata = clean.copy()
    changed(adata, keeping, breaking)
    data = adata[:] if view and breaking != "two columns of a name" else adata
    samples = outcome(lambda: trained.sample(data, indices=indices, n_samples=n_samples, **others), adata)
    good = indices is None or (
        isinstance(indices, list) and indices and all(type(i) is int and -25 <= i < 25 for i in indices)
    )
    labelled = indices is not None or "missing labels" in keeping or True
    harmless = (
        breaking is None and good and type(n_samples) in (int, np.int64) and n_samples > 0 and not others and labelled
    )
    touches_nan = "NaN elsewhere" in keeping and indices is not None
    assert samples is not None or not harmless or touches_nan
    if samples is None:
        return
    rows = np.flatnonzero(clean.obs["condition"] == "control") if indices is None else np.asarray(indices)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    if breaking is None and "batch_size" not in others:
        expected = trained.sample(clean, indices=rows, n_samples=int(n_samples), **others)
        np.testing.assert_allclose(samples, expected, rtol=1e-4, atol=1e-4)
    assert samples.shape[1:] == (int(n_samples), 3) and np.isfinite(samples).all()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**12),
    st.floats(allow_nan=True),
    st.sampled_from(
        ["", "a", "../x", "/etc/passwd", "GENOT", "setup_mudata", "relaxed", "quadratic", "X", "minibatch"]
    ),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(
        st.sampled_from(["class", "a", "$float", "$date", "step"]), st.sampled_from(["b", 1, None, "nan"]), max_size=2
    ),
)


def _paths(content, path=()):
    found = [path] if path else []
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in entries:
        found += _paths(value, (*path, name))
    return found


@pytest.fixture(scope="module")
def directory(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    trained.save(path)
    return path


@careful(80)
@given(data=st.data(), remove=st.booleans())
def test_forged_directories(plain_calls, trained, directory, tmp_path_factory, data, remove):
    content = json.loads((directory / "scgenot.json").read_text())
    path = data.draw(st.sampled_from(_paths(content)))
    place = content
    for name in path[:-1]:
        place = place[name]
    was = copy.deepcopy(place[path[-1]])
    if remove:
        del place[path[-1]]
    else:
        place[path[-1]] = data.draw(VALUES)
    forged = tmp_path_factory.mktemp("one") / "model"
    shutil.copytree(directory, forged)
    (forged / "scgenot.json").write_text(json.dumps(content))
    with_data = data.draw(st.booleans())
    adata = make_adata() if with_data else None
    names = ("`", "scgenot.json", "weights.safetensors", "saved weights", "holds a", "no saved model", "later format")
    model = outcome(lambda: GENOT.load(forged, adata), adata, names=names)
    if model is None:
        return
    # What loads answers: as the model that was saved, unless the file says that other cells are meant.
    samples = outcome(lambda: model.sample(make_adata(), n_samples=1), None, names=(*names, "is not trained"))
    if samples is not None and path[0] not in ("setup_args", "method"):
        np.testing.assert_array_equal(samples, trained.sample(n_samples=1))
    assert isinstance(repr(model), str), was


@careful(40)
@given(name=st.sampled_from(["scgenot.json", "weights.safetensors"]), share=st.floats(0, 1), flip=st.booleans())
def test_damaged_files(plain_calls, trained, directory, tmp_path_factory, name, share, flip):
    forged = tmp_path_factory.mktemp("one") / "model"
    shutil.copytree(directory, forged)
    content = bytearray((forged / name).read_bytes())
    place = min(int(share * len(content)), len(content) - 1)
    if flip:
        content[place] ^= 0xFF
    (forged / name).write_bytes(bytes(content) if flip else bytes(content[:place]))
    names = ("`", name, "saved weights", "holds a", "later format")
    model = outcome(lambda: GENOT.load(forged), None, names=names)
    if not flip:
        # Cut off by the newline at the end alone, JSON is whole.
        assert model is None or (name == "scgenot.json" and place >= len(content) - 1)
    if model is not None and name == "scgenot.json":
        samples = outcome(lambda: model.sample(make_adata(), n_samples=1), None, names=names)
        assert samples is None or np.isfinite(samples).all()
