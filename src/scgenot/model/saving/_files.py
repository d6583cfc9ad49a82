"""A model as a directory: one JSON file that a person can read, weights as safetensors, optionally the data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from scgenot._messages import one_of
from scgenot.model.saving._plain import from_plain, to_plain

# 1: up to version 0.1, with the velocity field under "flow". 2: the method describes itself, under "method".
FORMAT = 2
_JSON = "scgenot.json"
_WEIGHTS = "weights.safetensors"
ADATA, MUDATA = "adata.h5ad", "mdata.h5mu"
# What Python, NumPy, pandas and safetensors raise on content that makes no sense.
_SENSELESS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    ArithmeticError,
    RecursionError,
    SafetensorError,
)


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """What a directory holds.

    Attributes
    ----------
    path
        The JSON file.
    content
        Everything but the numbers.
    arrays
        Weights by their path in the tree of weights.
    adata_path
        The AnnData or MuData saved along, if there is one.
    """

    path: Path
    content: dict[str, Any]
    arrays: dict[str, np.ndarray]
    adata_path: Path | None


def flatten_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a tree by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten_arrays(template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return a tree like `template` with the leaves that :func:`flatten_arrays` gave.

    Raises
    ------
    ValueError
        If paths or shapes do not fit.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    found = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        if name not in arrays or arrays[name].shape != leaf.shape:
            got = "nothing" if name not in arrays else f"shape {arrays[name].shape}"
            raise ValueError(f"the saved weights do not fit this model: {name} should be {leaf.shape}, got {got}.")
        found.append(jax.numpy.asarray(arrays[name]))
    return jax.tree_util.tree_unflatten(structure, found)


def write_model(
    directory: str | Path,
    content: dict[str, Any],
    arrays: dict[str, np.ndarray],
    *,
    prefix: str | None,
    overwrite: bool,
    write_adata: Callable[[Path], None] | None = None,
    adata_name: str = ADATA,
) -> None:
    """Write a model, all of it or nothing: files are written aside and moved into place when all are there.

    The data, if any, are written by `write_adata` under `adata_name`.

    Raises
    ------
    FileExistsError
        If the directory exists and `overwrite` is false.
    TypeError
        If `content` has something that JSON cannot hold.
    """
    directory, prefix = Path(directory), checked_prefix(prefix)
    if directory.exists() and not overwrite:
        raise FileExistsError(f"{str(directory)!r} exists already. Choose another directory, or pass overwrite=True.")
    saved_along = {"has_adata": write_adata is not None, "data_file": adata_name if write_adata else None}
    content = {"format": FORMAT} | saved_along | content
    # Strict JSON: other readers know no NaN.
    text = json.dumps(to_plain(content), indent=2, allow_nan=False)
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".saving-", dir=directory))
    try:
        # Contiguous copies: safetensors writes buffers as they lie, and a transposed view would be written transposed.
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(contiguous, aside / f"{prefix}{_WEIGHTS}")
        if write_adata is not None:
            write_adata(aside / f"{prefix}{adata_name}")
        (aside / f"{prefix}{_JSON}").write_text(text + "\n")
        for path in sorted(aside.iterdir()):
            path.replace(directory / path.name)
    finally:
        shutil.rmtree(aside)
        if is_new and not any(directory.iterdir()):
            directory.rmdir()


def checked_prefix(prefix: str | None) -> str:
    """Return what is put before the names of files; raise unless it leaves them in their directory."""
    if prefix is None:
        return ""
    if not isinstance(prefix, str):
        raise TypeError(f"`prefix` must be text, got {type(prefix).__name__}.")
    if prefix.startswith(".") or set(prefix) & set("/\\\0"):
        raise ValueError(
            f"`prefix` must be the first part of a file's name, without '/' and no dot first, got {prefix!r}."
        )
    return prefix


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say which file is wrong where what it holds makes no sense."""
    try:
        yield
    except _SENSELESS as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        missing = "an entry is missing: " if isinstance(error, KeyError) else ""
        raise ValueError(
            f"{str(path)!r} is damaged, cut off, or was not written by scgenot: {missing}{text}. Save the model again, or "
            "ask where the file comes from."
        ) from error


def read_model(directory: str | Path, *, prefix: str | None) -> SavedModel:
    """Read a model. What it says is not to be trusted: names of files are looked up, not followed.

    Raises
    ------
    FileNotFoundError
        If there is no model in the directory.
    ValueError
        If a file is cut off or damaged, or it was written by a later version of this package.
    """
    directory, prefix = Path(directory), checked_prefix(prefix)
    path = json_path(directory, prefix)
    content = read_content(path)
    weights = directory / f"{prefix}{_WEIGHTS}"
    if not weights.is_file():
        raise FileNotFoundError(f"{str(directory)!r} holds no {weights.name}: the model was not copied whole.")
    with reading(weights):
        arrays = load_file(weights)
    # An AnnData of an earlier save may lie there still; it is this model's only if the model says so.
    data_path = None
    if content.get("has_adata"):
        name = content.get("data_file", ADATA)
        if name not in (ADATA, MUDATA):
            raise ValueError(f"{str(path)!r}: {one_of('data_file', name, (ADATA, MUDATA))}")
        data_path = directory / f"{prefix}{name}"
    return SavedModel(path, content, arrays, data_path)


def json_path(directory: str | Path, prefix: str) -> Path:
    """Return where the JSON file of a model is."""
    return Path(directory) / f"{prefix}{_JSON}"


def read_content(path: Path) -> dict[str, Any]:
    """Return what the JSON file of a model says; raises as :func:`read_model`."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(path.parent)!r} holds no saved model: there is no {path.name}. "
            "Pass the directory that was given to `model.save`, and its `prefix` if it had one."
        )
    with reading(path):
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=from_plain)
        if not isinstance(content, dict):
            raise ValueError("it holds no model")
        written_as = content.get("format", 0)
        if not isinstance(written_as, int):
            raise ValueError(f"its format is {written_as!r}")
    if written_as > FORMAT:
        raise ValueError(
            f"{str(path.parent)!r} was written by scgenot {content.get('version')}, in a later format than this "
            "version reads. Update scgenot."
        )
    return content
