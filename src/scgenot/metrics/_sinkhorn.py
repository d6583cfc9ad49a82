"""Sinkhorn divergence between two samples: by OTT, or block by block where costs would not fit."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Real
from ott.geometry import pointcloud
from ott.tools import sinkhorn_divergence as ott_divergence

from scgenot.metrics._checks import as_point_pair
from scgenot.metrics._sinkhorn_blocks import blocked_divergence

MAX_ROWS = 4096  # OTT holds a few float32 matrices of this size squared: about 250 MB
_MAX_ITERATIONS = 5000


def sinkhorn_divergence(
    x: Real[Array | np.ndarray, "n d"], y: Real[Array | np.ndarray, "m d"], epsilon: float = 0.05
) -> float:
    r"""Sinkhorn divergence between two samples with uniform weights, ground cost :math:`|x - y|^2` (no 1/2).

    .. math:: S = OT_\varepsilon(x, y) - \tfrac12 OT_\varepsilon(x, x) - \tfrac12 OT_\varepsilon(y, y)

    where :math:`OT_\varepsilon = \min_P \langle C, P\rangle + \varepsilon\, KL(P | a b^\top)`, the KL term included,
    with one :math:`\varepsilon` in all three.

    Parameters
    ----------
    x, y
        Samples, shapes (n, d) and (m, d). Each new pair of shapes is compiled once. Above 4096 rows costs are never
        held, but computed anew in blocks, which takes time in proportion to the product of the two numbers of rows.
    epsilon
        The regularisation as a fraction of the mean cost between x and y; so it does not depend on units.

    Returns
    -------
    The divergence, in squared units of the data (compare its square root with W2). 0 for equal samples.

    Raises
    ------
    ValueError
        If a sample is not a finite matrix, the widths differ, or ``epsilon`` is not positive.

    Warns
    -----
    RuntimeWarning
        If Sinkhorn's iterations stopped before they converged.

    References
    ----------
    Feydy et al. (2019), "Interpolating between optimal transport and MMD using Sinkhorn divergences", AISTATS.
    """
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(
            f"`epsilon` must be a positive fraction of the mean cost, got {epsilon!r}. "
            "Use 0.05, or `wasserstein` for 0."
        )
    x, y = as_point_pair(x, y)
    # Centred and scaled to a mean cost of 1: OTT expands |x - y|^2 in float32 and would lose small costs far from 0.
    centre = 0.5 * (x.mean(axis=0) + y.mean(axis=0))
    x, y = x - centre, y - centre
    mean_cost = float((x**2).sum(axis=1).mean() + (y**2).sum(axis=1).mean() - 2.0 * x.mean(axis=0) @ y.mean(axis=0))
    if mean_cost <= 0.0:
        return 0.0
    scale = np.sqrt(mean_cost)
    x, y, strength = (jnp.asarray(value, jnp.float32) for value in (x / scale, y / scale, epsilon))
    if max(len(x), len(y)) > MAX_ROWS:
        value, converged = blocked_divergence(x, y, strength, _MAX_ITERATIONS)
    else:
        value, converged = _divergence(x, y, strength)
    if not bool(converged):
        warnings.warn(
            f"Sinkhorn did not converge within {_MAX_ITERATIONS} iterations at `epsilon`={epsilon}; the divergence is "
            "approximate. Use a larger epsilon.",
            RuntimeWarning,
            stacklevel=2,
        )
    return float(value) * mean_cost


@jax.jit
def _divergence(x: Array, y: Array, epsilon: Array) -> tuple[Array, Array]:
    value, output = ott_divergence.sinkhorn_divergence(
        pointcloud.PointCloud,
        x,
        y,
        epsilon=epsilon,
        solve_kwargs={"threshold": 1e-4, "max_iterations": _MAX_ITERATIONS},
    )
    return value, jnp.all(jnp.stack([jnp.asarray(done) for done in output.converged]))
