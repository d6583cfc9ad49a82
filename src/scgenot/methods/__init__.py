"""Learning methods on arrays: fit to two coupled populations, then say where any source cell goes."""

from scgenot.methods._genot import GENOTSolver
from scgenot.methods._growth import Rescaling

__all__ = ["GENOTSolver", "Rescaling"]
