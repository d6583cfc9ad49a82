"""How likely pairs of cells are in a plan, computed inside of compiled steps."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
from jaxtyping import Array, Float, Int

from scgenot._devices import Devices, put_whole
from scgenot.sinkhorn import Geometry


@partial(jax.tree_util.register_dataclass, data_fields=("geometry", "potential"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class PairScores:
    """The logarithm of how much likelier pairs are in the plan than if its marginals were independent, ``log(P_ij / (P1_i P'1_j))``.

    Each row is known up to a constant: the rows' own potentials are left out.

    Attributes
    ----------
    geometry
        Costs over epsilon between all cells, filled up to one of a few sizes.
    potential
        Target potential, with the logarithm of prior over planned mass where they differ.
    """

    geometry: Geometry
    potential: Float[Array, " m"]

    def __call__(self, source: Int[Array, " k"], target: Int[Array, " l"]) -> Float[Array, "k l"]:
        """Return the scores between some source and some target cells."""
        one = self.geometry
        if one.matrix is not None:
            costs = one.matrix[source[:, None], target[None, :]]
        else:
            costs = one.cost(one.x[source], one.y[target])
        return self.potential[target][None, :] - one.inverse * costs

    def on(self, devices: Devices | None) -> PairScores:
        """Return the same on every device."""
        return put_whole(devices, self)
