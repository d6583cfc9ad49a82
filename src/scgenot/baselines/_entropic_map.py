"""The entropic map over AnnData."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from scgenot.baselines._checks import check_linear
from scgenot.data import Data
from scgenot.methods import EntropicMapConfig, EntropicMapSolver
from scgenot.model import TransportModel


class EntropicMap(TransportModel):
    """The plan between the training cells, extended to any source cell by its dual potential.

    Nothing is trained. With ``map="progressive"`` cells go to their images in several steps, with a plan for each, which blurs less
    (Kassraie, Pooladian, Klein, Thornton, Niles-Weed and Cuturi, "Progressive Entropic Optimal Transport Solvers", NeurIPS 2024). In
    one space, for squared Euclidean costs, without conditions, without a density.

    Parameters
    ----------
    adata
        AnnData that :meth:`setup_anndata` has seen.
    map
        ``"entropic"`` or ``"progressive"``. ``None``: as in `map_config`.
    samples
        ``"mean"``: all samples of a cell are one, its image. ``"plan"``: training target cells, drawn from the cell's row of the
        plan. ``None``: as in `map_config`.
    map_config
        All options of the map.
    options
        As of :class:`scgenot.GENOT`: ``epsilon``, ``tau_source``, ``tau_target`` and those of the coupling.

    Raises
    ------
    ValueError
        If `adata` is not set up, or a value is not allowed; the message says which are.

    Examples
    --------
    >>> scgenot.baselines.EntropicMap.setup_anndata(
    ...     adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    ... )  # doctest: +SKIP
    >>> model = scgenot.baselines.EntropicMap(adata, map="progressive")  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    """

    method_class = EntropicMapSolver
    _config_argument = "map_config"

    def __init__(
        self,
        adata: Data | None = None,
        *,
        map: Literal["entropic", "progressive"] | None = None,
        samples: Literal["mean", "plan"] | None = None,
        map_config: EntropicMapConfig | None = None,
        **options: Any,
    ) -> None:
        chosen = {name: one for name, one in (("map", map), ("samples", samples)) if one is not None}
        if chosen:
            map_config = dataclasses.replace(map_config or EntropicMapConfig(), **chosen)
        super().__init__(adata, method_config=map_config, **options)
        check_linear(self, "sqeuclidean", "global")
