"""Flows that start near where a linear model expects the target."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import cho_factor, cho_solve

from scgenot._blocks import matmul
from scgenot.flow._path import NoiseToTarget, Pairs

# Pairs that it is fitted to, about: slopes are then known to a hundredth of what they leave.
_FITTED = 32768
# Smallest variance of the noise in any direction, as a share of the mean one, or of this share of a unit where that is smaller still: where
# the linear model leaves nothing, a start has to have a density all the same.
_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class NoiseAroundMean(NoiseToTarget):
    """Straight lines to the target from noise around a linear prediction of it, with the covariance that this leaves.

    The law that is learned is the same, since a flow may start anywhere that depends on what it is conditional on. Where pairs are
    Gaussian there is nothing left to learn; elsewhere the field learns what is not linear. The spaces may differ.

    Attributes
    ----------
    slope, shift
        The prediction ``slope x + shift``, in standardised units.
    spread
        Lower Cholesky factor of the covariance of what it leaves.
    """

    slope: Float[Array, "dy dx"]
    shift: Float[Array, " dy"]
    spread: Float[Array, "dy dy"]

    @classmethod
    def fit(cls, x: Float[np.ndarray, "pairs dx"], y: Float[np.ndarray, "pairs dy"], cells: int) -> NoiseAroundMean:
        """Fit it to pairs of the coupling.

        Parameters
        ----------
        x, y
            Source and target cells of the pairs, in standardised units.
        cells
            How many different source cells there are: with few for their features, the slope is shrunk (ridge regression).
        """
        x, y = (np.asarray(side, np.float64) for side in (x, y))
        means = x.mean(axis=0), y.mean(axis=0)
        x, y = x - means[0], y - means[1]
        gram, d = x.T @ x / len(x), x.shape[1]
        ridge = np.trace(gram) / cells + np.finfo(np.float32).eps
        slope = cho_solve(cho_factor(gram + ridge * np.eye(d)), x.T @ y / len(x)).T
        left = y - x @ slope.T
        covariance = left.T @ left / len(left)
        smallest = _FLOOR * max(np.trace(covariance) / len(covariance), _FLOOR)
        spread = np.linalg.cholesky(covariance + smallest * np.eye(len(covariance)))
        return cls(*(jax.device_put(one.astype(np.float32)) for one in (slope, means[1] - slope @ means[0], spread)))

    def settled(
        self, cells: tuple[Float[np.ndarray, "n dx"], Float[np.ndarray, "m dy"]], pairs: Pairs
    ) -> tuple[NoiseAroundMean, Pairs]:
        """Fit it to some of the first pairs, which are then trained on like all others."""
        first = next(pairs)
        rows = (np.asarray(side).ravel() for side in first[:2])
        x, y = (side[some[:: max(1, len(some) // _FITTED)]] for side, some in zip(cells, rows, strict=True))
        return self.fit(x, y, len(cells[0])), itertools.chain([first], pairs)

    @classmethod
    def blank(cls, source_dim: int, target_dim: int) -> NoiseAroundMean:
        """Return one that predicts nothing: the shapes to read a saved one into."""
        shapes = (target_dim, source_dim), (target_dim,)
        empty = (np.zeros(shape, np.float32) for shape in shapes)
        return cls(*(jax.device_put(one) for one in (*empty, np.eye(target_dim, dtype=np.float32))))

    def start(self, z: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Start at noise around the prediction."""
        return x @ self.slope.T + self.shift + z @ self.spread.T

    def noise(self, start: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Return how far the start is from the prediction, in units of its spread."""
        return self.whitened(start - x @ self.slope.T - self.shift)

    def whitened(self, points: Float[Array, "rows dy"]) -> Float[Array, "rows dy"]:
        """Return differences in units of the spread."""
        # Many rows are multiplied by the inverse sooner than solved for.
        inverse = jax.scipy.linalg.solve_triangular(self.spread, jnp.eye(len(self.spread)), lower=True)
        return matmul(points, inverse.T)

    def log_volume(self) -> Float[Array, ""]:
        """Return the logarithm of the spread's volume."""
        return jnp.sum(jnp.log(jnp.diag(self.spread)))
