"""What a method tells about itself, and what it learns from."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from scgenot.coupling import Coupling
from scgenot.flow import ConditionLayout, HeldOut


@dataclasses.dataclass(frozen=True)
class Abilities:
    """What a method can do.

    Attributes
    ----------
    stochastic
        Whether it learns laws. Otherwise it learns a map, and all samples of a cell are the same.
    two_spaces
        Whether source and target may have different features.
    density
        Whether it has :meth:`Method.log_prob`.
    conditions
        Whether one fit may hold several conditions.
    devices
        Whether it learns and samples on several devices.
    """

    stochastic: bool
    two_spaces: bool = False
    density: bool = False
    conditions: bool = False
    devices: bool = False


@dataclasses.dataclass(frozen=True)
class FitData:
    """What a method learns from.

    Attributes
    ----------
    source, target
        Training cells in the user's units.
    coupling
        The coupling between them; ``None`` for a method that needs samples only.
    conditions
        One row a block of the coupling, which numbers them: ``pairs`` then yields (i, j, block). ``None`` without conditions.
    layout
        What the numbers of `conditions` mean; ``None``: they are taken as they are.
    source_weights, target_weights
        Prior weights of the cells, uniform by default; for methods without a coupling, which has its own.
    held_out
        Cells to validate on.
    """

    source: Float[Array | np.ndarray, "n dx"]
    target: Float[Array | np.ndarray, "m dy"]
    coupling: Coupling | None = None
    conditions: Float[Array | np.ndarray, "blocks c"] | None = None
    layout: ConditionLayout | None = None
    source_weights: Float[Array | np.ndarray, " n"] | None = None
    target_weights: Float[Array | np.ndarray, " m"] | None = None
    held_out: HeldOut | None = None
