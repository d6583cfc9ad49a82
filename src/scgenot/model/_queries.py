"""What a trained model answers about source cells. Nothing here writes to an AnnData."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from scgenot._messages import check_count
from scgenot._rng import RNG, as_key
from scgenot.data import Data, read_population
from scgenot.flow import (
    ODEConfig,
    TargetRegions,
    conditional_mean,
    conditional_variance,
    cosine_variance,
    label_uncertainty,
    reference_rows,
)
from scgenot.methods import GENOTSolver
from scgenot.model._labels import label_entropy


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the samples of some source cells say.

    Attributes
    ----------
    rows
        Rows of these cells in the AnnData.
    mean
        Mean of the samples of each cell.
    uncertainty
        How much of the target population the samples of each cell are spread over, from 0 to 1.
    cos_var
        Variance of the cosine between a sample and the mean sample.
    variance
        Variance of the samples, summed over features, in squared units of the target representation.
    samples
        The samples, if they were to be kept.
    """

    rows: Int[np.ndarray, " n"]
    mean: Float[np.ndarray, "n d"]
    uncertainty: Float[np.ndarray, " n"]
    cos_var: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]
    samples: Float[np.ndarray, "n s d"] | None


class QueriesMixin:
    """Getters of a model that has a solver and knows where its cells are."""

    _solver: GENOTSolver

    def sample(
        self,
        adata: Data | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 30,
        batch_size: int | None = None,
        rng: RNG = 0,
        ode: ODEConfig | None = None,
    ) -> Float[np.ndarray, "n s d"]:
        """Draw target cells for source cells, from the learned conditional laws.

        Parameters
        ----------
        adata
            Cells with the source representation; the model's own data if ``None``. It need not be set up, is not
            changed, and may be a view. For a model of a MuData also the AnnData of the source modality alone.
        indices
            Which cells, as rows (of the source modality) or as a boolean mask. By default the source cells in their
            order, or all cells where `adata` has no population column.
        n_samples
            Samples a cell.
        batch_size
            Cells at once; memory is in proportion to it. By default chosen for the device.
        rng
            Seed or generator. With the same seed, a cell (its row in `adata`) gets the same samples, whichever other
            cells are asked for.
        ode
            How the flow's equation is solved; 16 midpoint steps by default.

        Returns
        -------
        Array of shape (cells, `n_samples`, target features), in units of the target representation.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError, ValueError
            If the representation is missing, not finite, or of another width than in training.
        """
        rows, cells = self._source_cells(adata, indices)
        check_count("n_samples", n_samples)
        samples = np.empty((len(rows), n_samples, self._solver.target_dim), np.float32)
        for place, block in self._blocks(cells, rows, n_samples, batch_size, rng, ode):
            samples[place] = block
        return samples

    def summarize(
        self,
        adata: Data | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 30,
        batch_size: int | None = None,
        rng: RNG = 0,
        ode: ODEConfig | None = None,
        displacement: bool = False,
        keep_samples: bool = False,
    ) -> Summary:
        """Draw samples once and return all that they say: mean, uncertainty, and the samples if wanted.

        Parameters are those of :meth:`sample`; `displacement` as in :meth:`get_uncertainty`. Unless `keep_samples`,
        samples are summarised block by block and never held together.
        """
        rows, cells = self._source_cells(adata, indices)
        check_count("n_samples", n_samples)
        if displacement and self._solver.source_dim != self._solver.target_dim:
            raise ValueError(
                "`displacement=True` needs source and target in one space, got "
                f"{self._solver.source_dim} and {self._solver.target_dim} features. Leave it False."
            )
        n, d = len(rows), self._solver.target_dim
        mean = np.empty((n, d), np.float32)
        uncertainty, cos_var, variance = (np.empty(n, np.float32) for _ in range(3))
        regions = self._target_regions()
        samples = np.empty((n, n_samples, d), np.float32) if keep_samples else None
        for place, block in self._blocks(cells, rows, n_samples, batch_size, rng, ode):
            mean[place] = conditional_mean(block)
            uncertainty[place] = np.nan if regions is None else regions.entropy(block)
            cos_var[place] = cosine_variance(block, cells[place] if displacement else None)
            variance[place] = conditional_variance(block).sum(axis=1)
            if samples is not None:
                samples[place] = block
        return Summary(rows, mean, uncertainty, cos_var, variance, samples)

    def get_transported_mean(
        self,
        adata: Data | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 30,
        batch_size: int | None = None,
        rng: RNG = 0,
        ode: ODEConfig | None = None,
    ) -> Float[np.ndarray, "n d"]:
        """Return the mean of the samples of each source cell, the barycentric projection of the learned plan.

        Parameters and exceptions are those of :meth:`sample`.

        Returns
        -------
        Array of shape (cells, target features), in units of the target representation.
        """
        arguments = {"indices": indices, "n_samples": n_samples, "batch_size": batch_size, "rng": rng, "ode": ode}
        return self.summarize(adata, **arguments).mean

    def get_uncertainty(
        self,
        adata: Data | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 30,
        batch_size: int | None = None,
        rng: RNG = 0,
        ode: ODEConfig | None = None,
        displacement: bool = False,
        label_key: str | None = None,
    ) -> pd.DataFrame:
        """Return how uncertain the target of each source cell is.

        Parameters and exceptions are those of :meth:`sample`, and:

        displacement
            Take directions from the source cell instead of from zero. Needs one space for both populations.
        label_key
            Column of ``obs`` with labels of the target cells, for the entropy.

        Returns
        -------
        One row a cell, named as in ``adata.obs_names``:

        ``uncertainty``
            How evenly the samples are spread over regions of the target population, from 0 (all in one) to 1 (over all):
            see :class:`scgenot.flow.TargetRegions`. The same regions measure all cells, so that cells of different groups
            can be compared, at an equal number of samples.
        ``cos_var``
            Variance over samples of the cosine between a sample and the mean sample (Klein et al. 2024). It is measured
            from the origin of the target representation: cells whose mean lies near it look unsure, so it does not compare
            groups.
        ``variance``
            Variance of the samples summed over features, in squared units of the target representation. Large where the
            target population is spread out.
        ``entropy``
            With `label_key`, the entropy in nats of the labels as in :meth:`get_label_probabilities`.
        ``label_uncertainty``
            With `label_key`, 1 minus the largest probability of a label after the sizes of labels are levelled out
            (:func:`scgenot.flow.label_uncertainty`): with labels, the best measure of whether a cell goes to the wrong one.

        All but the two of labels are NaN for `n_samples=1`: one sample does not tell a spread. `uncertainty` is also NaN
        for a model that an earlier version saved and that is loaded without target cells.
        """
        arguments = {"indices": indices, "n_samples": n_samples, "batch_size": batch_size, "rng": rng, "ode": ode}
        arguments["rng"] = as_key(rng)  # A generator would give two different sets of samples.
        found = self.summarize(adata, **arguments, displacement=displacement)
        names = self.source_adata(adata).obs_names[found.rows]
        columns = {"uncertainty": found.uncertainty, "cos_var": found.cos_var, "variance": found.variance}
        scores = pd.DataFrame(columns, index=names)
        if label_key is not None:
            probabilities = self.get_label_probabilities(label_key, adata, **arguments).to_numpy()
            scores["entropy"] = label_entropy(probabilities)
            scores["label_uncertainty"] = label_uncertainty(probabilities, self.label_frequencies(label_key, adata))
        return scores

    def _target_regions(self) -> TargetRegions | None:
        """Return the regions of the target population, made when they are first asked for; ``None`` if it is not known."""
        if self._reference is None and self.adata is not None and self.adata_manager is not None:
            # A model of before regions were saved, with its data.
            target = read_population(self.adata, self._spec.target).cells
            self._reference = target[reference_rows(len(target), np.random.default_rng(0))]
        if self._regions is None and self._reference is not None:
            self._regions = TargetRegions.of(self._reference)
        return self._regions

    def _blocks(self, cells, rows, n_samples, batch_size, rng, ode) -> Iterator[tuple[slice, np.ndarray]]:
        if batch_size is not None:
            check_count("batch_size", batch_size)
            batch_size = batch_size * n_samples
        return self._solver.sample_blocks(rng, cells, n_samples, ode=ode, cell_ids=rows, rows=batch_size)
