"""Optimal transport flow matching over AnnData."""

from __future__ import annotations

from typing import Any

from scgenot.baselines._checks import check_linear
from scgenot.data import Data
from scgenot.flow import FlowConfig
from scgenot.methods import OTCFMSolver
from scgenot.model import TransportModel


class OTCFM(TransportModel):
    """Flow matching from source cells to their partners in the plan: one image a cell, and the way there.

    What most people mean by flow matching (Tong et al., "Improving and generalizing flow-based generative models with minibatch optimal
    transport", TMLR 2024; Pooladian et al., "Multisample Flow Matching", ICML 2023). Pairs come from the coupling, over all cells by default.
    In one space, without conditions, without a density: all samples of a cell are the same.

    Parameters
    ----------
    adata
        AnnData that :meth:`setup_anndata` has seen.
    flow_config
        Widths of the velocity field and units.
    options
        As of :class:`scgenot.GENOT`: ``cost``, ``epsilon``, ``tau_source``, ``tau_target``, ``coupling`` and the coupling's options.

    Raises
    ------
    ValueError
        If `adata` is not set up, or a value is not allowed; the message says which are.

    Examples
    --------
    >>> scgenot.baselines.OTCFM.setup_anndata(
    ...     adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    ... )  # doctest: +SKIP
    >>> model = scgenot.baselines.OTCFM(adata)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    """

    method_class = OTCFMSolver
    _config_argument = "flow_config"

    def __init__(self, adata: Data | None = None, *, flow_config: FlowConfig | None = None, **options: Any) -> None:
        super().__init__(adata, method_config=flow_config, **options)
        check_linear(self)
