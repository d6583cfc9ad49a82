"""The model class over AnnData and MuData, in the manner of scvi-tools: all that does not depend on the learning method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from anndata import AnnData
from jaxtyping import Int

from scgenot._messages import one_of
from scgenot.coupling import Coupling, CouplingKind, Kind, kind_with_options
from scgenot.data import POPULATIONS, Data, PopulationSpec, joined_rows, representation_names, select_rows
from scgenot.flow import TargetRegions
from scgenot.methods import Method
from scgenot.model import (
    _conditions,
    _coupling_summary,
    _density,
    _describe,
    _distill,
    _growth,
    _labels,
    _other_data,
    _outliers,
    _queries,
    _regions,
    _reverse,
    _setup,
    _times,
    _training,
)
from scgenot.model._cells import check_is_trained, some_data
from scgenot.model._problem import check_widths, choose_problem, coupling_config
from scgenot.model._scvi import BaseModelClass, show_setup_arguments
from scgenot.model._trained_on import TrainedOn
from scgenot.model.saving import load_model, load_registry, save_model


class _Absent:
    """A name of scvi-tools' base class that makes no sense here: not offered, and answered where it is asked for."""

    def __init__(self, instead: str) -> None:
        self.instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(f"{owner.__name__} has no `{self.name}`: {self.instead}")


class TransportModel(BaseModelClass):
    """A model of how one population becomes, or corresponds to, another one, with any learning method.

    A subclass names its method. It says of itself whether it needs a coupling, and everything else follows.

    Parameters
    ----------
    adata
        AnnData that :meth:`setup_anndata`, or MuData that :meth:`setup_mudata` has seen.
    problem, cost, epsilon, tau_source, tau_target, alpha, coupling
        As in :class:`scgenot.GENOT`.
    method_config
        Options of the method.
    registry
        Of a model without data; for loading.
    coupling_options
        Any other field of :class:`scgenot.coupling.CouplingConfig`.

    Attributes
    ----------
    method_class
        The learning method.
    """

    method_class: ClassVar[type[Method]]
    # What the constructor calls the options of the method.
    _config_argument: ClassVar[str] = "method_config"

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
        coupling: CouplingKind | Kind = "global",
        method_config: Any = None,
        registry: dict | None = None,
        **coupling_options: Any,
    ) -> None:
        super().__init__(adata, registry)
        self._spec = PopulationSpec.from_arguments(self.registry_["setup_args"])
        self._problem = choose_problem(problem, self._spec)
        chosen = {"cost": cost, "epsilon": epsilon, "tau_source": tau_source, "tau_target": tau_target, "alpha": alpha}
        config = coupling_config(self._problem, self._spec, chosen | coupling_options, type(self).__name__)
        kind = kind_with_options(coupling, self._problem, config.options)
        self._coupling_kind, self._coupling_config = kind.name, dataclasses.replace(config, **kind.chosen)
        stats = self.summary_stats
        self._method = self.method_class(
            source_dim=int(stats.n_source_features),
            target_dim=int(stats.n_target_features),
            config=self._checked_config(method_config),
        )
        check_widths(self._problem, self._spec, self._method.source_dim, self._method.target_dim)
        if not self._method.can.two_spaces and not self._spec.one_space:
            raise ValueError(
                f"the method {self._method.name!r} works within one space, got {self._spec.source.rep!r} and "
                f"{self._spec.target.rep!r}. Use one representation for both populations."
            )
        self._feature_names = dict.fromkeys(POPULATIONS) if adata is None else self._names_in(adata)
        if self._spec.conditions is not None and not self._method.can.conditions:
            raise ValueError(
                f"the method {self._method.name!r} learns one pair of populations, and setup has conditions or `match_keys`. Set "
                "the data up with `source` and `target` alone."
            )
        # What training leaves.
        self._conditions: _conditions.KnownConditions | None = None
        self.coupling_: Coupling | None = None
        self._coupling_diagnostics: list[dict[str, Any]] = []
        self._training: TrainedOn | None = None
        # Target cells that uncertainty is measured by, and their regions, which are made when they are asked for.
        self._reference: np.ndarray | None = None
        self._regions: TargetRegions | None = None
        # Source cells that new ones are compared with.
        self._source_reference: np.ndarray | None = None
        self.steps_, self.stopped_ = 0, None
        self.init_params_ = self._get_init_params(locals())

    # ---- Functions over a model that are its methods -----------------------------------------------------------------

    setup_anndata = classmethod(_setup.setup_anndata)
    setup_mudata = classmethod(_setup.setup_mudata)
    train = _training.train
    reverse = _reverse.reverse
    distill = _distill.distill
    coupling_summary = _coupling_summary.coupling_summary
    conditions = property(_conditions.conditions)
    times = property(_times.times)
    goes_back = property(_times.goes_back)
    get_times = _times.get_times
    sample = _queries.sample
    summarize = _queries.summarize
    get_transported_mean = _queries.get_transported_mean
    get_uncertainty = _queries.get_uncertainty
    get_log_prob = _density.get_log_prob
    get_entropy = _density.get_entropy
    get_region_levels = _regions.get_region_levels
    get_label_sets = _regions.get_label_sets
    get_outlier_score = _outliers.get_outlier_score
    get_label_probabilities = _labels.get_label_probabilities
    label_frequencies = _labels.label_frequencies
    get_growth = _growth.get_growth
    knows_growth = _growth.knows_growth
    save = save_model
    load = classmethod(load_model)
    load_registry = staticmethod(load_registry)

    get_normalized_expression = _Absent("it maps cells, and expression is what you map them to. See `sample`.")
    get_normalized_function_name = _Absent("it has no normalized expression.")
    differential_abundance = _Absent("see `get_growth` for which cells become more or fewer.")
    convert_legacy_save = _Absent("its directories never were of that format. See `load`.")

    @staticmethod
    def view_setup_args(dir_path: str | Path, prefix: str | None = None) -> None:
        """Print the arguments of setup of a saved model.

        Examples
        --------
        >>> scgenot.GENOT.view_setup_args("model")  # doctest: +SKIP
        """
        show_setup_arguments(load_registry(dir_path, prefix))

    # ---- Its data ----------------------------------------------------------------------------------------------------

    @property
    def adata(self) -> Data | None:
        """The data of the model. Set other data to transfer the setup to them: what was learned stays.

        Rows of training cells and the coupling refer to the earlier data, and are forgotten.

        Examples
        --------
        >>> model.adata = other  # doctest: +SKIP
        """
        return self._adata

    @adata.setter
    def adata(self, adata: Data) -> None:
        _other_data.attach(self, adata)

    def _replace_data(self, data: Data, manager: Any) -> None:
        """Take other data, set up by `manager`, or source cells alone if that is ``None``."""
        if manager is not None:
            self.registry_, self.summary_stats = manager.registry, manager.summary_stats
            if not self.is_trained_:
                self._feature_names = self._names_in(data)
        self._adata, self._adata_manager = data, manager
        self.coupling_ = None
        self._remember(None)

    def _remember(self, trained_on: TrainedOn | None) -> None:
        """Keep which cells of the model's data it was trained on, ``None`` if of these none are known."""
        self._training = trained_on
        known = trained_on is not None
        self.train_indices_ = joined_rows(self._spec, trained_on.train_rows) if known else None
        self.validation_indices_ = joined_rows(self._spec, trained_on.held_rows) if known else None

    def _names_in(self, data: Data) -> dict[str, list[str] | None]:
        return {place.side: representation_names(place.cells(data), place.rep) for place in self._spec.places}

    @property
    def var_names(self) -> list[str] | None:
        """Genes of the source representation where it is ``X``, in order; otherwise ``None``.

        Examples
        --------
        >>> model.var_names  # doctest: +SKIP
        """
        return self._feature_names["source"] if self._spec.source.rep == "X" else None

    @property
    def target_var_names(self) -> list[str] | None:
        """Names of the features of the target space, where they have any: ``X``, or a data frame in ``obsm``.

        Examples
        --------
        >>> model.target_var_names  # doctest: +SKIP
        """
        return self._feature_names["target"]

    def population_of(self, side: Literal["source", "target"]) -> tuple[Hashable | None, Hashable | None]:
        """Return the column of ``obs`` and its category that tell a population from other cells; ``None`` if all belong.

        Examples
        --------
        >>> model.population_of("source")  # doctest: +SKIP
        ('condition', 'control')
        """
        place = getattr(self._spec, side)
        return place.population_key, place.category

    def source_adata(self, adata: Data | None = None) -> AnnData:
        """Return the AnnData that source cells are read from: `adata` (by default the model's data), or its modality.

        Examples
        --------
        >>> model.source_adata(mdata).obs["genot_uncertainty"]  # doctest: +SKIP
        """
        return self._spec.source.cells(some_data(self, adata))

    def source_rows(
        self,
        adata: Data | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        conditions: str | None = None,
        until: Hashable | None = None,
    ) -> Int[np.ndarray, " n"]:
        """Return the rows of :meth:`source_adata` that results of :meth:`sample` belong to, in their order.

        Examples
        --------
        >>> adata.obs_names[model.source_rows(adata)]  # doctest: +SKIP
        """
        _times.check_until(self, until)
        if _times.course_of(self) is not None and conditions is None:
            return _times.departures(self, adata, indices, until)[0]
        if conditions is not None and indices is None:
            return _conditions.answer(self, lambda cells: cells.rows, adata, indices, conditions)
        return select_rows(some_data(self, adata), self._spec.source, indices)

    def resolve_conditions(self, conditions: Any) -> list[_conditions.Asked] | None:
        """Return the conditions that are meant, each of which any getter takes; ``None`` in a model without conditions.

        Examples
        --------
        >>> model.resolve_conditions("drug A")  # doctest: +SKIP
        """
        if self._spec.conditions is None or not self._spec.conditions.has_vector:
            if conditions is not None:
                raise ValueError("`conditions` was given, but this model was set up without any. Leave it out.")
            return None
        check_is_trained(self)
        if _times.course_of(self) is not None:
            if conditions is not None:
                raise ValueError(
                    "`conditions` was given to a model of a time course. Say with `until` how far cells go."
                )
            return None
        if conditions is None and self._spec.conditions.reversed:
            # Treated cells are in conditions of their own.
            return None
        return _conditions.asked_conditions(self, conditions)[0]

    # ---- Its method --------------------------------------------------------------------------------------------------

    @property
    def n_models(self) -> int:
        """Members of the ensemble that samples come from in turn; 1 for one model.

        Examples
        --------
        >>> scgenot.GENOT(adata, n_models=5).n_models  # doctest: +SKIP
        5
        """
        return self._method.n_models

    def _checked_config(self, config: Any) -> Any:
        wanted = self.method_class.config_type
        config = wanted() if config is None else config
        if not isinstance(config, wanted):
            raise TypeError(
                f"`{self._config_argument}` must be a {wanted.__name__}, got {type(config).__name__}. For example "
                f"{wanted.__name__}()."
            )
        return config

    @property
    def device(self) -> str:
        """Device that holds the weights, such as ``"cpu:0"``.

        Examples
        --------
        >>> model.device  # doctest: +SKIP
        'cpu:0'
        """
        held = [leaf for leaf in jax.tree.leaves(self._method.weights) if isinstance(leaf, jax.Array)]
        device = next(iter(held[0].devices())) if held else jax.devices()[0]
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

        Examples
        --------
        >>> model.to_device("cpu")  # doctest: +SKIP
        """
        place = _device(device)
        if self._method.weights is not None:
            self._method = dataclasses.replace(self._method, weights=jax.device_put(self._method.weights, place))

    # ---- What it says of itself --------------------------------------------------------------------------------------

    describe = _describe.describe
    __repr__ = _describe.representation

    def _method_line(self) -> str:
        return f"method: {self._method.name}"

    @property
    def summary_string(self) -> str:
        """What the model is, as ``repr`` says.

        Examples
        --------
        >>> print(model.summary_string)  # doctest: +SKIP
        """
        return repr(self)

    def __dir__(self) -> list[str]:
        """List names, less those of scvi-tools that make no sense here."""
        return [name for name in super().__dir__() if not isinstance(vars(TransportModel).get(name), _Absent)]


def _device(device: str | int | jax.Device) -> jax.Device:
    if isinstance(device, jax.Device):
        return device
    there = jax.devices() + (jax.devices("cpu") if jax.default_backend() != "cpu" else [])
    if isinstance(device, int) and not isinstance(device, bool) and 0 <= device < len(jax.devices()):
        return jax.devices()[device]
    platform, _, number = str(device).partition(":")
    platforms = {"cuda": "gpu"}.get(platform, platform)
    for candidate in there:
        if candidate.platform == platforms and number in ("", str(candidate.id)):
            return candidate
    raise ValueError(one_of("device", device, [f"{one.platform}:{one.id}" for one in there]))
