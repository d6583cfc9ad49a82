"""What tools share: which object is written to, and how results of some cells stand among all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from mudata import MuData

if TYPE_CHECKING:
    from scgenot.model import GENOT


def written_to(adata: AnnData | MuData, model: GENOT, copy: bool) -> tuple[AnnData | MuData, AnnData]:
    """Return what a tool changes: the whole, or its copy, and in it the AnnData with the source cells."""
    whole = adata.copy() if copy else adata
    return whole, model.source_adata(whole)


def spread(values: np.ndarray, rows: np.ndarray, n_obs: int) -> np.ndarray:
    """Return an array over all cells with `values` at `rows` and NaN elsewhere."""
    everywhere = np.full((n_obs, *values.shape[1:]), np.nan, dtype=np.float32)
    everywhere[rows] = values
    return everywhere
