"""Entropic transport onto a curve: conditional laws that are no mixture of a few Gaussians, and are known all the same."""

from __future__ import annotations

import numpy as np

from scgenot.datasets._checks import as_count, as_positive
from scgenot.datasets._mixture import MixtureProblem

_RADIUS = 4.0
_WAVES = 4
# Neighbours on the curve are this many standard deviations of the potential's width apart at most. A sum of Gaussians at this distance
# differs from the integral by a share of 2 exp(-2 pi^2 / 0.5^2), far below the last digit of a double.
_SPACING = 0.5


def gaussian_curve(
    d: int, *, epsilon_b: float = 1.0, width: float = 0.3, rng: int | np.random.Generator = 0
) -> MixtureProblem:
    r"""A problem whose conditional laws are pieces of a bent tube, not a few Gaussians.

    The potential :math:`v(y) = \int w(s)\, N(y | c(s), \sigma^2 I)\, ds` runs along a closed curve c, unevenly weighted. The source is
    N(0, I), and :math:`\pi(y | x) \propto v(y) \exp(-|x - y|^2 / (2 \varepsilon_b))` is an entropic plan for any v, as in
    :class:`MixtureProblem`. Given the place s on the curve the law is Gaussian, so that draws and moments take a sum over s; the curve
    is cut so finely that the sum is the integral. Across the curve the law is thinner than along it, and the direction changes within
    one law: a mixture of Gaussians with axes along the features, which LightSB fits, needs many components.

    Parameters
    ----------
    d
        Dimension, at least 2. In the plane the curve is a circle of radius 4 with three lobes; with more dimensions it also turns in
        three further planes, two, three and four times as fast, and the whole is rotated at random.
    epsilon_b
        Regularisation in the benchmark's convention (cost ``1/2 |x - y|^2``); this package's epsilon is twice it.
    width
        The :math:`\sigma`, the standard deviation of the potential across the curve.
    rng
        Seed or generator of the rotation.

    Returns
    -------
    A mixture problem with as many components as the curve has points.

    Raises
    ------
    ValueError
        If `d` is below 2, or a number is not positive.

    References
    ----------
    The construction is that of Gushchin et al. (2023), arXiv 2306.10161; the curve is ours.

    Examples
    --------
    >>> problem = scgenot.datasets.gaussian_curve(2)
    >>> problem.epsilon, problem.sample_target(0, 100).shape
    (2.0, (100, 2))
    """
    d, width = as_count("d", d), as_positive("width", width)
    if d < 2:
        raise ValueError(
            f"`d` must be at least 2, got {d}: a curve needs a plane to bend in. Use `gaussian_mixture` in one dimension."
        )
    fine = _curve(np.linspace(0.0, 1.0, 20_001), d)
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    n = int(np.ceil(lengths[-1] / (_SPACING * width)))
    # Points at equal distances along the curve, so that weights are densities.
    s = np.interp(np.arange(n) * lengths[-1] / n, lengths, np.linspace(0.0, 1.0, len(lengths)))
    turn = np.linalg.qr(np.random.default_rng(rng).standard_normal((d, d)))[0]
    return MixtureProblem(_curve(s, d) @ turn, curve_weights(s), width**2, epsilon_b)


def curve_weights(s: np.ndarray) -> np.ndarray:
    """Return the potential's weight per length at places `s` of the curve in [0, 1), not normalised."""
    return 1.0 + 0.8 * np.sin(2 * np.pi * s)


def _curve(s: np.ndarray, d: int) -> np.ndarray:
    """Return points of the curve before it is rotated, shape (len(s), d)."""
    angle, points = 2 * np.pi * s, np.zeros((len(s), d))
    radius = _RADIUS * (1.0 + 0.25 * np.cos(3 * angle))
    points[:, 0], points[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    for wave in range(2, min(_WAVES, d // 2) + 1):
        plane = 2 * (wave - 1)
        points[:, plane] = _RADIUS / wave * np.cos(wave * angle)
        points[:, plane + 1] = _RADIUS / wave * np.sin(wave * angle)
    return points
