"""Transported cells as an AnnData of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scgenot._rng import RNG
from scgenot.flow import ODEConfig

if TYPE_CHECKING:
    from scgenot.model import GENOT


def transported_cells(
    adata: AnnData | MuData,
    model: GENOT,
    *,
    n_samples: int = 1,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
) -> AnnData:
    """Return transported cells: samples, not means, so that they look like cells of the target population.

    Parameters
    ----------
    adata
        Cells with the source representation. It is not changed.
    model
        A trained model.
    n_samples
        Transported cells for each source cell.
    indices
        Which cells, as rows or as a boolean mask; by default the source cells.
    batch_size
        Source cells at once.
    rng
        Seed or generator.
    ode
        How the flow's equation is solved.

    Returns
    -------
    AnnData with cells x `n_samples` rows, the samples of one source cell after another. ``X`` and, unless it is
    ``"X"``, ``obsm`` under the name of the target representation hold the samples. ``obs`` is carried over from the
    source cells, with their names in ``obs["source_cell"]``, and ``var_names`` are those of the target space where it has
    names.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.sample`.
    """
    found = model.summarize(
        adata, indices=indices, n_samples=n_samples, batch_size=batch_size, rng=rng, ode=ode, keep_samples=True
    )
    values = found.samples.reshape(-1, found.samples.shape[-1])
    obs = model.source_adata(adata).obs.iloc[np.repeat(found.rows, n_samples)].copy()
    names_before = obs.index.to_numpy().astype(str)
    obs["source_cell"] = names_before
    numbers = np.tile(np.arange(n_samples), len(found.rows))
    obs.index = pd.Index([f"{name}-transported-{k}" for name, k in zip(names_before, numbers, strict=True)])
    params = model.describe() | {"n_samples": n_samples}
    rep = params["target_rep"]
    names = model.target_var_names or [f"{rep}_{k}" for k in range(values.shape[1])]
    cells = AnnData(X=values, obs=obs, var=pd.DataFrame(index=pd.Index(names)), uns={"genot": {"params": params}})
    if rep != "X":
        cells.obsm[rep] = values.copy()
    return cells
