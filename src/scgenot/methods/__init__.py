"""Learning methods on arrays: learn from two coupled populations, then say where any source cell goes."""

from scgenot.methods._entropic_map import EntropicMapConfig, EntropicMapSolver
from scgenot.methods._genot import GENOTSolver
from scgenot.methods._growth import Rescaling
from scgenot.methods._lightsb import LightSBConfig, LightSBSolver
from scgenot.methods._method import Abilities, FitData, Method
from scgenot.methods._otcfm import OTCFMSolver

__all__ = [
    "Abilities",
    "EntropicMapConfig",
    "EntropicMapSolver",
    "FitData",
    "GENOTSolver",
    "LightSBConfig",
    "LightSBSolver",
    "Method",
    "OTCFMSolver",
    "Rescaling",
]
