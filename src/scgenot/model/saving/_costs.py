"""Costs as plain values that a JSON file can hold, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from scgenot._messages import one_of
from scgenot.costs import Cost, Geodesic, available_costs, displaced_cost
from scgenot.costs._displaced import Displaced
from scgenot.model._problem import GIVEN, cost_name

# Classes of costs that a file may name, and no others: what a file says is looked up here, not in a module.
_WITH_OPTIONS = {"Geodesic": Geodesic}
_DISPLACED = "displaced_cost"


def plain_cost(cost: Any) -> Any:
    """Return a cost, a pair of costs or ``None`` as names; those that have options with these."""
    if cost is None or isinstance(cost, str):
        return cost
    if isinstance(cost, tuple):
        return [plain_cost(one) for one in cost]
    if type(cost) in _WITH_OPTIONS.values():
        return {"class": type(cost).__name__} | {
            field.name: getattr(cost, field.name) for field in dataclasses.fields(cost) if field.init
        }
    if isinstance(cost, Cost) and isinstance(cost.pairwise, Displaced):
        return {"class": _DISPLACED, "cost": plain_cost(cost.pairwise.cost), "shift": list(cost.pairwise.shift)}
    return cost_name(cost)


def saved_cost(saved: Any) -> Any:
    """Return what :func:`plain_cost` was given.

    A function cannot come back from its name, but is needed only to train: in its place comes a cost that says so.
    """
    if saved is None or (isinstance(saved, str) and (saved == GIVEN or saved in available_costs())):
        return saved
    if isinstance(saved, list) and len(saved) == 2:
        return tuple(saved_cost(one) for one in saved)
    if isinstance(saved, dict):
        options = {name: value for name, value in saved.items() if name != "class"}
        kind = saved.get("class")
        if kind == _DISPLACED:
            return displaced_cost(saved_cost(options["cost"]), np.asarray(options["shift"], np.float64))
        if not isinstance(kind, str) or kind not in _WITH_OPTIONS:
            raise ValueError(one_of("cost", kind, [*_WITH_OPTIONS, _DISPLACED]))
        return _WITH_OPTIONS[kind](**options)
    if not isinstance(saved, str):
        raise ValueError(f"`cost` must be a name, a pair, or a class with its options, got {saved!r}")

    def gone(x: Any, y: Any) -> Any:
        raise ValueError(f"this model was trained with the cost {saved!r}, a function; pass it to `load` as `cost`.")

    return Cost(saved, gone)
