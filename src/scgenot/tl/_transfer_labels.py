"""Write which labels of the target cells source cells would have."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from mudata import MuData

from scgenot._rng import RNG
from scgenot.flow import ODEConfig, label_uncertainty
from scgenot.tl._writing import Results, check_one_condition, check_writable, safe_columns, write

if TYPE_CHECKING:
    from scgenot.model import GENOT


def transfer_labels(
    adata: AnnData | MuData,
    model: GENOT,
    label_key: str,
    *,
    key_added: str = "genot_labels",
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
    """Transfer labels of target cells to source cells, with their probabilities, and write the result.

    Each sample of a source cell asks its nearest target cells in the target representation; the probability of a label is
    the mean over samples of its share among them.

    Parameters
    ----------
    adata
        Cells with the source representation; they need not be those of training. Of a MuData, the source modality is
        written to.
    model
        A trained model.
    label_key
        Column of ``obs`` with labels of the target cells.
    key_added
        Where results go.
    target
        Where labelled target cells are; by default the data of `model`, or `adata` if it has none.
    indices
        Which cells, as rows or as a boolean mask; by default the source cells.
    n_samples
        Samples a cell.
    n_neighbors
        Target cells that each sample asks.
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
    ``None``, or the copy if `copy`. With ``key_added="genot_labels"``, and missing for other cells:

    ``obsm["genot_labels"]``
        Data frame of probabilities, one column per label. In the names of its columns ``"/"`` is ``"|"``, since files
        refuse it.
    ``obs["genot_labels"]``
        The most probable label, categorical.
    ``obs["genot_labels_entropy"]``
        Entropy of the probabilities in nats: 0 where all samples agree, at most the logarithm of the number of labels.
    ``obs["genot_labels_uncertainty"]``
        1 minus the largest probability after the sizes of labels are levelled out: the best measure of whether a cell goes
        to the wrong label (:func:`scgenot.flow.label_uncertainty`).
    ``uns["genot_labels"]["labels"]``
        The labels as they are called, in the order of the columns.
    ``uns["genot_labels"]["params"]``
        What was done.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.get_label_probabilities`; also if a copy of an object in a file is wanted. `adata` is left
        as it was.

    Examples
    --------
    >>> scgenot.tl.transfer_labels(mdata, model, "cell_type")  # doctest: +SKIP
    >>> mdata["atac"].obs["genot_labels"]  # doctest: +SKIP
    """
    check_writable(adata, key_added, copy)
    check_one_condition(conditions)
    found = model.get_label_probabilities(
        adata,
        label_key=label_key,
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
    frequencies = model.label_frequencies(adata, label_key=label_key, target=target, until=until)
    rows = model.source_rows(adata, indices=indices, conditions=conditions, until=until)
    params = {"label_key": label_key, "n_samples": n_samples, "n_neighbors": n_neighbors}
    params |= {} if conditions is None else {"condition": conditions}
    params |= {} if until is None else {"until": until}
    results = label_results(found, frequencies, rows, key_added, model.describe() | params)
    return write(adata, model, key_added, results, copy=copy)


def label_results(
    found: pd.DataFrame,
    frequencies: Float[np.ndarray, " l"],
    rows: Int[np.ndarray, " n"],
    key_added: str,
    params: dict[str, Any],
) -> Results:
    """Return what is written of probabilities of labels, cells x labels, at some rows."""
    from scgenot.model import label_entropy

    probabilities = found.to_numpy()
    return Results(
        rows,
        obs={
            key_added: pd.Categorical.from_codes(probabilities.argmax(axis=1), categories=found.columns),
            f"{key_added}_entropy": label_entropy(probabilities),
            f"{key_added}_uncertainty": label_uncertainty(probabilities, frequencies),
        },
        obsm={key_added: pd.DataFrame(probabilities, columns=safe_columns(found.columns))},
        uns={"labels": np.array([str(label) for label in found.columns], dtype=object), "params": params},
    )
