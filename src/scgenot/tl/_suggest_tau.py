"""Look at what tau and epsilon do to the coupling of two populations, before a model is built."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from anndata import AnnData

from scgenot._progress import Progress
from scgenot._rng import RNG, as_key
from scgenot.costs import CostLike
from scgenot.coupling import CouplingConfig, displaced_cost, scan_taus
from scgenot.coupling._tau_scan import EPSILONS, TAUS


def suggest_tau(
    adata: AnnData,
    *,
    population_key: str,
    source: Hashable,
    target: Hashable,
    source_rep: str,
    label_key: str | None = None,
    weights_key: str | None = None,
    cost: CostLike = "sqeuclidean",
    displaced: bool = False,
    taus: Sequence[float] = TAUS,
    epsilons: Sequence[float] = EPSILONS,
    max_cells: int = 1000,
    key_added: str = "genot_taus",
    rng: RNG = 0,
    progress_bar: bool = True,
    copy: bool = False,
) -> AnnData | None:
    """Scan tau and epsilon on the coupling alone, and suggest one of each.

    Taus below 1 let cells without a counterpart go. See :func:`scgenot.coupling.scan_taus` for what is suggested;
    labels have no say in it. For a figure see :func:`scgenot.pl.tau_scan`.

    Parameters
    ----------
    adata
        Cells of both populations.
    population_key
        Column of ``adata.obs`` that tells populations apart.
    source, target
        Its two categories.
    source_rep
        Key of ``adata.obsm``, or ``"X"``: the space that both populations lie in.
    label_key
        Column of ``adata.obs`` with cell types: adds how much mass stays within a type.
    weights_key
        Column of ``adata.obs`` with prior weights.
    cost
        Ground cost, as in :class:`scgenot.GENOT`.
    displaced
        Whether source cells are moved by the difference of the two means before costs are computed: for
        perturbations, which move all cells.
    taus, epsilons
        The grid.
    max_cells
        At most this many cells a side are used.
    key_added
        Where the result goes.
    rng
        Seed or generator.
    progress_bar
        Whether to show how far the scan has come.
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. With ``key_added="genot_taus"``, in ``uns["genot_taus"]``: ``"tau"``,
    ``"epsilon"``, ``"why"`` (one sentence), ``"table"`` (columns as arrays, see :class:`scgenot.coupling.TauScan`) and
    ``"params"``.

    Raises
    ------
    KeyError, ValueError
        If a key or category is missing, values are not finite, labels are missing for some cells, or the grid is out of
        range; `adata` is left as it was.

    Examples
    --------
    >>> scgenot.tl.suggest_tau(
    ...     adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    ... )  # doctest: +SKIP
    >>> adata.uns["genot_taus"]["why"]  # doctest: +SKIP
    """
    # The model's room loads scvi-tools, which takes many seconds: only when it is needed.
    from scgenot.data import Place, obs_column, read_population

    here = {"population_key": population_key, "weights_key": weights_key}
    places = [Place(side, source_rep, category=one, **here) for side, one in (("source", source), ("target", target))]
    left, right = (read_population(adata, place) for place in places)
    labels = None if label_key is None else obs_column(adata, places[0], label_key, "label_key")
    side_labels = [None, None]
    if labels is not None:
        labelled = [labels.iloc[side.rows] for side in (left, right)]
        missing = sum(int(side.isna().sum()) for side in labelled)
        if missing:
            raise ValueError(
                f"`label_key`={label_key!r} is missing for {missing} cells. Give them a label of their own."
            )
        side_labels = [side.astype(str).to_numpy() for side in labelled]
    ground = cost
    if displaced:
        ground = displaced_cost(cost, right.cells.mean(axis=0) - left.cells.mean(axis=0))
    with Progress(progress_bar, "Scan") as progress:
        found = scan_taus(
            as_key(rng),
            left.cells,
            right.cells,
            taus=taus,
            epsilons=epsilons,
            source_weights=left.weights,
            target_weights=right.weights,
            source_labels=side_labels[0],
            target_labels=side_labels[1],
            config=CouplingConfig(cost=ground),
            max_cells=max_cells,
            progress=progress,
        )
    params = {
        "population_key": population_key,
        "source": str(source),
        "target": str(target),
        "source_rep": source_rep,
        "cost": cost if isinstance(cost, str) else getattr(cost, "name", type(cost).__name__),
        "displaced": displaced,
        "n_source": found.n_source,
        "n_target": found.n_target,
    }
    # Everything has been computed; from here on nothing fails half-way.
    changed = adata.copy() if copy else adata
    changed.uns[key_added] = {
        "tau": found.tau,
        "epsilon": found.epsilon,
        "why": found.why,
        "table": {name: np.asarray(column) for name, column in found.table.items()},
        "params": params,
    }
    return changed if copy else None
