"""Linear problems whose costs are given: exact wherever one of the two cells is a coupled one, in the right direction."""

from __future__ import annotations

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot._blocks import matmul
from scgenot.costs import Cost, check_cells, check_square, matrix_scale
from scgenot.coupling._config import CouplingConfig
from scgenot.sinkhorn import Geometry

# Directions in which costs between two new cells are approximated. Costs to 64 well spread cells tell where a cell lies; for
# distances along curves and surfaces the error is below a tenth of epsilon (tests), for costs without structure nothing helps.
_RANK = 64
# Costs that differ by less than this share of the largest are equal in single precision, after a transposition elsewhere.
_SAME = 1e-5


@dataclasses.dataclass(frozen=True)
class Given:
    """Costs between cells that carry what is known of them, source first.

    The features of a source cell are its costs to all coupled target cells, a few coordinates, and its own number (-1 for a
    new cell); those of a target cell the costs of all coupled source cells to it, and the same.

    Attributes
    ----------
    n, m
        Numbers of coupled source and target cells.
    """

    n: int
    m: int

    def __call__(self, x: Float[Array, "k f"], y: Float[Array, "l g"]) -> Float[Array, "k l"]:
        source, target = (side[:, -1].astype(jnp.int32) for side in (x, y))
        to_known = x[:, : self.m][:, jnp.maximum(target, 0)]
        from_known = y[:, : self.n][:, jnp.maximum(source, 0)].T
        between_new = matmul(x[:, self.m : -1], y[:, self.n : -1].T)
        return jnp.where(target[None, :] >= 0, to_known, jnp.where(source[:, None] >= 0, from_known, between_new))


@dataclasses.dataclass(frozen=True, eq=False)
class GivenLift:
    """From rows of given costs to the features that :class:`Given` compares.

    Attributes
    ----------
    side
        ``"source"`` or ``"target"``.
    first
        Columns of a row that are costs to (from) the coupled cells of the other population.
    scale
        What costs are divided by.
    map
        From these costs to coordinates.
    known
        Number of each coupled cell, by a digest of its row.
    across
        Scaled costs between the coupled cells, one row for each cell of this side.
    both_ways
        Whether a row also tells what reaching a cell costs: yes for source cells; for target cells, where the costs that were
        given are symmetric, or target cells came as the costs of reaching them.
    turn
        By how many columns rows are turned before anything else.
    """

    side: str
    first: slice
    scale: float
    map: Float[np.ndarray, "k r"]
    known: dict[bytes, int]
    across: Float[np.ndarray, "n k"]
    both_ways: bool = True
    turn: int = 0

    def swapped(self) -> GivenLift:
        """Return the lift for the coupling seen from the other side, whose rows begin with what are its source cells."""
        n_source = self.across.shape[0 if self.side == "source" else 1]
        return dataclasses.replace(self, turn=0 if self.turn else n_source)

    def __call__(
        self,
        cells: Float[Array | np.ndarray, "n d"],
        shared: None = None,
    ) -> Float[Array, "n f"]:
        """Return the features of cells.

        Raises
        ------
        ValueError
            If the rows are of another width or not finite; if a new target cell comes with its costs to the coupled cells
            where these differ from theirs to it.
        """
        rows = np.roll(check_cells(cells, sum(self.across.shape)), self.turn, axis=1)
        ids = np.asarray([self.known.get(_digest(row), -1) for row in rows], np.int64)
        if not self.both_ways and (ids < 0).any():
            raise ValueError(
                f"`target` has {int((ids < 0).sum())} of {len(ids)} cells that were not coupled, with costs from them to the "
                "coupled cells. The costs that were coupled are not symmetric, so that costs of reaching a cell do not follow "
                "from these. Give target cells as the costs of reaching them (`costs[:, target].T`), in solving as well."
            )
        costs = rows[:, self.first] / np.float32(self.scale)
        # Under asymmetric costs a target cell's row tells the way back; the way there is what source cells tell.
        costs[ids >= 0] = self.across[ids[ids >= 0]]
        return jax.device_put(np.concatenate([costs, costs @ self.map, ids[:, None].astype(np.float32)], axis=1))


def given_costs(
    source: Float[Array | np.ndarray, "n k"], target: Float[Array | np.ndarray, "m k"], config: CouplingConfig
) -> tuple[Geometry, tuple[GivenLift, GivenLift], float]:
    """Return the costs from source to target cells as they were given, the lifts of both sides, and the scale.

    Parameters
    ----------
    source, target
        Costs from each cell to all source and then all target cells. Costs from source to target are taken from `source`. If
        costs are not symmetric, `target` may hold the costs of reaching each target cell instead, from all cells: only then
        the coupling extends to new target cells.
    config
        Epsilon, and how the costs are scaled.

    Raises
    ------
    ValueError
        If there is not one cost for each pair of cells, or some are not finite.
    """
    source, target = np.asarray(source, np.float32), np.asarray(target, np.float32)
    n, m = len(source), len(target)
    check_square((n + m, source.shape[1]))
    for rows in (source, target):
        check_cells(rows)
    across = source[:, n:]
    both_ways = _equal(across, target[:, :n])
    scale = matrix_scale(across, config.scale_of(0))
    across = across / np.float32(scale)
    left, values, right = _skeleton(across)
    # c(x, .) C^-1 c(., y), with C between coupled cells: as few directions as there are in C.
    to_source, to_target = (np.float32(side / np.sqrt(values)) for side in (right, left))
    lift = (
        GivenLift("source", slice(n, n + m), scale, to_source, _numbers(source), across),
        GivenLift("target", slice(0, n), scale, to_target, _numbers(target), across.T, both_ways),
    )
    geometry = Geometry(lift[0](source), lift[1](target), 1.0 / config.epsilon, Cost("precomputed", Given(n, m)))
    return geometry, lift, scale


def _skeleton(across: Float[np.ndarray, "n m"]):
    from sklearn.utils.extmath import randomized_svd

    left, values, right = randomized_svd(across, min(_RANK, *across.shape), n_iter=3, random_state=0)
    keep = values > 1e-6 * max(float(values[0]), 1e-30)
    if not keep.any():
        return np.zeros((len(across), 1)), np.ones(1), np.zeros((across.shape[1], 1))
    return left[:, keep], values[keep], right[keep].T


def _equal(across: Float[np.ndarray, "n m"], back: Float[np.ndarray, "m n"]) -> bool:
    largest = max(float(np.abs(across).max()), 1e-30)
    return all(float(np.abs(row - back[:, i]).max()) <= _SAME * largest for i, row in enumerate(across))


def _numbers(rows: Float[np.ndarray, "n k"]) -> dict[bytes, int]:
    # The first of equal rows: they have equal costs.
    return {_digest(row): i for i, row in reversed(list(enumerate(rows)))}


def _digest(row: Float[np.ndarray, " k"]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()
