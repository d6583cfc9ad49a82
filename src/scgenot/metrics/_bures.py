"""Bures-Wasserstein distance and the unexplained variance percentages made of it."""

from __future__ import annotations

import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import ArrayLike

from scgenot.metrics._blocks import row_blocks
from scgenot.metrics._checks import as_points, check_finite


def bw2(
    x_mean: Float[Array | np.ndarray, "*#batch d"],
    x_cov: Float[Array | np.ndarray, "*#batch d d"],
    y_mean: Float[Array | np.ndarray, "*#batch d"],
    y_cov: Float[Array | np.ndarray, "*#batch d d"],
) -> float | Float[np.ndarray, "..."]:
    r"""Squared Bures-Wasserstein distance between Gaussians, with the factor 1/2 of the entropic benchmark.

    .. math::
        \tfrac12 |m_x - m_y|^2 + \tfrac12 \mathrm{tr}(S_x + S_y) - \mathrm{tr}(S_x^{1/2} S_y S_x^{1/2})^{1/2}

    This is half of what is elsewhere called :math:`W_2^2` between Gaussians: the ground cost is
    :math:`\tfrac12 |x - y|^2`.

    Parameters
    ----------
    x_mean, y_mean
        Means, shape (d,), or (..., d) for many pairs at once.
    x_cov, y_cov
        Covariances, shape (d, d), or (..., d, d). Leading axes broadcast. Singular matrices are fine.

    Returns
    -------
    A float for one pair, else an array over the leading axes; in squared units of the data.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or a covariance is not symmetric or has a negative variance.

    References
    ----------
    Gushchin et al. (2023), "Building the bridge of Schrödinger: a continuous entropic optimal transport benchmark",
    arXiv 2306.10161. The distance itself: Dowson & Landau (1982), J. Multivar. Anal. 12.

    Examples
    --------
    >>> import numpy as np
    >>> float(scgenot.metrics.bw2(np.zeros(2), np.eye(2), np.array([3.0, 4.0]), np.eye(2)))
    12.5
    """
    x_mean, y_mean = _as_mean("x_mean", x_mean), _as_mean("y_mean", y_mean)
    width = x_mean.shape[-1]
    if y_mean.shape[-1] != width:
        raise ValueError(
            f"`x_mean` and `y_mean` must have one width, got {width} and {y_mean.shape[-1]}. Pass moments of one space."
        )
    x_cov, y_cov = _as_cov("x_cov", x_cov, width), _as_cov("y_cov", y_cov, width)
    value = _bw2(x_mean, x_cov, y_mean, y_cov)
    return float(value) if value.ndim == 0 else value


def bw_uvp(
    samples: Float[Array | np.ndarray, "n d"],
    mean: Float[Array | np.ndarray, " d"],
    cov: Float[Array | np.ndarray, "d d"],
) -> float:
    r"""Unexplained variance of a sample against a law with known moments, in percent.

    :math:`100\, BW_2^2(\hat P_1, P_1) / (\tfrac12 \mathrm{tr}\, \mathrm{Cov} P_1)`, with the sample's mean and unbiased
    covariance: 0 is perfect (a finite sample never gets there), 100 is what a point mass at the true mean scores.

    Parameters
    ----------
    samples
        Draws from the learned law, shape (n, d), n >= 2.
    mean, cov
        Moments of the true law, shapes (d,) and (d, d).

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or the true law has no variance.

    References
    ----------
    Korotin et al. (2021), "Continuous Wasserstein-2 barycenter estimation without minimax optimization",
    arXiv 2102.01752.

    Examples
    --------
    >>> import numpy as np
    >>> samples = np.random.default_rng(0).normal(size=(1000, 2))
    >>> scgenot.metrics.bw_uvp(samples, np.zeros(2), np.eye(2)) < 1
    True
    """
    points = as_points("samples", samples, min_rows=2)
    mean = _as_mean("mean", mean)
    if mean.shape != points.shape[1:]:
        raise ValueError(
            f"`mean` must have shape {points.shape[1:]} to fit `samples`, got {mean.shape}. Pass moments of one space."
        )
    cov = _as_cov("cov", cov, len(mean), shape=(len(mean), len(mean)))
    distance = _bw2(mean, cov, *_sample_moments(points))
    return float(100.0 * distance / (0.5 * _total_variance("cov", cov, len(mean))))


def cbw_uvp(
    samples: Float[Array | np.ndarray, "n_x n_samples d"],
    means: Float[Array | np.ndarray, "n_x d"],
    covs: Float[Array | np.ndarray, "n_x d d"] | Float[Array | np.ndarray, "d d"],
    target_variance: float | Float[Array | np.ndarray, "d d"],
) -> float:
    r"""Unexplained variance of learned conditional laws against the true ones, in percent.

    The average over source cells x of
    :math:`100\, BW_2^2(\hat\pi(\cdot|x), \pi(\cdot|x)) / (\tfrac12 \mathrm{tr}\, \mathrm{Cov} P_1)`. The denominator is
    the *whole target's* variance, the same for every x. A finite ``n_samples`` sets a floor above 0 that grows with d:
    score draws from the truth at the same sizes and print it beside the result.

    Parameters
    ----------
    samples
        Draws from the learned conditional law of each x, shape (n_x, n_samples, d), n_samples >= 2.
    means
        True conditional means, shape (n_x, d).
    covs
        True conditional covariances, shape (n_x, d, d), or (d, d) if they do not depend on x.
    target_variance
        Total variance tr Cov P1 of the target population, or its covariance, shape (d, d).

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or the target has no variance.

    References
    ----------
    Gushchin et al. (2023), "Building the bridge of Schrödinger: a continuous entropic optimal transport benchmark",
    arXiv 2306.10161 (there with 1000 x and 1000 samples each).

    Examples
    --------
    >>> problem = scgenot.datasets.gaussian_pair(2)
    >>> cells = problem.sample_source(0, 50)
    >>> samples = problem.sample_conditional(1, cells, 1000)
    >>> means, cov = problem.conditional(cells)
    >>> scgenot.metrics.cbw_uvp(samples, means, cov, problem.target_cov) < 1
    True
    """
    samples = np.asarray(samples)
    if samples.ndim != 3 or samples.shape[0] < 1 or samples.shape[1] < 2:
        raise ValueError(
            "`samples` must have shape (n_x, n_samples, d) with n_samples >= 2, since each conditional covariance is "
            f"estimated, got {samples.shape}. Draw more samples for each source cell."
        )
    n_x, n_samples, width = samples.shape
    means = _as_mean("means", means)
    if means.shape != (n_x, width):
        raise ValueError(
            f"`means` must have shape {(n_x, width)} to fit `samples`, got {means.shape}. Pass one row an x."
        )
    covs = np.asarray(covs, dtype=np.float64)
    shape = (width, width) if covs.ndim == 2 else (n_x, width, width)
    covs = _as_cov("covs", covs, width, shape=shape)
    scale = 0.5 * _total_variance("target_variance", target_variance, width)

    total = 0.0
    for rows in row_blocks(n_x, max(n_samples * width, width * width)):
        block = samples[rows].astype(np.float64)
        check_finite("samples", block)
        total += _bw2(means[rows], covs if covs.ndim == 2 else covs[rows], *_sample_moments(block)).sum()
    return float(100.0 * total / n_x / scale)


def _sample_moments(
    samples: Float[np.ndarray, "*batch n d"],
) -> tuple[Float[np.ndarray, "*batch d"], Float[np.ndarray, "*batch d d"]]:
    mean = samples.mean(axis=-2)
    centred = samples - mean[..., None, :]
    return mean, np.swapaxes(centred, -1, -2) @ centred / (samples.shape[-2] - 1)


def _bw2(x_mean: np.ndarray, x_cov: np.ndarray, y_mean: np.ndarray, y_cov: np.ndarray) -> np.ndarray:
    # The cross term is symmetric in the two covariances: take the root of the one with fewer matrices.
    rooted, other = (x_cov, y_cov) if x_cov.size <= y_cov.size else (y_cov, x_cov)
    values, vectors = np.linalg.eigh(rooted)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other @ root), 0.0, None)).sum(axis=-1)
    traces = np.trace(x_cov, axis1=-2, axis2=-1) + np.trace(y_cov, axis1=-2, axis2=-1)
    shift = np.sum((x_mean - y_mean) ** 2, axis=-1)
    # Rounding can leave a tiny negative number where the laws agree.
    return np.asarray(np.clip(0.5 * shift + 0.5 * traces - cross, 0.0, None))


def _as_mean(name: str, value: ArrayLike) -> np.ndarray:
    mean = np.asarray(value, dtype=np.float64)
    if mean.ndim < 1 or mean.shape[-1] < 1:
        raise ValueError(f"`{name}` must have shape (..., d), got {mean.shape}. Pass a vector, of length 1 if d = 1.")
    check_finite(name, mean)
    return mean


def _as_cov(name: str, value: ArrayLike, width: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    cov = np.asarray(value, dtype=np.float64)
    if cov.shape[-2:] != (width, width) or (shape is not None and cov.shape != shape):
        wanted = shape if shape is not None else f"(..., {width}, {width})"
        raise ValueError(f"`{name}` must have shape {wanted}, got {cov.shape}. Pass full covariance matrices.")
    check_finite(name, cov)
    tolerance = 1e-5 * max(1e-300, np.abs(cov).max())  # float32 covariances are symmetric and PSD to about 1e-6
    if np.abs(cov - np.swapaxes(cov, -1, -2)).max() > tolerance:
        raise ValueError(f"`{name}` must be symmetric, got a matrix that is not. Pass (S + S.T) / 2 of it.")
    if np.diagonal(cov, axis1=-2, axis2=-1).min() < -tolerance:
        raise ValueError(f"`{name}` must be positive semi-definite, got a negative variance. Pass a covariance matrix.")
    return cov


def _total_variance(name: str, value: float | Array | np.ndarray, width: int) -> float:
    array = np.asarray(value, dtype=np.float64)
    total = float(array) if array.ndim == 0 else float(np.trace(_as_cov(name, array, width, shape=(width, width))))
    if not (np.isfinite(total) and total > 0):
        raise ValueError(
            f"`{name}` must give a positive total variance, got {total}: the percentage is relative to it. "
            "Pass the covariance of the target population or its trace."
        )
    return total
