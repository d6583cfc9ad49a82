"""Ground costs between cells, by name, and the one scale convention.

A cost is a name and a function of two blocks of cells, ``(n, d), (m, d) -> (n, m)``. Everything above this floor
evaluates costs in blocks, so a cost never has to hold more than one block. To add a cost, write its function and
decorate it with :func:`register_cost`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot._messages import check_positive, one_of

Block: TypeAlias = Float[Array, "n m"]
Source: TypeAlias = Float[Array, "n d"]
Target: TypeAlias = Float[Array, "m d"]
Pairwise: TypeAlias = Callable[[Source, Target], Block]
ScaleCost: TypeAlias = Literal["mean", "max"] | float

CostLike: TypeAlias = "str | Cost | Callable[..., Any]"
_COSTS: dict[str, Cost] = {}
_TINY = 1e-12
# A sample of this many cells a side gives the mean cost to about 0.1 %, which is all that a unit needs.
_SCALE_CELLS = 8192


@dataclasses.dataclass(frozen=True)
class Cost:
    """A named ground cost.

    Attributes
    ----------
    name
        What the user calls it.
    pairwise
        Function of two blocks of cells that returns the block of costs between them. It is traced by JAX.
    symmetric
        Whether the cost from x to y is always the cost from y to x.
    """

    name: str
    pairwise: Pairwise
    symmetric: bool = False

    def __call__(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """Return the costs between all rows of `x` and all rows of `y`."""
        return self.pairwise(x, y)

    def swapped(self) -> Cost:
        """Return the cost with its two arguments exchanged."""
        if self.symmetric:
            return self
        if isinstance(self.pairwise, _Swapped):
            return dataclasses.replace(self, pairwise=self.pairwise.pairwise)
        return dataclasses.replace(self, pairwise=_Swapped(self.pairwise))


@dataclasses.dataclass(frozen=True)
class _Swapped:
    """A pairwise function with its two arguments exchanged."""

    pairwise: Pairwise

    def __call__(self, x: Source, y: Target) -> Block:
        return self.pairwise(y, x).T


def register_cost(name: str) -> Callable[[Pairwise], Pairwise]:
    """Make a symmetric pairwise function known under `name`."""

    def decorate(pairwise: Pairwise) -> Pairwise:
        _COSTS[name] = Cost(name, pairwise, symmetric=True)
        return pairwise

    return decorate


def available_costs() -> list[str]:
    """Return the names that :func:`resolve_cost` knows."""
    return sorted(_COSTS)


def resolve_cost(cost: str | Cost | Callable[..., Any]) -> Cost:
    """Return the :class:`Cost` that the user means.

    Parameters
    ----------
    cost
        A name out of :func:`available_costs`, a :class:`Cost`, an OTT ``CostFn``, or a function of two cells
        ``(d,), (d,) -> ()`` written with ``jax.numpy``.

    Raises
    ------
    ValueError
        If the name is not known.
    TypeError
        If `cost` is none of these.
    """
    if isinstance(cost, Cost):
        return cost
    if isinstance(cost, str):
        if cost not in _COSTS:
            raise ValueError(one_of("cost", cost, available_costs()))
        return _COSTS[cost]
    if not callable(cost):
        raise TypeError(
            f"`cost` must be a name ({', '.join(available_costs())}), an OTT CostFn or a function of two cells, "
            f"got {type(cost).__name__}."
        )
    # OTT's cost functions have `all_pairs`; asking for it spares importing OTT here.
    if hasattr(cost, "all_pairs"):
        return Cost(type(cost).__name__, cost.all_pairs)
    return Cost(getattr(cost, "__name__", type(cost).__name__), _AllPairs(cost))


def resolve_cost_pair(cost: CostLike | tuple[CostLike, CostLike]) -> tuple[Cost, Cost]:
    """Return the costs within the source and within the target population: a pair, or the same for both.

    Raises
    ------
    ValueError, TypeError
        As :func:`resolve_cost`.
    """
    source, target = cost if isinstance(cost, tuple) and len(cost) == 2 else (cost, cost)
    return resolve_cost(source), resolve_cost(target)


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
    reduce = np.mean if scale_cost == "mean" else np.max
    rows = max(1, 2**22 // len(y))
    blocks = [np.asarray(_block(cost, x[i : i + rows], y)) for i in range(0, len(x), rows)]
    # Absolute values, for costs that may be negative: inner products of centred cells have mean zero.
    per_row = np.concatenate([reduce(np.abs(block.astype(np.float64)), axis=1) for block in blocks])
    scale = float(reduce(per_row))
    if not np.isfinite(scale):
        raise ValueError(
            f"the cost {cost.name!r} gave values that are not finite between some of these cells. "
            "Look for NaN, inf or all-zero rows, or choose another cost."
        )
    return scale if scale > _TINY**3 else 1.0


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


@partial(jax.jit, static_argnames="cost")
def _block(cost: Cost, x: Source, y: Target) -> Block:
    return cost(x, y)


@dataclasses.dataclass(frozen=True)
class _AllPairs:
    """A function of two cells as a function of two blocks; equal functions compare equal, so nothing recompiles."""

    function: Callable[..., Any]

    def __call__(self, x: Source, y: Target) -> Block:
        return jax.vmap(lambda one: jax.vmap(lambda other: self.function(one, other))(y))(x)


@register_cost("sqeuclidean")
def _sqeuclidean(x: Source, y: Target) -> Block:
    """Squared Euclidean distance, without 1/2."""
    # The expansion |x|^2 + |y|^2 - 2 x'y loses digits far from the origin; distances do not change under a shift.
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None, :]
    return jnp.maximum(squares - 2.0 * x @ y.T, 0.0)


@register_cost("euclidean")
def _euclidean(x: Source, y: Target) -> Block:
    return jnp.sqrt(_sqeuclidean(x, y))


@register_cost("cosine")
def _cosine(x: Source, y: Target) -> Block:
    """One minus the cosine of the angle: in [0, 2]."""
    return jnp.maximum(1.0 - _unit(x) @ _unit(y).T, 0.0)


@register_cost("pearson")
def _pearson(x: Source, y: Target) -> Block:
    """One minus the correlation across features: in [0, 2]."""
    return _cosine(x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True))


@register_cost("inner_product")
def _inner_product(x: Source, y: Target) -> Block:
    """Inner product; within populations only (quadratic problems)."""
    return x @ y.T


def _unit(x: Source) -> Source:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), _TINY)
