"""The flow matching loss: regress the straight way from noise to a target drawn for the source cell."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scgenot.flow._velocity import VelocityField


def noise_and_time(key: jax.Array, rows: int, target_dim: int) -> tuple[Float[Array, "rows dy"], Float[Array, " rows"]]:
    """Draw noise z ~ N(0, I) and times stratified over [0, 1], in random order over the rows."""
    noise_key, time_key, order_key = jax.random.split(key, 3)
    noise = jax.random.normal(noise_key, (rows, target_dim))
    # One time in each of `rows` equal intervals: the mean over times has little variance of its own. The order is
    # shuffled, since the rows of a batch are ordered by source cell.
    times = (jnp.arange(rows) + jax.random.uniform(time_key, (rows,))) / rows
    return noise, jax.random.permutation(order_key, times)


def matching_loss(
    model: VelocityField,
    x: Float[Array, "rows dx"],
    y: Float[Array, "rows dy"],
    z: Float[Array, "rows dy"],
    t: Float[Array, " rows"],
) -> Float[Array, ""]:
    """Return ``mean |v(t, (1 - t) z + t y | x) - (y - z)|^2`` over rows and features.

    The regression target is y - z, from noise to target (Klein et al. 2024, equation 7); not y - x.
    """
    between = (1.0 - t[:, None]) * z + t[:, None] * y
    return jnp.mean(jnp.square(model(t, between, x) - (y - z)))
