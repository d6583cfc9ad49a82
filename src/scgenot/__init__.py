"""Learn how one population of cells becomes, or corresponds to, another one, and how sure we are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scgenot._version import __version__

if TYPE_CHECKING:
    from scgenot import baselines, costs, coupling, data, datasets, flow, methods, metrics, model, pl, sinkhorn, tl
    from scgenot.model import GENOT

__all__ = [
    "GENOT",
    "baselines",
    "costs",
    "coupling",
    "data",
    "datasets",
    "flow",
    "methods",
    "metrics",
    "model",
    "pl",
    "sinkhorn",
    "tl",
]

_ROOMS = frozenset(__all__) - {"GENOT"}


def __getattr__(name: str) -> Any:
    # Rooms are imported when they are first touched: JAX takes a second to import, PyTorch (through scvi-tools) many.
    if name == "GENOT":
        return importlib.import_module("scgenot.model").GENOT
    if name in _ROOMS:
        return importlib.import_module(f"scgenot.{name}")
    raise AttributeError(f"module 'scgenot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
