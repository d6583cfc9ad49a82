"""The model class: GENOT over AnnData, in the manner of scvi-tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, Literal

import jax
from anndata import AnnData

from scgenot._messages import one_of
from scgenot.coupling import CouplingConfig, available_couplings
from scgenot.flow import FlowConfig, GENOTSolver
from scgenot.model._persistence import PersistenceMixin, cost_name
from scgenot.model._populations import PopulationSpec
from scgenot.model._queries import QueriesMixin
from scgenot.model._scvi import AnnDataManager, BaseModelClass, PopulationField, RepresentationField
from scgenot.model._training import TrainingMixin, with_options


class GENOT(TrainingMixin, QueriesMixin, PersistenceMixin, BaseModelClass):
    """Generative entropic neural optimal transport between two populations of cells.

    For each source cell the model learns the distribution of target cells that the entropic optimal transport plan
    couples it with, by flow matching (Klein, Uscidda, Theis and Cuturi, "GENOT: Entropic (Gromov) Wasserstein Flow
    Matching with Applications to Single-Cell Genomics", NeurIPS 2024).

    Parameters
    ----------
    adata
        AnnData that :meth:`setup_anndata` has seen.
    problem
        ``"linear"``: both populations in one space. ``"auto"`` reads it off the representations.
    cost
        Ground cost: ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"``, ``"pearson"``, an OTT ``CostFn``, or a function
        of two cells written with ``jax.numpy``.
    epsilon
        Strength of the entropy, in units of the mean cost. Smaller is sharper, and slower to couple.
    tau_source, tau_target
        In (0, 1]: how strictly each population must be used up; 1 is balanced.
    alpha
        Weight of the quadratic term in fused problems. Linear problems do not use it.
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
        adata: AnnData | None = None,
        *,
        problem: Literal["auto", "linear"] = "auto",
        cost: str | Callable[..., Any] = "sqeuclidean",
        epsilon: float = 0.05,
        tau_source: float = 1.0,
        tau_target: float = 1.0,
        alpha: float = 0.5,
        coupling: Literal["global", "minibatch"] = "global",
        flow_config: FlowConfig | None = None,
        registry: dict | None = None,
        **coupling_options: Any,
    ) -> None:
        chosen = {"cost": cost, "epsilon": epsilon, "tau_source": tau_source, "tau_target": tau_target}
        self._coupling_config = with_options(CouplingConfig(), chosen | coupling_options, "GENOT")
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"`alpha` must lie in (0, 1), got {alpha!r}. It weighs the quadratic term.")
        if coupling not in available_couplings():
            raise ValueError(one_of("coupling", coupling, available_couplings()))
        super().__init__(adata, registry)
        arguments = self.registry_["setup_args"]
        rep = arguments["source_rep"]
        self._spec = PopulationSpec(**arguments | {"target_rep": arguments["target_rep"] or rep})
        self._problem = _problem(problem, self._spec)
        self._alpha, self._coupling_kind = alpha, coupling
        stats = self.summary_stats
        self._solver = GENOTSolver(stats.n_source_features, stats.n_target_features, flow_config or FlowConfig())
        if self._problem == "linear" and self._solver.source_dim != self._solver.target_dim:
            raise ValueError(
                f"a linear problem compares cells in one space, got {self._solver.source_dim} features in "
                f"{self._spec.source_rep!r} and {self._solver.target_dim} in {self._spec.target_rep!r}."
            )
        self._var_names = list(adata.var_names) if adata is not None and rep == "X" else None
        self._coupling_diagnostics: list[dict[str, Any]] = []
        self.steps_, self.stopped_ = 0, None
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        population_key: str,
        source: Hashable,
        target: Hashable,
        source_rep: str = "X_pca",
        target_rep: str | None = None,
        shared_rep: None = None,
        weights_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Say where the two populations lie in an AnnData. Only ``adata.uns`` gets two identifiers of scvi-tools.

        Parameters
        ----------
        adata
            Both populations. Not a view.
        population_key
            Column of ``adata.obs`` that tells populations apart.
        source, target
            Its two categories: from where and to where.
        source_rep
            Key of ``adata.obsm``, or ``"X"``: the representation of source cells.
        target_rep
            The same for target cells; ``None`` if both lie in one space.
        shared_rep
            Reserved for fused problems, which this version does not solve: must be ``None``.
        weights_key
            Column of ``adata.obs`` with prior weights of the cells (growth, sampling); uniform if ``None``.

        Raises
        ------
        KeyError
            If a key is missing.
        ValueError
            If `adata` is a view, a category is absent or has fewer than two cells, values are not finite, or weights
            are negative or all zero.
        """
        if adata.is_view:
            raise ValueError("`adata` is a view of another AnnData. Call `adata = adata.copy()` first.")
        if shared_rep is not None:
            raise NotImplementedError(
                f"`shared_rep` makes a fused problem, which is not available yet; got {shared_rep!r}."
            )
        source_registry = kwargs.pop("source_registry", None)
        if kwargs:
            raise TypeError(f"setup_anndata() has no argument {next(iter(kwargs))!r}.")
        arguments = cls._get_setup_method_args(
            cls=cls,
            adata=adata,
            population_key=population_key,
            source=source,
            target=target,
            source_rep=source_rep,
            target_rep=target_rep,
            weights_key=weights_key,
        )
        spec = PopulationSpec(population_key, source, target, source_rep, target_rep or source_rep, weights_key)
        if source == target:
            raise ValueError(f"`source` and `target` must be two categories, got {source!r} for both.")
        fields = [PopulationField(spec), RepresentationField(spec, "source"), RepresentationField(spec, "target")]
        manager = AnnDataManager(fields=fields, setup_method_args=arguments)
        manager.register_fields(adata, source_registry)
        cls.register_manager(manager)

    @property
    def var_names(self) -> list[str] | None:
        """Genes of the representation where it is ``X``, in order; otherwise ``None``."""
        return self._var_names

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
        spec, stats, config = self._spec, self.summary_stats, self._coupling_config
        state = f"trained, {self.steps_} steps ({self.stopped_})" if self.is_trained_ else "not trained"
        reps = spec.source_rep if spec.source_rep == spec.target_rep else f"{spec.source_rep} -> {spec.target_rep}"
        return (
            f"GENOT model: {spec.source} ({stats.n_source_cells} cells) -> {spec.target} ({stats.n_target_cells} cells), "
            f"by adata.obs[{spec.population_key!r}]\n"
            f"  representation: {reps} ({self._solver.source_dim} -> {self._solver.target_dim} features)\n"
            f"  problem: {self._problem}, {self._coupling_kind} coupling, cost {cost_name(config.cost)}, epsilon "
            f"{config.epsilon:g}, tau {config.tau_source:g} / {config.tau_target:g}\n"
            f"  velocity field: hidden layers {self._solver.config.hidden}\n"
            f"  status: {state}"
        )


def _problem(problem: str, spec: PopulationSpec) -> str:
    if problem == "auto":
        if spec.source_rep != spec.target_rep:
            raise ValueError(
                f"`source_rep`={spec.source_rep!r} and `target_rep`={spec.target_rep!r} differ, which makes this a "
                "quadratic problem; this version solves linear ones. If both keys hold coordinates in one space, pass "
                "`problem='linear'`."
            )
        return "linear"
    if problem != "linear":
        raise ValueError(one_of("problem", problem, ("auto", "linear")))
    return problem


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
