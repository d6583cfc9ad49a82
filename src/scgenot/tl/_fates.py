"""What becomes of cells by a later time, and where they came from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgenot._messages import listed
from scgenot._rng import RNG
from scgenot.flow import ODEConfig
from scgenot.tl._transfer_labels import label_results
from scgenot.tl._writing import check_writable, write

if TYPE_CHECKING:
    from scgenot.model import GENOT


def fates(
    adata: AnnData,
    model: GENOT,
    label_key: str,
    *,
    until: Hashable | None = None,
    key_added: str = "genot_fates",
    target: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    n_neighbors: int = 5,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Write how probable each label of a later time is for each cell.

    Samples of a cell are taken through all times between; each asks its nearest cells of that time for their labels.

    Parameters
    ----------
    adata
        Cells of a time course; they need not be those of training.
    model
        A trained model of a time course.
    label_key
        Column of ``obs`` with labels of the cells at the later time.
    until
        The later time; the last one of the model by default.
    key_added
        Where results go.
    target
        Where labelled cells of the later time are; by default the data of `model`, or `adata` if it has none.
    indices
        Which cells, as rows or as a boolean mask; by default all of earlier times.
    n_samples
        Samples a cell.
    n_neighbors
        Cells that each sample asks.
    batch_size
        Cells at once.
    rng
        Seed or generator.
    ode
        How the flow's equation is solved.
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. With ``key_added="genot_fates"``, and missing for other cells:

    ``obsm["genot_fates"]``
        Data frame of probabilities, one column per label. In the names of its columns ``"/"`` is ``"|"``, since files
        refuse it.
    ``obs["genot_fates"]``
        The most probable label, categorical, with the colours of the labels in ``uns["genot_fates_colors"]`` where these have
        some.
    ``obs["genot_fates_entropy"]``, ``obs["genot_fates_uncertainty"]``
        As :func:`transfer_labels` writes them.
    ``uns["genot_fates"]["labels"]``, ``uns["genot_fates"]["params"]`` (and ``["colors"]``)
        The labels as they are called, in the order of the columns; what was done.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.get_label_probabilities`; also if the model has no times. `adata` is left as it was.

    Examples
    --------
    >>> scgenot.tl.fates(adata, model, "cell_type", until=6)  # doctest: +SKIP
    >>> scgenot.pl.fates(adata, basis="umap")  # doctest: +SKIP
    """
    check_course(model)
    check_writable(adata, key_added, copy)
    until = model.times[-1] if until is None else until
    asked = {"label_key": label_key, "target": target, "until": until}
    found = model.get_label_probabilities(
        adata,
        **asked,
        indices=indices,
        n_samples=n_samples,
        n_neighbors=n_neighbors,
        batch_size=batch_size,
        rng=rng,
        ode=ode,
    )
    frequencies = model.label_frequencies(adata, **asked)
    rows = model.source_rows(adata, indices=indices, until=until)
    params = {"label_key": label_key, "until": until, "n_samples": n_samples, "n_neighbors": n_neighbors}
    results = label_results(found, frequencies, rows, key_added, model.describe() | params)
    held_by = next(one for one in (target, model.adata, adata) if one is not None)
    colors = _colors_of(model.source_adata(held_by), label_key, found.columns)
    copied = write(adata, model, key_added, results, copy=copy)
    changed = model.source_adata(adata if copied is None else copied)
    changed.uns.pop(f"{key_added}_colors", None)
    if colors is not None:
        changed.uns[f"{key_added}_colors"] = colors
        # Subsets of cells lose the colours of labels that are no cell's most probable one.
        changed.uns[key_added]["colors"] = colors
    return copied


def ancestors(
    adata: AnnData,
    model: GENOT,
    label_key: str,
    *,
    since: Hashable | None = None,
    key_added: str = "genot_ancestors",
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    n_neighbors: int = 5,
    rng: RNG = 0,
    copy: bool = False,
    **options: Any,
) -> AnnData | None:
    """Write how probable each label of an earlier time is for the ancestors of each cell.

    Parameters
    ----------
    adata
        Cells of a time course.
    model
        A trained model of a time course: one that goes back in time, which :meth:`scgenot.GENOT.reverse` returns, or a forward one
        with its data, whose reverse is trained for as many steps and used once. To ask again, pass the former.
    label_key
        Column of ``obs`` with labels of the cells at the earlier time.
    since
        The earlier time; the first one by default.
    key_added
        Where results go.
    indices, n_samples, n_neighbors, rng, copy, options
        As in :func:`fates`.

    Returns
    -------
    As :func:`fates`, with `key_added` in its names.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :func:`fates`, and :meth:`scgenot.GENOT.reverse` for a forward model that has lost its coupling.

    Examples
    --------
    >>> backward = model.reverse()  # doctest: +SKIP
    >>> scgenot.tl.ancestors(adata, backward, "cell_type", since=2)  # doctest: +SKIP
    """
    check_course(model)
    check_writable(adata, key_added, copy)
    if since is not None and since not in model.times:
        raise ValueError(f"`since` must be one of the times {listed(model.times)}, got {since!r}.")
    if not model.goes_back:
        if label_key not in adata.obs:
            raise KeyError(f"`label_key`={label_key!r} is no column of adata.obs. There are: {listed(adata.obs)}.")
        model = model.reverse(max_steps=max(model.steps_, 1), progress_bar=False)
    asked = {"until": since, "key_added": key_added, "indices": indices, "copy": copy}
    return fates(adata, model, label_key, n_samples=n_samples, n_neighbors=n_neighbors, rng=rng, **asked, **options)


def check_course(model: GENOT) -> None:
    """Raise a ``ValueError`` unless the model is one of a time course."""
    if model.times is None:
        raise ValueError(
            "this model maps one population to another, and times are asked for. Set up data with `time_key`; labels of the "
            "other population are what `scgenot.tl.transfer_labels` transfers."
        )


def _colors_of(adata: AnnData, key: str, labels: pd.Index) -> list[str] | None:
    """Return the colours that scanpy keeps of some categories of a column, where there are any."""
    stored, column = adata.uns.get(f"{key}_colors"), adata.obs.get(key)
    if stored is None or column is None or not isinstance(column.dtype, pd.CategoricalDtype):
        return None
    if len(stored) < len(column.cat.categories):
        return None
    of_all = dict(zip(column.cat.categories, stored, strict=False))
    return [str(of_all[label]) for label in labels]
