"""Which groups of target cells groups of source cells go to."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from mudata import MuData

from scgenot._messages import did_you_mean
from scgenot._rng import RNG
from scgenot.data import in_memory
from scgenot.flow import ODEConfig
from scgenot.tl._writing import Results, check_one_condition, check_writable, safe_columns, sent_mass, write

if TYPE_CHECKING:
    from scgenot.model import GENOT


def transitions(
    adata: AnnData | MuData,
    model: GENOT,
    source_key: str,
    target_key: str | None = None,
    *,
    key_added: str = "genot_transitions",
    weight_by_growth: bool = True,
    normalize: bool = True,
    target: AnnData | MuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    n_neighbors: int = 5,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: str | None = None,
    until: Hashable | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Write which share of each group of source cells goes to each group of target cells.

    Parameters
    ----------
    adata
        Cells with the source representation. Of a MuData, the source modality is written to.
    model
        A trained model.
    source_key
        Column of ``obs`` with groups of source cells. Cells without a group are left out.
    target_key
        The same for target cells; by default `source_key`.
    key_added
        Where the result goes.
    weight_by_growth
        Weigh each source cell by the mass that it sends: its prior weight (`weights_key` in setup) times its growth. Makes
        no difference in a balanced problem without prior weights; where growth is not known, prior weights alone count.
    normalize
        Whether rows sum to 1. Otherwise they sum to the mass that a group sends, of a prior mass of 1 over all cells asked
        for.
    target, n_neighbors
        As in :func:`transfer_labels`.
    indices
        Which cells, as rows or as a boolean mask; by default the source cells.
    n_samples
        Samples a cell.
    batch_size
        Cells at once.
    rng
        Seed or generator.
    ode
        How the flow's equation is solved.
    conditions
        The name of one condition, in a model that has several; see :meth:`scgenot.GENOT.sample`.
    until
        In a model of a time course, the time that cells are taken to; by default each cell's next one. See
        :meth:`scgenot.GENOT.sample`.
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. With ``key_added="genot_transitions"``:

    ``uns["genot_transitions"]["matrix"]``
        Data frame, source groups x target groups. In the names of its columns ``"/"`` is ``"|"``, since files refuse it.
    ``uns["genot_transitions"]["target_labels"]``
        The target groups as they are called, in the order of the columns.
    ``uns["genot_transitions"]["n_cells"]``
        Source cells behind each row.
    ``uns["genot_transitions"]["params"]``
        What was done.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.get_label_probabilities`; also if prior weights are missing or wrong, or a copy of an object
        in a file is wanted. `adata` is left as it was.

    Examples
    --------
    >>> scgenot.tl.transitions(adata, model, "cell_type")  # doctest: +SKIP
    >>> adata.uns["genot_transitions"]["matrix"]  # doctest: +SKIP
    """
    target_key = target_key or source_key
    source = model.source_adata(adata)
    if source_key not in source.obs:
        raise KeyError(
            f"`source_key`={source_key!r} is no column of obs of the source cells."
            f"{did_you_mean(source_key, source.obs.columns)}"
        )
    check_writable(adata, key_added, copy)
    check_one_condition(conditions)
    rows = model.source_rows(adata, indices=indices, conditions=conditions, until=until)
    weigh = weight_by_growth and model.knows_growth()
    # Before the samples: what is missing is said at once.
    mass = (
        sent_mass(model, adata, rows, growth=weigh, conditions=conditions, until=until)
        if weight_by_growth
        else np.full(len(rows), 1 / max(len(rows), 1))
    )
    found = model.get_label_probabilities(
        adata,
        label_key=target_key,
        target=target,
        indices=indices,
        n_samples=n_samples,
        n_neighbors=n_neighbors,
        batch_size=batch_size,
        rng=rng,
        ode=ode,
        conditions=conditions,
        until=until,
    )
    groups = in_memory(source.obs)[source_key].iloc[rows].astype("category").cat.remove_unused_categories()
    codes = groups.cat.codes.to_numpy()
    matrix = transition_matrix(found.to_numpy(), codes, mass)
    cells = np.bincount(codes[codes >= 0], minlength=len(matrix))
    if normalize:
        totals = matrix.sum(axis=1, keepdims=True)
        # A group that sends nothing has no shares.
        matrix = np.divide(matrix, totals, out=np.full_like(matrix, np.nan), where=totals > 0)
    names = pd.Index([str(one) for one in groups.cat.categories], name=source_key)
    table = pd.DataFrame(matrix, index=names, columns=safe_columns(found.columns))
    params = {"source_key": source_key, "target_key": target_key, "normalize": normalize, "weight_by_growth": weigh}
    params |= {} if conditions is None else {"condition": conditions}
    params |= {} if until is None else {"until": until}
    results = Results(
        rows,
        uns={
            "matrix": table,
            "target_labels": np.array([str(one) for one in found.columns], dtype=object),
            "n_cells": cells,
            "params": model.describe() | params | {"n_samples": n_samples},
        },
    )
    return write(adata, model, key_added, results, copy=copy)


def transition_matrix(
    probabilities: Float[np.ndarray, "n l"], groups: Int[np.ndarray, " n"], mass: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "g l"]:
    """Return the mass that goes from each group of source cells to each label.

    Parameters
    ----------
    probabilities
        Of each label, per source cell; rows sum to 1.
    groups
        Number of the group of each source cell; -1 for none, and then its mass is left out.
    mass
        Mass that each source cell sends: its share of the prior times its growth.

    Returns
    -------
    Groups x labels. Each row sums to the mass that its group sends.
    """
    known = groups >= 0
    matrix = np.zeros((groups.max(initial=-1) + 1, probabilities.shape[1]))
    np.add.at(matrix, groups[known], probabilities[known].astype(np.float64) * mass[known, None])
    return matrix
