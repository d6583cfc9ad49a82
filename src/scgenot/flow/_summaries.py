"""What the samples of a source cell say: where it goes on average, and how sure that is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_TINY = 1e-12


def conditional_mean(samples: Float[np.ndarray, "n s d"]) -> Float[np.ndarray, "n d"]:
    """Return the mean of the samples of each cell: the barycentric projection of the learned plan."""
    return samples.mean(axis=1, dtype=np.float64).astype(np.float32)


def conditional_variance(samples: Float[np.ndarray, "n s d"]) -> Float[np.ndarray, "n d"]:
    """Return the variance of the samples of each cell, per feature (unbiased; 0 for a single sample)."""
    if samples.shape[1] == 1:
        return np.zeros((samples.shape[0], samples.shape[2]), np.float32)
    return samples.var(axis=1, ddof=1, dtype=np.float64).astype(np.float32)


def cosine_variance(
    samples: Float[np.ndarray, "n s d"], origin: Float[np.ndarray, "n d"] | None = None
) -> Float[np.ndarray, " n"]:
    """Return cos-var: the variance over samples of the cosine between a sample and the mean sample.

    Parameters
    ----------
    samples
        Samples of each cell.
    origin
        Subtracted first, where directions are wanted from somewhere else than zero; the source cells themselves give
        the uncertainty of displacements.

    Returns
    -------
    One number a cell in [0, 1], 0 where all samples point the same way. Not centred across features, so it is the
    cosine and not the correlation (Klein et al. 2024, section 4).
    """
    vectors = np.asarray(samples, np.float64)
    if origin is not None:
        vectors = vectors - origin[:, None, :]
    mean = vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=2) * np.linalg.norm(mean, axis=2)
    cosines = (vectors * mean).sum(axis=2) / np.maximum(lengths, _TINY)
    return cosines.var(axis=1).astype(np.float32)
