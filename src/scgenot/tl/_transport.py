"""Write where source cells go, and how sure that is, into an AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from mudata import MuData

from scgenot._rng import RNG
from scgenot.flow import ODEConfig
from scgenot.tl._writing import Results, check_writable, write

if TYPE_CHECKING:
    from scgenot.model import GENOT

_OWNED = ("samples", "uncertainty", "cos_var", "variance", "growth")


def transport(
    adata: AnnData | MuData,
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
) -> AnnData | MuData | None:
    """Transport source cells and write the result.

    Parameters
    ----------
    adata
        Cells with the source representation; they need not be those of training. Of a MuData, the source modality is
        written to.
    model
        A trained model.
    key_added
        Where results go.
    indices
        Which cells, as rows or as a boolean mask; by default the source cells.
    n_samples
        Samples per cell, from which everything is estimated. Compare the uncertainty of cells with as many samples.
    store_samples
        Whether to keep the samples themselves: cells x `n_samples` x features.
    displacement
        Measure directions from the source cell instead of from zero in ``obs["genot_cos_var"]``.
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
        How evenly the samples are spread over regions of the target population, from 0 (all in one) to 1 (over all). It
        compares cells of different groups; see :meth:`scgenot.GENOT.get_uncertainty`.
    ``obs["genot_cos_var"]``
        Variance over samples of the cosine between a sample and the mean sample. It does not compare groups, since it is
        measured from the origin of the representation (or from the source cell, with `displacement`).
    ``obs["genot_variance"]``
        Variance of the samples, summed over features. Like the two before, NaN for one sample.
    ``obs["genot_growth"]``
        Mass that a cell sends per unit of prior mass, where a marginal was relaxed: 1 is kept, near 0 has no counterpart,
        all 1 in a balanced problem. Left out for minibatch couplings, which do not tell.
    ``uns["genot"]["params"]``
        What was done.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.sample`; `adata` is left as it was.
    """
    check_writable(adata, key_added, copy)
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
    measured = {"uncertainty": found.uncertainty, "cos_var": found.cos_var, "variance": found.variance}
    if model.knows_growth():
        measured["growth"] = model.get_growth(adata, indices=indices)
    results = Results(
        found.rows,
        obs={f"{key_added}_{name}": values for name, values in measured.items()},
        obsm={key_added: found.mean} | ({f"{key_added}_samples": found.samples} if store_samples else {}),
        uns={"params": model.describe() | {"n_samples": n_samples, "displacement": displacement}},
    )
    owned = [f"{key_added}_{name}" for name in _OWNED]
    return write(adata, model, key_added, results, owned=owned, copy=copy)
