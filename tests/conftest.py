"""Shared fixtures, and shape checks in every array-level room while tests run."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import types

import jaxtyping
from beartype import BeartypeConf, beartype

# Compilation takes most of the time, and most programs are compiled by several tests, processes and tutorials. Set before
# JAX is imported; inherited by all processes that tests start; removed at the end by the process that made it.
_COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.mkdtemp(prefix="scgenot-tests-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": _COMPILED,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

# For a process that a test starts to see that something runs, or how many programs that compiles: no number is looked at,
# compiling is most of what it does, and that takes a third less.
UNOPTIMIZED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

# Before anything imports these rooms: each annotated function then checks shapes and types of what goes in and out.
# As type checkers read annotations (PEP 484): where `float` stands, a whole number will do.
_CHECKER = types.ModuleType("scgenot_tests_typechecker")
_CHECKER.check = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[_CHECKER.__name__] = _CHECKER
_ROOMS = [f"scgenot.{room}" for room in ("costs", "sinkhorn", "metrics", "datasets", "coupling", "flow", "methods")]
_HOOK = jaxtyping.install_import_hook(_ROOMS, "scgenot_tests_typechecker.check")

import copy  # noqa: E402
import gc  # noqa: E402
from pathlib import Path  # noqa: E402

import anndata as ad  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import scipy.sparse as sp  # noqa: E402

from scgenot.flow import FlowConfig  # noqa: E402

SETUP = {"population_key": "condition", "source": "control", "target": "stimulated", "source_rep": "X_pca"}
SMALL = FlowConfig(hidden=(32, 32))
# One shape for all: the training step is compiled once for the whole session.
BRIEF = {"max_steps": 40, "batch_size": 64, "check_every": 20, "progress_bar": False}
SHIFT = np.array([4.0, 0.0, -2.0], np.float32)


def make_adata(n_control: int = 60, n_stimulated: int = 50, *, seed: int = 0, other: int = 10) -> ad.AnnData:
    """Control and stimulated cells in random order, with a few cells that belong to neither."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(["control", "stimulated", "unused"], [n_control, n_stimulated, other])
    labels = rng.permutation(labels)
    n = len(labels)
    pca = rng.normal(size=(n, 3)).astype(np.float32) * np.array([1.0, 0.7, 0.4], np.float32)
    pca[labels == "stimulated"] += SHIFT
    counts = sp.csr_matrix(rng.poisson(1.0, size=(n, 6)).astype(np.float32))
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(labels),
            "day": np.select([labels == "control", labels == "stimulated"], [2, 4], 9),
            "mass": rng.uniform(0.5, 2.0, n),
            "donor": pd.Categorical(rng.choice(["a", "b"], n)),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(6)]))
    adata.obsm["X_pca"] = pca
    adata.obsm["X_wide"] = np.concatenate([pca, pca], axis=1)
    adata.obsm["frame"] = pd.DataFrame(pca, index=adata.obs_names, columns=["a", "b", "c"])
    adata.varm["PCs"] = rng.normal(size=(6, 3)).astype(np.float32)
    adata.layers["counts"] = counts.copy()
    adata.uns["note"] = {"kept": [1, 2]}
    return adata


def snapshot(adata: ad.AnnData) -> dict:
    """Return a deep copy of all that an AnnData holds, as plain values that :func:`assert_same` compares."""
    dense = lambda x: x.toarray() if sp.issparse(x) else np.array(x)
    return {
        "X": None if adata.X is None else dense(adata.X[:]),
        "obs": adata.obs.copy(deep=True),
        "var": adata.var.copy(deep=True),
        "obsm": {k: v.toarray() if sp.issparse(v) else v.copy() for k, v in adata.obsm.items()},
        "varm": {k: v.copy() for k, v in adata.varm.items()},
        "layers": {k: dense(v) for k, v in adata.layers.items()},
        "obsp": {k: dense(v) for k, v in adata.obsp.items()},
        "uns": copy.deepcopy(dict(adata.uns)),
    }


def assert_same(adata: ad.AnnData, before: dict, *, new_uns: tuple[str, ...] = ()) -> None:
    """Fail unless `adata` is what it was, down to names, dtypes and order; `uns` may have gained `new_uns`."""
    after = snapshot(adata)
    pd.testing.assert_frame_equal(after["obs"], before["obs"])
    pd.testing.assert_frame_equal(after["var"], before["var"])
    for slot in ("obsm", "varm", "layers", "obsp"):
        assert list(after[slot]) == list(before[slot]), slot
        for key, value in before[slot].items():
            if isinstance(value, pd.DataFrame):
                pd.testing.assert_frame_equal(after[slot][key], value)
            else:
                assert after[slot][key].dtype == value.dtype
                np.testing.assert_array_equal(after[slot][key], value)
    if before["X"] is not None:
        np.testing.assert_array_equal(after["X"], before["X"])
    assert set(after["uns"]) == set(before["uns"]) | set(new_uns)
    for key, value in before["uns"].items():
        same = after["uns"][key].equals(value) if isinstance(value, pd.DataFrame) else after["uns"][key] == value
        assert same, key


# Rooms that see arrays only: numerics against closed forms, POT and SciPy, which another Python or another JAX could not break
# without breaking the contract suites, the model and the tools. Those run on every stack, as what is written here does not.
ONCE_ROOMS = {"costs", "coupling", "datasets", "flow", "methods", "metrics", "sinkhorn"}
# Programs are counted everywhere in `top/test_compilation.py`, those of a method among them.
EVERYWHERE = {"coupling/test_contract.py", "methods/test_contract.py"}
# What is said of the code rather than done by it.
ONCE = {"test_docs.py", "test_types.py"}
# Files that take longest come first, so that no process is left with one of them at the end.
LONG = [
    "test_tutorials.py",
    "test_docs.py",
    "coupling/test_contract.py",
    "model/test_training.py",
    "coupling/test_quadratic.py",
    "model/test_modalities.py",
    "coupling/test_minibatch_quadratic.py",
    "flow/test_rescaling.py",
    "top/test_growth.py",
    "top/test_compilation.py",
    "flow/test_training.py",
    "methods/test_conditions.py",
]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what the second environment of `.ci/run` leaves out, and put long files first."""
    here = Path(__file__).parent
    files = [item.path.relative_to(here).as_posix() for item in items]
    for item, name in zip(items, files, strict=True):
        if name in ONCE or (name.split("/")[0] in ONCE_ROOMS and name not in EVERYWHERE):
            item.add_marker(pytest.mark.once)
    ranks = {name: LONG.index(name) if name in LONG else len(LONG) for name in files}
    order = sorted(range(len(items)), key=lambda k: (ranks[files[k]], files[k], k))
    items[:] = [items[k] for k in order]


def pytest_unconfigure(config):
    """Remove what was compiled."""
    if _COMPILED is not None:
        shutil.rmtree(_COMPILED, ignore_errors=True)


# Each compiled program keeps some memory maps, of which Linux allows a process 65,530: beyond that, the compiler crashes.
MAPS = Path("/proc/self/maps")
MANY_MAPS = 25_000


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs():
    """Forget what was compiled, between two files, before the process holds more of it than Linux lets it."""
    yield
    if MAPS.is_file() and MAPS.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
        gc.collect()


SCVI_UNS = ("_scvi_uuid", "_scvi_manager_uuid")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def adata():
    """Two populations in three dimensions, 60 and 50 cells, and 10 of neither."""
    return make_adata()


@pytest.fixture
def ready(adata):
    """The same after setup."""
    from scgenot import GENOT

    GENOT.setup_anndata(adata, **SETUP)
    return adata


@pytest.fixture(scope="session")
def trained():
    """A small trained model. Tests that change it copy it, or train another one."""
    from scgenot import GENOT

    adata = make_adata()
    GENOT.setup_anndata(adata, **SETUP)
    model = GENOT(adata, flow_config=SMALL)
    model.train(**BRIEF | {"max_steps": 200})
    return model


@pytest.fixture
def plain_calls():
    """Switch the checks of annotations off, to see the package's own answer to an argument of the wrong type."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
