"""GENOT on arrays: fit to two populations, then sample the target for any source cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from scgenot._devices import Devices, DevicesLike
from scgenot._messages import check_count, one_of
from scgenot._rng import RNG, as_key, keys
from scgenot.coupling import Coupling, CouplingConfig, CouplingKind, MarginalKind, PairScores, solve_coupling  # noqa: F401 (annotations of the base class name MarginalKind)
from scgenot.flow._conditions import ConditionLayout
from scgenot.flow._config import DistillConfig, DivergenceConfig, FlowConfig, ODEConfig, TrainConfig
from scgenot.flow._density import log_density
from scgenot.flow._distill import distill_members
from scgenot.flow._linear_start import NoiseAroundMean
from scgenot.flow._path import NoiseAroundSource, NoiseToTarget, Path
from scgenot.flow._result import TrainResult
from scgenot.flow._sampler import FlowWeights, sample_blocks
from scgenot.flow._scaling import Standardizer
from scgenot.flow._trainer import train_velocity, training_pairs
from scgenot.flow._validation import HeldOut, validate_on
from scgenot.flow._velocity import abstract_velocity, initial_weights
from scgenot.methods._growth import empty_rescaling, evaluate_growth, fit_rescaling, growth_rows, plan_growth
from scgenot.methods._method import POPULATIONS, Abilities, FitData, Method

# On arrays nothing tells that two spaces of equal width are one.
_PATHS: dict[str, Path] = {"auto": NoiseToTarget(), "noise": NoiseToTarget(), "source": NoiseAroundSource()}


@dataclasses.dataclass(frozen=True)
class GENOTSolver(Method):
    """A conditional flow from source cells to distributions of target cells.

    Create it with :meth:`fit`, which couples two populations and learns from the coupling, or with its dimensions and a
    :class:`scgenot.flow.FlowConfig`, and let it :meth:`learn` from a coupling that exists.

    Attributes
    ----------
    distilled_steps
        The most steps that its distilled field was made for; 0 without one. See :meth:`distill`.
    """

    name: ClassVar[str] = "genot"
    needs: ClassVar[Literal["pairs"]] = "pairs"
    can: ClassVar[Abilities] = Abilities(stochastic=True, two_spaces=True, density=True, conditions=True, devices=True)
    config_type: ClassVar[type] = FlowConfig

    distilled_steps: int = 0

    def __post_init__(self) -> None:
        """Check that the two spaces are as alike as the flow's start needs."""
        if self.config.start == "source" and self.source_dim != self.target_dim:
            raise ValueError(
                f"`start`='source' needs one space for both populations, got {self.source_dim} and {self.target_dim} features. Use "
                "FlowConfig(start='noise')."
            )

    @property
    def n_models(self) -> int:
        """Members of the ensemble that samples come from in turn; 1 for one model."""
        return self.config.n_models

    @property
    def graphdef(self) -> nnx.GraphDef:
        """Static structure of the velocity field."""
        return abstract_velocity(*self._network)[0]

    @classmethod
    def config_from(cls, saved: Mapping[str, Any]) -> FlowConfig:
        """Return the config that ``dataclasses.asdict`` wrote, also in a version that had fewer fields."""
        return FlowConfig.from_dict(saved)

    @classmethod
    def fit(
        cls,
        rng: RNG,
        source: Float[Array | np.ndarray, "n dx"],
        target: Float[Array | np.ndarray, "m dy"],
        *,
        coupling: Coupling | None = None,
        coupling_kind: CouplingKind = "global",
        coupling_config: CouplingConfig | None = None,
        flow_config: FlowConfig | None = None,
        train_config: TrainConfig | None = None,
        held_out: HeldOut | None = None,
        devices: DevicesLike = "auto",
        progress_bar: bool = True,
    ) -> tuple[GENOTSolver, TrainResult, Coupling]:
        """Couple two populations and learn the conditional laws of the coupling.

        Parameters
        ----------
        rng
            Seed, generator or key. The result is a function of it and of the data.
        source, target
            Cells of the two populations, in the user's units.
        coupling
            A coupling between them that exists already; otherwise one is solved for.
        coupling_kind, coupling_config
            Which coupling to solve for.
        flow_config, train_config
            Velocity field and training.
        held_out
            Cells to validate on.
        devices
            As in :func:`scgenot.coupling.solve_coupling`, for coupling and training; the solver goes on using them.
        progress_bar
            Whether to show one.

        Returns
        -------
        The solver with its weights, what happened in training, and the coupling.

        Raises
        ------
        ValueError
            As :func:`scgenot.coupling.solve_coupling`.
        """
        key = as_key(rng)
        if coupling is None:
            coupling_key = keys(key, 5)[0]
            options = {"kind": coupling_kind, "config": coupling_config, "devices": devices}
            coupling = solve_coupling(coupling_key, source, target, **options)
        dims, shared_by = (np.shape(source)[1], np.shape(target)[1]), Devices.of(devices)
        blank = cls(*dims, flow_config or FlowConfig(), devices=shared_by)
        data = FitData(source, target, coupling, held_out=held_out)
        learned, result = blank.learn(key, data, train_config or TrainConfig(), progress_bar=progress_bar)
        return learned, result, coupling

    def learn(
        self, key: jax.Array, data: FitData, train_config: TrainConfig, *, progress_bar: bool = True
    ) -> tuple[GENOTSolver, TrainResult]:
        """Learn the conditional laws of a coupling, and growth where its marginals are relaxed.

        Parameters
        ----------
        key
            JAX key. The result is a function of it and of the data.
        data
            Cells and their coupling, conditions, held-out cells.
        train_config
            Steps, batch size, schedule.
        progress_bar
            Whether to show one.

        Returns
        -------
        The solver with its weights, and what happened in training.
        """
        coupling, conditions, learned = data.coupling, None, self
        if coupling is None:
            raise ValueError(
                f"`data.coupling` is None, and {self.name!r} learns from pairs. Solve for a coupling first."
            )
        if data.conditions is not None:
            conditions = np.asarray(data.conditions, np.float32)
            learned = dataclasses.replace(self, condition_dim=conditions.shape[1], condition_layout=data.layout)
        # The first of five is :meth:`fit`'s, for the coupling.
        _, init_key, train_key, validation_key, growth_key = keys(key, 5)
        config = self.config
        source, target = self.cells(data.source), self.cells(data.target, "target")
        units = source_units, target_units = self._units(source, target, coupling)
        condition_units = None
        # In a layout zero is an empty slot, and tokens have come in units of their own.
        if conditions is not None and data.layout is None:
            # Each number for itself: those of a condition need not share a unit.
            condition_units = Standardizer.fit(conditions, np.ones(len(conditions)), "feature")
            conditions = condition_units.on_host(conditions)
        params = initial_weights(init_key, *learned._network)
        cells = source_units.on_host(source), target_units.on_host(target)
        path, pairs = self._blank_path().settled(cells, training_pairs(train_key, coupling, train_config))
        scores = learned._scores(path, coupling, train_config)
        validation, metrics = validate_on(
            validation_key, learned.graphdef, path, coupling, units, data.held_out, conditions, config.n_models
        )
        told = {"marginal_kinds": tuple(coupling.marginal_kinds), "training_cells": (len(source), len(target))}
        # That of earlier weights.
        told["distilled_steps"] = 0
        learned = dataclasses.replace(learned, **told)
        # First, so that an interrupted training leaves it, too.
        rescaling, ratios = learned._learn_growth(growth_key, coupling, cells, conditions)
        result = train_velocity(
            train_key,
            learned.graphdef,
            params,
            coupling,
            *cells,
            train_config,
            path=path,
            pairs=pairs,
            scores=scores,
            conditions=conditions,
            n_models=config.n_models,
            validation=validation,
            extra_metrics=metrics,
            progress_bar=progress_bar,
            devices=self.devices,
        )
        weights = FlowWeights(result.params, *units, rescaling, ratios, condition_units, config.n_models, path=path)
        return dataclasses.replace(learned, weights=weights), result

    def _scores(self, path: Path, coupling: Coupling, config: TrainConfig) -> PairScores | None:
        """Return how likely pairs are where steps look at several targets; raise a ``ValueError`` if they are to and cannot."""
        if config.targets == "pair":
            return None
        scores = coupling.pair_scores if path.averages else None
        if scores is None:
            raise ValueError(
                "`targets`='batch' needs a flow from noise and a coupling that tells how likely any pair is: over all cells or extended, without "
                f"conditions. Got {self.name!r} and {coupling.diagnostics.kind!r}. Use targets='pair'."
            )
        return scores

    def _blank_path(self) -> Path:
        """Return where flows start, as far as this is known before learning: saved weights are read into it."""
        if self.config.start == "linear":
            return NoiseAroundMean.blank(self.source_dim, self.target_dim)
        return _PATHS[self.config.start]

    def _units(
        self, source: Float[np.ndarray, "n dx"], target: Float[np.ndarray, "m dy"], coupling: Coupling
    ) -> tuple[Standardizer, Standardizer]:
        """Return the units of both spaces."""
        sides = (source, coupling.source_marginal), (target, coupling.target_marginal)
        source_units, target_units = (Standardizer.fit(*side, self.config.standardize) for side in sides)
        return source_units, target_units

    def _learn_growth(self, key, coupling, cells, conditions) -> tuple[dict[str, nnx.State], dict[str, jax.Array]]:
        """Return networks and, without conditions, what they learned from, by population whose marginal is relaxed."""
        networks, growth = {}, {}
        sides = zip(keys(key, 2), POPULATIONS, self.marginal_kinds, cells, strict=True)
        for side, (own, name, kind, x) in enumerate(sides):
            if kind != "relaxed":
                continue
            rows, blocks, prior, marginal = growth_rows(coupling, side)
            given = x[rows]
            if conditions is not None:
                given = np.concatenate([given, self._pooled(conditions)[blocks]], axis=1)
            networks[name] = fit_rescaling(own, given, prior, marginal, self.config.rescaling)
            if conditions is None:
                whole = np.zeros(len(x), np.float32)
                whole[rows] = plan_growth(prior, marginal)
                growth[name] = jax.device_put(whole)
        return networks, growth

    def sample_blocks(
        self,
        rng: RNG,
        x: Float[Array | np.ndarray, "n dx"],
        n_samples: int = 30,
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
        ode: ODEConfig | None = None,
        cell_ids: Int[np.ndarray, " n"] | None = None,
        rows: int | None = None,
    ) -> Iterator[tuple[slice, Float[np.ndarray, "k s dy"]]]:
        """Yield what :meth:`sample` returns, a run of consecutive cells at a time, to summarise without keeping it."""
        weights = self.trained()
        check_count("n_samples", n_samples)
        x = self.cells(x)
        ids = np.arange(len(x)) if cell_ids is None else np.asarray(cell_ids)
        options = {"rows": rows, "devices": self.devices}
        options["conditions"], ode = self.condition_rows(condition, len(x)), (ode or ODEConfig()).for_samples
        graphdef = self._large_steps[0] if self._distilled(ode) else self.graphdef
        return sample_blocks(graphdef, weights, as_key(rng), x, ids, int(n_samples), ode, **options)

    def distill(
        self,
        key: jax.Array,
        x: Float[np.ndarray, "n dx"],
        condition: Float[Array | np.ndarray, "..."] | None,
        steps: int,
        config: DistillConfig,
        *,
        progress_bar: bool = True,
    ) -> tuple[GENOTSolver, dict[str, tuple[list[int], list[float]]]]:
        """Learn a field that takes one or a few large steps where this one takes many; see :meth:`Method.distill`."""
        weights, x = self.trained(), self.cells(x)
        if steps not in (allowed := [2**k for k in range(5) if config.teacher_steps % 2**k == 0]):
            raise ValueError(f"`steps` must be one of {allowed}, got {steps!r}: 1, 2 or 4 are few steps.")
        c = self.condition_rows(condition, len(x))
        if weights.condition_units is not None:
            c = weights.condition_units.on_host(c)
        alone = dataclasses.replace(self, config=dataclasses.replace(self.config, n_models=1))
        distilled, history = distill_members(
            key,
            self.graphdef,
            weights.params,
            self.n_models,
            alone._large_steps,
            weights.path,
            weights.source_units.on_host(x),
            c,
            self.target_dim,
            steps,
            config,
            progress_bar=progress_bar,
        )
        weights = dataclasses.replace(weights, distilled=distilled)
        return dataclasses.replace(self, weights=weights, distilled_steps=steps), history

    def _distilled(self, ode: ODEConfig) -> bool:
        """Return whether the distilled field is asked for; raise unless it was made for so many steps."""
        if ode.solver != "distilled":
            return False
        if not self.distilled_steps:
            raise RuntimeError(
                "`ode` asks for distilled steps, and there is no distilled field. Call `distill` first, or leave `ode` out."
            )
        if ode.n_steps not in (allowed := [2**k for k in range(self.distilled_steps.bit_length())]):
            raise ValueError(
                f"`n_steps` of distilled steps must be one of {allowed}, got {ode.n_steps}: what the field was distilled for."
            )
        return True

    def log_prob(
        self,
        y: Float[Array | np.ndarray, "m dy"],
        x: Float[Array | np.ndarray, "n dx"],
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
        pairs: tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]] | None = None,
        ode: ODEConfig | None = None,
        divergence: DivergenceConfig | None = None,
        rng: RNG = 0,
        rows: int | None = None,
    ) -> Float[np.ndarray, " p"]:
        """Return log pi(y | x) of pairs of rows; see :meth:`Method.log_prob`. The flow is solved backwards."""
        weights, y, x = self.trained(), self.cells(y, "target"), self.cells(x)
        options = {"divergence": divergence, "key": as_key(rng), "rows": rows}
        options["conditions"] = self.condition_rows(condition, len(x))
        return log_density(self.graphdef, weights, y, x, *self.pair_rows(y, x, pairs), ode or ODEConfig(), **options)

    def growth(
        self,
        x: Float[Array | np.ndarray, "n d"],
        population: Literal["source", "target"] = "source",
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
    ) -> Float[np.ndarray, " n"]:
        """Return how much mass cells send or get per unit of their prior mass; see :meth:`Method.growth`."""
        weights, x = self.trained(), self.cells(x, population)
        if self.marginal_kinds[POPULATIONS.index(population)] != "relaxed":
            return self.growth_without_network(x, population)
        units = weights.source_units if population == "source" else weights.target_units
        rows = self.condition_rows(condition, len(x))
        rows = None if not self.condition_dim else self._pooled(rows)
        if weights.condition_units is not None:
            rows = weights.condition_units.on_host(rows)
        return evaluate_growth(weights.rescaling[population], units, x, self.config.rescaling, rows)

    def training_growth(self, population: Literal["source", "target"] = "source") -> Float[np.ndarray, " k"] | None:
        """Return the plan's own growth, marginal over prior, of the training cells in their order.

        ``None`` where the marginal is not relaxed, with conditions, in each of which a cell has another growth, and from
        models saved before it was kept.
        """
        if population not in POPULATIONS:
            raise ValueError(one_of("population", population, POPULATIONS))
        known = self.trained().plan_growth.get(population)
        return None if known is None else np.asarray(known)

    def weights_template(self) -> FlowWeights:
        """Return the shapes of the weights, to read saved ones into."""
        dims, c = (self.source_dim, self.target_dim), self.condition_dim
        source, target = (_blank_units(d) for d in dims)
        relaxed = [k for k, kind in enumerate(self.marginal_kinds) if kind == "relaxed"]
        pooled = c if self.condition_layout is None else self.condition_layout.pooled_width
        rescaling = {POPULATIONS[k]: empty_rescaling(dims[k] + pooled, self.config.rescaling)[1] for k in relaxed}
        known = self.training_cells
        empty = lambda n: jax.device_put(np.zeros(n, np.float32))
        kept = known is not None and not c
        growth = {POPULATIONS[k]: empty(known[k]) for k in relaxed} if kept else {}
        params = abstract_velocity(*self._network)[1]
        distilled = self._large_steps[1] if self.distilled_steps else None
        plain = c and self.condition_layout is None
        condition_units = _blank_units(c) if plain else None
        rest = condition_units, self.config.n_models, distilled, self._blank_path()
        return FlowWeights(params, source, target, rescaling, growth, *rest)

    def state_config(self) -> dict[str, Any]:
        """Return all but the weights as plain values that JSON holds."""
        return super().state_config() | {"distilled_steps": self.distilled_steps}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> GENOTSolver:
        """Return the solver that :meth:`state_config` described, without weights."""
        return dataclasses.replace(super().from_state(state), distilled_steps=int(state.get("distilled_steps", 0)))

    def _pooled(self, conditions: Float[np.ndarray, "rows c"]) -> Float[np.ndarray, "rows p"]:
        """Return conditions as networks for growth see them."""
        return conditions if self.condition_layout is None else self.condition_layout.pooled(conditions)

    @property
    def _network(self) -> tuple[int, int, FlowConfig, int, ConditionLayout | None]:
        return self.source_dim, self.target_dim, self.config, self.condition_dim, self.condition_layout

    @property
    def _large_steps(self) -> tuple[nnx.GraphDef, Any]:
        """Structure and shapes of the distilled field."""
        return abstract_velocity(*self._network, spans=True)


def _blank_units(width: int) -> Standardizer:
    return Standardizer(jax.device_put(np.zeros(width, np.float32)), jax.device_put(np.ones(width, np.float32)))
