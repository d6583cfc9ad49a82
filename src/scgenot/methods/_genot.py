"""GENOT on arrays: fit to two populations, then sample the target for any source cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from scgenot._messages import check_count, one_of
from scgenot._rng import RNG, as_key
from scgenot.coupling import Coupling, CouplingConfig, CouplingKind, MarginalKind, solve_coupling
from scgenot.flow._config import FlowConfig, ODEConfig, TrainConfig
from scgenot.flow._sampler import FlowWeights, sample_blocks
from scgenot.flow._scaling import Standardizer
from scgenot.flow._trainer import TrainResult, train_velocity
from scgenot.flow._validation import HeldOut, validate_on
from scgenot.flow._velocity import VelocityField
from scgenot.methods._growth import POPULATIONS, empty_rescaling, evaluate_growth, fit_rescalings, growth_of_kind


@dataclasses.dataclass(frozen=True)
class GENOTSolver:
    """A conditional flow from source cells to distributions of target cells.

    Create it with :meth:`fit`, or from saved weights.

    Attributes
    ----------
    source_dim, target_dim
        Number of features of the two spaces.
    config
        The velocity field.
    weights
        Weights and units; ``None`` before training.
    marginal_kinds
        How the marginals of source and target relate to the prior weights, as in the coupling that was learned. It
        tells which networks for growth there are.
    """

    source_dim: int
    target_dim: int
    config: FlowConfig
    weights: FlowWeights | None = None
    marginal_kinds: tuple[MarginalKind, MarginalKind] = ("kept", "kept")

    @property
    def graphdef(self) -> nnx.GraphDef:
        """Static structure of the velocity field."""
        return nnx.split(self._abstract())[0]

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
        flow_config, train_config = flow_config or FlowConfig(), train_config or TrainConfig()
        coupling_key, init_key, train_key, validation_key, growth_key = jax.random.split(as_key(rng), 5)
        if coupling is None:
            coupling = solve_coupling(coupling_key, source, target, kind=coupling_kind, config=coupling_config)
        source, target = np.asarray(source, np.float32), np.asarray(target, np.float32)
        source_units = Standardizer.fit(source, coupling.source_marginal, flow_config.standardize)
        target_units = Standardizer.fit(target, coupling.target_marginal, flow_config.standardize)
        solver = cls(source.shape[1], target.shape[1], flow_config, marginal_kinds=coupling.marginal_kinds)
        rngs = nnx.Rngs(params=init_key)
        graphdef, params = nnx.split(VelocityField(solver.source_dim, solver.target_dim, flow_config, rngs=rngs))
        validation, metrics = validate_on(validation_key, graphdef, coupling, (source_units, target_units), held_out)
        cells = source_units.forward(jnp.asarray(source)), target_units.forward(jnp.asarray(target))
        # First, so that an interrupted training leaves it, too.
        rescaling = fit_rescalings(growth_key, coupling, cells, flow_config.rescaling)
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
        weights = FlowWeights(result.params, source_units, target_units, rescaling)
        return dataclasses.replace(solver, weights=weights), result, coupling

    def sample(
        self,
        rng: RNG,
        x: Float[Array | np.ndarray, "n dx"],
        n_samples: int = 30,
        *,
        ode: ODEConfig | None = None,
        cell_ids: Int[np.ndarray, " n"] | None = None,
        rows: int | None = None,
    ) -> Float[np.ndarray, "n s dy"]:
        """Draw targets for source cells.

        Parameters
        ----------
        rng
            Seed, generator or key.
        x
            Source cells in the user's units.
        n_samples
            Samples a cell.
        ode
            How the flow's equation is solved.
        cell_ids
            Numbers that tie samples to cells: a cell with the same number, features and `rng` gets the same samples,
            whichever other cells are asked for. Its place in `x` by default.
        rows
            Rows (cells times samples) solved at once.

        Returns
        -------
        Samples in the user's units.

        Raises
        ------
        ValueError
            If `x` has another width than the source space, or `n_samples` is below 1.
        RuntimeError
            If the solver has no weights.
        """
        check_count("n_samples", n_samples)
        x = self._cells(x)
        samples = np.empty((len(x), n_samples, self.target_dim), np.float32)
        for place, block in self.sample_blocks(rng, x, n_samples, ode=ode, cell_ids=cell_ids, rows=rows):
            samples[place] = block
        return samples

    def sample_blocks(
        self,
        rng: RNG,
        x: Float[Array | np.ndarray, "n dx"],
        n_samples: int = 30,
        *,
        ode: ODEConfig | None = None,
        cell_ids: Int[np.ndarray, " n"] | None = None,
        rows: int | None = None,
    ) -> Iterator[tuple[slice, Float[np.ndarray, "k s dy"]]]:
        """Yield what :meth:`sample` returns, a run of consecutive cells at a time, to summarise without keeping it."""
        weights = self._trained()
        check_count("n_samples", n_samples)
        x = self._cells(x)
        ids = np.arange(len(x)) if cell_ids is None else np.asarray(cell_ids)
        return sample_blocks(self.graphdef, weights, as_key(rng), x, ids, n_samples, ode or ODEConfig(), rows=rows)

    def growth(
        self, x: Float[Array | np.ndarray, "n d"], population: Literal["source", "target"] = "source"
    ) -> Float[np.ndarray, " n"]:
        """Return how much mass cells send (source) or get (target) per unit of their prior mass.

        Parameters
        ----------
        x
            Cells of the population in the user's units, not necessarily training cells.
        population
            Whose cells they are.

        Returns
        -------
        Growth: the density of the plan's marginal with respect to the prior one. 1 is kept; near 0 has no counterpart.
        Exactly 1 where the marginal was not relaxed.

        Raises
        ------
        ValueError
            If `population` is neither, `x` has another width than its space, or the coupling was a minibatch one with
            this marginal relaxed, which does not tell growth.
        RuntimeError
            If the solver has no weights.
        """
        if population not in POPULATIONS:
            raise ValueError(one_of("population", population, POPULATIONS))
        weights, x = self._trained(), self._cells(x, population)
        kind = self.marginal_kinds[POPULATIONS.index(population)]
        if kind != "relaxed":
            return growth_of_kind(kind, population, len(x))
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

    def _trained(self) -> FlowWeights:
        if self.weights is None:
            raise RuntimeError("this solver has no weights yet. Create it with `GENOTSolver.fit`.")
        return self.weights

    def _cells(self, x: Any, population: str = "source") -> Float[np.ndarray, "n d"]:
        x = np.asarray(x, np.float32)
        width = self.source_dim if population == "source" else self.target_dim
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(
                f"`x` must be cells x {width} features, as in training, got shape {x.shape}. "
                "Use the representation that the model was trained on."
            )
        return x

    def _abstract(self) -> VelocityField:
        build = lambda: VelocityField(self.source_dim, self.target_dim, self.config, rngs=nnx.Rngs(0))
        return nnx.eval_shape(build)
