"""Other public solvers behind the model class of GENOT: the same setup, epsilon, tools and plots."""

from scgenot.baselines._entropic_map import EntropicMap
from scgenot.baselines._lightsb import LightSB
from scgenot.baselines._otcfm import OTCFM

__all__ = ["OTCFM", "EntropicMap", "LightSB"]
