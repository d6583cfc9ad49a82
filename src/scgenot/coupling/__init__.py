"""How cells are paired: arrays in, a coupling out."""

from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind, StartReport
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._solve import CouplingKind, available_couplings, solve_coupling

__all__ = [
    "Coupling",
    "CouplingConfig",
    "CouplingKind",
    "Diagnostics",
    "MarginalKind",
    "StartReport",
    "available_couplings",
    "solve_coupling",
]
