"""How solving for the coupling went, as a table. `coupling_summary` is a method of models."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pandas as pd

from scgenot.coupling import Diagnostics

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def coupling_summary(model: TransportModel) -> pd.DataFrame:
    """Return how solving for the coupling went, one row a start of the solver.

    Returns
    -------
    Columns as in :class:`scgenot.coupling.Diagnostics`: objective, scale of the cost, epsilon, iterations,
    marginal violation, mass, effective number of targets a source cell, converged or not. For quadratic problems also as
    in :class:`scgenot.coupling.StartReport`; the objective is NaN for starts that were not followed to the end.

    Raises
    ------
    RuntimeError
        If the model is not trained, or its method needs no coupling.

    Examples
    --------
    >>> model.coupling_summary()[["effective_targets", "marginal_violation", "converged"]]  # doctest: +SKIP
    """
    if model._method.needs == "samples":
        raise RuntimeError(f"the method {model._method.name!r} learns from the two samples: there is no coupling.")
    if not model._coupling_diagnostics:
        raise RuntimeError("there is no coupling yet. Call `model.train()` first.")
    table = pd.DataFrame(model._coupling_diagnostics)
    return table.set_index("start") if "start" in table else table.rename_axis("start")


def summary_rows(diagnostics: Diagnostics) -> list[dict[str, Any]]:
    """Return one row a start; a linear problem has one optimum and one row."""
    whole = dataclasses.asdict(diagnostics)
    rows = [whole | start for start in whole.pop("starts")] or [whole]
    # The best start may have converged over its landmarks, and the coupling of all cells not.
    rows[0]["converged"] = whole["converged"]
    return rows
