"""Tools over AnnData: results in, results out."""

from scgenot.tl._suggest_tau import suggest_tau
from scgenot.tl._transport import transport
from scgenot.tl._transported_cells import transported_cells

__all__ = ["suggest_tau", "transport", "transported_cells"]
