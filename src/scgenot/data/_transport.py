"""All that training takes from the data, as one value: two populations, what ties them, their costs, who is held out."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from scgenot.data._conditions import Conditions, read_conditions
from scgenot.data._links import distances, known_pairs
from scgenot.data._places import POPULATIONS, Data, PopulationSpec
from scgenot.data._populations import Population, read_population
from scgenot.data._split import Split, split_blocks, split_cells
from scgenot.data._steps import read_steps, split_times

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


@dataclasses.dataclass(frozen=True)
class TransportData:
    """Two populations as they were when they were read.

    Attributes
    ----------
    data
        Where they live: precomputed costs are read from it when they are needed.
    spec
        Where in it.
    problem
        ``"linear"``, ``"quadratic"`` or ``"fused"``.
    source, target
        The populations.
    split
        Which cells train; ``None`` until it is decided.
    conditions
        What was done to the target cells, and which source cells belong to each; ``None`` for a plain pair of populations.
    unseen
        Numbers of conditions that are held out: their target cells neither train nor are among the held-out cells.
    """

    data: Data
    spec: PopulationSpec
    problem: str
    source: Population
    target: Population
    split: Split | None = None
    conditions: Conditions | None = None
    unseen: tuple[int, ...] = ()

    @property
    def populations(self) -> tuple[Population, Population]:
        """Source and target."""
        return self.source, self.target

    @property
    def training(self) -> Places:
        """Places of the training cells in their populations."""
        return self.split.source_train, self.split.target_train

    @property
    def held(self) -> Places:
        """Places of the held-out cells in their populations."""
        return self.split.source_held, self.split.target_held


def read_transport(data: Data, spec: PopulationSpec, problem: str) -> TransportData:
    """Read both populations, and conditions, as they are now; raises as :func:`read_population` and :func:`read_conditions`."""
    source, target = (read_population(data, place) for place in spec.places)
    conditions = None
    if spec.conditions is not None:
        read = read_conditions if spec.conditions.course is None else read_steps
        conditions = read(data, spec.conditions, spec.places, (source.rows, target.rows))
    return TransportData(data, spec, problem, source, target, conditions=conditions)


def hold_out(found: TransportData, rng: np.random.Generator, share: float, unseen: Sequence[int] = ()) -> TransportData:
    """Return the data with a share of each population held out, see :func:`split_cells`, and some conditions altogether."""
    if found.conditions is None:
        return dataclasses.replace(found, split=split_cells(rng, found.source, found.target, share))
    sizes, conditions = (len(found.source.rows), len(found.target.rows)), found.conditions
    if conditions.spec.course is not None:
        split = split_times(rng, conditions, (found.source.rows, found.target.rows), share)
    elif conditions.spec.reversed:
        blocks = conditions.swapped(conditions.spec).blocks
        split = split_blocks(rng, blocks, sizes[::-1], share, unseen).swapped()
    else:
        split = split_blocks(rng, conditions.blocks, sizes, share, unseen)
    return dataclasses.replace(found, split=split, unseen=tuple(unseen))


def swapped(found: TransportData, spec: PopulationSpec) -> TransportData:
    """Return the data seen from the other side; `spec` says where they live, seen from there."""
    split = None if found.split is None else found.split.swapped()
    conditions = None if found.conditions is None else found.conditions.swapped(spec.conditions)
    sides = {"source": found.target, "target": found.source}
    return dataclasses.replace(found, spec=spec, split=split, conditions=conditions, **sides)


def cost_arrays(found: TransportData, cells: Places) -> CostArrays:
    """Return what the coupling sees of some cells, given by their places in both populations.

    Precomputed costs are costs to the training cells.
    """
    shared = None
    if found.problem == "fused" and found.spec.source.shared_rep is not None:
        shared = tuple(population.shared[some] for population, some in zip(found.populations, cells, strict=True))
    coupled = [population.rows[some] for population, some in zip(found.populations, found.training, strict=True)]
    places = found.spec.places
    given = [place.distances is not None for place in places]
    if found.problem == "linear" and any(given):
        # One matrix, given for either side: costs to all coupled cells of both populations, source first.
        joint, both = places[given.index(True)], np.concatenate(coupled)
        source, target = (population.rows[some] for population, some in zip(found.populations, cells, strict=True))
        # What it costs to reach a target cell, which is what source cells want to know where costs are not symmetric.
        reached = distances(found.data, joint, both, target).T
        return CostArrays(distances(found.data, joint, source, both), reached, (True, True), shared)
    arrays = [
        distances(found.data, place, population.rows[some], own) if has else population.cells[some]
        for place, has, population, some, own in zip(places, given, found.populations, cells, coupled, strict=True)
    ]
    return CostArrays(arrays[0], arrays[1], (given[0], given[1]), shared)


def training_pairs(found: TransportData) -> Int[np.ndarray, "p 2"]:
    """Return the known pairs among training cells, numbered among these.

    Raises
    ------
    ValueError
        If there is none.
    """
    pairs = known_pairs(found.source, found.target, *found.training)
    if len(pairs) == 0:
        raise ValueError("none of the known pairs is among the training cells. Use a smaller `validation_size`, or 0.")
    return pairs


def weights_among(found: TransportData, cells: Places) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the prior weights of some cells of both populations, ``None`` where they are uniform."""
    pairs = zip(found.populations, cells, strict=True)
    weights = [None if population.weights is None else population.weights[some] for population, some in pairs]
    return weights[0], weights[1]


def blocks_among(found: TransportData, cells: Places) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return the blocks among some cells: their condition, and places among these; unseen conditions are left out."""
    blocks = found.conditions.restricted(*cells, leave_out=found.unseen)
    return [(block.condition, block.source, block.target) for block in blocks]


def rows_of(found: TransportData, cells: Places) -> Places:
    """Return rows of cells in the AnnData of their populations, from their places in these."""
    rows = [population.rows[some] for population, some in zip(found.populations, cells, strict=True)]
    return rows[0], rows[1]


def joined_rows(spec: PopulationSpec, rows: Places) -> Int[np.ndarray, " k"] | dict[str, np.ndarray]:
    """Return rows of both populations as rows of their AnnData, or of each modality: rows of two do not fit one array."""
    if spec.source.modality != spec.target.modality:
        return dict(zip(POPULATIONS, rows, strict=True))
    # In a time course, a cell may be in both.
    return np.unique(np.concatenate(rows))


def digest_of(*arrays: np.ndarray | None) -> str:
    """Return a hash of numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def fingerprint(found: TransportData) -> str:
    """Return a hash of all numbers that a coupling of these data rests on: rows, features, weights, ties, given costs."""
    parts = []
    for place, population in zip(found.spec.places, found.populations, strict=True):
        parts.append(digest_of(population.rows, population.cells, population.weights))
        if found.problem == "fused":
            names = population.pair_names
            names = None if names is None else pd.util.hash_array(names.astype(str).to_numpy(object))
            parts.append(digest_of(population.shared, names))
        if place.distances is not None:
            parts.append(digest_of(distances(found.data, place, population.rows, population.rows)))
    if found.conditions is not None:
        parts.append(digest_of(*(one for block in found.conditions.blocks for one in (block.source, block.target))))
    return " ".join(parts)


def names_digest(data: Data, spec: PopulationSpec, rows: Places) -> str:
    """Return a hash of the names of cells at some rows of the source's and of the target's AnnData."""
    digest = hashlib.blake2b(digest_size=16)
    for place, some in zip(spec.places, rows, strict=True):
        adata = place.cells(data)
        names = adata.obs_names[some] if len(some) == 0 or some.max() < adata.n_obs else ["fewer cells"]
        digest.update("\n".join(map(str, names)).encode() + b"\0")
    return digest.hexdigest()
