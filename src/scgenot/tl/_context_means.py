"""Contexts described by their controls, so that one whose treated cells nobody has seen can be predicted."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd
from anndata import AnnData

from scgenot._messages import did_you_mean, listed
from scgenot.data import Place, check_category, check_copyable, obs_column, population_rows, read_representation

_FEWEST_CELLS = 2


def context_means(
    adata: AnnData,
    context_key: str,
    *,
    population_key: str,
    source: Hashable,
    source_rep: str = "X_pca",
    key_added: str = "context_means",
    copy: bool = False,
) -> AnnData | None:
    """Write the mean of the untreated cells of each context, to describe contexts to a model of conditions.

    With ``context_keys=(context_key,)`` and ``condition_reps={context_key: "context_means"}`` in setup, a model can predict what
    a perturbation does in a context of which it has controls only, such as a new donor.

    Parameters
    ----------
    adata
        Untreated cells of all contexts.
    context_key
        Column of ``obs`` that tells contexts apart: cell type, donor, cell line.
    population_key, source
        Column of ``obs`` and its category of untreated cells.
    source_rep
        Key of ``obsm``, or ``"X"``: what is averaged.
    key_added
        Where the result goes.
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. ``uns[key_added]`` is a data frame with one row a context, and the mean of each feature
    over its controls, in units of the representation.

    Raises
    ------
    KeyError
        If a column or representation is missing.
    ValueError
        If a context has fewer than two controls, or values are not finite.

    Examples
    --------
    >>> scgenot.tl.context_means(adata, "donor", population_key="drug", source="control")  # doctest: +SKIP
    >>> adata.uns["context_means"]  # doctest: +SKIP
    """
    check_category("source", source)
    if copy:
        check_copyable(adata)
    place = Place("source", source_rep, population_key=population_key, category=source)
    everywhere = obs_column(adata, place, context_key, "context_key")
    rows = population_rows(adata, place)
    cells = read_representation(adata, source_rep, rows, "source_rep", place)
    labels = everywhere.iloc[rows].astype(str).to_numpy()
    named = sorted(everywhere.dropna().astype(str).unique())
    few = [name for name in named if (labels == name).sum() < _FEWEST_CELLS]
    if few:
        raise ValueError(
            f"`context_key`={context_key!r}: {listed(few)} have fewer than {_FEWEST_CELLS} controls, from which they would be "
            f"described. Leave their cells out, or describe contexts otherwise.{did_you_mean(few[0], set(named) - set(few))}"
        )
    means = np.stack([cells[labels == name].mean(axis=0) for name in named])
    frame = pd.DataFrame(means, index=named, columns=[f"{source_rep}_{k}" for k in range(means.shape[1])])
    whole = adata.copy() if copy else adata
    whole.uns[key_added] = frame
    return whole if copy else None
