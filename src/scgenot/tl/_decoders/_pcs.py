"""From principal components back to genes, through the loadings that scanpy stores."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from jaxtyping import Float, Int

from scgenot._messages import did_you_mean, listed
from scgenot.data import dense_rows, read_representation
from scgenot.tl._decoders._decoder import TOLERANCE, BoundDecoder, Decoder, Space, complete_rows

# Numbers of X that are held at once.
_BLOCK_ENTRIES = 2**24


@dataclasses.dataclass(frozen=True)
class PCDecoder(Decoder):
    """Decode principal components through their loadings: ``mean + (z - mean z) @ PCs.T``.

    What the components do not hold is lost: decoded cells of a group vary less than measured ones, most of all in genes with
    small loadings. Genes that the PCA did not see are left out.

    Attributes
    ----------
    loadings
        Key of ``varm``; by default the name of the representation if there is such a key, else ``"PCs"``.
    layer
        Key of ``layers`` with what the PCA saw; ``None`` for ``X``.
    reference
        Cells of which the means of genes are taken, with the same genes, ``X`` and representation: best those that the PCA
        saw. By default the AnnData that is decoded.
    unscale
        The PCA saw data of ``sc.pp.scale``: multiply by ``var["std"]`` and add ``var["mean"]``, which that function writes, so that
        values are those before scaling.

    Examples
    --------
    >>> scgenot.tl.decode(adata, model, decoder=scgenot.tl.PCDecoder(layer="scaled"))  # doctest: +SKIP
    """

    loadings: str | None = None
    layer: str | None = None
    reference: AnnData | None = None
    unscale: bool = False

    def bind(self, space: Space) -> BoundDecoder:
        """Find loadings and means, and check that they belong to the representation.

        Raises
        ------
        KeyError
            If there are no loadings, layer or columns of that name.
        ValueError
            If ``X @ PCs`` is not the representation up to a constant, or there are fewer loadings than features.
        """
        adata = space.target if self.reference is None else self.reference
        key = self._key(adata, space.rep)
        loadings = np.asarray(adata.varm[key], np.float64)
        if loadings.ndim != 2 or loadings.shape[1] < space.width:
            raise ValueError(
                f"varm[{key!r}] has shape {loadings.shape}, but {space.rep!r} has {space.width} features. Name the loadings "
                "of this representation: `decoder=scgenot.tl.PCDecoder(loadings=...)`."
            )
        loadings = np.nan_to_num(loadings[:, : space.width])
        # Genes outside scanpy's mask have loadings of 0.
        columns = np.flatnonzero((loadings != 0).any(axis=1))
        if len(columns) == 0:
            raise ValueError(f"varm[{key!r}] holds nothing but 0. Compute the PCA again: `sc.pp.pca(adata)`.")
        loadings = loadings[columns]
        _check_same_genes(adata, space.target, columns)
        rows = complete_rows(adata, space.rep)
        mean, center, miss = _centers(self._stored(adata), columns, loadings, adata, space.rep, rows)
        if not miss <= TOLERANCE:
            raise ValueError(
                f"varm[{key!r}] are not the loadings of {space.rep!r}: X @ PCs misses it by {100 * miss:.0f} % of its spread "
                f"(allowed: {100 * TOLERANCE:.0f} %). Components of other data, of scaled data (then "
                "`decoder=scgenot.tl.PCDecoder(layer=...)` names them) or corrected ones (Harmony) cannot be decoded like this; a "
                "subset or another order of cells can."
            )
        factor, shift = self._units(adata, columns)
        backward = loadings @ np.linalg.inv(loadings.T @ loadings)
        return _BoundPCs(
            space=space,
            genes=adata.var_names[columns],
            backward=backward.astype(np.float32),
            mean=mean.astype(np.float32),
            center=center.astype(np.float32),
            factor=factor,
            shift=shift,
            options=self,
            key=key,
        )

    def _key(self, adata: AnnData, rep: str) -> str:
        key = self.loadings or (rep if rep in adata.varm else "PCs")
        if key not in adata.varm:
            raise KeyError(
                f"`loadings`={key!r} is no key of adata.varm.{did_you_mean(key, adata.varm)} There are: {listed(adata.varm)}. "
                "Compute them with `sc.pp.pca(adata)`, or pass a fitted `decoder`: a scikit-learn PCA, an scvi model."
            )
        return key

    def _stored(self, adata: AnnData) -> Any:
        if self.layer is not None and self.layer not in adata.layers:
            raise KeyError(
                f"`layer`={self.layer!r} is no key of adata.layers.{did_you_mean(self.layer, adata.layers)} There are: "
                f"{listed(adata.layers)}."
            )
        stored = adata.X if self.layer is None else adata.layers[self.layer]
        if stored is None:
            raise KeyError(
                "adata.X is None: the means of genes cannot be taken. Give `PCDecoder(layer=...)` or `reference=`."
            )
        return stored

    def _units(
        self, adata: AnnData, columns: Int[np.ndarray, " g"]
    ) -> tuple[Float[np.ndarray, " g"] | None, Float[np.ndarray, " g"] | None]:
        if not self.unscale:
            return None, None
        missing = [name for name in ("mean", "std") if name not in adata.var]
        if missing:
            raise KeyError(
                f"`unscale=True` needs the columns 'mean' and 'std' of adata.var, which `sc.pp.scale` writes; {listed(missing)} "
                "is missing. Leave it False for values in units of the scaled data."
            )
        return tuple(adata.var[name].to_numpy(np.float32)[columns] for name in ("std", "mean"))


@dataclasses.dataclass(frozen=True, eq=False)
class _BoundPCs(BoundDecoder):
    space: Space
    genes: pd.Index
    backward: Float[np.ndarray, "g d"]
    mean: Float[np.ndarray, " g"]
    center: Float[np.ndarray, " d"]
    factor: Float[np.ndarray, " g"] | None
    shift: Float[np.ndarray, " g"] | None
    options: PCDecoder
    key: str

    def decode(self, values: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n g"]:
        return self._in_units((values - self.center) @ self.backward.T + self.mean)

    def measured(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n g"] | None:
        target = self.space.target
        stored = target.X if self.options.layer is None else target.layers.get(self.options.layer)
        if stored is None:
            return None
        columns = target.var_names.get_indexer(self.genes)
        return self._in_units(_some_columns(stored, rows, columns))

    def describe(self) -> dict[str, Any]:
        layer = {} if self.options.layer is None else {"layer": self.options.layer}
        return {"decoder": "PCs", "loadings": self.key, "unscale": self.options.unscale} | layer

    def _in_units(self, values: Float[np.ndarray, "n g"]) -> Float[np.ndarray, "n g"]:
        return values if self.factor is None else values * self.factor + self.shift


def _check_same_genes(reference: AnnData, target: AnnData, columns: Int[np.ndarray, " g"]) -> None:
    missing = reference.var_names[columns].difference(target.var_names)
    if len(missing):
        raise ValueError(
            f"`reference` has {len(missing)} genes that adata has not (first: {missing[0]!r}). Pass cells with the same genes."
        )


def _centers(
    stored: Any,
    columns: Int[np.ndarray, " g"],
    loadings: Float[np.ndarray, "g d"],
    adata: AnnData,
    rep: str,
    rows: Int[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " d"], float]:
    """Return the means of genes and of components over the same cells, and by how much loadings miss the components.

    ``X @ PCs`` and the components may differ by a constant, the mean that the PCA took off: with both means over the same
    cells it drops out, so that it does not matter whether these are the cells that the PCA saw, or whether it centred at all.
    """
    mean = np.zeros(len(columns))
    places = read_representation(adata, rep, rows, "rep").astype(np.float64)
    projected = np.empty_like(places)
    size = max(1, _BLOCK_ENTRIES // len(columns))
    for start in range(0, len(rows), size):
        some = slice(start, start + size)
        block = _some_columns(stored, rows[some], columns).astype(np.float64)
        mean += block.sum(axis=0)
        projected[some] = block @ loadings
    mean /= max(len(rows), 1)
    center = places.mean(axis=0)
    off = (projected - projected.mean(axis=0)) - (places - center)
    spread = np.square(places - center).sum()
    return mean, center, float(np.sqrt(np.square(off).sum() / spread)) if spread > 0 else 0.0


def _some_columns(stored: Any, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " g"]) -> Float[np.ndarray, "n g"]:
    if sp.issparse(stored) and len(columns) < stored.shape[1]:
        unique, back = np.unique(rows, return_inverse=True)
        return dense_rows(stored[unique][:, columns], np.arange(len(unique)))[back]
    return dense_rows(stored, rows)[:, columns]
