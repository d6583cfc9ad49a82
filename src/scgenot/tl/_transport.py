"""Write where source cells go, and how sure that is, into an AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from scgenot._rng import RNG
from scgenot.flow import ODEConfig

if TYPE_CHECKING:
    from scgenot.model import GENOT


def transport(
    adata: AnnData,
    model: GENOT,
    *,
    key_added: str = "genot",
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    store_samples: bool = False,
    displacement: bool = False,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Transport source cells and write the result.

    Parameters
    ----------
    adata
        Cells with the source representation; it need not be the AnnData of training.
    model
        A trained model.
    key_added
        Where results go.
    indices
        Which cells, as rows or as a boolean mask; by default the source cells.
    n_samples
        Samples a cell, from which everything is estimated.
    store_samples
        Whether to keep the samples themselves: cells x `n_samples` x features.
    displacement
        Measure directions from the source cell instead of from zero in the uncertainty.
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
    ``None``, or the copy if `copy`. With ``key_added="genot"``, and NaN for cells that were not transported:

    ``obsm["genot"]``
        Mean of the samples, in units of the target representation.
    ``obsm["genot_samples"]``
        The samples, if `store_samples`.
    ``obs["genot_uncertainty"]``
        Variance over samples of the cosine between a sample and the mean sample.
    ``obs["genot_variance"]``
        Variance of the samples, summed over features.
    ``uns["genot"]["params"]``
        What was done.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.sample`; `adata` is left as it was.
    """
    found = model.summarize(
        adata,
        indices=indices,
        n_samples=n_samples,
        batch_size=batch_size,
        rng=rng,
        ode=ode,
        displacement=displacement,
        keep_samples=store_samples,
    )
    # Everything has been computed; from here on nothing fails half-way.
    changed = adata.copy() if copy else adata
    changed.obsm[key_added] = _spread(found.mean, found.rows, adata.n_obs)
    if store_samples:
        changed.obsm[f"{key_added}_samples"] = _spread(found.samples, found.rows, adata.n_obs)
    changed.obs[f"{key_added}_uncertainty"] = _spread(found.cos_var, found.rows, adata.n_obs)
    changed.obs[f"{key_added}_variance"] = _spread(found.variance, found.rows, adata.n_obs)
    changed.uns[key_added] = {"params": model.describe() | {"n_samples": n_samples, "displacement": displacement}}
    return changed if copy else None


def _spread(values: np.ndarray, rows: np.ndarray, n_obs: int) -> np.ndarray:
    """Return an array over all cells with `values` at `rows` and NaN elsewhere."""
    everywhere = np.full((n_obs, *values.shape[1:]), np.nan, dtype=np.float32)
    everywhere[rows] = values
    return everywhere
