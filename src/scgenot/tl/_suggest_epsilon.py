"""Look at what epsilon does to the coupling of two populations, before a model is built."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from scgenot._messages import one_of
from scgenot._progress import Progress
from scgenot._rng import RNG, as_key
from scgenot.costs import CostLike
from scgenot.coupling import BlockEpsilonScan, CouplingConfig, EpsilonScan, scan_block_epsilons, scan_epsilons
from scgenot.tl._scanned import ScannedBlocks, at_suggestion, long_table, scanned_blocks, scanned_spec


def suggest_epsilon(
    data: AnnData | MuData,
    *,
    population_key: str | None = None,
    source: Hashable | None = None,
    target: Hashable | None = None,
    source_modality: str | None = None,
    target_modality: str | None = None,
    source_rep: str = "X_pca",
    target_rep: str | None = None,
    condition_keys: Mapping[str, Sequence[str] | str] | None = None,
    context_keys: Sequence[str] | str = (),
    match_keys: Sequence[str] | str | None = None,
    conditions: Sequence[str] | str | None = None,
    weights_key: str | None = None,
    problem: str = "auto",
    cost: CostLike | tuple[CostLike, CostLike] | None = None,
    epsilons: Sequence[float] | None = None,
    max_cells: int = 500,
    key_added: str = "genot_epsilons",
    rng: RNG = 0,
    progress_bar: bool = True,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Scan epsilon on the coupling alone, say whether the cells determine it at all, and suggest one.

    See :func:`scgenot.coupling.scan_epsilons` for what is suggested. Labels and pairings have no say in it.

    Of several conditions, each is scanned between its cells and their controls, stratum by stratum, under the one scale of the
    cost that a model of all of them has. A model has one epsilon: how it follows from what each condition needs is said at
    :func:`scgenot.coupling.scan_block_epsilons`.

    Parameters
    ----------
    data
        Cells of both populations.
    population_key
        Column of ``obs`` that tells populations apart; not needed for two modalities.
    source, target
        Its two categories. Without `target`, all other categories of an AnnData are conditions, as in
        :meth:`scgenot.GENOT.setup_anndata`.
    source_modality, target_modality
        Modalities of a MuData.
    source_rep, target_rep
        Keys of ``obsm``, or ``"X"``. In an AnnData, `target_rep` of ``None`` means the same space.
    condition_keys, context_keys, match_keys
        As in :meth:`scgenot.GENOT.setup_anndata` and :meth:`scgenot.GENOT.setup_mudata`: give what setup is given.
    conditions
        Names of perturbations, or of perturbations in a context (``"IFNg | B cell"``). ``None``: all, if these are at most 12
        plans of at least 20 cells a side, and otherwise 12 of them, the largest of each perturbation in turn. What is not
        scanned is said in ``"why"``; it still has its share in the scale of the cost.
    weights_key
        Column of ``obs`` with prior weights.
    problem
        ``"linear"``, ``"quadratic"``, or ``"auto"``: linear in one space, else quadratic.
    cost
        Ground cost, as in :class:`scgenot.GENOT`.
    epsilons
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
        Return a changed copy and leave `data` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. With ``key_added="genot_epsilons"``, in ``uns["genot_epsilons"]``: ``"epsilon"``,
    ``"stable"``, ``"why"`` (plain sentences), ``"table"`` (columns as arrays, see
    :class:`scgenot.coupling.EpsilonScan`) and ``"params"``. Of several conditions the table has a column ``"condition"`` besides,
    and there is ``"conditions"`` (columns as arrays, a row each): ``"condition"``, what it needs alone (``"epsilon"``, ``"stable"``,
    ``"why"``), ``"n_source"`` and ``"n_target"``, and at the common suggestion its ``"agreement"`` and ``"effective_targets"``.

    Raises
    ------
    KeyError, ValueError
        If a key or category is missing, values are not finite, or the grid is out of range; if `conditions` names one that is
        not there, or none that is meant has 20 cells a side; as :meth:`scgenot.GENOT.setup_anndata`; `data` is left as it was.
    TypeError
        If `conditions` is of another kind.

    Examples
    --------
    >>> scgenot.tl.suggest_epsilon(
    ...     mdata, source_modality="atac", target_modality="rna", source_rep="X_lsi"
    ... )  # doctest: +SKIP
    >>> mdata.uns["genot_epsilons"]["why"]  # doctest: +SKIP
    """
    from scgenot.data import read_transport

    arguments: dict[str, Any] = {
        "population_key": population_key,
        "source": source,
        "target": target,
        "source_rep": source_rep,
        "target_rep": target_rep,
        "weights_key": weights_key,
        "condition_keys": condition_keys,
        "context_keys": context_keys or None,
        "match_keys": match_keys,
    }
    if isinstance(data, MuData):
        for name, modality in (("source_modality", source_modality), ("target_modality", target_modality)):
            if modality is None:
                raise ValueError(f"`{name}` is needed for a MuData: one of {', '.join(map(repr, data.mod))}.")
            arguments[name] = modality
        arguments["target_rep"] = source_rep if target_rep is None else target_rep
    elif population_key is None:
        raise ValueError("`population_key` is needed for an AnnData: the column of obs that tells populations apart.")
    spec = scanned_spec(data, arguments, conditions)
    if problem not in ("auto", "linear", "quadratic"):
        raise ValueError(one_of("problem", problem, ("auto", "linear", "quadratic")))
    if problem == "auto":
        problem = "linear" if spec.one_space else "quadratic"
    read = read_transport(data, spec, problem)
    left, right = read.populations
    options: dict[str, Any] = {
        "problem": problem,
        "epsilons": epsilons,
        "source_weights": left.weights,
        "target_weights": right.weights,
        "config": CouplingConfig(cost=cost),
        "max_cells": max_cells,
    }
    cells = as_key(rng), left.cells, right.cells
    with Progress(progress_bar, "Scan") as progress:
        if read.conditions is None:
            written = _written(scan_epsilons(*cells, **options, progress=progress))
        else:
            chosen = scanned_blocks(read, conditions)
            of_blocks = {"scanned": chosen.numbers, "names": chosen.all_names}
            scan = scan_block_epsilons(*cells, chosen.blocks, **of_blocks, **options, progress=progress)
            written = _of_conditions(scan, chosen)
    params = {name: str(value) for name, value in arguments.items() if value is not None}
    # Everything has been computed; from here on nothing fails half-way.
    changed = data.copy() if copy else data
    changed.uns[key_added] = written | {"params": params | {"problem": problem} | written["params"]}
    return changed if copy else None


def _written(found: EpsilonScan) -> dict[str, Any]:
    return {
        "epsilon": found.epsilon,
        "stable": found.stable,
        "why": found.why,
        "table": {name: np.asarray(column) for name, column in found.table.items()},
        "params": {"n_source": found.n_source, "n_target": found.n_target},
    }


def _of_conditions(found: BlockEpsilonScan, chosen: ScannedBlocks) -> dict[str, Any]:
    here = [at_suggestion(one, epsilon=found.epsilon) for one in found.scans]
    own = {
        name: np.array([getattr(one, name) for one in found.scans])
        for name in ("epsilon", "stable", "n_source", "n_target")
    }
    own |= {name: np.array([row[name] for row in here]) for name in ("agreement", "effective_targets")}
    own["why"] = np.array([one.why for one in found.scans], object)
    return {
        "epsilon": found.epsilon,
        "stable": found.stable,
        "why": f"{found.why}{chosen.said}",
        "table": long_table(found.scans, chosen.names),
        "conditions": {"condition": np.array(chosen.names, object)} | own,
        "params": {},
    }
