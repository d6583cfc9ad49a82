"""Labels of target cells, carried to source cells through their samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors

from scgenot._messages import check_count
from scgenot._rng import RNG
from scgenot.data import Data, obs_column, population_rows, read_representation, select_rows
from scgenot.flow import ODEConfig
from scgenot.flow._summaries import entropy, shares

label_entropy = entropy


class LabelsMixin:
    """``get_label_probabilities``."""

    def get_label_probabilities(
        self,
        label_key: str,
        adata: Data | None = None,
        *,
        target: Data | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 30,
        n_neighbors: int = 5,
        batch_size: int | None = None,
        rng: RNG = 0,
        ode: ODEConfig | None = None,
    ) -> pd.DataFrame:
        """Return how probable each label of the target cells is for each source cell.

        Each sample of a source cell asks its nearest target cells, in the target representation; their shares of the
        labels are averaged over the samples. Samples are drawn and asked block by block.

        Parameters
        ----------
        label_key
            Column of ``obs`` with labels of the target cells. Target cells without one are not asked.
        adata
            As in :meth:`sample`.
        target
            Where labelled target cells are: an AnnData or MuData with the target representation. By default the model's
            own data, or `adata` if it has none.
        indices, n_samples, batch_size, rng, ode
            As in :meth:`sample`.
        n_neighbors
            Target cells that each sample asks.

        Returns
        -------
        One row a source cell, named as in ``obs_names``; one column a label that occurs, in the order of its categories.
        Rows sum to 1.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            As :meth:`sample`; also if no target cell has a label, or fewer than `n_neighbors` have.
        """
        rows, cells = self._source_cells(adata, indices)
        check_count("n_samples", n_samples)
        check_count("n_neighbors", n_neighbors)
        points, codes, labels = self._labelled_targets(label_key, adata, target)
        if n_neighbors > len(points):
            raise ValueError(
                f"`n_neighbors` must be at most {len(points)}, the labelled target cells, got {n_neighbors}."
            )
        search = NearestNeighbors(n_neighbors=int(n_neighbors)).fit(points)
        found = np.empty((len(rows), len(labels)), np.float32)
        for place, block in self._blocks(cells, rows, n_samples, batch_size, rng, ode):
            nearest = search.kneighbors(block.reshape(-1, block.shape[-1]), return_distance=False)
            found[place] = shares(codes[nearest].reshape(len(block), -1), len(labels))
        return pd.DataFrame(found, index=self.source_adata(adata).obs_names[rows], columns=labels)

    def label_frequencies(
        self, label_key: str, adata: Data | None = None, *, target: Data | None = None
    ) -> Float[np.ndarray, " l"]:
        """Return the share of each label among labelled target cells, as columns of :meth:`get_label_probabilities`."""
        _, codes, labels = self._labelled_targets(label_key, adata, target)
        return np.bincount(codes, minlength=len(labels)) / len(codes)

    def _labelled_targets(
        self, label_key: str, adata: Data | None, target: Data | None
    ) -> tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " m"], pd.Index]:
        """Return target cells that have a label, the number of the label of each, and the labels."""
        place = self._spec.target
        if target is None:
            # A model with source cells only has no target cells, even if it has data.
            target = self.adata if self.adata_manager is not None else adata
            if self._spec.source.modality != place.modality and isinstance(target, AnnData):
                target = None
        if target is None:
            raise ValueError(
                "this model was loaded without target cells. Pass `target`, an AnnData or MuData with labelled target "
                "cells."
            )
        if target is self.adata or target is adata:
            rows = population_rows(target, place)
        else:
            rows = select_rows(target, place, None)
        labels = obs_column(target, place, label_key, "label_key").iloc[rows]
        rows, labels = rows[labels.notna().to_numpy()], labels[labels.notna().to_numpy()].astype("category")
        if len(rows) == 0:
            raise ValueError(f"`label_key`={label_key!r} has no label for any of the target cells.")
        labels = labels.cat.remove_unused_categories()
        points = read_representation(place.cells(target), place.rep, rows, "target_rep", place)
        if points.shape[1] != self._solver.target_dim:
            raise ValueError(
                f"the model maps to {self._solver.target_dim} features, the target cells have {points.shape[1]} in "
                f"{place.rep!r}. Compute the representation as for the training data."
            )
        return points, labels.cat.codes.to_numpy(), labels.cat.categories
