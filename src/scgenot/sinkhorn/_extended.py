"""Potentials of very many cells in time linear in their number: solved over some cells, extended to all, averaged over more.

No pass compares all source with all target cells. The column potential of any cell is a soft minimum over some source cells
(the soft c-transform), which stand for all by their weights; the row potential likewise. What that leaves is sampling noise: it
shows in the marginals, and falls as further cells are averaged in. Cells are drawn along an order in which neighbours are alike:
what a group of cells weighs would be off by chance otherwise, and that mass would have to go to another group.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._progress import SILENT, Progress
from scgenot._sampling import alike, further_subset, host_rng, weighted_subset
from scgenot.sinkhorn._blocked import Potentials, SinkhornConfig, iterated, solve_potentials
from scgenot.sinkhorn._geometry import Geometry, soft_min_rows
from scgenot.sinkhorn._groups import Stage

# Cells a side whose marginals are measured, against all cells of the other side: a standard error of a hundredth of what is measured.
_MEASURED = 2048
# The problem between the chosen cells is solved this many times better than what sampling them leaves is allowed to be off.
_SHARPER, _SHARPEST = 10.0, 1e-3
# Iterations from landmarks on; see `refine_potentials`.
_SWEEPS_OF_LANDMARKS = 30
_NONE = np.zeros(0, int)


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Cells of one side that stand for all of it.

    Attributes
    ----------
    rows
        Which cells.
    weights
        What they weigh; the sum is 1.
    potential
        Their potential over epsilon.
    """

    rows: Int[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]
    potential: Float[np.ndarray, " k"]

    @property
    def logs(self) -> Float[np.ndarray, " k"]:
        """Potential plus log weight."""
        with np.errstate(divide="ignore"):
            return (self.potential + np.log(self.weights)).astype(np.float32)

    def and_more(self, other: Anchors, share: float) -> Anchors:
        """Return both together, where the others have this share of the weight."""
        weights = np.concatenate([(1.0 - share) * self.weights, share * other.weights])
        rows, potential = (np.concatenate(two) for two in ((self.rows, other.rows), (self.potential, other.potential)))
        return Anchors(rows, weights, potential)


@dataclasses.dataclass(frozen=True)
class Extension:
    """Potentials of all cells, and what they come from.

    Attributes
    ----------
    potentials
        Of all cells; `iterations` are those between the chosen cells, `violation` is an estimate.
    error
        Standard error of the violation.
    source, target
        The cells that the potentials of the other side are soft minima over.
    sweeps
        How often further cells were averaged in.
    sampled
        Whether there are cells that it was not solved over.
    """

    potentials: Potentials
    error: float
    source: Anchors
    target: Anchors
    sweeps: int
    sampled: bool = True

    @property
    def swapped(self) -> Extension:
        """The same, seen from the other side."""
        found = self.potentials
        turned = dataclasses.replace(found, u=found.v, v=found.u)
        return dataclasses.replace(self, potentials=turned, source=self.target, target=self.source)


def extended_potentials(
    geometry: Geometry,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: SinkhornConfig,
    *,
    key: jax.Array,
    n_cells: int,
    n_sweeps: int,
    landmarks: tuple[Int[np.ndarray, " l"], Float[Array, " l"], Float[Array, " l"]] | None = None,
    progress: Progress | None = None,
) -> Extension:
    """Solve between some cells, extend to all, and average over further cells until the marginals fit.

    Parameters
    ----------
    geometry
        Costs over epsilon.
    a, b
        Marginals, each summing to 1; zeros are allowed.
    config
        Taus, iterations; `tolerance` is what the marginals of all cells may be off.
    key
        Chooses cells.
    n_cells
        Cells a side that are solved over; all, where there are no more, and then nothing is sampled.
    n_sweeps
        How often further cells are averaged in, at most.
    landmarks
        Source cells whose potentials are known, their weights and these: what the solution starts from.
    progress
        Is told of the stages, and how far the marginals are off.

    Notes
    -----
    A sweep takes `n_cells` random source cells, makes their row potentials exact against all target cells, and averages what
    these imply for the column potentials with what was known; then the other side, likewise. It is online Sinkhorn (Mensch and
    Peyre, 2020) with weights 1 / t from a warm start. Its cost is that of a few passes of `n_cells` over all cells.
    """
    progress = progress or SILENT
    taus = config.tau_source, config.tau_target
    rngs = [host_rng(key, side) for side in (0, 1)]
    orders = [alike(side, n_cells) if len(side) > n_cells else None for side in (geometry.x, geometry.y)]
    chosen = [weighted_subset(*one) for one in zip(rngs, (a, b), (n_cells, n_cells), orders, strict=True)]
    found, source, target = _between_some(geometry, chosen, config, key, landmarks, progress)
    everyone = [np.arange(size) for size in geometry.shape]
    if len(source.rows) == np.count_nonzero(np.asarray(a)) and len(target.rows) == np.count_nonzero(np.asarray(b)):
        return _between_all(geometry, source, target, found, config)
    progress.stage(f"{len(everyone[0])} x {len(everyone[1])} cells, extended", n_sweeps + 1)
    # Sums, whose logarithms potentials are; averaging is between these.
    to_target = _sums(geometry.T, source, everyone[1])
    target = dataclasses.replace(target, potential=-taus[1] * to_target[target.rows])
    to_source = _sums(geometry, target, everyone[0])
    sweeps = 0
    while True:
        u, v = -taus[0] * to_source, -taus[1] * to_target
        violation, error = marginals_off(geometry, a, b, u, v, taus, rngs[0], (source.rows, target.rows))
        progress.advance(1, violation=violation)
        if violation <= config.tolerance or sweeps == n_sweeps or not np.isfinite(violation):
            break
        sweeps += 1
        share = 1.0 / (sweeps + 1)
        more = _further(rngs[0], a, source.rows, n_cells, orders[0])
        own = dataclasses.replace(more, potential=-taus[0] * _sums(geometry, _everyone(b, v), more.rows))
        to_target = _averaged(to_target, _sums(geometry.T, own, everyone[1]), share)
        source, v = source.and_more(own, share), -taus[1] * to_target
        more = _further(rngs[1], b, target.rows, n_cells, orders[1])
        own = dataclasses.replace(more, potential=v[more.rows])
        to_source = _averaged(to_source, _sums(geometry, own, everyone[0]), share)
        target = target.and_more(own, share)
    potentials = Potentials(*_on_device(u, v), violation, found.iterations, violation <= config.tolerance)
    return Extension(potentials, error, source, target, sweeps)


def marginals_off(
    geometry: Geometry,
    a: Float[Array | np.ndarray, " n"],
    b: Float[Array | np.ndarray, " m"],
    u: Float[Array | np.ndarray, " n"],
    v: Float[Array | np.ndarray, " m"],
    taus: tuple[float, float],
    rng: np.random.Generator,
    seen: tuple[Int[np.ndarray, " k"], Int[np.ndarray, " l"]],
) -> tuple[float, float]:
    """Return how far a plan's marginals are from what they should be on the side where that is more, and its standard error."""
    there = marginal_off(geometry, a, b, u, v, taus[0], rng, seen[0])
    return max(there, marginal_off(geometry.T, b, a, v, u, taus[1], rng, seen[1]))


def marginal_off(
    geometry: Geometry,
    own: Float[Array | np.ndarray, " n"],
    other: Float[Array | np.ndarray, " m"],
    potential: Float[Array | np.ndarray, " n"],
    across: Float[Array | np.ndarray, " m"],
    tau: float,
    rng: np.random.Generator,
    seen: Int[np.ndarray, " k"] = _NONE,
) -> tuple[float, float]:
    """Return the L1 distance between a plan's row marginal and what it should be, without bias, and its standard error.

    Which cells it is measured on is drawn by their weights from those that are not `seen`, where there are enough; the mass of
    each is exact. Its standard error is 0 where all cells are measured.
    """
    fresh = np.array(own, np.float64)
    fresh[seen] = 0.0
    if np.count_nonzero(fresh) < _MEASURED:
        fresh = np.asarray(own)
    rows, weights = weighted_subset(rng, fresh, _MEASURED)
    potential = np.asarray(potential, np.float64)[rows]
    sums = _sums(geometry, _everyone(other, across), rows)
    with np.errstate(over="ignore"):
        off = np.abs(np.exp(potential + sums) - np.exp(potential * (tau - 1.0) / tau))
    mean = float(weights @ off)
    whole = len(rows) == np.count_nonzero(np.asarray(own))
    return mean, 0.0 if whole else float(np.sqrt(weights**2 @ (off - mean) ** 2))


def _between_some(geometry: Geometry, chosen, config: SinkhornConfig, key, landmarks, progress):
    """Solve between the chosen cells; return the potentials, and both sides with theirs."""
    (rows, own_a), (columns, own_b) = chosen
    some = geometry.rows(rows, columns)
    weights = _on_device(own_a, own_b)
    # From landmarks, which are a sample themselves, as sharply as asked for is enough.
    sharpest = _SHARPEST if landmarks is None else config.tolerance
    config = dataclasses.replace(config, tolerance=min(config.tolerance / _SHARPER, sharpest))
    if landmarks is None:
        found = solve_potentials(some, *weights, config, key=key, progress=progress)
    else:
        known, known_weights, potential = landmarks
        start = Anchors(known, np.asarray(known_weights, np.float64), np.asarray(potential, np.float64))
        v = -config.tau_target * _sums(geometry.T, start, columns)
        sweeps = min(_SWEEPS_OF_LANDMARKS, config.max_iterations)
        found = iterated(some, *weights, v, config, [Stage(1.0, config.tolerance, sweeps)], progress)
    sides = ((rows, own_a, found.u), (columns, own_b, found.v))
    return found, *(Anchors(row, own, np.asarray(one, np.float64)) for row, own, one in sides)


def _between_all(geometry: Geometry, source: Anchors, target: Anchors, found: Potentials, config: SinkhornConfig):
    """Return what was solved between all cells that have weight; those without get potentials as well."""
    v = -config.tau_target * _sums(geometry.T, source, np.arange(geometry.shape[1]))
    target = dataclasses.replace(target, potential=v[target.rows])
    u = -config.tau_source * _sums(geometry, target, np.arange(geometry.shape[0]))
    source = dataclasses.replace(source, potential=u[source.rows])
    converged = found.violation <= config.tolerance
    potentials = Potentials(*_on_device(u, v), found.violation, found.iterations, converged)
    return Extension(potentials, 0.0, source, target, 0, sampled=False)


def _sums(geometry: Geometry, columns: Anchors, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Return the logarithm of sums over some columns, of some rows, in one pass."""
    return np.asarray(soft_min_rows(geometry.rows(rows, columns.rows), columns.logs), np.float64)


def _everyone(weights: Float[Array | np.ndarray, " n"], potential: Float[Array | np.ndarray, " n"]) -> Anchors:
    weights = np.asarray(weights, np.float64)
    return Anchors(np.arange(len(weights)), weights, np.asarray(potential, np.float64))


def _further(
    rng: np.random.Generator, weights, seen: Int[np.ndarray, " k"], size: int, order: Int[np.ndarray, " n"] | None
) -> Anchors:
    """Choose cells along an order that stand for all, others than before where these are enough."""
    rows, own = further_subset(rng, weights, seen, size, order)
    return Anchors(rows, own, np.zeros(len(rows)))


def _averaged(one: Float[np.ndarray, " n"], two: Float[np.ndarray, " n"], share: float) -> Float[np.ndarray, " n"]:
    """Average sums by their logarithms."""
    return np.logaddexp(one + np.log1p(-share), two + np.log(share))


def _on_device(*arrays: Float[np.ndarray, " _"]) -> tuple[Float[Array, " _"], ...]:
    return tuple(jax.device_put(np.asarray(one, np.float32)) for one in arrays)
