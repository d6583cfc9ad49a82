"""How cells are paired: arrays in, a coupling out."""

from scgenot.costs import displaced_cost
from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind, StartReport
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._epsilon_scan import EpsilonScan, scan_epsilons
from scgenot.coupling._solve import CouplingKind, available_couplings, solve_coupling
from scgenot.coupling._tau_scan import TauScan, scan_taus

__all__ = [
    "Coupling",
    "CouplingConfig",
    "CouplingKind",
    "Diagnostics",
    "EpsilonScan",
    "MarginalKind",
    "StartReport",
    "TauScan",
    "available_couplings",
    "displaced_cost",
    "scan_epsilons",
    "scan_taus",
    "solve_coupling",
]
