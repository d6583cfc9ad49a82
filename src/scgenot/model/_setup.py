"""Saying where the two populations lie: in an AnnData, or in the modalities of a MuData."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from anndata import AnnData
from mudata import MuData

from scgenot.data import Data, PopulationSpec
from scgenot.model._scvi import manager_for


class SetupMixin:
    """``setup_anndata`` and ``setup_mudata``."""

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        population_key: str,
        source: Hashable,
        target: Hashable,
        source_rep: str = "X_pca",
        target_rep: str | None = None,
        shared_rep: str | None = None,
        weights_key: str | None = None,
        pairs_key: str | None = None,
        source_distances: str | None = None,
        target_distances: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Say where the two populations lie in an AnnData. Only ``adata.uns`` gets two identifiers of scvi-tools.

        Each population is read in its own rows only: other rows of its representation may hold NaN.

        Parameters
        ----------
        adata
            Both populations. Not a view.
        population_key
            Column of ``adata.obs`` that tells populations apart.
        source, target
            Its two categories: from where and to where.
        source_rep
            Key of ``adata.obsm``, or ``"X"``: the representation of source cells.
        target_rep
            The same for target cells; ``None`` if both lie in one space.
        shared_rep
            Key of ``adata.obsm`` with features that both populations have: the problem is fused then.
        weights_key
            Column of ``adata.obs`` with prior weights of the cells (growth, sampling); uniform if ``None``.
        pairs_key
            Column of ``adata.obs`` that names known partners: a source and a target cell with the same value are one
            pair; a missing value says nothing. The problem is fused then. Instead of `shared_rep`.
        source_distances, target_distances
            Keys of ``adata.obsp`` with precomputed costs within the source and the target population, used in place of
            `cost` (which may differ from distances in the representations that are mapped). In a linear problem the
            one matrix of `source_distances` holds the costs between source and target cells.

        Raises
        ------
        KeyError
            If a key is missing.
        ValueError
            If `adata` is a view, a category is absent or has fewer than two cells, values are not finite, weights
            are negative or all zero, no partners are found, or `shared_rep` and `pairs_key` are both given.
        """
        arguments = dict(locals())
        del arguments["kwargs"], arguments["cls"]
        if not isinstance(adata, AnnData):
            raise TypeError(f"`adata` must be an AnnData, got {type(adata).__name__}. A MuData has `setup_mudata`.")
        if adata.is_view:
            raise ValueError("`adata` is a view of another AnnData. Call `adata = adata.copy()` first.")
        if source == target:
            raise ValueError(f"`source` and `target` must be two categories, got {source!r} for both.")
        cls._set_up(adata, arguments, kwargs, "setup_anndata")

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        *,
        source_modality: str,
        target_modality: str,
        source_rep: str = "X_pca",
        target_rep: str = "X_pca",
        shared_rep: str | None = None,
        weights_key: str | None = None,
        pairs_key: str | None = None,
        source_distances: str | None = None,
        target_distances: str | None = None,
        population_key: str | None = None,
        source: Hashable | None = None,
        target: Hashable | None = None,
        **kwargs: Any,
    ) -> None:
        """Say which modalities of a MuData are mapped. Only ``mdata.uns`` gets two identifiers of scvi-tools.

        Cells are taken as unpaired, even where both modalities have them under one name; give `pairs_key` to say which
        pairs are known.

        Parameters
        ----------
        mdata
            Both modalities. Neither it nor they are views.
        source_modality, target_modality
            Keys of ``mdata.mod``: from where and to where.
        source_rep, target_rep
            Keys of ``obsm`` of these modalities, or ``"X"``. The same key in two modalities is not one space.
        shared_rep
            Key of ``obsm`` of both modalities with features that both have: the problem is fused then.
        weights_key
            Column of ``obs`` with prior weights of the cells; uniform if ``None``. Columns are looked for in the
            modality, then in ``mdata.obs``.
        pairs_key
            Column of ``obs`` that names known partners: a source and a target cell with the same value are one pair; a
            missing value says nothing. The problem is fused then. Instead of `shared_rep`.
        source_distances, target_distances
            Keys of ``obsp`` of the two modalities with precomputed costs within them, used in place of `cost`.
        population_key, source, target
            Column of ``obs``, and its categories, to take only some cells of each modality; all if ``None``.

        Raises
        ------
        KeyError
            If a modality or a key is missing; the message names the closest.
        ValueError
            As :meth:`setup_anndata`.
        """
        arguments = dict(locals())
        del arguments["kwargs"], arguments["cls"]
        if not isinstance(mdata, MuData):
            raise TypeError(f"`mdata` must be a MuData, got {type(mdata).__name__}. An AnnData has `setup_anndata`.")
        if mdata.is_view:
            raise ValueError("`mdata` is a view of another MuData. Call `mdata = mdata.copy()` first.")
        if (population_key is None) != (source is None) or (source is None) != (target is None):
            raise ValueError(
                "`population_key`, `source` and `target` go together, got "
                f"{population_key!r}, {source!r} and {target!r}. Give all three, or none to take all cells."
            )
        if (source_modality, source) == (target_modality, target):
            raise ValueError(
                f"`source_modality` and `target_modality` must be two modalities, got {source_modality!r} for both. "
                "Within one modality, tell populations apart with `population_key`, `source` and `target`."
            )
        spec = PopulationSpec.from_arguments(arguments)
        for place in (spec.source, spec.target):
            if place.cells(mdata).is_view:
                name = place.modality
                raise ValueError(
                    f"the modality {name!r} is a view of another AnnData. Build the MuData from copies: "
                    f"MuData({{{name!r}: adata.copy(), ...}})."
                )
        cls._set_up(mdata, arguments, kwargs, "setup_mudata")

    @classmethod
    def _set_up(cls, data: Data, arguments: dict[str, Any], kwargs: dict[str, Any], method: str) -> None:
        source_registry = kwargs.pop("source_registry", None)
        if kwargs:
            raise TypeError(f"{method}() has no argument {next(iter(kwargs))!r}.")
        if arguments["shared_rep"] is not None and arguments["pairs_key"] is not None:
            raise ValueError(
                f"give `shared_rep` or `pairs_key`, not both (got {arguments['shared_rep']!r} and "
                f"{arguments['pairs_key']!r})."
            )
        registry_arguments = cls._get_setup_method_args(cls=cls, **arguments)
        manager = manager_for(PopulationSpec.from_arguments(arguments), registry_arguments)
        manager.register_fields(data, source_registry)
        cls.register_manager(manager)
