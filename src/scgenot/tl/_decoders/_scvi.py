"""Through the decoder of a trained model of scvi-tools, from its latent space."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from scgenot._messages import check_positive, did_you_mean, listed
from scgenot.tl._decoders._decoder import BoundDecoder, Decoder, Space

# Cells that the network decodes at once.
_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class SCVIDecoder(Decoder):
    """Decode latent cells with a trained :class:`scvi.model.SCVI`, or a model with the same modules: ``get_normalized_expression`` of given z.

    Each cell is decoded in the batch and with the covariates of the source cell that it comes from. Values are means of the model's
    count distribution: they have no noise of counting.

    Attributes
    ----------
    model
        The trained model whose latent space ``obsm`` holds.
    library_size
        What the expected frequencies of genes, which sum to 1, are multiplied with. ``None``: the mean counts of a cell that is as large as
        its source cell.
    log1p
        Whether to take ``log(1 + value)``, as :func:`scanpy.tl.rank_genes_groups` expects.
    transform_batch
        The batch to decode all cells in; ``None``: each in its own.

    Examples
    --------
    >>> scgenot.tl.decode(adata, model, decoder=scvi_model)  # doctest: +SKIP
    >>> scgenot.tl.decode(
    ...     adata, model, decoder=scgenot.tl.SCVIDecoder(scvi_model, transform_batch="a")
    ... )  # doctest: +SKIP
    """

    model: Any
    library_size: float | None = 1e4
    log1p: bool = True
    transform_batch: str | None = None

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        if self.library_size is not None:
            check_positive(
                "library_size", self.library_size, remedy="Leave it out for 10,000, as scanpy's workflow has."
            )

    @classmethod
    def of(cls, asked: Any) -> Decoder | None:
        """Take anything that looks like a model of scvi-tools."""
        return cls(asked) if hasattr(asked, "module") and hasattr(asked, "get_normalized_expression") else None

    def bind(self, space: Space) -> BoundDecoder:
        """Check that the model is trained, has such a latent space, and knows the cells.

        Raises
        ------
        RuntimeError
            If it is not trained.
        ValueError
            If its latent space has another width, source cells are not cells of this model, or there is no such batch.
        """
        name = type(self.model).__name__
        module = self.model.module
        if not getattr(self.model, "is_trained_", False):
            raise RuntimeError(f"`decoder` is a {name} that is not trained. Call its `train()` first.")
        missing = [one for one in ("inference", "generative", "_get_generative_input") if not hasattr(module, one)]
        if missing:
            raise ValueError(
                f"`decoder`: the module of {name} has no {listed(missing)}; only models with a decoder of given latent cells will do, "
                "such as scvi.model.SCVI."
            )
        width = getattr(module, "n_latent", None)
        if width != space.width:
            raise ValueError(
                f"`decoder`: the latent space of this {name} has {width} dimensions, but {space.rep!r} has {space.width}. Pass the "
                "model whose `get_latent_representation` it is."
            )
        if not space.one_space:
            # Source cells have neither counts nor a batch of this model: a cell of the target stands in.
            if self.transform_batch is None and self.model.summary_stats.get("n_batch", 1) > 1:
                raise ValueError(
                    "`decoder`: source cells are of another space and have no batch of this model. Choose one: "
                    "`scgenot.tl.SCVIDecoder(model, transform_batch=...)`."
                )
            if self.library_size is None:
                raise ValueError("`library_size=None` needs the counts of source cells, which are of another space.")
        return _BoundSCVI(space, pd.Index(_genes(self.model)), self, self._batch_code())

    def _batch_code(self) -> int | None:
        if self.transform_batch is None:
            return None
        state = self.model.adata_manager.get_state_registry("batch")
        batches = [str(one) for one in state.categorical_mapping]
        if str(self.transform_batch) not in batches:
            raise ValueError(
                f"`transform_batch`={self.transform_batch!r} is no batch of this model."
                f"{did_you_mean(self.transform_batch, batches)} There are: {listed(batches)}."
            )
        return batches.index(str(self.transform_batch))


@dataclasses.dataclass(frozen=True, eq=False)
class _BoundSCVI(BoundDecoder):
    space: Space
    genes: pd.Index
    options: SCVIDecoder
    batch: int | None

    def decode(self, values: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n g"]:
        rows = rows if self.space.one_space else np.zeros(len(rows), int)
        found = np.empty((len(values), len(self.genes)), np.float32)
        # The samples of a cell stand together: its counts are looked at once in a batch.
        for start in range(0, len(values), _BATCH):
            some = slice(start, start + _BATCH)
            found[some] = self._block(values[some], rows[some])
        if self.options.library_size is not None:
            found *= self.options.library_size
        return np.log1p(found) if self.options.log1p else found

    def describe(self) -> dict[str, Any]:
        options = self.options
        told = {"decoder": type(options.model).__name__, "log1p": options.log1p}
        told["library_size"] = "observed" if options.library_size is None else float(options.library_size)
        return told | ({} if options.transform_batch is None else {"transform_batch": str(options.transform_batch)})

    def _block(self, values: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n g"]:
        model = self.options.model
        module = model.module
        module.eval()
        cells, back = np.unique(rows, return_inverse=True)
        tensors = self._tensors(cells)
        tensors = {name: tensor[back] if tensor is not None else None for name, tensor in tensors.items()}
        outputs = module.inference(**module._get_inference_input(tensors))
        # Everything as scvi-tools has it for these cells, but the place.
        outputs["z"] = outputs["z"].detach().new_tensor(values)
        inputs = module._get_generative_input(tensors, outputs)
        if self.batch is not None:
            inputs["transform_batch"] = self.batch
        px = module.generative(**inputs)["px"]
        kind = "mu" if self.options.library_size is None else "scale"
        return px.get_normalized(kind).detach().cpu().numpy()

    def _tensors(self, rows: Int[np.ndarray, " n"]) -> dict[str, Any]:
        """Return what scvi-tools reads of some cells. They are copied: it writes its numbers of batches into what it is given."""
        model, adata = self.options.model, self.space.target
        part = _with_what_is_read(adata, rows)
        logger = logging.getLogger("scvi")
        level = logger.level
        try:
            # It tells of each block that its setup is transferred.
            logger.setLevel(logging.WARNING)
            part = model._validate_anndata(part)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"`decoder`: these cells are none that this {type(model).__name__} can read: {' '.join(str(error).split())[:300]} "
                "They need the genes, layer and columns that it was set up with."
            ) from error
        finally:
            logger.setLevel(level)
        return next(iter(model._make_data_loader(adata=part, indices=np.arange(len(rows)), batch_size=len(rows))))


def _with_what_is_read(adata: AnnData, rows: Int[np.ndarray, " n"]) -> AnnData:
    """Return a copy of some cells without other results, which may be large."""
    part = AnnData(X=None if adata.X is None else adata.X[rows], obs=adata.obs.iloc[rows].copy(), var=adata.var.copy())
    for name, layer in adata.layers.items():
        part.layers[name] = layer[rows]
    for name, value in adata.obsm.items():
        part.obsm[name] = value.iloc[rows] if isinstance(value, pd.DataFrame) else value[rows]
    return part


def _genes(model: Any) -> list[str]:
    return [str(name) for name in model.adata_manager.get_state_registry("X").column_names]
