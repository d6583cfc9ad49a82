"""Tools over AnnData: results in, results out."""

from scgenot.tl._transport import transport
from scgenot.tl._transported_cells import transported_cells

__all__ = ["transport", "transported_cells"]
