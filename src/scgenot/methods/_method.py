"""What every learning method is to the model class: arrays and keys in, arrays out.

The model never asks which method it holds. It asks what the method needs of a coupling (`needs`) and what it can do
(`can`), and calls the functions below.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._devices import Devices
from scgenot._messages import check_count, one_of
from scgenot._rng import RNG
from scgenot.coupling import MarginalKind
from scgenot.flow import ConditionLayout, DistillConfig, DivergenceConfig, ODEConfig, TrainConfig, TrainResult
from scgenot.methods._terms import Abilities, FitData

__all__ = ["POPULATIONS", "Abilities", "FitData", "Method"]

POPULATIONS = ("source", "target")


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """A way to learn where source cells go. Values are frozen: learning returns a new one with weights.

    Subclasses are frozen dataclasses that set the four class variables and write :meth:`learn`, :meth:`sample_blocks` and
    :meth:`weights_template`.

    Attributes
    ----------
    name
        What users call it.
    needs
        What it asks of a coupling. ``"samples"``: nothing, the two samples will do; ``"pairs"``: pairs of cells;
        ``"potentials"``: dual potentials.
    can
        What it can do.
    config_type
        Class of its config, a frozen dataclass of plain values that can be made without arguments.
    source_dim, target_dim
        Number of features of the two spaces.
    config
        Options.
    weights
        A tree of arrays; ``None`` before learning.
    marginal_kinds
        How the marginals of source and target relate to the prior weights, as in the coupling that was learned. It
        tells whether there is growth to learn.
    condition_dim
        Length of the vector that describes a condition; 0 without conditions.
    condition_layout
        What the numbers of a condition mean; ``None``: they are taken as they are.
    training_cells
        Numbers of source and target cells that were learned from; ``None`` before learning, and in older saved models.
    devices
        Devices that share batches and samples, where it ``can`` have several; ``None``: one. Not saved.
    """

    name: ClassVar[str]
    needs: ClassVar[Literal["samples", "pairs", "potentials"]]
    can: ClassVar[Abilities]
    config_type: ClassVar[type]

    source_dim: int
    target_dim: int
    config: Any
    weights: Any = None
    marginal_kinds: tuple[MarginalKind, MarginalKind] = ("kept", "kept")
    condition_dim: int = 0
    condition_layout: ConditionLayout | None = None
    training_cells: tuple[int, int] | None = None
    devices: Devices | None = dataclasses.field(default=None, kw_only=True, compare=False)

    # ---- What a method writes ----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def learn(
        self, key: jax.Array, data: FitData, train_config: TrainConfig, *, progress_bar: bool = True
    ) -> tuple[Method, TrainResult]:
        """Learn from coupled cells.

        Parameters
        ----------
        key
            JAX key. The result is a function of it and of the data.
        data
            Cells, coupling, conditions, held-out cells.
        train_config
            Steps, batch size, schedule. A method without training of its own may leave it aside.
        progress_bar
            Whether to show one.

        Returns
        -------
        The method with weights, and what happened. This value stays as it is.
        """

    @abc.abstractmethod
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

    @abc.abstractmethod
    def weights_template(self) -> Any:
        """Return a tree with the shapes of the weights, to read saved ones into."""

    @property
    def n_models(self) -> int:
        """Members of the ensemble that samples come from in turn; 1 for one model."""
        return 1

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
        """Return log pi(y | x), in the user's units, of each pair of rows.

        Parameters
        ----------
        y
            Points of the target space, in the user's units.
        x
            Source cells, in the user's units.
        condition
            As in :meth:`sample`.
        pairs
            Rows of `y` and rows of `x` that make pairs; by default the rows of both in their order.
        ode
            How the flow's equation is solved; only for methods that solve one.
        divergence
            How the divergence of its velocity is computed, likewise.
        rng
            Seed, generator or key of random probes; not used where nothing is random.
        rows
            Pairs solved at once.

        Returns
        -------
        Natural logarithms of densities, one a pair, with respect to volume in the user's units of the target space.

        Raises
        ------
        NotImplementedError
            If the method has no density; ``can.density`` says so.
        ValueError
            If `x`, `y` or `condition` do not fit.
        RuntimeError
            If the method has no weights.
        """
        raise NotImplementedError(f"the method {self.name!r} has no density: `can.density` is False.")

    def distill(
        self,
        key: jax.Array,
        x: Float[np.ndarray, "n dx"],
        condition: Float[Array | np.ndarray, "..."] | None,
        steps: int,
        config: DistillConfig,
        *,
        progress_bar: bool = True,
    ) -> tuple[Method, dict[str, tuple[list[int], list[float]]]]:
        """Learn to sample in up to `steps` large steps what now takes many.

        Parameters
        ----------
        key
            JAX key. The result is a function of it, of the weights and of the cells.
        x
            Source cells, in the user's units, to learn it for.
        condition
            As in :meth:`sample`.
        steps
            The most steps that samples will be taken in, a power of two.
        config
            Steps, pool, schedule.
        progress_bar
            Whether to show one.

        Returns
        -------
        The method with the weights of both fields, and a history. This value stays as it is.

        Raises
        ------
        NotImplementedError
            If the method solves no equation.
        RuntimeError
            If the method has no weights, or distilling diverges.
        """
        raise NotImplementedError(
            f"the method {self.name!r} solves no equation, so that there is nothing to distil: it samples as fast as it can."
        )

    def training_growth(self, population: Literal["source", "target"] = "source") -> Float[np.ndarray, " k"] | None:
        """Return the plan's own growth, marginal over prior, of the training cells in their order; ``None`` if not kept."""
        return None

    def growth(
        self,
        x: Float[Array | np.ndarray, "n d"],
        population: Literal["source", "target"] = "source",
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
    ) -> Float[np.ndarray, " n"]:
        """Return how much mass cells send (source) or get (target) per unit of their prior mass.

        Parameters
        ----------
        x
            Cells of the population in the user's units, not necessarily training cells.
        population
            Whose cells they are.
        condition
            As in :meth:`sample`.

        Returns
        -------
        Growth: the density of the plan's marginal with respect to the prior one. 1 is kept; near 0 has no counterpart.
        Exactly 1 where the marginal was not relaxed.

        Raises
        ------
        ValueError
            If `population` is neither, `x` has another width than its space, or growth was not learned.
        RuntimeError
            If the method has no weights.
        """
        self.trained()
        return self.growth_without_network(self.cells(x, population), population)

    # ---- What comes with it ------------------------------------------------------------------------------------------

    def sample(
        self,
        rng: RNG,
        x: Float[Array | np.ndarray, "n dx"],
        n_samples: int = 30,
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
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
        condition
            The condition: one vector for all cells, or one row a cell. Needed if, and only if, the method learned conditions.
        ode
            How the flow's equation is solved; only for methods that solve one.
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
            If `x` has another width than the source space, `n_samples` is below 1, or `condition` does not fit.
        RuntimeError
            If the method has no weights.
        """
        check_count("n_samples", n_samples)
        n_samples = int(n_samples)
        x = self.cells(x)
        samples = np.empty((len(x), n_samples, self.target_dim), np.float32)
        options = {"condition": condition, "ode": ode, "cell_ids": cell_ids, "rows": rows}
        for place, block in self.sample_blocks(rng, x, n_samples, **options):
            samples[place] = block
        return samples

    def state_config(self) -> dict[str, Any]:
        """Return all but the weights as plain values that JSON holds."""
        return {
            "method": self.name,
            "source_dim": self.source_dim,
            "target_dim": self.target_dim,
            "config": dataclasses.asdict(self.config),
            "marginal_kinds": list(self.marginal_kinds),
            "condition_dim": self.condition_dim,
            "condition_layout": None if self.condition_layout is None else dataclasses.asdict(self.condition_layout),
            "training_cells": None if self.training_cells is None else list(self.training_cells),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Method:
        """Return the method that :meth:`state_config` described, without weights. Keys of later versions may be missing."""
        cells, layout = state.get("training_cells"), state.get("condition_layout")
        return cls(
            source_dim=int(state["source_dim"]),
            target_dim=int(state["target_dim"]),
            config=cls.config_from(state["config"]),
            marginal_kinds=tuple(state.get("marginal_kinds", ("kept", "kept"))),
            condition_dim=int(state.get("condition_dim", 0)),
            condition_layout=None if layout is None else ConditionLayout(**layout),
            training_cells=None if cells is None else (int(cells[0]), int(cells[1])),
        )

    @classmethod
    def config_from(cls, saved: Mapping[str, Any]) -> Any:
        """Return the config that ``dataclasses.asdict`` wrote."""
        return cls.config_type(**saved)

    def trained(self) -> Any:
        """Return the weights; raise if there are none."""
        if self.weights is None:
            raise RuntimeError(f"this {type(self).__name__} has no weights yet. Call `learn`, or read saved weights.")
        return self.weights

    def pair_rows(
        self, y: np.ndarray, x: np.ndarray, pairs: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
        """Return the rows of points and of cells that make pairs; raise unless there are as many of both."""
        if pairs is None:
            if len(y) != len(x):
                raise ValueError(
                    f"`y` and `x` must have as many rows as each other, or `pairs` say which: got {len(y)} and {len(x)}."
                )
            return np.arange(len(y)), np.arange(len(x))
        return np.asarray(pairs[0]), np.asarray(pairs[1])

    def cells(self, x: Any, population: str = "source") -> Float[np.ndarray, "n d"]:
        """Return cells as float32; raise unless they are as wide as the space of their population."""
        if population not in POPULATIONS:
            raise ValueError(one_of("population", population, POPULATIONS))
        x = np.asarray(x, np.float32)
        width = self.source_dim if population == "source" else self.target_dim
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(
                f"`x` must be cells x {width} features, as in training, got shape {x.shape}. "
                "Use the representation that the model was trained on."
            )
        return x

    def condition_rows(self, condition: Any, n: int) -> Float[np.ndarray, "n c"]:
        """Return one row of the condition a cell, of width 0 without conditions; raise unless it fits.

        Raises
        ------
        ValueError
            If a condition is missing, or given to a method that learned none, or has another length than in learning.
        """
        width = self.condition_dim
        if condition is None:
            if width:
                raise ValueError(
                    f"`condition` is needed: this method learned conditions described by {width} numbers. Pass one "
                    "vector for all cells, or one row a cell."
                )
            return np.zeros((n, 0), np.float32)
        rows = np.asarray(condition, np.float32)
        if not width:
            raise ValueError("`condition` was given, but no conditions were learned. Leave it out.")
        if rows.shape not in ((width,), (n, width)) or not np.isfinite(rows).all():
            raise ValueError(
                f"`condition` must be {width} finite numbers, or one such row for each of {n} cells, as in learning; "
                f"got shape {rows.shape}."
            )
        return np.broadcast_to(rows, (n, width))

    def growth_without_network(self, x: Float[np.ndarray, "n d"], population: str) -> Float[np.ndarray, " n"]:
        """Return 1 for each cell of a population whose marginal is kept.

        Raises
        ------
        ValueError
            If its marginal is not kept: growth is not known then.
        """
        if self.marginal_kinds[POPULATIONS.index(population)] == "kept":
            return np.ones(len(x), np.float32)
        raise ValueError(
            f"`population`={population!r}: its growth is not known. `tau_{population}` is below 1, and the coupling is a "
            "minibatch one, whose batches each have marginals of their own, or the method does not learn growth, or the "
            "model was saved before growth was learned. Train with the 'global' coupling."
        )
