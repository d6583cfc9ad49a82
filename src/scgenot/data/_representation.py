"""Representations of cells: reading rows of a matrix of any kind, and finding what is wrong with them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from jaxtyping import Float, Int

from scgenot._messages import did_you_mean, listed
from scgenot.data._columns import in_memory
from scgenot.data._places import Place

_SHOWN_NAMES = 3
# Numbers read at once: 1 MB in double precision, small beside any data that are read in several blocks.
_BLOCK_ENTRIES = 2**17
# Of sparse rows in a file, each read of which goes to three arrays: of 20,000 genes, 1000 rows take some 8 MB, and 6, which are that many
# numbers, would be 150 times as many reads.
_ROWS_OF_FILES = 1000


def read_representation(
    adata: AnnData,
    rep: str,
    rows: Int[np.ndarray, " n"] | None = None,
    argument: str = "source_rep",
    place: Place | None = None,
) -> Float[np.ndarray, "n d"]:
    """Return some rows of a representation as a dense float32 array, checked to be finite."""
    stored = stored_representation(adata, rep, argument, place)
    rows = np.arange(adata.n_obs) if rows is None else rows
    values = dense_rows(stored, rows)
    _check_finite(adata, rep, argument, rows, np.isfinite(values).all(axis=1))
    return values


def check_representation(
    adata: AnnData, rep: str, rows: Int[np.ndarray, " n"], argument: str, place: Place | None = None
) -> int:
    """Raise as :func:`read_representation` does, without holding more than a block; return the number of features."""
    stored = stored_representation(adata, rep, argument, place)
    finite = np.ones(len(rows), bool)
    for some, block in _row_blocks(stored, rows):
        finite[some] = _finite_rows(block)
    _check_finite(adata, rep, argument, rows, finite)
    return int(stored.shape[1])


def stored_representation(adata: AnnData, rep: str, argument: str = "source_rep", place: Place | None = None) -> Any:
    """Return the matrix that a representation is, as it is stored.

    Raises
    ------
    KeyError
        If there is none; the message names the closest.
    ValueError, TypeError
        If it is no matrix, or not of numbers.
    """
    where = "adata." if place is None else place.name_of("")
    layer = None if place is None else place.layer
    if rep == "X" and layer is not None:
        if layer not in adata.layers:
            raise KeyError(
                f"`layer`={layer!r} is no key of {where}layers.{did_you_mean(layer, adata.layers)} "
                f"There are: {listed(adata.layers)}."
            )
        stored = adata.layers[layer]
    elif rep == "X":
        if adata.X is None:
            raise KeyError(f"`{argument}`='X', but {where}X is None. Use a key of {where}obsm: {listed(adata.obsm)}.")
        stored = adata.X
    elif isinstance(rep, str) and rep in adata.obsm:
        stored = _frame_in_memory(adata.obsm[rep])
    else:
        raise KeyError(
            f"`{argument}`={rep!r} is neither 'X' nor a key of {where}obsm.{did_you_mean(rep, adata.obsm)} "
            f"There are: {listed(adata.obsm)}."
        )
    shape = tuple(getattr(stored, "shape", ()))
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"`{argument}`={rep!r} must be cells x features, got shape {shape}.")
    kinds = set(stored.dtypes) if isinstance(stored, pd.DataFrame) else {stored.dtype}
    if not all(pd.api.types.is_any_real_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind) for kind in kinds):
        raise TypeError(
            f"`{argument}`={rep!r} must hold real numbers, got {', '.join(sorted(map(str, kinds)))}. Convert it: "
            f"{where}obsm[{rep!r}].astype('float32')."
        )
    return stored


def representation_width(adata: AnnData, rep: str) -> int:
    """Return the number of features of a representation that is known to exist."""
    stored = adata.X if rep == "X" else adata.obsm[rep]
    return int(stored.shape[1])


def representation_names(adata: AnnData, rep: str) -> list[str] | None:
    """Return the names of the features of a representation, where it has any."""
    if rep == "X":
        return [str(name) for name in adata.var_names]
    stored = _frame_in_memory(adata.obsm[rep])
    return [str(name) for name in stored.columns] if isinstance(stored, pd.DataFrame) else None


def check_names(adata: AnnData, place: Place, expected: list[str] | None) -> None:
    """Raise a ``ValueError`` if the features have names, as those of training had, and these are not the same in order."""
    found = representation_names(adata, place.rep)
    if expected is None or found is None or found == expected:
        return
    missing = [name for name in expected if name not in set(found)]
    if place.rep == "X":
        names, remedy = place.name_of("var_names"), "`adata[:, model.var_names].copy()`"
    else:
        slot = place.name_of(f"obsm[{place.rep!r}]")
        names, remedy = f"the columns of {slot}", f"`{slot} = {slot}[names]` with {expected[:3]!r}... as names"
    raise ValueError(
        f"`{place.side}_rep`={place.rep!r}: {names} are not those of training, in order ({len(missing)} are missing). "
        f"Use {remedy}."
    )


def dense_rows(stored: Any, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n d"]:
    """Return some rows of a matrix of any kind as dense float32, in their order."""
    values = np.empty((len(rows), stored.shape[1]), np.float32)
    # Files are read in ascending order of rows only, and without repeats.
    if len(rows) and (np.diff(rows) <= 0).any():
        unique, back = np.unique(rows, return_inverse=True)
        return dense_rows(stored, unique)[back]
    with np.errstate(over="ignore"):
        for some, block in _row_blocks(stored, rows):
            values[some] = block.toarray() if sp.issparse(block) else block
    return values


def _row_blocks(stored: Any, rows: Int[np.ndarray, " n"]) -> Iterator[tuple[slice, Any]]:
    """Yield ascending rows a block at a time, as they are stored."""
    if isinstance(stored, CSCDataset):
        stored = stored.to_memory()
    if isinstance(stored, sp.csc_matrix | sp.csc_array):
        # Rows of it are found by going through all of it: once, not in each block.
        stored = stored.tocsr()
    if _is_lazy(stored) or isinstance(stored, CSRDataset):
        yield from _blocks_of_files(stored, rows)
        return
    size = max(1, _BLOCK_ENTRIES // max(1, stored.shape[1]))
    for start in range(0, len(rows), size):
        some = slice(start, min(start + size, len(rows)))
        if isinstance(stored, pd.DataFrame):
            yield some, stored.iloc[rows[some]].to_numpy(np.float64, na_value=np.nan)
        else:
            block = stored[rows[some]]
            yield some, block if sp.issparse(block) else np.asarray(block)


def _blocks_of_files(stored: Any, rows: Int[np.ndarray, " n"]) -> Iterator[tuple[slice, Any]]:
    """Yield the same of a matrix of dask, each chunk of which is read once, or of a sparse one in a file."""
    ends = np.cumsum(stored.chunks[0]) if _is_lazy(stored) else np.arange(0, stored.shape[0], _ROWS_OF_FILES)[1:]
    bounds = np.unique([0, *np.searchsorted(rows, ends), len(rows)])
    for start, stop in itertools.pairwise(bounds.tolist()):
        read = stored[rows[start:stop]]
        read = read.compute() if _is_lazy(read) else read
        for some, block in _row_blocks(read, np.arange(stop - start)):
            yield slice(start + some.start, start + some.stop), block


def _is_lazy(stored: Any) -> bool:
    # By what it does: dask need not be there.
    return hasattr(stored, "compute") and hasattr(stored, "chunks")


def _frame_in_memory(stored: Any) -> Any:
    # `columns` of a lazy one come in any order (anndata 0.12); once it is read, in that of the file, as its values do.
    return in_memory(stored) if hasattr(stored, "columns") else stored


def _finite_rows(block: Any) -> np.ndarray:
    # In float32, as it will be used: what is too large for it is inf there.
    with np.errstate(over="ignore"):
        if not sp.issparse(block):
            return np.isfinite(np.asarray(block, np.float32)).all(axis=1)
        block = block.tocsr()
        finite = np.isfinite(block.data.astype(np.float32))
    return (
        np.bincount(np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))[~finite], minlength=block.shape[0]) == 0
    )


def _check_finite(adata: AnnData, rep: str, argument: str, rows, finite) -> None:
    if not finite.all():
        names = adata.obs_names[rows[~finite]][:_SHOWN_NAMES]
        raise ValueError(
            f"`{argument}`={rep!r} has NaN or inf in {int((~finite).sum())} of the {len(rows)} cells that would be "
            f"used (first: {', '.join(names)}). Drop these cells, or compute the representation for them."
        )
