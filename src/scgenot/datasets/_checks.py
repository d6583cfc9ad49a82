"""Checks and small linear algebra shared by the generated problems."""

from __future__ import annotations

import numpy as np
from jax import Array
from jaxtyping import Float

from scgenot._messages import check_count, check_positive


def as_count(name: str, value: int, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``, or raise a ``ValueError``."""
    check_count(name, value, minimum=minimum)
    return int(value)


def as_positive(name: str, value: float) -> float:
    """Return ``value`` as a finite positive float, or raise a ``ValueError``."""
    check_positive(name, value)
    return float(value)


def as_locations(name: str, value: Float[Array | np.ndarray, "n d"], width: int) -> Float[np.ndarray, "n d"]:
    """Return ``value`` as a float64 matrix with ``width`` columns, or raise a ``ValueError``."""
    points = np.asarray(value, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != width:
        raise ValueError(
            f"`{name}` must have shape (n, {width}), the source space of this problem, got {points.shape}. "
            "Pass one location a row."
        )
    return points


def as_covariance(name: str, value: Float[Array | np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Return ``value`` as a float64 symmetric positive definite matrix, or raise a ``ValueError``."""
    cov = np.asarray(value, dtype=np.float64)
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or cov.shape[0] == 0:
        raise ValueError(f"`{name}` must be a square matrix, got shape {cov.shape}. Pass a full covariance.")
    symmetric = np.allclose(cov, cov.T, rtol=1e-8, atol=1e-10 * np.abs(cov).max())
    smallest = np.linalg.eigvalsh(cov)[0] if symmetric else np.nan
    if not smallest > 0:
        raise ValueError(
            f"`{name}` must be symmetric positive definite, got a matrix with "
            + (f"smallest eigenvalue {smallest:.3g}" if symmetric else "asymmetric entries")
            + ". Add a small multiple of the identity, or drop the directions without variance."
        )
    return cov


def symmetric_power(cov: Float[np.ndarray, "d d"], exponent: float) -> Float[np.ndarray, "d d"]:
    """Power of a symmetric positive definite matrix, through its eigenvalues."""
    values, vectors = np.linalg.eigh(cov)
    return (vectors * values**exponent) @ vectors.T


def random_covariance(
    rng: np.random.Generator, d: int, low: float = 0.3, high: float = 2.0
) -> Float[np.ndarray, "d d"]:
    """Covariance with eigenvalues uniform in [low, high] in a random orthonormal basis."""
    basis, _ = np.linalg.qr(rng.standard_normal((d, d)))
    cov = (basis * rng.uniform(low, high, d)) @ basis.T
    return 0.5 * (cov + cov.T)
