"""Optimal transport flow matching: a flow from each source cell to its partner, without noise."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._devices import Devices  # noqa: F401 (annotations of the base class name it)
from scgenot._rng import RNG
from scgenot.coupling import Coupling, MarginalKind  # noqa: F401 (annotations of the base class name MarginalKind)
from scgenot.flow._conditions import ConditionLayout
from scgenot.flow._config import DivergenceConfig, FlowConfig, ODEConfig
from scgenot.flow._path import NoiseToTarget, Path
from scgenot.flow._scaling import Standardizer
from scgenot.methods._genot import GENOTSolver
from scgenot.methods._method import Abilities, Method


@dataclasses.dataclass(frozen=True)
class SourceToTarget(NoiseToTarget):
    """Straight lines from the source cell to its target; the velocity ``y - x`` sees where it is, and nothing else.

    It is right here only: given the source cell, as GENOT's is, a flow without noise would learn one target a cell.
    """

    averages: ClassVar[bool] = False

    def start(self, z: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Start at the source cell."""
        return x

    def noise(self, start: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Raise: where rows start is not noise."""
        return Path.noise(self, start, x)

    def seen(self, x: Float[Array, "rows dx"]) -> Float[Array, "rows seen"]:
        """See nothing of the source cell."""
        return x[:, :0]


@dataclasses.dataclass(frozen=True)
class OTCFMSolver(GENOTSolver):
    r"""Flow matching between coupled populations (Tong et al. 2024; Pooladian et al. 2023): one image a cell, within one space.

    With pairs (x, y) of the plan it minimises ``E |v(t, (1 - t) x + t y) - (y - x)|^2``; the image of a cell is where the flow takes it.
    It carries the plan's source marginal to its target marginal, whatever the plan. Between Gaussians whose covariances A and B
    commute it is the map ``B^.5 A^-.5`` at every epsilon.
    """

    name: ClassVar[str] = "otcfm"
    can: ClassVar[Abilities] = Abilities(stochastic=False, devices=True)

    def __post_init__(self) -> None:
        """Check that there is one space, one start and one field."""
        if self.source_dim != self.target_dim:
            raise ValueError(
                f"{self.name!r} works within one space, got {self.source_dim} and {self.target_dim} features: its flows go from source to "
                "target cells. Use GENOT."
            )
        if self.config.start in ("noise", "linear"):
            raise ValueError(
                f"`start`={self.config.start!r} is GENOT's: flows of 'otcfm' start at source cells. Use start='auto'."
            )
        if self.config.n_models > 1:
            raise ValueError(
                f"`n_models` must be 1, got {self.config.n_models}: 'otcfm' learns one map, of which all samples of a cell are the same."
            )

    def _blank_path(self) -> Path:
        """Return the path of maps: nothing of it is learned."""
        return SourceToTarget()

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
        """Raise a ``NotImplementedError``: a map has no density given the source cell."""
        return Method.log_prob(self, y, x)

    def _units(
        self, source: Float[np.ndarray, "n dx"], target: Float[np.ndarray, "m dy"], coupling: Coupling
    ) -> tuple[Standardizer, Standardizer]:
        """Return one unit for both populations, in which straight lines between them are straight."""
        mass = np.concatenate(
            [np.asarray(side) / np.sum(side) for side in (coupling.source_marginal, coupling.target_marginal)]
        )
        units = Standardizer.fit(np.concatenate([source, target]), mass, self.config.standardize)
        return units, units

    @property
    def _network(self) -> tuple[int, int, FlowConfig, int, ConditionLayout | None]:
        network: Any = super()._network
        return (0, *network[1:])
