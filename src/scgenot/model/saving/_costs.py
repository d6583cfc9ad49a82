"""Costs as plain values that a JSON file can hold, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from scgenot import costs
from scgenot.costs import Cost, available_costs
from scgenot.costs._displaced import Displaced
from scgenot.coupling import displaced_cost
from scgenot.model._problem import GIVEN, cost_name


def plain_cost(cost: Any) -> Any:
    """Return a cost, a pair of costs or ``None`` as names; those that have options with these."""
    if cost is None or isinstance(cost, str):
        return cost
    if isinstance(cost, tuple):
        return [plain_cost(one) for one in cost]
    if _has_options(type(cost)):
        return {"class": type(cost).__name__} | {
            field.name: getattr(cost, field.name) for field in dataclasses.fields(cost) if field.init
        }
    if isinstance(cost, Cost) and isinstance(cost.pairwise, Displaced):
        return {"class": "displaced_cost", "cost": plain_cost(cost.pairwise.cost), "shift": list(cost.pairwise.shift)}
    return cost_name(cost)


def saved_cost(saved: Any) -> Any:
    """Return what :func:`plain_cost` was given.

    A function cannot come back from its name, but is needed only to train: in its place comes a cost that says so.
    """
    if saved is None or saved == GIVEN or (isinstance(saved, str) and saved in available_costs()):
        return saved
    if isinstance(saved, list):
        return tuple(saved_cost(one) for one in saved)
    if isinstance(saved, dict):
        options = {name: value for name, value in saved.items() if name != "class"}
        if saved["class"] == "displaced_cost":
            return displaced_cost(saved_cost(options["cost"]), np.asarray(options["shift"]))
        return getattr(costs, saved["class"])(**options)

    def gone(x: Any, y: Any) -> Any:
        raise ValueError(f"this model was trained with the cost {saved!r}, a function; pass it to `load` as `cost`.")

    return Cost(saved, gone)


def _has_options(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and kind is not Cost and getattr(costs, kind.__name__, None) is kind
