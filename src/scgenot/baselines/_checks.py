"""What solvers in one space ask of the transport problem."""

from __future__ import annotations

from scgenot.model import TransportModel
from scgenot.model._problem import cost_name


def check_linear(model: TransportModel, cost: str | None = None, coupling: str | None = None) -> None:
    """Raise a ``ValueError`` unless a model couples as its method needs it: a linear problem, by this cost and kind.

    Here, and not after a coupling has been solved for.
    """
    name, config = type(model).__name__, model._coupling_config.resolved(model._problem)
    if model._problem != "linear":
        raise ValueError(
            f"{name} works within one space: `problem` must be 'linear', got {model._problem!r}. Use GENOT."
        )
    if cost is not None and cost_name(config.cost) != cost:
        raise ValueError(
            f"`cost` must be {cost!r} for {name}, got {cost_name(config.cost)!r}. Use GENOT for other costs."
        )
    if coupling is not None and model._coupling_kind != coupling:
        raise ValueError(f"`coupling` must be {coupling!r} for {name}, got {model._coupling_kind!r}.")
