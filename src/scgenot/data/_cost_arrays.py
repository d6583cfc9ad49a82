"""What the coupling sees of cells: their representation, or rows of precomputed costs, and shared features."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from scgenot.data._links import distances
from scgenot.data._places import Data, PopulationSpec
from scgenot.data._populations import Population

Places = tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]


@dataclasses.dataclass(frozen=True)
class CostArrays:
    """Arrays for the two sides of a coupling, and the shared features of both in a fused problem with some.

    ``given`` says which sides are rows of precomputed costs.
    """

    source: Float[np.ndarray, "n dx"]
    target: Float[np.ndarray, "m dy"]
    given: tuple[bool, bool]
    shared: tuple[Float[np.ndarray, "n s"], Float[np.ndarray, "m s"]] | None = None


def cost_arrays(
    data: Data,
    spec: PopulationSpec,
    problem: str,
    populations: tuple[Population, Population],
    cells: Places,
    train: Places,
) -> CostArrays:
    """Return what the coupling sees of some cells.

    Parameters
    ----------
    data
        Where the populations live.
    spec
        Where in it.
    problem
        Which problem is solved.
    populations
        Both populations.
    cells
        Places of the wanted cells in both populations.
    train
        Places of the coupled cells: precomputed costs are costs to these.
    """
    shared = None
    if problem == "fused" and spec.source.shared_rep is not None:
        shared = tuple(population.shared[some] for population, some in zip(populations, cells, strict=True))
    coupled = [population.rows[some] for population, some in zip(populations, train, strict=True)]
    places = spec.source, spec.target
    given = [place.distances is not None for place in places]
    if problem == "linear" and any(given):
        # One matrix, given for either side: costs to all coupled cells of both populations, source first.
        joint = places[given.index(True)]
        coupled = 2 * [np.concatenate(coupled)]
        arrays = [
            distances(data, joint, populations[0].rows[cells[0]], coupled[0]),
            # What it costs to reach a target cell, which is what source cells want to know where costs are not symmetric.
            distances(data, joint, coupled[1], populations[1].rows[cells[1]]).T,
        ]
        return CostArrays(arrays[0], arrays[1], (True, True), shared)
    arrays = [
        distances(data, place, population.rows[some], own) if has else population.cells[some]
        for place, has, population, some, own in zip(places, given, populations, cells, coupled, strict=True)
    ]
    return CostArrays(arrays[0], arrays[1], (given[0], given[1]), shared)
