"""Write where source cells go, and how sure that is, into an AnnData."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scgenot._devices import DevicesLike
from scgenot._rng import RNG
from scgenot.flow import ODEConfig
from scgenot.tl._writing import Results, check_writable, safe_columns, write

if TYPE_CHECKING:
    from scgenot.model import GENOT
    from scgenot.model._queries import Summary

_OWNED = ("samples", "uncertainty", "cos_var", "variance", "model_variance", "growth")


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
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
    until: Hashable | None = None,
    devices: DevicesLike = "auto",
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
    conditions
        Which conditions, in a model that has several: as in :meth:`scgenot.GENOT.sample`. Results of one, by its name, go where
        `key_added` says; of several to `key_added`, ``"_"`` and the name of each, with ``"|"`` for ``"/"``.
    until
        In a model of a time course, the time that cells are taken to; by default each cell's next one. See
        :meth:`scgenot.GENOT.sample`.
    devices
        Devices that share the samples, as in :meth:`scgenot.GENOT.sample`.
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
    ``obs["genot_model_variance"]``
        How far the models of an ensemble disagree on the mean, where there is one.
    ``obs["genot_growth"]``
        Mass that a cell sends per unit of prior mass, where a marginal was relaxed: 1 is kept, near 0 has no counterpart,
        all 1 in a balanced problem. Left out for minibatch couplings, which do not tell.
    ``uns["genot"]["params"]``
        What was done.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.sample`; `adata` is left as it was.

    Examples
    --------
    >>> scgenot.tl.transport(adata, model, n_samples=30, store_samples=True)  # doctest: +SKIP
    >>> adata.obs["genot_uncertainty"]  # doctest: +SKIP
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
        conditions=conditions,
        until=until,
        devices=devices,
    )
    several = found if isinstance(found, dict) else {None: found}
    grown = None
    if model.knows_growth():
        asked = {"indices": indices, "conditions": conditions, "until": until}
        grown = model.get_growth(adata, n_samples=n_samples, rng=rng, **asked)
    grown = grown if isinstance(grown, dict) else {None: grown}
    params = model.describe() | {"n_samples": n_samples, "displacement": displacement}
    params |= {} if until is None else {"until": until}
    whole = adata.copy() if copy else adata
    for name, summary in several.items():
        key = key_added if name is None else f"{key_added}_{safe_columns([name])[0]}"
        about = params | (
            {"condition": conditions if name is None else name}
            if isinstance(found, dict) or conditions is not None
            else {}
        )
        results = _results(summary, grown.get(name), key, about)
        write(whole, model, key, results, owned=[f"{key}_{one}" for one in _OWNED])
    return whole if copy else None


def _results(found: Summary, growth: np.ndarray | None, key_added: str, params: dict[str, Any]) -> Results:
    measured = {"uncertainty": found.uncertainty, "cos_var": found.cos_var, "variance": found.variance}
    if found.model_variance is not None:
        measured["model_variance"] = found.model_variance
    if growth is not None:
        measured["growth"] = growth
    samples = {} if found.samples is None else {f"{key_added}_samples": found.samples}
    return Results(
        found.rows,
        obs={f"{key_added}_{name}": values for name, values in measured.items()},
        obsm={key_added: found.mean} | samples,
        uns={"params": params},
    )
