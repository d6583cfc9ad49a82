"""The velocity field: which way a noisy target cell moves, given its source cell and the condition."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from scgenot.flow._conditions import ConditionEncoder, ConditionLayout
from scgenot.flow._config import FlowConfig


class VelocityField(nnx.Module):
    """A multilayer perceptron v(t, z | x, c), batched over rows; with `spans`, u(t, r, z | x, c).

    The latter is the mean velocity from time t to r along the former's flow, which one large step takes (:func:`distill_velocity`).

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
    layout
        What its numbers mean. ``None``: they are taken as they are.
    spans
        Whether it sees the time that a step ends at, too.
    rngs
        Keys for the initial weights.
    """

    def __init__(
        self,
        source_dim: int,
        target_dim: int,
        config: FlowConfig,
        condition_dim: int = 0,
        layout: ConditionLayout | None = None,
        spans: bool = False,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        widths = config.hidden
        # Half-integer multiples of pi: the encoding separates t = 0 from t = 1, which a 1-periodic one does not.
        self.frequencies = tuple(0.5 * math.pi * (k + 1) for k in range(config.time_frequencies))
        self.encoder = None if layout is None else ConditionEncoder(layout, config.conditions, rngs=rngs)
        encoded = condition_dim if layout is None else config.conditions.width
        self.modulates = layout is not None and config.conditions.injection == "film"
        self.spans = spans
        times = 2 * (2 if spans else 1) * config.time_frequencies
        inputs = target_dim + source_dim + times + (0 if self.modulates else encoded)
        # Weights stay in single precision: updates are smaller than what half of it resolves.
        linear = partial(nnx.Linear, dtype=jnp.bfloat16 if config.precision == "bfloat16" else None, rngs=rngs)
        self.layers = nnx.List(
            [linear(before, after) for before, after in zip((inputs, *widths), widths, strict=False)]
        )
        # Starting from no modulation: conditions differ once the data say so.
        blank = nnx.initializers.zeros
        modulated = widths if self.modulates else ()
        self.films = nnx.List([linear(encoded, 2 * width, kernel_init=blank) for width in modulated])
        # Starting from zero velocity spares the first steps from undoing random output.
        self.out = linear(widths[-1], target_dim, kernel_init=nnx.initializers.zeros)

    def encode(self, conditions: Float[Array, "rows dc"]) -> Float[Array, "rows de"]:
        """Return conditions as :meth:`__call__` takes them: encoded, where they have slots or a context."""
        return conditions if self.encoder is None else self.encoder(conditions)

    def __call__(
        self,
        t: Float[Array, " rows"],
        z: Float[Array, "rows dy"],
        x: Float[Array, "rows dx"],
        c: Float[Array, "rows de"] | None = None,
        r: Float[Array, " rows"] | None = None,
    ) -> Float[Array, "rows dy"]:
        """Return the velocity of `z` at time `t` given `x` and the encoded condition `c`, all in standardised units.

        With `spans`, the mean velocity until time `r`.
        """
        given = [z, x] if c is None or self.modulates else [z, x, c]
        for time in (t, r) if self.spans else (t,):
            angles = time[:, None] * jnp.asarray(self.frequencies, jnp.float32)
            given += [jnp.cos(angles), jnp.sin(angles)]
        hidden = jnp.concatenate(given, axis=1)
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if self.modulates:
                scale, shift = jnp.split(self.films[number](c), 2, axis=1)
                hidden = hidden * (1.0 + scale) + shift
            hidden = jax.nn.silu(hidden)
        return self.out(hidden).astype(z.dtype)


def abstract_velocity(
    source_dim: int,
    target_dim: int,
    config: FlowConfig,
    condition_dim: int = 0,
    layout: ConditionLayout | None = None,
    spans: bool = False,
) -> tuple[nnx.GraphDef, nnx.State]:
    """Return structure and shapes of the weights of a :class:`VelocityField`, without computing any.

    Those of an ensemble have the members as their first axis.
    """
    field = nnx.eval_shape(
        lambda: VelocityField(source_dim, target_dim, config, condition_dim, layout, spans, rngs=nnx.Rngs(0))
    )
    graphdef, params = nnx.split(field)
    if config.n_models > 1:
        stacked = lambda one: jax.ShapeDtypeStruct((config.n_models, *one.shape), one.dtype)
        params = jax.tree.map(stacked, params)
    return graphdef, params


# One compiled program in place of two a layer.
@partial(jax.jit, static_argnames=("source_dim", "target_dim", "config", "condition_dim", "layout"))
def initial_weights(
    key: jax.Array,
    source_dim: int,
    target_dim: int,
    config: FlowConfig,
    condition_dim: int = 0,
    layout: ConditionLayout | None = None,
) -> Any:
    """Return the initial weights of a :class:`VelocityField`, or of each member of an ensemble, each from a key of its own."""

    def weights(key: jax.Array) -> Any:
        field = VelocityField(source_dim, target_dim, config, condition_dim, layout, rngs=nnx.Rngs(params=key))
        return nnx.split(field)[1]

    return weights(key) if config.n_models == 1 else jax.vmap(weights)(jax.random.split(key, config.n_models))


def member_of(params: Any, number: int | Int[Array, ""]) -> Any:
    """Return the weights of one member of an ensemble."""
    return jax.tree.map(lambda one: one[number], params)
