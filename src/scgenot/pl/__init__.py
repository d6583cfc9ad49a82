"""Plots in the manner of scanpy."""

from scgenot.pl._calibration import calibration
from scgenot.pl._conditions import conditions
from scgenot.pl._epsilon_scan import epsilon_scan
from scgenot.pl._fates import fates
from scgenot.pl._growth import growth
from scgenot.pl._history import history
from scgenot.pl._modalities import modalities
from scgenot.pl._potential import potential
from scgenot.pl._response import response
from scgenot.pl._sankey import sankey
from scgenot.pl._tau_scan import tau_scan
from scgenot.pl._transitions import transitions
from scgenot.pl._transport import transport
from scgenot.pl._uncertainty import uncertainty

__all__ = [
    "calibration",
    "conditions",
    "epsilon_scan",
    "fates",
    "growth",
    "history",
    "modalities",
    "potential",
    "response",
    "sankey",
    "tau_scan",
    "transitions",
    "transport",
    "uncertainty",
]
