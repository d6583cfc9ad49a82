"""What costs are called, and how what the user means becomes a cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from scgenot._messages import one_of
from scgenot.costs._anchored import AnchoredCost
from scgenot.costs._cost import AllPairs, Block, Cost, CostLike, Source, Target

_COSTS: dict[str, Cost | AnchoredCost] = {}
_Registered = TypeVar("_Registered", bound=Callable[..., Any])


def register_cost(name: str, *, overwrite: bool = False) -> Callable[[_Registered], _Registered]:
    """Make a symmetric pairwise function, or an :class:`AnchoredCost` with its defaults, known under `name`.

    Raises
    ------
    ValueError
        If the name is taken, unless `overwrite`: models that were saved with it would load with another cost.
    """

    def decorate(cost: _Registered) -> _Registered:
        if name in _COSTS and not overwrite:
            raise ValueError(f"`name`={name!r} is a cost already. Choose another name, or pass `overwrite=True`.")
        anchored = isinstance(cost, type) and issubclass(cost, AnchoredCost)
        _COSTS[name] = cost() if anchored else Cost(name, cost, symmetric=True)
        return cost

    return decorate


def available_costs() -> list[str]:
    """Return the names that :func:`resolve_cost` knows."""
    return sorted(_COSTS)


def resolve_cost(cost: CostLike) -> Cost | AnchoredCost:
    """Return the cost that the user means.

    Parameters
    ----------
    cost
        A name out of :func:`available_costs`, a :class:`Cost`, an :class:`AnchoredCost` such as
        :class:`Geodesic`, an OTT ``CostFn``, or a function of two cells ``(d,), (d,) -> ()`` written with
        ``jax.numpy``.

    Raises
    ------
    ValueError
        If the name is not known.
    TypeError
        If `cost` is none of these.
    """
    if isinstance(cost, Cost | AnchoredCost):
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
        return Cost(type(cost).__name__, _OTTPairs.of(cost))
    return Cost(getattr(cost, "__name__", type(cost).__name__), AllPairs(cost))


@dataclasses.dataclass(frozen=True)
class _OTTPairs:
    """An OTT cost as a function of two blocks; equal costs compare equal (OTT's do not), so nothing recompiles."""

    kind: type
    values: tuple[Any, ...]
    cost: Any = dataclasses.field(compare=False)

    @classmethod
    def of(cls, cost: Any) -> _OTTPairs:
        return cls(type(cost), tuple((name, _comparable(value)) for name, value in sorted(vars(cost).items())), cost)

    def __call__(self, x: Source, y: Target) -> Block:
        return self.cost.all_pairs(x, y)


def _comparable(value: Any) -> Any:
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tobytes()
    try:
        hash(value)
    except TypeError:
        # Equal to itself alone: costs may then be compiled again, but are never confused.
        return id(value)
    return value


def resolve_cost_pair(cost: CostLike | tuple[CostLike, CostLike]) -> tuple[Cost | AnchoredCost, Cost | AnchoredCost]:
    """Return the costs within the source and within the target population: a pair, or the same for both.

    Raises
    ------
    ValueError, TypeError
        As :func:`resolve_cost`.
    """
    source, target = cost if isinstance(cost, tuple) and len(cost) == 2 else (cost, cost)
    return resolve_cost(source), resolve_cost(target)
