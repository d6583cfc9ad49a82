"""Ways from a representation back to genes: one file each, one line here."""

from __future__ import annotations

from typing import Any

from scgenot.tl._decoders._decoder import BoundDecoder, Decoder, Space, genes_of
from scgenot.tl._decoders._pcs import PCDecoder
from scgenot.tl._decoders._scvi import SCVIDecoder
from scgenot.tl._decoders._transform import TransformDecoder

__all__ = ["BoundDecoder", "Decoder", "PCDecoder", "SCVIDecoder", "Space", "TransformDecoder", "as_decoder", "genes_of"]

# Asked in this order whether an object is theirs.
_KINDS: tuple[type[Decoder], ...] = (SCVIDecoder, TransformDecoder)


def as_decoder(asked: Any) -> Decoder:
    """Return the decoder that is meant: ``None`` for principal components, a decoder, or an object that a kind takes.

    Raises
    ------
    TypeError
        If no kind takes it.
    """
    if asked is None:
        return PCDecoder()
    if isinstance(asked, Decoder):
        return asked
    for kind in _KINDS:
        found = kind.of(asked)
        if found is not None:
            return found
    raise TypeError(
        f"`decoder` must be None (principal components of adata.varm), a fitted transform with `inverse_transform`, a trained "
        f"scvi model, or a decoder of scgenot.tl, got {type(asked).__name__}."
    )
