"""What the sections share."""

from __future__ import annotations

import operator
from typing import TypeAlias

import numpy as np
import pandas as pd

from scgenot.coupling import Coupling

# Titles and tables, the last one of measured figures beside their bars.
Tables: TypeAlias = dict[str, pd.DataFrame]
_RELATIONS = {"<=": operator.le, ">=": operator.ge}


def dense_plan(coupling: Coupling) -> np.ndarray:
    """Return the plan of a global coupling whose costs are stored, in double precision."""
    found, geometry = coupling.potentials, coupling.geometry
    logs = np.asarray(found.u)[:, None] + np.asarray(found.v) - float(geometry.inverse) * np.asarray(geometry.matrix)
    return np.asarray(coupling.a)[:, None] * np.asarray(coupling.b) * np.exp(logs.astype(np.float64))


def against_bars(*claims: tuple[str, float, str, float]) -> pd.DataFrame:
    """Return claims (what, measured, relation, bar) as a table that says which of them hold."""
    rows = {
        what: {
            "measured": f"{measured:.4g}",
            "bar": f"{relation} {bar:g}",
            "met": "yes" if _RELATIONS[relation](measured, bar) else "NO",
        }
        for what, measured, relation, bar in claims
    }
    return pd.DataFrame(rows).T.rename_axis("claim")


def table(rows: dict, name: str | list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows).T.rename_axis(name)
