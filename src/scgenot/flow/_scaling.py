"""Standardised units: each space is shifted and scaled inside the model and mapped back on the way out."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Standardizer:
    """Shift and scale of one space.

    Attributes
    ----------
    mean, scale
        Subtracted from and dividing each feature.
    """

    mean: Float[Array, " d"]
    scale: Float[Array, " d"]

    @classmethod
    def fit(
        cls, cells: Float[Array | np.ndarray, "n d"], weights: Float[Array | np.ndarray, " n"], how: str
    ) -> Standardizer:
        """Learn shift and scale from weighted cells; `how` as in ``FlowConfig.standardize``."""
        cells = np.asarray(cells, dtype=np.float64)
        weights = np.asarray(weights, dtype=np.float64)
        weights = weights / weights.sum()
        mean = weights @ cells
        variance = weights @ (cells - mean) ** 2
        if how == "none":
            mean, variance = np.zeros_like(mean), np.ones_like(variance)
        elif how == "global":
            variance = np.full_like(variance, variance.mean())
        # A constant feature has nothing to scale; its shift alone maps it to zero and back. Below 1e-6 of the widest
        # feature, float32 coordinates are rounding noise.
        scale = np.sqrt(variance)
        scale = np.where(scale > 1e-6 * scale.max(), scale, 1.0)
        # `jnp.asarray` compiles a program for each shape.
        return cls(jax.device_put(mean.astype(np.float32)), jax.device_put(scale.astype(np.float32)))

    def on_host(self, cells: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Map from the user's units to standardised ones in float64, without compiling anything; float32 out."""
        mean, scale = np.asarray(self.mean, np.float64), np.asarray(self.scale, np.float64)
        return ((np.asarray(cells, np.float64) - mean) / scale).astype(np.float32)

    def forward(self, cells: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Map from the user's units to standardised ones."""
        return (cells - self.mean) / self.scale

    def backward(self, cells: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Map from standardised units to the user's."""
        return cells * self.scale + self.mean
