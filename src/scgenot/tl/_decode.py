"""Transported cells in genes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData

from scgenot._messages import check_count, did_you_mean, listed, one_of
from scgenot._rng import RNG
from scgenot.data import category_mask, in_memory, read_representation
from scgenot.flow import ODEConfig
from scgenot.tl._decoders import BoundDecoder, Space, as_decoder, genes_of
from scgenot.tl._transported_cells import Drawn, below_each_other, carried_over, draw_cells

if TYPE_CHECKING:
    from scgenot.model import GENOT


def decode(
    adata: AnnData | MuData,
    model_or_key: GENOT | str = "genot",
    *,
    decoder: Any = None,
    residual: Literal["source"] | None = None,
    include_source: bool = False,
    n_samples: int = 1,
    indices: Sequence[int] | np.ndarray | None = None,
    weight_by_growth: bool = False,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
    until: Hashable | None = None,
) -> AnnData:
    """Return transported cells in genes, as :func:`scanpy.tl.rank_genes_groups` and its plots take them.

    Decoded cells hold what the representation holds. Principal components have lost the noise of each gene, and with it most of the
    variance of most genes: means and changes of groups can be read, but tests that compare decoded with *measured* cells find
    differences everywhere, and tests among decoded cells take cells for surer than measured ones are. For changes with intervals see
    :func:`response`.

    Parameters
    ----------
    adata
        Cells with the source representation, and what the decoder needs: for principal components ``X`` and ``varm["PCs"]``. Of a
        MuData, the target modality is decoded to. It is not changed.
    model_or_key
        A trained model, from which samples are drawn as by :func:`transported_cells`; or the key of a result of :func:`transport`, of
        which the samples are decoded if they were stored, else the means. Means are no cells: they vary less.
    decoder
        The way back. ``None``: principal components, as :class:`PCDecoder` with its defaults. Or a fitted
        :class:`sklearn.decomposition.PCA` (anything with ``inverse_transform``), a trained :class:`scvi.model.SCVI`, or one of
        :class:`PCDecoder`, :class:`TransformDecoder` and :class:`SCVIDecoder` with options.
    residual
        ``"source"``: add to each decoded cell what the representation lost of its source cell, so that it looks like a measured cell.
        Needs one space for both populations. Changes of means are the same with and without.
    include_source
        Put the source cells first, decoded from their own representation in the same way (as measured, with `residual`), to compare
        with: what the decoder loses is lost on both sides then.
    n_samples
        Transported cells for each source cell; of a key, at most as many as were stored.
    indices, weight_by_growth, batch_size, rng, ode, conditions, until
        As in :func:`transported_cells`; with a key they are settled, and may not be given.

    Returns
    -------
    AnnData, transported cells x genes. ``obs`` is that of :func:`transported_cells`; ``var`` is that of `adata` for the genes
    that the decoder gives; ``obsm`` holds the representation that was decoded; ``uns["genot"]["params"]`` says what was done.

    Raises
    ------
    RuntimeError, KeyError, ValueError, TypeError
        As :func:`transported_cells`; also if there is no result of that name, or the decoder does not belong to the representation:
        loadings that do not reproduce the components, an object that is not fitted or of another width.

    Examples
    --------
    >>> genes = scgenot.tl.decode(adata, model, include_source=True)  # doctest: +SKIP
    >>> sc.tl.rank_genes_groups(genes, "condition", reference="control")  # doctest: +SKIP
    """
    check_count("n_samples", n_samples)
    if residual not in (None, "source"):
        raise ValueError(one_of("residual", residual, [None, "source"]))
    way = as_decoder(decoder)
    if isinstance(model_or_key, str):
        settled = {"indices": indices, "ode": ode, "conditions": conditions, "batch_size": batch_size, "until": until}
        given = [name for name, value in settled.items() if value is not None] + ["weight_by_growth"] * weight_by_growth
        if given:
            raise ValueError(
                f"{listed(given)} cannot be chosen for a result that is there, {model_or_key!r}. Pass the model, or leave it out."
            )
        space, params = _space_of_result(adata, model_or_key)
        bound = way.bind(space)
        drawn = _of_result(space, model_or_key, params, n_samples)
        params = params | {"key": model_or_key}
    else:
        space = space_of(adata, model_or_key)
        # Before the samples: what is wrong is said at once.
        bound = way.bind(space)
        drawn = draw_cells(
            adata,
            model_or_key,
            n_samples=n_samples,
            indices=indices,
            weight_by_growth=weight_by_growth,
            batch_size=batch_size,
            rng=rng,
            ode=ode,
            conditions=conditions,
            until=until,
        )
        params = model_or_key.describe() | {"weight_by_growth": weight_by_growth}
    params = params | {"n_samples": n_samples, "residual": residual or "none"} | bound.describe()
    return _in_genes(bound, drawn, residual, include_source, params)


def space_of(adata: AnnData | MuData, model: GENOT) -> Space:
    """Return where the target representation of a model is in some data."""
    spec, method = model._spec, model._method
    return Space(
        model.source_adata(adata), spec.target.cells(adata), spec.target.rep, method.target_dim, spec.one_space
    )


def _in_genes(
    bound: BoundDecoder, drawn: Drawn, residual: str | None, include_source: bool, params: dict[str, Any]
) -> AnnData:
    space = bound.space
    values = bound.decode(drawn.values, drawn.rows)
    parents, back = np.unique(drawn.rows, return_inverse=True)
    if (residual or include_source) and not space.one_space:
        raise ValueError(
            "`residual` and `include_source` need source cells in the space that is decoded, got populations in two spaces. "
            "Leave them out."
        )
    if residual:
        values = values + _residual(bound, parents)[back]
    obs, places = drawn.obs, drawn.values
    if include_source:
        own = bound.measured(parents) if residual else bound.own(parents)
        own_obs = in_memory(space.source.obs).iloc[parents].copy()
        own_obs["source_cell"] = own_obs.index.astype(str)
        values = np.concatenate([own, values])
        obs = below_each_other([own_obs, obs])
        places = np.concatenate([read_representation(space.target, space.rep, parents, "rep"), places])
    cells = genes_of(space.target, bound.genes, values.astype(np.float32), obs)
    cells.obsm[space.rep] = places.copy()
    cells.uns["genot"] = {"params": params}
    # scanpy reads the base of the logarithm from here.
    if params.get("log1p"):
        cells.uns["log1p"] = {"base": None}
    elif "log1p" not in params and "log1p" in space.target.uns:
        cells.uns["log1p"] = dict(space.target.uns["log1p"])
    return cells


def _residual(bound: BoundDecoder, rows: np.ndarray) -> Float[np.ndarray, "n genes"]:
    found = bound.residual(rows)
    if found is None:
        raise ValueError(
            f"`residual='source'` needs measured genes in the units of the decoder, which {bound.describe()['decoder']} has not "
            "in this adata. Leave it None."
        )
    return found


def _space_of_result(adata: AnnData | MuData, key: str) -> tuple[Space, dict[str, Any]]:
    """Return where a result's representation is, and what was noted of it."""
    if isinstance(adata, MuData):
        holders = [part for part in adata.mod.values() if key in part.uns and key in part.obsm]
    elif isinstance(adata, AnnData):
        holders = [adata] if key in adata.uns and key in adata.obsm else []
    else:
        raise TypeError(f"`adata` must be an AnnData or a MuData, got {type(adata).__name__}. Read the file first.")
    if not holders:
        there = adata.uns if isinstance(adata, AnnData) else {name for part in adata.mod.values() for name in part.uns}
        raise KeyError(
            f"`model_or_key`={key!r}: there is no result of that name in this adata. Call `scgenot.tl.transport(adata, model, "
            f"key_added={key!r})` first.{did_you_mean(key, there)}"
        )
    source = holders[0]
    params = dict(source.uns[key]["params"])
    modality = params.get("target_modality")
    one_space = (params.get("source_modality"), params["source_rep"]) == (modality, params["target_rep"])
    if modality is None or modality == params.get("source_modality"):
        target = source
    elif isinstance(adata, MuData) and modality in adata.mod:
        target = adata.mod[modality]
    else:
        raise ValueError(
            f"the result {key!r} lies in the space of the modality {modality!r}, which this adata has not. Pass the MuData."
        )
    return Space(source, target, params["target_rep"], int(source.obsm[key].shape[1]), one_space), params


def _of_result(space: Space, key: str, params: dict[str, Any], n_samples: int) -> Drawn:
    """Return the samples of a result if they were stored, else its means, as transported cells."""
    adata = space.source
    rows = np.flatnonzero(np.isfinite(np.asarray(adata.obsm[key])).all(axis=1))
    if len(rows) == 0:
        raise ValueError(f"the result {key!r} has no transported cells. Call `scgenot.tl.transport` again.")
    stored = adata.obsm.get(f"{key}_samples")
    known = 1 if stored is None else stored.shape[1]
    if n_samples > known:
        more = "only means were stored: pass `store_samples=True` to `scgenot.tl.transport`, or the model here"
        raise ValueError(
            f"`n_samples`={n_samples}, but the result {key!r} has {known}"
            + (f"; {more}." if stored is None else ". Ask for fewer, or pass the model.")
        )
    taken = adata.obsm[key][rows][:, None] if stored is None else stored[rows][:, :n_samples]
    column = params.get("population_key")
    name = params.get("condition", params["target"])
    category: Any = str(name)
    own = in_memory(adata.obs)
    if column in own:
        of_target = own[column][category_mask(own[column], name)]
        category = of_target.iloc[0] if len(of_target) else category
    told = {"condition": str(params["condition"])} if "condition" in params else {}
    every = np.repeat(rows, n_samples)
    obs = carried_over(own.iloc[every], column, category, told)
    return Drawn(np.asarray(taken, np.float32).reshape(len(every), -1), obs, every)
