"""Several steps of a time course, one after another: each sample of a cell goes its own way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float, Int

from scgenot.flow import ODEConfig
from scgenot.methods import Method


@dataclasses.dataclass(frozen=True)
class Way:
    """From when to when cells are taken.

    Attributes
    ----------
    rows
        The condition's numbers for the step that departs from each of the followed times but the last.
    start, end
        Places of departure and arrival among the followed times.
    """

    rows: Float[np.ndarray, "steps c"]
    start: Int[np.ndarray, " n"]
    end: Int[np.ndarray, " n"]

    @property
    def is_long(self) -> bool:
        """Whether any cell goes more than one step."""
        return bool((self.end - self.start > 1).any())

    def some(self, place: slice | np.ndarray) -> Way:
        """Return the way of some of the cells."""
        return Way(self.rows, self.start[place], self.end[place])


@dataclasses.dataclass(frozen=True)
class Travellers:
    """Cells that are about to leave, and how they are sampled.

    Attributes
    ----------
    values
        Their representation.
    ids
        Numbers that tie samples to cells.
    way
        From when to when they go.
    n_samples
        Samples a cell.
    key
        JAX key.
    ode
        How the flow's equation is solved.
    rows
        Rows solved at once, or ``None``.
    """

    values: Float[np.ndarray, "n d"]
    ids: Int[np.ndarray, " n"]
    way: Way
    n_samples: int
    key: jax.Array
    ode: ODEConfig | None = None
    rows: int | None = None


def follow_blocks(method: Method, who: Travellers) -> Iterator[tuple[slice, Float[np.ndarray, "k s d"]]]:
    """Yield where samples of a run of consecutive cells arrive."""
    for place, points, _ in _followed(method, who, growing=False):
        yield place, points


def growth_on_the_way(method: Method, who: Travellers) -> Float[np.ndarray, " n"]:
    """Return the growth of cells until they arrive: the product of the steps' growth along a sample, averaged over samples."""
    found = np.empty(len(who.values), np.float32)
    for place, _, grown in _followed(method, who, growing=True):
        found[place] = grown.mean(axis=1)
    return found


def _followed(method: Method, who: Travellers, growing: bool) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    # As many cells at once as one call of the sampler would take: the points on the way are held for these only.
    at_once = max(1, (who.rows or 2**16) // who.n_samples)
    for first in range(0, len(who.values), at_once):
        place = slice(first, min(first + at_once, len(who.values)))
        yield place, *_run(method, who, place, growing)


def _run(method: Method, who: Travellers, place: slice, growing: bool) -> tuple[np.ndarray, np.ndarray]:
    x, ids, way = who.values[place], who.ids[place], who.way.some(place)
    points = np.repeat(x[:, None].astype(np.float32), who.n_samples, axis=1)
    mass = np.ones(points.shape[:2], np.float32)
    # Each sample is a cell of its own after the first step: its number is made of the cell's and its own.
    own = (ids[:, None] * 2654435761 + (np.arange(who.n_samples)[None, :] + 1) * 2246822519) % 2**32
    for step in range(int(way.start.min()), int(way.end.max())):
        options = {"condition": way.rows[step], "ode": who.ode, "rows": who.rows}
        leaving = way.start == step
        going = (way.start < step) & (way.end > step)
        if growing and leaving.any():
            mass[leaving] *= method.growth(x[leaving], condition=way.rows[step])[:, None]
        if growing and going.any():
            flat = points[going].reshape(-1, points.shape[-1])
            mass[going] *= method.growth(flat, condition=way.rows[step]).reshape(-1, who.n_samples)
        if leaving.any():
            points[leaving] = method.sample(who.key, x[leaving], who.n_samples, cell_ids=ids[leaving], **options)
        if going.any():
            # Another key for each step: a point that hardly moves would meet the same noise again.
            key = jax.random.fold_in(who.key, step + 1)
            for member in range(min(method.n_models, who.n_samples)):
                # Sample k of an ensemble is member k's on its whole way: of as many draws, the last one is.
                mine = np.ix_(going, np.arange(member, who.n_samples, method.n_models))
                flat = points[mine].reshape(-1, points.shape[-1])
                drawn = method.sample(key, flat, member + 1, cell_ids=own[mine].reshape(-1), **options)
                points[mine] = drawn[:, -1].reshape(points[mine].shape)
    return points, mass
