"""Tools over AnnData and MuData: results in, results out."""

from scgenot.tl._calibrate import calibrate
from scgenot.tl._context_means import context_means
from scgenot.tl._couplings import couplings
from scgenot.tl._decode import decode
from scgenot.tl._decoders import PCDecoder, SCVIDecoder, TransformDecoder
from scgenot.tl._fates import ancestors, fates
from scgenot.tl._growth_priors import growth_priors
from scgenot.tl._interpolate import interpolate
from scgenot.tl._potential import potential
from scgenot.tl._response import response
from scgenot.tl._suggest_epsilon import suggest_epsilon
from scgenot.tl._suggest_tau import suggest_tau
from scgenot.tl._transfer_labels import transfer_labels
from scgenot.tl._transitions import transitions
from scgenot.tl._transport import transport
from scgenot.tl._transported_cells import transported_cells

__all__ = [
    "PCDecoder",
    "SCVIDecoder",
    "TransformDecoder",
    "ancestors",
    "calibrate",
    "context_means",
    "couplings",
    "decode",
    "fates",
    "growth_priors",
    "interpolate",
    "potential",
    "response",
    "suggest_epsilon",
    "suggest_tau",
    "transfer_labels",
    "transitions",
    "transport",
    "transported_cells",
]
