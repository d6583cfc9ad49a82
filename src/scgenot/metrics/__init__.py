"""Distances between populations and scores of learned correspondences, on plain arrays.

========================================  =====================================================================
:func:`bw2`, :func:`bw_uvp`               first two moments against a known Gaussian or known moments
:func:`cbw_uvp`                           the same for conditional laws, averaged over source cells
:func:`wasserstein`                       exact :math:`W_1` and :math:`W_2` between two samples
:func:`sinkhorn_divergence`               debiased entropic transport cost between two samples
:func:`energy_distance`, :func:`mmd_rbf`  kernel-type discrepancies between two samples, any size
:func:`foscttm`                           matched cells: fraction of samples closer than the true match
:func:`label_transfer_accuracy`           labelled cells: do neighbours in the target carry the right label
:func:`discrimination_score`              many conditions: is a predicted effect closest to the one it predicts
:func:`effect_correlation`                many conditions: correlation of predicted with observed effects
========================================  =====================================================================
"""

from scgenot.metrics._bures import bw2, bw_uvp, cbw_uvp
from scgenot.metrics._conditions import discrimination_score, effect_correlation
from scgenot.metrics._energy import energy_distance
from scgenot.metrics._foscttm import foscttm
from scgenot.metrics._label_transfer import label_transfer_accuracy
from scgenot.metrics._mmd import mmd_rbf
from scgenot.metrics._sinkhorn import sinkhorn_divergence
from scgenot.metrics._wasserstein import wasserstein

__all__ = [
    "bw2",
    "bw_uvp",
    "cbw_uvp",
    "discrimination_score",
    "effect_correlation",
    "energy_distance",
    "foscttm",
    "label_transfer_accuracy",
    "mmd_rbf",
    "sinkhorn_divergence",
    "wasserstein",
]
