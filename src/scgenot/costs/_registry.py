"""What costs are called, and how what the user means becomes a cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from scgenot._messages import one_of
from scgenot.costs._anchored import AnchoredCost
from scgenot.costs._cost import AllPairs, Cost, CostLike

_COSTS: dict[str, Cost | AnchoredCost] = {}
_Registered = TypeVar("_Registered", bound=Callable[..., Any])


def register_cost(name: str) -> Callable[[_Registered], _Registered]:
    """Make a symmetric pairwise function, or an :class:`AnchoredCost` with its defaults, known under `name`."""

    def decorate(cost: _Registered) -> _Registered:
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
        return Cost(type(cost).__name__, cost.all_pairs)
    return Cost(getattr(cost, "__name__", type(cost).__name__), AllPairs(cost))


def resolve_cost_pair(cost: CostLike | tuple[CostLike, CostLike]) -> tuple[Cost | AnchoredCost, Cost | AnchoredCost]:
    """Return the costs within the source and within the target population: a pair, or the same for both.

    Raises
    ------
    ValueError, TypeError
        As :func:`resolve_cost`.
    """
    source, target = cost if isinstance(cost, tuple) and len(cost) == 2 else (cost, cost)
    return resolve_cost(source), resolve_cost(target)
