"""Through the inverse of a fitted transform, such as a PCA of scikit-learn."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from scgenot.data import dense_rows, read_representation
from scgenot.tl._decoders._decoder import TOLERANCE, BoundDecoder, Decoder, Space, complete_rows

# Enough to tell what a transform was fitted on.
_CHECKED_CELLS = 500


@dataclasses.dataclass(frozen=True)
class TransformDecoder(Decoder):
    """Decode through ``transform.inverse_transform``: a fitted :class:`sklearn.decomposition.PCA`, or anything that has it.

    Attributes
    ----------
    transform
        The fitted object. Values mean what it was fitted on.
    genes
        Names of its features; by default its ``feature_names_in_``, or ``adata.var_names`` if these are as many.
    layer
        Key of ``layers`` with what it was fitted on, ``None`` for ``X``: for what was measured, beside what is decoded.

    Examples
    --------
    >>> pca = sklearn.decomposition.PCA(50).fit(adata.X)  # doctest: +SKIP
    >>> scgenot.tl.decode(adata, model, decoder=pca)  # doctest: +SKIP
    """

    transform: Any
    genes: Any = None
    layer: str | None = None

    @classmethod
    def of(cls, asked: Any) -> Decoder | None:
        """Take anything that has an inverse."""
        return cls(asked) if callable(getattr(asked, "inverse_transform", None)) else None

    def bind(self, space: Space) -> BoundDecoder:
        """Decode one point, to see whether widths and names fit.

        Raises
        ------
        ValueError
            If the transform does not take as many features as the representation has, is not fitted, or its features have no names.
        """
        try:
            first = np.asarray(self.transform.inverse_transform(np.zeros((1, space.width), np.float32)))
        except Exception as error:
            raise ValueError(
                f"`decoder`={type(self.transform).__name__}(...) cannot decode the {space.width} features of {space.rep!r}: "
                f"{' '.join(str(error).split())[:200]} Pass the fitted object that made this representation."
            ) from error
        names = self.genes if self.genes is not None else getattr(self.transform, "feature_names_in_", None)
        if names is None and first.shape[1] == space.target.n_vars:
            names = space.target.var_names
        if names is None or len(names) != first.shape[1]:
            told = "none" if names is None else str(len(names))
            raise ValueError(
                f"`decoder` gives {first.shape[1]} features, got {told} of their names (adata has {space.target.n_vars} genes). "
                "Name them: `decoder=scgenot.tl.TransformDecoder(transform, genes=names)`."
            )
        return _BoundTransform(space, pd.Index([str(name) for name in names]), self).with_known_measures()


@dataclasses.dataclass(frozen=True, eq=False)
class _BoundTransform(BoundDecoder):
    space: Space
    genes: pd.Index
    options: TransformDecoder
    # Whether `X` (or the layer) is what the transform was fitted on.
    measures: bool = False

    def with_known_measures(self) -> _BoundTransform:
        """Find out whether what the transform makes of some measured cells is their representation."""
        target, rep = self.space.target, self.space.rep
        stored = target.X if self.options.layer is None else target.layers.get(self.options.layer)
        columns = target.var_names.get_indexer(self.genes)
        forward = getattr(self.options.transform, "transform", None)
        if stored is None or (columns < 0).any() or forward is None or rep not in target.obsm:
            return self
        rows = complete_rows(target, rep)[:_CHECKED_CELLS]
        places = read_representation(target, rep, rows, "rep")
        with warnings.catch_warnings():
            # A transform that was fitted on a data frame says that an array has no names.
            warnings.simplefilter("ignore", UserWarning)
            made = np.asarray(forward(dense_rows(stored, rows)[:, columns]))
        if made.shape != places.shape:
            return self
        off = np.square(made - places).sum() / max(np.square(places - places.mean(axis=0)).sum(), 1e-12)
        return dataclasses.replace(self, measures=bool(off <= TOLERANCE**2))

    def decode(self, values: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n g"]:
        return np.asarray(self.options.transform.inverse_transform(values), np.float32)

    def measured(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n g"] | None:
        if not self.measures:
            return None
        target = self.space.target
        stored = target.X if self.options.layer is None else target.layers[self.options.layer]
        return dense_rows(stored, rows)[:, target.var_names.get_indexer(self.genes)]

    def describe(self) -> dict[str, Any]:
        return {"decoder": type(self.options.transform).__name__}
