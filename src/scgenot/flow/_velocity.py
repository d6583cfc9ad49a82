"""The velocity field: which way a noisy target cell moves, given its source cell."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from scgenot.flow._config import FlowConfig


class VelocityField(nnx.Module):
    """A multilayer perceptron v(t, z | x), batched over rows.

    Parameters
    ----------
    source_dim, target_dim
        Number of features of the two spaces.
    config
        Widths.
    rngs
        Keys for the initial weights.
    """

    def __init__(self, source_dim: int, target_dim: int, config: FlowConfig, *, rngs: nnx.Rngs) -> None:
        widths = config.hidden
        # Half-integer multiples of pi: the encoding separates t = 0 from t = 1, which a 1-periodic one does not.
        self.frequencies = tuple(0.5 * math.pi * (k + 1) for k in range(config.time_frequencies))
        inputs = target_dim + source_dim + 2 * config.time_frequencies
        self.layers = nnx.List(
            [nnx.Linear(before, after, rngs=rngs) for before, after in zip((inputs, *widths), widths, strict=False)]
        )
        # Starting from zero velocity spares the first steps from undoing random output.
        self.out = nnx.Linear(widths[-1], target_dim, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self, t: Float[Array, " rows"], z: Float[Array, "rows dy"], x: Float[Array, "rows dx"]
    ) -> Float[Array, "rows dy"]:
        """Return the velocity of `z` at time `t` given `x`, all in standardised units."""
        angles = t[:, None] * jnp.asarray(self.frequencies)
        hidden = jnp.concatenate([z, x, jnp.cos(angles), jnp.sin(angles)], axis=1)
        for layer in self.layers:
            hidden = jax.nn.silu(layer(hidden))
        return self.out(hidden)
