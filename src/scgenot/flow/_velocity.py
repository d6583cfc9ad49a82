"""The velocity field: which way a noisy target cell moves, given its source cell and the condition."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from scgenot.flow._config import FlowConfig


class VelocityField(nnx.Module):
    """A multilayer perceptron v(t, z | x, c), batched over rows.

    Its matrix products run at the device's default precision (TF32 on recent GPUs): rounding there is noise of the size
    that training averages over, and asking for more would halve the speed. Costs, plans and units do not.

    Parameters
    ----------
    source_dim, target_dim
        Number of features of the two spaces.
    config
        Widths.
    condition_dim
        Length of the vector that describes a condition; 0 for none.
    rngs
        Keys for the initial weights.
    """

    def __init__(
        self, source_dim: int, target_dim: int, config: FlowConfig, condition_dim: int = 0, *, rngs: nnx.Rngs
    ) -> None:
        widths = config.hidden
        # Half-integer multiples of pi: the encoding separates t = 0 from t = 1, which a 1-periodic one does not.
        self.frequencies = tuple(0.5 * math.pi * (k + 1) for k in range(config.time_frequencies))
        inputs = target_dim + source_dim + condition_dim + 2 * config.time_frequencies
        self.layers = nnx.List(
            [nnx.Linear(before, after, rngs=rngs) for before, after in zip((inputs, *widths), widths, strict=False)]
        )
        # Starting from zero velocity spares the first steps from undoing random output.
        self.out = nnx.Linear(widths[-1], target_dim, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self,
        t: Float[Array, " rows"],
        z: Float[Array, "rows dy"],
        x: Float[Array, "rows dx"],
        c: Float[Array, "rows dc"] | None = None,
    ) -> Float[Array, "rows dy"]:
        """Return the velocity of `z` at time `t` given `x` and condition `c`, all in standardised units."""
        angles = t[:, None] * jnp.asarray(self.frequencies, jnp.float32)
        given = [z, x] if c is None else [z, x, c]
        hidden = jnp.concatenate([*given, jnp.cos(angles), jnp.sin(angles)], axis=1)
        for layer in self.layers:
            hidden = jax.nn.silu(layer(hidden))
        return self.out(hidden)


def abstract_velocity(
    source_dim: int, target_dim: int, config: FlowConfig, condition_dim: int = 0
) -> tuple[nnx.GraphDef, nnx.State]:
    """Return structure and shapes of the weights of a :class:`VelocityField`, without computing any."""
    return nnx.split(
        nnx.eval_shape(lambda: VelocityField(source_dim, target_dim, config, condition_dim, rngs=nnx.Rngs(0)))
    )


# One compiled program in place of two a layer.
@partial(jax.jit, static_argnames=("source_dim", "target_dim", "config", "condition_dim"))
def initial_weights(
    key: jax.Array, source_dim: int, target_dim: int, config: FlowConfig, condition_dim: int = 0
) -> Any:
    """Return the initial weights of a :class:`VelocityField`."""
    field = VelocityField(source_dim, target_dim, config, condition_dim, rngs=nnx.Rngs(params=key))
    return nnx.split(field)[1]
