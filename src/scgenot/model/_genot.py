"""GENOT over AnnData and MuData."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from scgenot.coupling import CouplingKind, Kind
from scgenot.data import Data
from scgenot.flow import FlowConfig
from scgenot.methods import GENOTSolver
from scgenot.model._base import TransportModel


class GENOT(TransportModel):
    """Generative entropic neural optimal transport between two populations of cells.

    For each source cell the model learns the distribution of target cells that the entropic optimal transport plan
    couples it with, by flow matching (Klein, Uscidda, Theis and Cuturi, "GENOT: Entropic (Gromov) Wasserstein Flow
    Matching with Applications to Single-Cell Genomics", NeurIPS 2024).

    Parameters
    ----------
    adata
        AnnData that :meth:`setup_anndata`, or MuData that :meth:`setup_mudata` has seen.
    problem
        ``"linear"``: both populations in one space. ``"quadratic"``: in spaces that cannot be compared; cells that are
        close go to cells that are close. ``"fused"``: quadratic, with features or pairs of cells that tie the two.
        ``"auto"`` reads it off setup: fused with `shared_rep` or `pairs_key`, otherwise linear within one
        representation and quadratic between two.
    cost
        Ground cost: ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"``, ``"pearson"``, an OTT ``CostFn``, or a function
        of two cells written with ``jax.numpy``; see :mod:`scgenot.costs`. In quadratic and fused problems also a pair,
        within the source and within the target population. ``None``: squared Euclidean in linear problems, Euclidean
        in the others.
    epsilon
        Strength of the entropy, in units of the mean cost. Smaller is sharper, and slower to couple. ``None``: the
        default of the problem.
    tau_source, tau_target
        In (0, 1]: how strictly each population must be used up; 1 is balanced.
    alpha
        In (0, 1): weight of the quadratic term in fused problems. The other problems do not use it.
    coupling
        ``"global"``: one transport problem over all cells. ``"extended"``: the same over some of them, extended to the others, in
        time linear in the number of cells. ``"auto"``: global up to some 40,000 cells a side in one space and always between spaces, extended
        above. ``"minibatch"``: the paper's, one in each step.
    n_models
        Velocity fields that learn side by side, an ensemble: how far they disagree on a cell is reported beside the spread of its samples.
        Time grows with it. ``None``: as in `flow_config`, one by default.
    flow_config
        Widths of the velocity field and units.
    coupling_options
        Any other field of :class:`scgenot.coupling.CouplingConfig`, such as ``scale_cost`` or ``tolerance``.

    Raises
    ------
    ValueError
        If `adata` is not set up, or a value is not allowed; the message says which are.

    Examples
    --------
    >>> scgenot.GENOT.setup_anndata(
    ...     adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    ... )  # doctest: +SKIP
    >>> model = scgenot.GENOT(adata)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> scgenot.tl.transport(adata, model)  # doctest: +SKIP
    """

    method_class = GENOTSolver
    _config_argument = "flow_config"

    def __init__(
        self,
        adata: Data | None = None,
        *,
        problem: Literal["auto", "linear", "quadratic", "fused"] = "auto",
        cost: str | Callable[..., Any] | tuple[Any, Any] | None = None,
        epsilon: float | None = None,
        tau_source: float = 1.0,
        tau_target: float = 1.0,
        alpha: float = 0.5,
        coupling: CouplingKind | Kind = "auto",
        n_models: int | None = None,
        flow_config: FlowConfig | None = None,
        registry: dict | None = None,
        **coupling_options: Any,
    ) -> None:
        options = {"tau_source": tau_source, "tau_target": tau_target, "alpha": alpha, "coupling": coupling}
        options |= {"problem": problem, "cost": cost, "epsilon": epsilon} | coupling_options
        if n_models is not None:
            flow_config = dataclasses.replace(flow_config or FlowConfig(), n_models=n_models)
        super().__init__(adata, method_config=flow_config, registry=registry, **options)

    def _checked_config(self, config: FlowConfig | None) -> FlowConfig:
        """Settle where flows start: with conditions in one space at the source cell (see :class:`scgenot.flow.FlowConfig`)."""
        config = super()._checked_config(config)
        if config.start != "auto":
            return config
        told = self._spec.conditions
        moves = self._problem == "linear" and told is not None and told.has_vector
        return dataclasses.replace(config, start="source" if moves else "noise")

    def _method_line(self) -> str:
        members = f", {self._method.n_models} models" if self._method.n_models > 1 else ""
        return f"velocity field: hidden layers {self._method.config.hidden}{members}"
