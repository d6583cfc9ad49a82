"""Targets that the rows of a batch may be on their way to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from scgenot.coupling import PairScores

# Rows that look at each other's targets: time and memory grow with the square of their number.
_TOGETHER = 1024


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Candidates:
    """For each row the targets of its part of the batch, its own among them, and how likely each is in the plan.

    Attributes
    ----------
    targets
        Of each part; their law is the plan's target marginal.
    scores
        ``log(P_ij / (P1_i P'1_j))`` of rows and targets of each part, up to a constant for each row.
    """

    targets: Float[Array, "parts k dy"]
    scores: Float[Array, "parts k k"]

    @classmethod
    def among(
        cls,
        scores: PairScores,
        source: Int[Array, " rows"],
        target: Int[Array, " rows"],
        cells: Float[Array, "m dy"],
    ) -> Candidates:
        """Return those of a batch of pairs.

        A part takes every so many-th row: rows are ordered by source cell, and a run of them may be of one kind.
        """
        rows = len(target)
        parts = next(count for count in range(-(-rows // _TOGETHER), rows + 1) if rows % count == 0)
        left, right = _parted(source, parts), _parted(target, parts)
        return cls(cells[right], jax.vmap(scores)(left, right))

    def means(self, mean_target: Callable[..., Array], *rows: Float[Array, "rows ..."]) -> Float[Array, "rows dy"]:
        """Return the mean target of each row; `mean_target` gets what is given of the rows, targets and scores of one part."""
        parts = len(self.targets)
        found = jax.vmap(mean_target)(*(_parted(one, parts) for one in rows), self.targets, self.scores)
        return jnp.swapaxes(found, 0, 1).reshape(-1, found.shape[-1])


def _parted(rows: Float[Array, "rows ..."] | Int[Array, "rows ..."], parts: int) -> Array:
    return jnp.swapaxes(rows.reshape(-1, parts, *rows.shape[1:]), 0, 1)
