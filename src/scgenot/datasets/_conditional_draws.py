"""Problems of many conditions, drawn at random: a mixture with synergy, and a Gaussian in which effects add up."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from scgenot.datasets._checks import as_count, random_covariance
from scgenot.datasets._conditional import ConditionalMixtureProblem

_RADIUS = 5.0
# Sizes of a drug at h = 1, tried in 2, 8 and 16 dimensions: mode weights change by tens of per cent, and the mean by
# about one standard deviation of the source, so that neither the shift nor the weights alone tell what a drug does.
_SLOPE = 1.5
_CURVATURE = 1.0


def conditional_mixture(
    d: int,
    *,
    n_drugs: int = 6,
    n_donors: int = 3,
    n_components: int = 5,
    epsilon_b: float = 1.0,
    covariance: float = 0.5,
    rng: int | np.random.Generator = 0,
) -> ConditionalMixtureProblem:
    """A problem in which drugs move the modes of a mixture and change their weights and widths, with synergy.

    Potential means are uniform on the sphere of radius 5, with equal weights. Each drug's slope has norm 1.5, half of it
    (in squares) in the span of the potential means, so that mode weights change in any dimension; its curvature is 1 in one
    direction that is drawn in the same way. Doses are in units of the reference dose. Donors have means of norm 1 in random
    directions, and random covariances with eigenvalues in [0.5, 1.5].

    Parameters
    ----------
    d
        Dimension, at least 1.
    n_drugs, n_donors
        How many drugs and donors there are.
    n_components
        How many components the potential has.
    epsilon_b
        Regularisation for the cost ``1/2 |x - y|^2``; this package's epsilon is twice it.
    covariance
        Variance of each component of the potential.
    rng
        Seed or generator of all that is random.

    Raises
    ------
    ValueError
        If a count or a number is not positive.

    Examples
    --------
    >>> problem = scgenot.datasets.conditional_mixture(2, n_drugs=3)
    >>> doses = problem.doses({0: 1.0, 2: 0.5})
    >>> problem.sample_target(0, 100, doses).shape
    (100, 2)
    """
    d, n_drugs, n_donors = as_count("d", d), as_count("n_drugs", n_drugs), as_count("n_donors", n_donors)
    n_components = as_count("n_components", n_components)
    rng = np.random.default_rng(rng)
    means = _RADIUS * _directions(rng, n_components, d)

    def directions() -> np.ndarray:
        within = rng.standard_normal((n_drugs, n_components)) @ means
        within /= np.linalg.norm(within, axis=1, keepdims=True)
        mixed = within + _directions(rng, n_drugs, d)
        return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)

    slopes, axes = _SLOPE * directions(), directions()
    return ConditionalMixtureProblem(
        means,
        np.full(n_components, 1.0 / n_components),
        covariance,
        epsilon_b,
        slopes,
        _CURVATURE * axes[:, :, None] * axes[:, None, :],
        1.0,
        *_donors(rng, n_donors, d),
    )


def conditional_gaussian(
    d: int,
    *,
    n_drugs: int = 6,
    n_donors: int = 3,
    epsilon_b: float = 1.0,
    covariance: float = 0.5,
    rng: int | np.random.Generator = 0,
) -> ConditionalMixtureProblem:
    r"""A problem in which effects add up exactly: one component at the origin, drugs without curvature.

    Drugs shift the treated cells by :math:`A \sum_j h(d_j) \theta_j`, the same for each cell and donor, and change nothing
    else. A model that needs interactions here has learned noise. Slopes have norm 1.5 in random directions; donors are
    as in :func:`conditional_mixture`.

    Parameters
    ----------
    d
        Dimension, at least 1.
    n_drugs, n_donors
        How many drugs and donors there are.
    epsilon_b
        Regularisation for the cost ``1/2 |x - y|^2``; this package's epsilon is twice it.
    covariance
        Variance of the potential.
    rng
        Seed or generator of all that is random.

    Raises
    ------
    ValueError
        If a count or a number is not positive.

    Examples
    --------
    >>> problem = scgenot.datasets.conditional_gaussian(2, n_drugs=3)
    >>> problem.n_drugs, problem.n_donors
    (3, 3)
    """
    d, n_drugs, n_donors = as_count("d", d), as_count("n_drugs", n_drugs), as_count("n_donors", n_donors)
    rng = np.random.default_rng(rng)
    slopes = _SLOPE * _directions(rng, n_drugs, d)
    nothing = np.zeros((n_drugs, d, d))
    donors = _donors(rng, n_donors, d)
    return ConditionalMixtureProblem(np.zeros((1, d)), np.ones(1), covariance, epsilon_b, slopes, nothing, 1.0, *donors)


def _directions(rng: np.random.Generator, n: int, d: int) -> Float[np.ndarray, "n d"]:
    """Unit vectors, uniform on the sphere."""
    found = rng.standard_normal((n, d))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _donors(rng: np.random.Generator, n: int, d: int) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d d"]]:
    means = _directions(rng, n, d)
    return means, np.stack([random_covariance(rng, d, 0.5, 1.5) for _ in range(n)])
