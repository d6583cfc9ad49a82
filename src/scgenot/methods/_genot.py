"""GENOT on arrays: fit to two populations, then sample the target for any source cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from scgenot._messages import check_count
from scgenot._rng import RNG, as_key
from scgenot.coupling import Coupling, CouplingConfig, CouplingKind, solve_coupling
from scgenot.flow._config import FlowConfig, ODEConfig, TrainConfig
from scgenot.flow._result import TrainResult
from scgenot.flow._sampler import FlowWeights, sample_blocks
from scgenot.flow._scaling import Standardizer
from scgenot.flow._trainer import train_velocity
from scgenot.flow._validation import HeldOut, validate_on
from scgenot.flow._velocity import VelocityField
from scgenot.methods._growth import empty_rescaling, evaluate_growth, fit_rescalings
from scgenot.methods._method import POPULATIONS, Abilities, FitData, Method


@dataclasses.dataclass(frozen=True)
class GENOTSolver(Method):
    """A conditional flow from source cells to distributions of target cells.

    Create it with :meth:`fit`, which couples two populations and learns from the coupling, or with its dimensions and a
    :class:`scgenot.flow.FlowConfig`, and let it :meth:`learn` from a coupling that exists.
    """

    name: ClassVar[str] = "genot"
    needs: ClassVar[Literal["pairs"]] = "pairs"
    can: ClassVar[Abilities] = Abilities(stochastic=True, two_spaces=True)
    config_type: ClassVar[type] = FlowConfig

    @property
    def graphdef(self) -> nnx.GraphDef:
        """Static structure of the velocity field."""
        return nnx.split(self._abstract())[0]

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
            coupling_key = jax.random.split(key, 5)[0]
            coupling = solve_coupling(coupling_key, source, target, kind=coupling_kind, config=coupling_config)
        blank = cls(np.shape(source)[1], np.shape(target)[1], flow_config or FlowConfig())
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
        # The first of five is :meth:`fit`'s, for the coupling.
        _, init_key, train_key, validation_key, growth_key = jax.random.split(key, 5)
        config, coupling = self.config, data.coupling
        source, target = self.cells(data.source), self.cells(data.target, "target")
        source_units = Standardizer.fit(source, coupling.source_marginal, config.standardize)
        target_units = Standardizer.fit(target, coupling.target_marginal, config.standardize)
        graphdef, params = nnx.split(
            VelocityField(self.source_dim, self.target_dim, config, rngs=nnx.Rngs(params=init_key))
        )
        units = source_units, target_units
        validation, metrics = validate_on(validation_key, graphdef, coupling, units, data.held_out)
        cells = source_units.forward(jnp.asarray(source)), target_units.forward(jnp.asarray(target))
        # First, so that an interrupted training leaves it, too.
        rescaling = fit_rescalings(growth_key, coupling, cells, config.rescaling)
        result = train_velocity(
            train_key,
            graphdef,
            params,
            coupling,
            *cells,
            train_config,
            validation=validation,
            extra_metrics=metrics,
            progress_bar=progress_bar,
        )
        weights = FlowWeights(result.params, *units, rescaling)
        learned = dataclasses.replace(self, weights=weights, marginal_kinds=tuple(coupling.marginal_kinds))
        return learned, result

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
        return sample_blocks(self.graphdef, weights, as_key(rng), x, ids, int(n_samples), ode or ODEConfig(), rows=rows)

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
        return evaluate_growth(weights.rescaling[population], units, x, self.config.rescaling)

    def weights_template(self) -> FlowWeights:
        """Return the shapes of the weights, to read saved ones into."""
        source, target = (Standardizer(jnp.zeros(d), jnp.ones(d)) for d in (self.source_dim, self.target_dim))
        sides = zip(POPULATIONS, self.marginal_kinds, (self.source_dim, self.target_dim), strict=True)
        rescaling = {
            name: empty_rescaling(dim, self.config.rescaling)[1] for name, kind, dim in sides if kind == "relaxed"
        }
        return FlowWeights(nnx.split(self._abstract())[1], source, target, rescaling)

    def _abstract(self) -> VelocityField:
        build = lambda: VelocityField(self.source_dim, self.target_dim, self.config, rngs=nnx.Rngs(0))
        return nnx.eval_shape(build)
