"""What a decoder is: from a representation back to genes."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from jaxtyping import Float, Int

from scgenot.data import read_representation

# Share of the standard deviation by which the way there may miss the stored representation. Loadings of scanpy's default PCA solver
# miss it by 1e-6 (Kang), of a randomized one by 4 % (the GBM set, by its last components); those of other data, of scaled data beside
# unscaled ones, and of rotated or corrected components by more than half.
TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Space:
    """Where the representation is that shall be decoded.

    Attributes
    ----------
    source
        Holds the source cells.
    target
        Holds the target features: the same object in a problem of one space.
    rep
        Key of ``obsm`` of `target`, or ``"X"``.
    width
        Features of the representation.
    one_space
        Whether source cells have this representation as well.
    """

    source: AnnData
    target: AnnData
    rep: str
    width: int
    one_space: bool


class BoundDecoder(abc.ABC):
    """A decoder that has looked at the data: the way from one representation to genes.

    Attributes
    ----------
    genes
        Names of the genes, in the order of the columns.
    space
        What it decodes.
    """

    genes: pd.Index
    space: Space

    @abc.abstractmethod
    def decode(self, values: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n genes"]:
        """Return genes of points of the representation; `rows` are the source cells that they belong to."""

    def measured(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n genes"] | None:
        """Return what was measured of cells of `space.target`, in the units of :meth:`decode`; ``None`` if that is not known."""
        return None

    def describe(self) -> dict[str, Any]:
        """Return what was done, in plain values that an AnnData can store."""
        return {}

    def own(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n genes"]:
        """Return cells of `space.target` decoded from their own representation."""
        return self.decode(read_representation(self.space.target, self.space.rep, rows, "rep"), rows)

    def residual(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n genes"] | None:
        """Return what the representation lost of cells; ``None`` where what was measured is not known."""
        measured = self.measured(rows)
        return None if measured is None else measured - self.own(rows)


class Decoder(abc.ABC):
    """Options of a decoder, before it has seen data. A subclass is a frozen dataclass in a file of its own."""

    @classmethod
    def of(cls, asked: Any) -> Decoder | None:
        """Return a decoder for an object that users have at hand, or ``None`` if it is none of this kind."""
        return None

    @abc.abstractmethod
    def bind(self, space: Space) -> BoundDecoder:
        """Look at the data and check that this is the way back from its representation.

        Raises
        ------
        KeyError, ValueError
            If it is not, or something is missing.
        """


def complete_rows(adata: AnnData, rep: str) -> Int[np.ndarray, " n"]:
    """Return the cells that have the representation: rows of others may hold NaN."""
    if rep not in adata.obsm:
        read_representation(adata, rep, np.arange(0))
        raise ValueError(f"{rep!r} holds genes already: there is nothing to decode.")
    stored = adata.obsm[rep]
    values = stored.to_numpy() if isinstance(stored, pd.DataFrame) else stored
    values = values.toarray() if sp.issparse(values) else np.asarray(values)
    return np.flatnonzero(np.isfinite(values).all(axis=1))


def genes_of(target: AnnData, names: Iterable[str], values: Float[np.ndarray, "n genes"], obs: pd.DataFrame) -> AnnData:
    """Return an AnnData in genes, with what is known of them."""
    obs = obs.copy()
    for column in obs.select_dtypes("category"):
        # scanpy takes a category without cells for a group of too few.
        obs[column] = obs[column].cat.remove_unused_categories()
    index = pd.Index(names)
    var = target.var.loc[index].copy() if index.isin(target.var_names).all() else pd.DataFrame(index=index)
    return AnnData(X=values, obs=obs, var=var)
