"""One orientation for all blocks of a quadratic problem: a plan between cells of all of them, which each starts from."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from scgenot._progress import Progress
from scgenot._sampling import host_rng, weighted_subset
from scgenot.costs import resolve_cost_pair
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._global_quadratic import quadratic_coupling
from scgenot.coupling._kinds import Global
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling._start_plan import dense_plan

# Cells a side of the reference. It says which way round, and each block is then solved with its own cells.
_REFERENCE = 1024
# Cells a side that plans are compared on.
_COMPARED = 512


def reference_coupling(
    key: jax.Array,
    cells: tuple[Float[np.ndarray, "n dx"], Float[np.ndarray, "m dy"]],
    weights: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]],
    config: CouplingConfig,
    *,
    shared: tuple[Any, Any] | None,
    pairs: Int[np.ndarray, "p 2"] | None,
    progress: Progress,
) -> PotentialCoupling:
    """Solve the problem between a sample of the cells of all blocks, from many starts.

    Parameters
    ----------
    key
        Chooses the sample.
    cells, weights
        All cells, and their weights in the mixture of all blocks.
    config
        As the blocks have it, with one scale.
    shared, pairs
        Of all cells, in fused problems. Members of pairs are always in the sample, without weight unless they were drawn.
    progress
        Is told how solving goes.
    """
    size = min(_REFERENCE, config.landmarks or _REFERENCE)
    chosen, own = [], []
    for side, mass in enumerate(weights):
        rows, share = weighted_subset(host_rng(jax.random.fold_in(key, side)), mass, size)
        if pairs is not None:
            more = np.setdiff1d(pairs[:, side], rows)
            rows, share = np.concatenate([rows, more]), np.concatenate([share, np.zeros(len(more))])
        chosen.append(rows)
        own.append(jax.device_put(np.asarray(share, np.float32)))
    if pairs is not None:
        pairs = np.stack([_places(rows, pairs[:, side]) for side, rows in enumerate(chosen)], axis=1)
    some = [jax.device_put(one[rows]) for one, rows in zip(cells, chosen, strict=True)]
    if shared is not None:
        shared = tuple(jax.device_put(np.asarray(one)[rows]) for one, rows in zip(shared, chosen, strict=True))
    config = dataclasses.replace(config, landmarks=max(map(len, chosen)))
    if config.n_cells is not None:
        # What an extended coupling allows the marginals to be off is for sampling cells; here all are taken.
        config = dataclasses.replace(config, tolerance=min(config.tolerance or Global.tolerance, Global.tolerance))
    return quadratic_coupling(key, *some, *own, config, shared=shared, pairs=pairs, progress=progress)


def _places(rows: Int[np.ndarray, " k"], asked: Int[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
    order = np.argsort(rows)
    return order[np.searchsorted(rows, asked, sorter=order)]


def agreement(
    found: PotentialCoupling,
    other: PotentialCoupling,
    cells: tuple[Float[np.ndarray, "k dx"], Float[np.ndarray, "l dy"]],
    *,
    shared: tuple[Any, Any] | None,
) -> float:
    """Return how far the plan sends cells where another coupling would send them: a correlation of the rows' places.

    With squared Euclidean costs within the target population it is the correlation of the means of the two plans' rows over
    the source cells, all coordinates together; other costs have their own places (as the energy distance has). It is 1 where
    both send each cell to the same place, 0 where these have nothing to do with each other, below 0 where they are opposite.

    Parameters
    ----------
    found
        The plan of these cells.
    other
        A coupling that extends to them.
    cells
        The cells.
    shared
        Their shared features.
    """
    drawn = [
        weighted_subset(np.random.default_rng(0), np.asarray(mass)[: len(side)], _COMPARED)
        for mass, side in zip(found.priors, cells, strict=True)
    ]
    (rows, a), (columns, b) = drawn
    source, target = cells[0][rows], cells[1][columns]
    own = None if shared is None else (np.asarray(shared[0])[rows], np.asarray(shared[1])[columns])
    some = dataclasses.replace(
        found,
        geometry=found.geometry.rows(rows, columns),
        a=jax.device_put(np.asarray(a, np.float32)),
        b=jax.device_put(np.asarray(b, np.float32)),
        potentials=dataclasses.replace(
            found.potentials,
            u=jax.device_put(np.asarray(found.potentials.u)[rows]),
            v=jax.device_put(np.asarray(found.potentials.v)[columns]),
        ),
    )
    between = other.extend(source, target, source_weights=a, target_weights=b, shared=own)
    cost = resolve_cost_pair(found.config.cost)[1]
    costs = np.asarray(cost.fit(target, np.arange(len(target)))(target), np.float64)
    return _correlation(*(dense_plan(one) for one in (some, between)), costs)


def _correlation(
    one: Float[np.ndarray, "k l"], two: Float[np.ndarray, "k l"], costs: Float[np.ndarray, "l l"]
) -> float:
    """Return by how much two plans' rows are nearer to each other than their marginals are, relative to each alone."""
    mass = one.sum(axis=1)
    mass = mass / mass.sum()
    rows = [plan / np.maximum(plan.sum(axis=1, keepdims=True), 1e-300) for plan in (one, two)]
    means = [mass @ plan for plan in rows]
    reached = [plan @ costs for plan in rows]

    def nearer(i: int, j: int) -> float:
        return float((mass @ reached[i]) @ means[j] - mass @ (reached[i] * rows[j]).sum(axis=1))

    spread = nearer(0, 0) * nearer(1, 1)
    return nearer(0, 1) / float(np.sqrt(spread)) if spread > 0 else float("nan")
