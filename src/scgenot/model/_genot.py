"""The model class: GENOT over AnnData, in the manner of scvi-tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax

from scgenot._messages import one_of
from scgenot.coupling import CouplingConfig, available_couplings
from scgenot.data import Data, PopulationSpec, representation_names
from scgenot.flow import FlowConfig, TargetRegions
from scgenot.methods import GENOTSolver
from scgenot.model._cells import CellsMixin
from scgenot.model._growth import GrowthMixin
from scgenot.model._labels import LabelsMixin
from scgenot.model._problem import check_widths, choose_problem, cost_name, with_given_costs, with_options
from scgenot.model._queries import QueriesMixin
from scgenot.model._reverse import ReverseMixin
from scgenot.model._scvi import BaseModelClass
from scgenot.model._setup import SetupMixin
from scgenot.model._training import TrainingMixin
from scgenot.model.saving import PersistenceMixin


class GENOT(
    SetupMixin,
    TrainingMixin,
    ReverseMixin,
    LabelsMixin,
    GrowthMixin,
    QueriesMixin,
    CellsMixin,
    PersistenceMixin,
    BaseModelClass,
):
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
        ``"global"``: one transport problem over all cells. ``"minibatch"``: the paper's, one in each step.
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
        coupling: str = "global",
        flow_config: FlowConfig | None = None,
        registry: dict | None = None,
        **coupling_options: Any,
    ) -> None:
        super().__init__(adata, registry)
        self._spec = PopulationSpec.from_arguments(self.registry_["setup_args"])
        self._problem = choose_problem(problem, self._spec)
        chosen = {"epsilon": epsilon, "tau_source": tau_source, "tau_target": tau_target, "alpha": alpha}
        chosen["cost"] = with_given_costs(cost, self._problem, self._spec)
        self._coupling_config = with_options(CouplingConfig(), chosen | coupling_options, "GENOT")
        if coupling not in available_couplings(self._problem):
            raise ValueError(one_of("coupling", coupling, available_couplings(self._problem)))
        self._coupling_kind = coupling
        stats = self.summary_stats
        self._solver = GENOTSolver(stats.n_source_features, stats.n_target_features, flow_config or FlowConfig())
        check_widths(self._problem, self._spec, self._solver.source_dim, self._solver.target_dim)
        self._feature_names = {
            place.side: None if adata is None else representation_names(place.cells(adata), place.rep)
            for place in (self._spec.source, self._spec.target)
        }
        self._coupling_diagnostics: list[dict[str, Any]] = []
        self.coupling_, self._split = None, None
        # Target cells that uncertainty is measured by, and their regions, which are made when they are asked for.
        self._reference: np.ndarray | None = None
        self._regions: TargetRegions | None = None
        self.steps_, self.stopped_ = 0, None
        self.init_params_ = self._get_init_params(locals())

    @property
    def var_names(self) -> list[str] | None:
        """Genes of the source representation where it is ``X``, in order; otherwise ``None``."""
        return self._feature_names["source"] if self._spec.source.rep == "X" else None

    @property
    def target_var_names(self) -> list[str] | None:
        """Names of the features of the target space, where they have any: ``X``, or a data frame in ``obsm``."""
        return self._feature_names["target"]

    @property
    def device(self) -> str:
        """Device that holds the weights, such as ``"cpu:0"``."""
        weights = self._solver.weights
        device = next(iter(weights.target_units.mean.devices())) if weights is not None else jax.devices()[0]
        return f"{device.platform}:{device.id}"

    def to_device(self, device: str | int | jax.Device) -> None:
        """Move the weights.

        Parameters
        ----------
        device
            ``"cpu"``, ``"gpu"``, ``"gpu:1"``, the number of a device among ``jax.devices()``, or a JAX device.

        Raises
        ------
        ValueError
            If there is no such device; the message lists those there are.
        """
        if self._solver.weights is not None:
            moved = jax.device_put(self._solver.weights, _device(device))
            self._solver = dataclasses.replace(self._solver, weights=moved)

    def __repr__(self) -> str:
        """Describe data, problem and state in a few lines."""
        source, target, stats = self._spec.source, self._spec.target, self.summary_stats
        config = self._coupling_config.resolved(self._problem)
        state = f"trained, {self.steps_} steps ({self.stopped_})" if self.is_trained_ else "not trained"
        told_by = "" if source.population_key is None else f", by obs[{source.population_key!r}]"
        reps = source.rep if self._spec.one_space else f"{source.rep} -> {target.rep}"
        alpha = f", alpha {config.alpha:g}" if self._problem == "fused" else ""
        return (
            f"GENOT model: {source.label} ({stats.n_source_cells} cells) -> {target.label} ({stats.n_target_cells} "
            f"cells){told_by}\n"
            f"  representation: {reps} ({self._solver.source_dim} -> {self._solver.target_dim} features)\n"
            f"  problem: {self._problem}, {self._coupling_kind} coupling, cost {cost_name(config.cost)}{alpha}, epsilon "
            f"{config.epsilon:g}, tau {config.tau_source:g} / {config.tau_target:g}\n"
            f"  velocity field: hidden layers {self._solver.config.hidden}\n"
            f"  status: {state}"
        )


def _device(device: str | int | jax.Device) -> jax.Device:
    if isinstance(device, jax.Device):
        return device
    there = jax.devices() + (jax.devices("cpu") if jax.default_backend() != "cpu" else [])
    if isinstance(device, int) and not isinstance(device, bool) and 0 <= device < len(jax.devices()):
        return jax.devices()[device]
    platform, _, number = str(device).partition(":")
    platforms = {"cuda": "gpu"}.get(platform, platform)
    for candidate in there:
        if candidate.platform == platforms and candidate.id == int(number or candidate.id):
            return candidate
    raise ValueError(one_of("device", device, [f"{one.platform}:{one.id}" for one in there]))
