"""A rolled-up sheet and a spiral: the same curve in spaces of different dimension."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scgenot.datasets._checks import as_count

_ANGLES = (1.5 * np.pi, 4.5 * np.pi)


class SwissRollSpiral(NamedTuple):
    """Source and target cells with the arc length of each; unpacks as a tuple of four.

    Parameters
    ----------
    source
        Points of the roll, shape (n, 3).
    target
        Points of the spiral, shape (n, 2). Unpaired: row i of one has nothing to do with row i of the other.
    source_arc, target_arc
        Arc length along the spiral from its inner end, in units of the data, shape (n,): what a transport that
        preserves geodesic distances carries over.

    Examples
    --------
    >>> source, target, source_arc, target_arc = scgenot.datasets.swiss_roll_spiral(100)
    >>> source.shape, target.shape, source_arc.shape
    ((100, 3), (100, 2), (100,))
    """

    source: Float[np.ndarray, "n 3"]
    target: Float[np.ndarray, "n 2"]
    source_arc: Float[np.ndarray, " n"]
    target_arc: Float[np.ndarray, " n"]


def swiss_roll_spiral(n: int, rng: int | np.random.Generator = 0, *, width: float = 10.0) -> SwissRollSpiral:
    r"""Draw a Swiss roll and, independently, a spiral of the same shape.

    Both follow :math:`r = \theta`, :math:`\theta` uniform in :math:`[1.5\pi, 4.5\pi]`. Uniform in the angle is denser
    near the inner end: that tells the two ends apart, which arc lengths uniform over the curve would not, and a
    quadratic problem would then have a reversed solution that is as good.

    Parameters
    ----------
    n
        Cells in each population.
    rng
        Seed or generator.
    width
        Extent of the roll along its axis (the curve is about 90 long); 0 for a curve in 3-D.

    Raises
    ------
    ValueError
        If ``n`` is not a positive integer or ``width`` is negative.

    References
    ----------
    Marsland (2009), "Machine learning: an algorithmic perspective", for the roll; Klein et al. (2024), GENOT, for the
    pair.

    Examples
    --------
    >>> cells = scgenot.datasets.swiss_roll_spiral(100, rng=1)
    >>> cells.source.shape, cells.target.shape
    ((100, 3), (100, 2))
    """
    n, rng = as_count("n", n), np.random.default_rng(rng)
    if not (np.isfinite(width) and width >= 0):
        raise ValueError(f"`width` must be a non-negative number, got {width!r}. Use 10, or 0 for a bare curve.")
    source_angle, target_angle = rng.uniform(*_ANGLES, n), rng.uniform(*_ANGLES, n)
    height = rng.uniform(0.0, 1.0, n) * width
    source = np.stack([source_angle * np.cos(source_angle), height, source_angle * np.sin(source_angle)], axis=1)
    target = np.stack([target_angle * np.cos(target_angle), target_angle * np.sin(target_angle)], axis=1)
    return SwissRollSpiral(source, target, _arc_length(source_angle), _arc_length(target_angle))


def _arc_length(angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Length of the spiral r = angle from its inner end, the integral of sqrt(1 + angle^2)."""

    def primitive(value: np.ndarray | float) -> np.ndarray | float:
        return 0.5 * (value * np.sqrt(1 + np.square(value)) + np.arcsinh(value))

    return primitive(angle) - primitive(_ANGLES[0])
