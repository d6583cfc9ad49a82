"""Transported cells as an AnnData of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scgenot._rng import RNG, as_key
from scgenot.flow import ODEConfig

if TYPE_CHECKING:
    from scgenot.model import GENOT


def transported_cells(
    adata: AnnData | MuData,
    model: GENOT,
    *,
    n_samples: int = 1,
    indices: Sequence[int] | np.ndarray | None = None,
    weight_by_growth: bool = False,
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
    weight_by_growth
        Draw source cells in proportion to their growth, as many as there are, so that transported cells are composed as the
        plan's targets are: cells without a counterpart are left out, growing ones come several times.
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
        As :meth:`scgenot.GENOT.sample` and, with `weight_by_growth`, :meth:`scgenot.GENOT.get_growth`.
    """
    rows = model.source_rows(adata, indices=indices)
    each = _copies(model, adata, rows, rng) if weight_by_growth else np.ones(len(rows), int)
    rows, each = rows[each > 0], n_samples * each[each > 0]
    found = model.summarize(
        adata, indices=rows, n_samples=int(each.max()), batch_size=batch_size, rng=rng, ode=ode, keep_samples=True
    )
    values = found.samples[np.arange(each.max())[None, :] < each[:, None]]
    obs = model.source_adata(adata).obs.iloc[np.repeat(rows, each)].copy()
    names_before = obs.index.to_numpy().astype(str)
    obs["source_cell"] = names_before
    numbers = np.concatenate([np.arange(count) for count in each])
    obs.index = pd.Index([f"{name}-transported-{k}" for name, k in zip(names_before, numbers, strict=True)])
    params = model.describe() | {"n_samples": n_samples, "weight_by_growth": weight_by_growth}
    rep = params["target_rep"]
    names = model.target_var_names or [f"{rep}_{k}" for k in range(values.shape[1])]
    cells = AnnData(X=values, obs=obs, var=pd.DataFrame(index=pd.Index(names)), uns={"genot": {"params": params}})
    if rep != "X":
        cells.obsm[rep] = values.copy()
    return cells


def _copies(model: GENOT, adata: AnnData | MuData, rows: np.ndarray, rng: RNG) -> np.ndarray:
    """Return how often each of the cells is taken, in proportion to its growth; as many as there are in all."""
    share = np.cumsum(model.get_growth(adata, indices=rows).astype(np.float64))
    offset = float(jax.random.uniform(jax.random.fold_in(as_key(rng), 0)))
    # Evenly spaced quantiles: a cell comes as often as its share says, up to rounding.
    quantiles = (np.arange(len(rows)) + offset) / len(rows) * share[-1]
    chosen = np.minimum(np.searchsorted(share, quantiles, side="right"), len(rows) - 1)
    return np.bincount(chosen, minlength=len(rows))
