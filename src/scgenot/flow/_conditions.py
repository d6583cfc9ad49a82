"""Conditions as the velocity field sees them: a row of numbers, and the network that encodes slots and context."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from scgenot.flow._config import ConditionConfig


@dataclasses.dataclass(frozen=True)
class ConditionLayout:
    """What the numbers of a condition's row mean: slots, each a token and its strength, then the context.

    A slot is one perturbation of several that act together: a drug, say. Its token describes it (one-hot, fingerprint); its
    strength scales it: 0 is an empty slot, which is what a dose of zero is, too.

    Attributes
    ----------
    slots
        Number of slots.
    token
        Numbers that describe what is in a slot.
    context
        Numbers that describe where it acts.
    """

    slots: int
    token: int
    context: int

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.slots * (self.token + 1) + self.context

    def tokens(self, rows: Any) -> Any:
        """Return the tokens of rows, shape (rows, slots, token)."""
        return rows[:, : self.slots * self.token].reshape(len(rows), self.slots, self.token)

    def strengths(self, rows: Any) -> Any:
        """Return the strengths of the slots, shape (rows, slots)."""
        return rows[:, self.slots * self.token : self.slots * (self.token + 1)]

    def context_of(self, rows: Any) -> Any:
        """Return what tells the context, shape (rows, context)."""
        return rows[:, self.slots * (self.token + 1) :]

    def pooled(self, rows: Float[np.ndarray, "rows c"]) -> Float[np.ndarray, "rows p"]:
        """Return tokens and ones summed over the slots by strength, then the context: the order of slots says nothing."""
        tokens, strengths = self.tokens(rows), self.strengths(rows)
        with_ones = np.concatenate([tokens, np.ones((*strengths.shape, 1), np.float32)], axis=2)
        return np.concatenate([np.einsum("rst,rs->rt", with_ones, strengths), self.context_of(rows)], axis=1)

    @property
    def pooled_width(self) -> int:
        """Length of what :meth:`pooled` returns."""
        return self.token + 1 + self.context


class ConditionEncoder(nnx.Module):
    """Encodes a condition: a network sees each slot, slots are summed by strength, the context is added.

    An empty slot adds exactly nothing, and the order of slots does not matter.

    Parameters
    ----------
    layout
        What a row's numbers mean.
    config
        Widths.
    rngs
        Keys for the initial weights.
    """

    def __init__(self, layout: ConditionLayout, config: ConditionConfig, *, rngs: nnx.Rngs) -> None:
        self.layout = layout
        widths = (layout.token + 1, *config.hidden, config.width)
        pairs = list(zip(widths[:-1], widths[1:], strict=True)) if layout.slots else []
        self.layers = nnx.List([nnx.Linear(before, after, rngs=rngs) for before, after in pairs])
        self.context = nnx.Linear(layout.context, config.width, rngs=rngs) if layout.context else None

    def __call__(self, rows: Float[Array | np.ndarray, "rows c"]) -> Float[Array, "rows width"]:
        """Return the vectors of conditions."""
        found = 0.0
        if self.layout.slots:
            strengths = self.layout.strengths(rows)[:, :, None]
            hidden = jnp.concatenate([self.layout.tokens(rows), strengths], axis=2)
            for layer in self.layers[:-1]:
                hidden = jax.nn.silu(layer(hidden))
            found = (strengths * self.layers[-1](hidden)).sum(axis=1)
        if self.context is not None:
            found = found + self.context(self.layout.context_of(rows))
        return found
