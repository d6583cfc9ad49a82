"""Exact Wasserstein distance between two samples."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp
from jax import Array
from jaxtyping import Float, Real
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from scgenot.metrics._checks import as_point_pair, as_weights

MAX_ASSIGNMENT = 5000  # about 10 s and 0.2 GB
MAX_LINPROG = 250_000  # variables; some seconds


def wasserstein(
    x: Real[Array | np.ndarray, "n d"],
    y: Real[Array | np.ndarray, "m d"],
    p: int = 2,
    *,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
) -> float:
    r"""Exact Wasserstein distance :math:`W_p` between two samples with Euclidean ground distance.

    Equal sizes are an assignment problem. Unequal sizes become one by repeating points where the least common multiple
    of the sizes is small, and are solved as a linear programme (HiGHS) otherwise. What some papers' code calls "EMD" is
    ``p=2``.

    Parameters
    ----------
    x, y
        Samples, shapes (n, d) and (m, d). An exact solver needs all costs at once, so sizes are limited: the least
        common multiple of n and m up to 5000, or n * m up to 250,000.
    p
        1 or 2.
    x_weights, y_weights
        Non-negative weights of the points, n and m of them; uniform if left out. They are normalised. With weights it is a
        linear programme at any size: n * m up to 250,000.

    Returns
    -------
    :math:`(\min_P \sum_{ij} P_{ij} |x_i - y_j|^p)^{1/p}`, in units of the data.

    Raises
    ------
    ValueError
        If a sample is not a finite matrix, the widths differ, ``p`` is not 1 or 2, or the samples are too large.

    References
    ----------
    Peyré & Cuturi (2019), "Computational optimal transport", section 2.3 and equation 2.11.

    Examples
    --------
    >>> import numpy as np
    >>> scgenot.metrics.wasserstein(np.zeros((3, 2)), np.tile([3.0, 4.0], (3, 1)))
    5.0
    """
    if p not in (1, 2):
        raise ValueError(f"`p` must be 1 or 2, got {p!r}. Use p=2 for W2 and p=1 for the earth mover's distance.")
    x, y = as_point_pair(x, y)
    a, b = as_weights("x_weights", x_weights, len(x)), as_weights("y_weights", y_weights, len(y))
    n, m = len(x), len(y)
    uniform = x_weights is None and y_weights is None
    common = math.lcm(n, m) if uniform else MAX_ASSIGNMENT + 1
    if common > MAX_ASSIGNMENT and n * m > MAX_LINPROG:
        raise ValueError(
            f"`x` and `y` are too large for an exact solver: got {n} and {m} rows, allowed are sizes whose least "
            f"common multiple is at most {MAX_ASSIGNMENT} or whose product is at most {MAX_LINPROG}. Subsample both "
            f"to one size (say {min(n, m, 2000)} rows), or use `sinkhorn_divergence` or `energy_distance`."
        )
    # The programme is much slower than an assignment of the same size, so it comes second.
    cost = _assignment_cost(x, y, common, p) if common <= MAX_ASSIGNMENT else _programme_cost(x, y, a, b, p)
    return cost ** (1.0 / p)


def _costs(x: np.ndarray, y: np.ndarray, p: int) -> np.ndarray:
    return cdist(x, y, "euclidean" if p == 1 else "sqeuclidean")


def _assignment_cost(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], common: int, p: int) -> float:
    costs = _costs(np.repeat(x, common // len(x), axis=0), np.repeat(y, common // len(y), axis=0), p)
    return float(costs[linear_sum_assignment(costs)].mean())


def _programme_cost(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " m"],
    p: int,
) -> float:
    n, m = len(x), len(y)
    row_sums = sp.kron(sp.eye_array(n), np.ones((1, m)))
    column_sums = sp.kron(np.ones((1, n)), sp.eye_array(m))
    costs = _costs(x, y, p)
    # Costs near 1 keep HiGHS' absolute tolerances meaningful; masses are counts of 1/(nm) for the same reason.
    scale = float(costs.mean()) or 1.0
    result = linprog(
        costs.ravel() / scale,
        A_eq=sp.vstack([row_sums, column_sums]).tocsr(),
        b_eq=n * m * np.concatenate([a, b]),
        method="highs",
    )
    if not result.success:
        raise RuntimeError(
            f"The linear programme for {n} and {m} points was not solved: {result.message} "
            "Subsample both samples to one size, which needs no programme."
        )
    return max(float(result.fun) * scale / (n * m), 0.0)
