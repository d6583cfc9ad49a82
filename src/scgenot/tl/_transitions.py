"""Which groups of target cells groups of source cells go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scgenot._messages import did_you_mean
from scgenot._rng import RNG
from scgenot.flow import ODEConfig
from scgenot.tl._writing import written_to

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
        Weigh each source cell by the mass that it sends. Makes no difference in a balanced problem; ignored where growth is
        not known.
    normalize
        Whether rows sum to 1. Otherwise they sum to the mass that a group sends, relative to all source cells.
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
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. With ``key_added="genot_transitions"``:

    ``uns["genot_transitions"]["matrix"]``
        Data frame, source groups x target groups.
    ``uns["genot_transitions"]["params"]``
        What was done.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.get_label_probabilities`; `adata` is left as it was.
    """
    target_key = target_key or source_key
    source = model.source_adata(adata)
    if source_key not in source.obs:
        raise KeyError(
            f"`source_key`={source_key!r} is no column of obs of the source cells."
            f"{did_you_mean(source_key, source.obs.columns)}"
        )
    found = model.get_label_probabilities(
        target_key,
        adata,
        target=target,
        indices=indices,
        n_samples=n_samples,
        n_neighbors=n_neighbors,
        batch_size=batch_size,
        rng=rng,
        ode=ode,
    )
    rows = model.source_rows(adata, indices=indices)
    weigh = weight_by_growth and model.knows_growth()
    weights = model.get_growth(adata, indices=rows) if weigh else np.ones(len(rows), np.float32)
    groups = source.obs[source_key].iloc[rows].astype("category").cat.remove_unused_categories()
    member = pd.get_dummies(groups).to_numpy(np.float64)
    matrix = member.T @ (found.to_numpy(np.float64) * weights[:, None])
    matrix /= matrix.sum(axis=1, keepdims=True) if normalize else len(rows)
    names = [str(one) for one in groups.cat.categories], [str(one) for one in found.columns]
    table = pd.DataFrame(matrix, index=pd.Index(names[0], name=source_key), columns=names[1])
    params = {"source_key": source_key, "target_key": target_key, "normalize": normalize, "weight_by_growth": weigh}
    whole, changed = written_to(adata, model, copy)
    changed.uns[key_added] = {"matrix": table, "params": model.describe() | params | {"n_samples": n_samples}}
    return whole if copy else None
