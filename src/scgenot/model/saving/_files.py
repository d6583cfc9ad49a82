"""A model as a directory: one JSON file that a person can read, weights as safetensors, optionally the data."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

FORMAT = 1
_JSON = "scgenot.json"
_WEIGHTS = "weights.safetensors"
ADATA, MUDATA = "adata.h5ad", "mdata.h5mu"


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """What a directory holds.

    Attributes
    ----------
    content
        Everything but the numbers.
    arrays
        Weights by their path in the tree of weights.
    adata_path
        The AnnData or MuData saved along, if there is one.
    """

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
    prefix: str,
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
    directory = Path(directory)
    if directory.exists() and not overwrite:
        raise FileExistsError(f"{str(directory)!r} exists already. Choose another directory, or pass overwrite=True.")
    saved_along = {"has_adata": write_adata is not None, "data_file": adata_name if write_adata else None}
    content = {"format": FORMAT} | saved_along | content
    text = json.dumps(content, indent=2, default=_plain)
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


def read_model(directory: str | Path, *, prefix: str) -> SavedModel:
    """Read a model.

    Raises
    ------
    FileNotFoundError
        If there is no model in the directory.
    ValueError
        If it was written by a later version of this package.
    """
    directory = Path(directory)
    described = directory / f"{prefix}{_JSON}"
    if not described.is_file():
        raise FileNotFoundError(
            f"{str(directory)!r} holds no saved model: there is no {described.name}. "
            "Pass the directory that was given to `model.save`, and its `prefix` if it had one."
        )
    content = json.loads(described.read_text())
    if content.get("format", 0) > FORMAT:
        raise ValueError(
            f"{str(directory)!r} was written by scgenot {content.get('version')}, in a later format than this "
            "version reads. Update scgenot."
        )
    # An AnnData of an earlier save may lie there still; it is this model's only if the model says so.
    name = content.get("data_file") or ADATA
    adata_path = directory / f"{prefix}{name}" if content.get("has_adata") else None
    return SavedModel(content, load_file(directory / f"{prefix}{_WEIGHTS}"), adata_path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot save a {type(value).__name__} as JSON.")
