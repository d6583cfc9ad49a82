"""Look at what tau and epsilon do to the coupling of two populations, before a model is built."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from scgenot._progress import Progress
from scgenot._rng import RNG, as_key
from scgenot.costs import CostLike
from scgenot.coupling import BlockTauScan, CouplingConfig, TauScan, displaced_cost, scan_block_taus, scan_taus
from scgenot.coupling._tau_scan import EPSILONS, TAUS
from scgenot.tl._scanned import ScannedBlocks, at_suggestion, long_table, scanned_blocks, scanned_spec


def suggest_tau(
    adata: AnnData,
    *,
    population_key: str,
    source: Hashable | None,
    target: Hashable | None = None,
    source_rep: str,
    condition_keys: Mapping[str, Sequence[str] | str] | None = None,
    context_keys: Sequence[str] | str = (),
    match_keys: Sequence[str] | str | None = None,
    conditions: Sequence[str] | str | None = None,
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

    Of several conditions, each is scanned between its cells and their controls, stratum by stratum, under the one scale of the
    cost that a model of all of them has. A model has one tau and one epsilon: how they follow from what each condition needs is
    said at :func:`scgenot.coupling.scan_block_taus`.

    Parameters
    ----------
    adata
        Cells of both populations.
    population_key
        Column of ``adata.obs`` that tells populations apart.
    source, target
        Its two categories. Without `target`, all other categories are conditions, as in :meth:`scgenot.GENOT.setup_anndata`.
    source_rep
        Key of ``adata.obsm``, or ``"X"``: the space that both populations lie in.
    condition_keys, context_keys, match_keys
        As in :meth:`scgenot.GENOT.setup_anndata`: give what setup is given.
    conditions
        Names of perturbations, or of perturbations in a context (``"IFNg | B cell"``). ``None``: all, if these are at most 12
        plans of at least 20 cells a side, and otherwise 12 of them, the largest of each perturbation in turn. What is not
        scanned is said in ``"why"``; it still has its share in the scale of the cost.
    label_key
        Column of ``adata.obs`` with cell types: adds how much mass stays within a type.
    weights_key
        Column of ``adata.obs`` with prior weights.
    cost
        Ground cost, as in :class:`scgenot.GENOT`.
    displaced
        Whether source cells are moved by the difference of the two means before costs are computed: for
        perturbations, which move all cells. One pair of populations only: conditions move cells differently.
    taus, epsilons
        The grid.
    max_cells
        At most this many cells a side are used, of each condition.
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
    ``"params"``. Of several conditions the table has a column ``"condition"`` besides, and there is ``"conditions"`` (columns as
    arrays, a row each): ``"condition"``, what it needs alone (``"tau"``, ``"epsilon"``, ``"why"``), ``"n_source"`` and
    ``"n_target"``, and at the common suggestion its ``"mass"``, ``"kept"`` and ``"effective_targets"``.

    Raises
    ------
    KeyError, ValueError
        If a key or category is missing, values are not finite, labels are missing for some cells, or the grid is out of
        range; if `conditions` names one that is not there, or none that is meant has 20 cells a side; as
        :meth:`scgenot.GENOT.setup_anndata`; `adata` is left as it was.
    TypeError
        If `conditions` is of another kind.

    Examples
    --------
    >>> scgenot.tl.suggest_tau(
    ...     adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    ... )  # doctest: +SKIP
    >>> adata.uns["genot_taus"]["why"]  # doctest: +SKIP
    """
    # The model's room loads scvi-tools, which takes many seconds: only when it is needed.
    from scgenot.data import obs_column, read_transport

    arguments: dict[str, Any] = {
        "population_key": population_key,
        "source": source,
        "target": target,
        "source_rep": source_rep,
        "weights_key": weights_key,
        "condition_keys": condition_keys,
        "context_keys": context_keys or None,
        "match_keys": match_keys,
    }
    spec = scanned_spec(adata, arguments, conditions)
    if displaced and spec.conditions is not None:
        raise ValueError(
            "`displaced`=True takes one common move off, and each condition moves cells in its own way. Leave it out, or scan one "
            "pair of populations at a time (`source` and `target`, without keys of conditions)."
        )
    found = read_transport(adata, spec, "linear")
    left, right = found.populations
    labels = None if label_key is None else obs_column(adata, spec.source, label_key, "label_key")
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
    options: dict[str, Any] = {
        "taus": taus,
        "epsilons": epsilons,
        "source_weights": left.weights,
        "target_weights": right.weights,
        "source_labels": side_labels[0],
        "target_labels": side_labels[1],
        "config": CouplingConfig(cost=ground),
        "max_cells": max_cells,
    }
    cells = as_key(rng), left.cells, right.cells
    with Progress(progress_bar, "Scan") as progress:
        if found.conditions is None:
            written = _written(scan_taus(*cells, **options, progress=progress))
        else:
            chosen = scanned_blocks(found, conditions)
            of_blocks = {"scanned": chosen.numbers, "names": chosen.all_names}
            scan = scan_block_taus(*cells, chosen.blocks, **of_blocks, **options, progress=progress)
            written = _of_conditions(scan, chosen)
    params = {
        "population_key": population_key,
        "source": str(source),
        "target": "" if target is None else str(target),
        "source_rep": source_rep,
        "cost": cost if isinstance(cost, str) else getattr(cost, "name", type(cost).__name__),
        "displaced": displaced,
    }
    # Everything has been computed; from here on nothing fails half-way.
    changed = adata.copy() if copy else adata
    changed.uns[key_added] = written | {"params": params | written["params"]}
    return changed if copy else None


def _written(found: TauScan) -> dict[str, Any]:
    return {
        "tau": found.tau,
        "epsilon": found.epsilon,
        "why": found.why,
        "table": {name: np.asarray(column) for name, column in found.table.items()},
        "params": {"n_source": found.n_source, "n_target": found.n_target},
    }


def _of_conditions(found: BlockTauScan, chosen: ScannedBlocks) -> dict[str, Any]:
    here = [at_suggestion(one, tau=found.tau, epsilon=found.epsilon) for one in found.scans]
    own = {
        name: np.array([getattr(one, name) for one in found.scans])
        for name in ("tau", "epsilon", "n_source", "n_target")
    }
    own |= {name: np.array([row[name] for row in here]) for name in ("mass", "kept", "effective_targets")}
    own["why"] = np.array([one.why for one in found.scans], object)
    return {
        "tau": found.tau,
        "epsilon": found.epsilon,
        "why": f"{found.why}{chosen.said}",
        "table": long_table(found.scans, chosen.names),
        "conditions": {"condition": np.array(chosen.names, object)} | own,
        "params": {},
    }
