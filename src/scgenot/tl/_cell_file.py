"""An AnnData in a file of its own whose cells are written a block at a time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float


def check_new_file(file: str | os.PathLike[str], argument: str = "file") -> Path:
    """Refuse, before the work, a file that could not be written after it.

    Raises
    ------
    TypeError, ValueError
        If it is no path, or not of ``.h5ad``, the one format that AnnData can be backed by.
    FileExistsError
        If it is there: it may be what backs the data.
    OSError
        If there is no such folder, or nothing may be written in it.
    """
    if not isinstance(file, str | os.PathLike):
        raise TypeError(f"`{argument}` must be the path of a new .h5ad file, got {type(file).__name__}.")
    path = Path(file)
    if path.suffix != ".h5ad":
        raise ValueError(
            f"`{argument}` must end in '.h5ad', which AnnData can be backed by, got {str(file)!r}. For another format call "
            "without it, and write what is returned."
        )
    if path.exists():
        raise FileExistsError(f"`{argument}`={str(file)!r} is there already. Remove it first, or name another one.")
    part = _unfinished(path)
    try:
        part.touch(exist_ok=False)
    except OSError as error:
        raise type(error)(
            f"`{argument}`={str(file)!r} cannot be written ({error.strerror}). Name a file in a folder that is there and that "
            "you may write to."
        ) from None
    part.unlink()
    return path


def write_cells(
    path: Path,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    uns: dict[str, Any],
    rep: str,
    blocks: Iterable[tuple[slice, Float[np.ndarray, "k d"]]],
) -> AnnData:
    """Write an AnnData whose ``X`` is made of blocks, and return it backed by the file.

    The file has its name once it is whole; what fails leaves none behind.

    Parameters
    ----------
    path
        As :func:`check_new_file` returned it.
    obs, var, uns
        The other parts, which are in memory.
    rep
        Under which name ``obsm`` has ``X`` too; ``"X"``: it has not. In the file both are one matrix.
    blocks
        Rows of ``X``, and which they are. Together they are all rows.

    Returns
    -------
    The backed AnnData (``"r"``). Its ``obsm`` refers to the file as ``X`` does: AnnData itself would read all of it.
    """
    part, bare = _unfinished(path), AnnData(obs=obs, var=var, uns=uns)
    try:
        # Words of few kinds become categories, as whenever AnnData writes.
        bare.write_h5ad(part)
        with h5py.File(part, "r+") as store:
            # A matrix that is None is written as such.
            store.pop("X", None)
            x = store.create_dataset("X", (len(obs), len(var)), np.float32)
            x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            for place, block in blocks:
                x[place] = block
            if rep != "X":
                store["obsm"][rep] = x
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    cells = AnnData(filename=path, filemode="r", obs=bare.obs, var=bare.var, uns=bare.uns)
    if rep != "X":
        # Opened for itself: AnnData closes its own file now and then, as after `to_memory`.
        cells.obsm[rep] = h5py.File(path, "r")["obsm"][rep]
    return cells


def _unfinished(path: Path) -> Path:
    # A name of its own: where several processes were joined, each writes.
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
