"""The one scale convention: what costs are divided by, so that epsilon has one meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Array, Float

from scgenot._blocks import rows_per_block
from scgenot._messages import check_positive, one_of
from scgenot._sizes import pad_edge, padded_size
from scgenot.costs._cost import Cost, block

ScaleCost: TypeAlias = Literal["mean", "max"] | float

# Below this, costs count as zero.
_ZERO = 1e-36
# A sample of this many cells a side gives the mean cost to about 0.1 %, which is all that a unit needs.
_SCALE_CELLS = 8192


def cost_scale(
    cost: Cost, x: Float[Array, "n d"], y: Float[Array, "m d"], scale_cost: ScaleCost = "mean", *, seed: int = 0
) -> float:
    """Return the number that costs are divided by, so that epsilon has the same meaning for every data set.

    Parameters
    ----------
    cost
        The cost.
    x, y
        Cells of the two populations. Above 8192 a side, a random sample of that size stands for them.
    scale_cost
        ``"mean"`` or ``"max"`` of the costs between `x` and `y`, or a number, which is returned.
    seed
        Which sample is taken.

    Returns
    -------
    A positive number, in the unit of the cost; 1.0 where all costs are zero.

    Raises
    ------
    ValueError
        If `scale_cost` is neither of these, or the costs are not finite.
    """
    check_scale_cost(scale_cost)
    if not isinstance(scale_cost, str):
        return float(scale_cost)
    rng = np.random.default_rng(seed)
    x, y = (_some_rows(rng, np.asarray(points)) for points in (x, y))
    n, m = len(x), len(y)
    y = pad_edge(y, padded_size(m))
    rows = min(padded_size(n), rows_per_block(len(y)))
    parts = (x[i : i + rows] for i in range(0, n, rows))
    blocks = (np.asarray(block(cost, pad_edge(some, rows), y))[: len(some), :m] for some in parts)
    return _reduced(blocks, scale_cost, f"the cost {cost.name!r} gave values that are not finite between these cells")


def matrix_scale(costs: Float[Array | np.ndarray, "n m"], scale_cost: ScaleCost = "mean") -> float:
    """Return the number that a matrix of costs is divided by, by the same convention as :func:`cost_scale`.

    Parameters
    ----------
    costs
        All costs.
    scale_cost
        ``"mean"`` or ``"max"`` of their absolute values, or a number, which is returned.

    Returns
    -------
    A positive number, in the unit of the costs; 1.0 where all are zero.

    Raises
    ------
    ValueError
        If `scale_cost` is neither of these, or the costs are not finite.
    """
    check_scale_cost(scale_cost)
    if not isinstance(scale_cost, str):
        return float(scale_cost)
    rows = rows_per_block(costs.shape[1])
    blocks = (np.asarray(costs[i : i + rows]) for i in range(0, len(costs), rows))
    return _reduced(blocks, scale_cost, "`costs` has entries that are not finite")


def _reduced(blocks: Iterable[np.ndarray], scale_cost: Literal["mean", "max"], complaint: str) -> float:
    """Return the mean or the maximum of blocks of costs; say `complaint` where that is no number."""
    reduce = np.mean if scale_cost == "mean" else np.max
    # Absolute values, for costs that may be negative: inner products of centred cells have mean zero.
    per_row = np.concatenate([reduce(np.abs(one.astype(np.float64)), axis=1) for one in blocks])
    scale = float(reduce(per_row))
    if not np.isfinite(scale):
        raise ValueError(f"{complaint}. Look for NaN, inf or all-zero rows, or choose another cost.")
    return scale if scale > _ZERO else 1.0


def check_scale_cost(scale_cost: ScaleCost) -> None:
    """Raise a ``ValueError`` unless `scale_cost` is ``"mean"``, ``"max"`` or a number above zero."""
    if isinstance(scale_cost, int | float | np.number) and not isinstance(scale_cost, bool):
        check_positive("scale_cost", float(scale_cost))
    elif scale_cost not in ("mean", "max"):
        raise ValueError(one_of("scale_cost", scale_cost, ("mean", "max")) + " A number above 0 is allowed, too.")


def _some_rows(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    if len(points) <= _SCALE_CELLS:
        return points
    return points[np.sort(rng.choice(len(points), _SCALE_CELLS, replace=False))]
