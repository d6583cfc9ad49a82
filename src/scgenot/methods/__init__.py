"""Learning methods on arrays: learn from two coupled populations, then say where any source cell goes."""

from scgenot.methods._entropic_map import EntropicMapConfig, EntropicMapSolver
from scgenot.methods._genot import GENOTSolver
from scgenot.methods._growth import Rescaling
from scgenot.methods._landscape import Arrivals, Landscape, fit_landscape
from scgenot.methods._lightsb import LightSBConfig, LightSBSolver
from scgenot.methods._method import Abilities, FitData, Method
from scgenot.methods._otcfm import OTCFMSolver
from scgenot.methods._potentials import LinearPotential, NetworkPotential, PotentialConfig

__all__ = [
    "Abilities",
    "Arrivals",
    "EntropicMapConfig",
    "EntropicMapSolver",
    "FitData",
    "GENOTSolver",
    "Landscape",
    "LightSBConfig",
    "LightSBSolver",
    "LinearPotential",
    "Method",
    "NetworkPotential",
    "OTCFMSolver",
    "PotentialConfig",
    "Rescaling",
    "fit_landscape",
]
