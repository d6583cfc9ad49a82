"""Directories that nobody vouches for: what a file says is looked up, not obeyed."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest
from tests.conftest import BRIEF, SETUP, SMALL, assert_same, make_adata, snapshot

from scgenot import GENOT

FEW = BRIEF | {"max_steps": 20}


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "model")
    return tmp_path / "model"


def forge(directory, **changes):
    """Write a directory that says something else; a name with dots stands for a nested entry."""
    path = directory / "scgenot.json"
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(content))
    return directory


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.h5ad", "other.h5ad", "sub/adata.h5ad", "scgenot.json", 3])
def test_only_its_own_data_file_is_opened(saved, tmp_path, name):
    make_adata().write_h5ad(tmp_path / "secret.h5ad")
    make_adata().write_h5ad(saved / "other.h5ad")
    forge(saved, has_adata=True, data_file=name)
    with pytest.raises(ValueError, match="`data_file`.*'adata.h5ad', 'mdata.h5mu'"):
        GENOT.load(saved)
    with pytest.raises(ValueError, match="`data_file`"):
        GENOT.load(saved, make_adata())


def test_data_that_are_missing(saved):
    forge(saved, has_adata=True, data_file="adata.h5ad")
    with pytest.raises(FileNotFoundError, match="adata.h5ad.*`adata`"):
        GENOT.load(saved)


CALLED = []


@pytest.mark.parametrize("name", ["register_cost", "Precomputed", "Cost", "resolve_cost", "__loader__", "os", 3, None])
def test_only_costs_with_options_are_made(saved, name, monkeypatch):
    from scgenot import costs

    monkeypatch.setattr(costs, "register_cost", lambda **options: CALLED.append(options))
    with pytest.raises(ValueError, match="cost.*must be one of 'Geodesic', 'displaced_cost'"):
        GENOT.load(forge(saved, init__cost={"class": name, "name": "x", "cost": None}), make_adata())
    assert CALLED == []


@pytest.mark.parametrize(
    "cost", [{"class": "Geodesic", "n_neighbours": 3}, {"class": "displaced_cost"}, {}, 3, [1, 2, 3]]
)
def test_costs_that_make_no_sense(saved, cost):
    with pytest.raises(ValueError, match="cost"):
        GENOT.load(forge(saved, init__cost=cost), make_adata())


@pytest.mark.parametrize("method", ["save", "__init__", "load", "convert_legacy_save", None, 3])
def test_only_setup_sets_up(saved, method):
    adata = make_adata()
    before = snapshot(adata)
    with pytest.raises(ValueError, match="`setup_method_name` must be one of 'setup_anndata', 'setup_mudata'"):
        GENOT.load(forge(saved, setup_method_name=method), adata)
    assert_same(adata, before)


NONSENSE = {
    "no setup": {"setup_args": None},
    "setup of another kind": {"setup_args": []},
    "other arguments of setup": {"setup_args__no_such": 3},
    "a missing key": {"setup_args": {"population_key": "condition"}},
    "no counts": {"summary_stats": {}},
    "counts of another kind": {"summary_stats__n_source_features": "many"},
    "widths below 0": {"summary_stats__n_source_features": -3},
    "widths without end": {"summary_stats__n_target_features": 10**15},
    "options that do not exist": {"init__no_such": 1},
    "options of another kind": {"init__epsilon": "a"},
    "another problem": {"init__problem": "qadratic"},
    "history of another kind": {"history": 3},
    "history of uneven length": {"history": {"train_loss": {"step": [1, 2], "train_loss": [0.1]}}},
    "steps of another kind": {"steps": "many"},
    "layers without end": {"method__config__hidden": [10**12]},
    "no method": {"method": None},
    "another method": {"method__method": "cfm"},
    "kinds of marginals": {"method__marginal_kinds": ["kept"]},
    "a format of another kind": {"format": "one"},
    "diagnostics of another kind": {"coupling": 3},
}


@pytest.mark.parametrize("changes", NONSENSE.values(), ids=NONSENSE)
def test_files_that_make_no_sense(saved, changes):
    adata = make_adata()
    before = snapshot(adata)
    forge(saved, **changes)
    for data in (adata, None):
        with pytest.raises(ValueError, match="scgenot.json|saved weights|`"):
            GENOT.load(saved, data)
    assert_same(adata, before)


@pytest.mark.parametrize("keep", [0, 1, 100, -2])
@pytest.mark.parametrize("name", ["scgenot.json", "weights.safetensors"])
def test_files_that_are_cut_off(saved, name, keep):
    path = saved / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{name}' .*(damaged|cut off)"):
        GENOT.load(saved)


@pytest.mark.parametrize("text", ["3", "[]", "null", '"text"', "\x00\xff"])
def test_json_that_is_no_model(saved, text):
    (saved / "scgenot.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="scgenot.json' .*(damaged|cut off)"):
        GENOT.load(saved)


@pytest.mark.parametrize("prefix", ["../x_", "a/b", "/tmp/x_", "..", 3, "a\\b", "x\x00"])
def test_prefixes_are_names(trained, saved, tmp_path, prefix):
    with pytest.raises((TypeError, ValueError), match="`prefix` must be"):
        trained.save(tmp_path / "other", prefix=prefix)
    with pytest.raises((TypeError, ValueError), match="`prefix` must be"):
        GENOT.load(saved, prefix=prefix)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def no_constants(text):
    raise AssertionError(f"{text} is no JSON")


def test_json_without_nan(trained, saved, tmp_path):
    # What a strict reader accepts, with numbers that JSON has no word for.
    model = GENOT.load(saved, make_adata())
    name = "validation_loss"
    model.history_ = {name: trained.history[name].copy()}
    model.history_[name].iloc[:3, 0] = [np.nan, np.inf, -np.inf]
    model._coupling_diagnostics = [row | {"objective": float("nan")} for row in model._coupling_diagnostics]
    model.save(tmp_path / "other")
    json.loads((tmp_path / "other" / "scgenot.json").read_text(), parse_constant=no_constants)
    again = GENOT.load(tmp_path / "other")
    pd.testing.assert_frame_equal(again.history[name], model.history_[name])
    assert np.isnan(again.coupling_summary()["objective"]).all()


DATES = {
    "timestamp": (pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02 03:04:05")),
    "numpy": (np.datetime64("2024-01-01"), np.datetime64("2024-01-02T03:04:05")),
    "duration": (pd.Timedelta("1D"), pd.Timedelta("36h")),
    "boolean": (True, False),
    "float": (np.float32(0.5), 4.0),
    "date": (datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)),
}


@pytest.mark.parametrize("kind", DATES)
def test_categories_that_json_has_no_word_for(adata, tmp_path, kind):
    source, target = DATES[kind]
    values = adata.obs["condition"].astype(str).map({"control": source, "stimulated": target})
    adata.obs["when"] = values.astype(object) if kind == "date" else values
    GENOT.setup_anndata(adata, **SETUP | {"population_key": "when", "source": source, "target": target})
    model = GENOT(adata, flow_config=SMALL)
    model.save(tmp_path / "model")
    loaded = GENOT.load(tmp_path / "model", adata)
    assert (loaded.summary_stats.n_source_cells, loaded.summary_stats.n_target_cells) == (60, 50)
    assert GENOT.load_registry(tmp_path / "model")["setup_args"]["source"] == source


def test_categories_that_cannot_be_saved_are_refused_before_training(adata):
    adata.obs["bin"] = pd.cut(adata.obs["mass"], 2)
    before = snapshot(adata)
    low, high = adata.obs["bin"].cat.categories
    with pytest.raises(TypeError, match="`source` must be text, a number, a truth value or a date, got Interval"):
        GENOT.setup_anndata(adata, **SETUP | {"population_key": "bin", "source": low, "target": high})
    assert_same(adata, before)


def test_what_cannot_be_stored_is_refused_before_anything_is_written(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(trained.registry_["setup_args"], "weights_key", object())
    with pytest.raises(TypeError, match="cannot save a object"):
        trained.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_of_the_first_format(trained, saved):
    """As version 0.1 wrote it: the velocity field under `flow`, no method, no rows of training cells."""
    path = saved / "scgenot.json"
    content = json.loads(path.read_text())
    method = content.pop("method")
    content |= {"format": 1, "flow": method["config"], "marginal_kinds": method["marginal_kinds"]}
    for name in ("cells",):
        content.pop(name, None)
    path.write_text(json.dumps(content))
    from safetensors.numpy import load_file, save_file

    arrays = load_file(saved / "weights.safetensors")
    save_file({k: v for k, v in arrays.items() if not k.startswith(("rows/",))}, saved / "weights.safetensors")
    loaded = GENOT.load(saved, make_adata())
    np.testing.assert_array_equal(loaded.sample(n_samples=2), trained.sample(n_samples=2))
    assert loaded.train_indices is None
