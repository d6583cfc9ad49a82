"""How cells are paired: arrays in, a coupling out."""

from scgenot.costs import displaced_cost
from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind, StartReport
from scgenot.coupling._block_scans import BlockEpsilonScan, BlockTauScan, scan_block_epsilons, scan_block_taus
from scgenot.coupling._blocks import Block, BlockCoupling
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._epsilon_scan import EpsilonScan, scan_epsilons
from scgenot.coupling._kinds import KINDS, OPTIONS, Auto, Extended, Global, Kind, LowRank, Minibatch
from scgenot.coupling._pair_scores import PairScores
from scgenot.coupling._solve import CouplingKind, available_couplings, kind_with_options, solve_coupling
from scgenot.coupling._solve_blocks import solve_blocks
from scgenot.coupling._tau_scan import TauScan, scan_taus

__all__ = [
    "KINDS",
    "OPTIONS",
    "Auto",
    "Block",
    "BlockCoupling",
    "BlockEpsilonScan",
    "BlockTauScan",
    "Coupling",
    "CouplingConfig",
    "CouplingKind",
    "Diagnostics",
    "EpsilonScan",
    "Extended",
    "Global",
    "Kind",
    "LowRank",
    "MarginalKind",
    "Minibatch",
    "PairScores",
    "StartReport",
    "TauScan",
    "available_couplings",
    "displaced_cost",
    "kind_with_options",
    "scan_block_epsilons",
    "scan_block_taus",
    "scan_epsilons",
    "scan_taus",
    "solve_blocks",
    "solve_coupling",
]
