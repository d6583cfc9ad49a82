"""Look at what epsilon does to the coupling of two populations, before a model is built."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from scgenot._messages import one_of
from scgenot._progress import Progress
from scgenot._rng import RNG, as_key
from scgenot.costs import CostLike
from scgenot.coupling import CouplingConfig, scan_epsilons


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

    Parameters
    ----------
    data
        Cells of both populations.
    population_key
        Column of ``obs`` that tells populations apart; not needed for two modalities.
    source, target
        Its two categories.
    source_modality, target_modality
        Modalities of a MuData.
    source_rep, target_rep
        Keys of ``obsm``, or ``"X"``. In an AnnData, `target_rep` of ``None`` means the same space.
    weights_key
        Column of ``obs`` with prior weights.
    problem
        ``"linear"``, ``"quadratic"``, or ``"auto"``: linear in one space, else quadratic.
    cost
        Ground cost, as in :class:`scgenot.GENOT`.
    epsilons
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
        Return a changed copy and leave `data` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. With ``key_added="genot_epsilons"``, in ``uns["genot_epsilons"]``: ``"epsilon"``,
    ``"stable"``, ``"why"`` (plain sentences), ``"table"`` (columns as arrays, see
    :class:`scgenot.coupling.EpsilonScan`) and ``"params"``.

    Raises
    ------
    KeyError, ValueError
        If a key or category is missing, values are not finite, or the grid is out of range; `data` is left as it was.

    Examples
    --------
    >>> scgenot.tl.suggest_epsilon(
    ...     mdata, source_modality="atac", target_modality="rna", source_rep="X_lsi"
    ... )  # doctest: +SKIP
    >>> mdata.uns["genot_epsilons"]["why"]  # doctest: +SKIP
    """
    from scgenot.data import PopulationSpec, read_population

    arguments: dict[str, Any] = {
        "population_key": population_key,
        "source": source,
        "target": target,
        "source_rep": source_rep,
        "target_rep": target_rep,
        "weights_key": weights_key,
    }
    if isinstance(data, MuData):
        for name, modality in (("source_modality", source_modality), ("target_modality", target_modality)):
            if modality is None:
                raise ValueError(f"`{name}` is needed for a MuData: one of {', '.join(map(repr, data.mod))}.")
            arguments[name] = modality
        arguments["target_rep"] = source_rep if target_rep is None else target_rep
    elif population_key is None:
        raise ValueError("`population_key` is needed for an AnnData: the column of obs that tells populations apart.")
    spec = PopulationSpec.from_arguments(arguments)
    if problem not in ("auto", "linear", "quadratic"):
        raise ValueError(one_of("problem", problem, ("auto", "linear", "quadratic")))
    if problem == "auto":
        problem = "linear" if spec.one_space else "quadratic"
    left, right = (read_population(data, place) for place in (spec.source, spec.target))
    with Progress(progress_bar, "Scan") as progress:
        found = scan_epsilons(
            as_key(rng),
            left.cells,
            right.cells,
            problem=problem,
            epsilons=epsilons,
            source_weights=left.weights,
            target_weights=right.weights,
            config=CouplingConfig(cost=cost),
            max_cells=max_cells,
            progress=progress,
        )
    params = {name: str(value) for name, value in arguments.items() if value is not None}
    # Everything has been computed; from here on nothing fails half-way.
    changed = data.copy() if copy else data
    changed.uns[key_added] = {
        "epsilon": found.epsilon,
        "stable": found.stable,
        "why": found.why,
        "table": {name: np.asarray(column) for name, column in found.table.items()},
        "params": params | {"problem": problem, "n_source": found.n_source, "n_target": found.n_target},
    }
    return changed if copy else None
