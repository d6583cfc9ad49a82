"""What a trained model answers about source cells. Nothing here writes to an AnnData."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from scgenot._messages import check_count
from scgenot._rng import RNG
from scgenot.flow import GENOTSolver, ODEConfig, conditional_mean, conditional_variance, cosine_variance
from scgenot.model._persistence import cost_name
from scgenot.model._populations import PopulationSpec, read_representation, select_source_rows


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the samples of some source cells say.

    Attributes
    ----------
    rows
        Rows of these cells in the AnnData.
    mean
        Mean of the samples of each cell.
    cos_var
        Variance of the cosine between a sample and the mean sample.
    variance
        Variance of the samples, summed over features, in squared units of the target representation.
    samples
        The samples, if they were to be kept.
    """

    rows: Int[np.ndarray, " n"]
    mean: Float[np.ndarray, "n d"]
    cos_var: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]
    samples: Float[np.ndarray, "n s d"] | None


class QueriesMixin:
    """Getters of a model that has a solver and knows where its cells are."""

    _solver: GENOTSolver
    _spec: PopulationSpec

    def sample(
        self,
        adata: AnnData | None = None,
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
            Cells with the source representation; the model's own AnnData if ``None``. It need not be set up, is not
            changed, and may be a view.
        indices
            Which cells, as rows or as a boolean mask. By default the source cells in their order, or all cells where
            `adata` has no population column.
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
        adata: AnnData | None = None,
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
        mean, cos_var, variance = np.empty((n, d), np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
        samples = np.empty((n, n_samples, d), np.float32) if keep_samples else None
        for place, block in self._blocks(cells, rows, n_samples, batch_size, rng, ode):
            mean[place] = conditional_mean(block)
            cos_var[place] = cosine_variance(block, cells[place] if displacement else None)
            variance[place] = conditional_variance(block).sum(axis=1)
            if samples is not None:
                samples[place] = block
        return Summary(rows, mean, cos_var, variance, samples)

    def get_transported_mean(
        self,
        adata: AnnData | None = None,
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
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 30,
        batch_size: int | None = None,
        rng: RNG = 0,
        ode: ODEConfig | None = None,
        displacement: bool = False,
    ) -> pd.DataFrame:
        """Return how uncertain the target of each source cell is.

        Parameters and exceptions are those of :meth:`sample`, and:

        displacement
            Take directions from the source cell instead of from zero. Needs one space for both populations.

        Returns
        -------
        One row a cell, named as in ``adata.obs_names``:

        ``cos_var``
            Variance over samples of the cosine between a sample and the mean sample, in [0, 1] (Klein et al. 2024).
        ``variance``
            Variance of the samples summed over features, in squared units of the target representation.
        """
        arguments = {"indices": indices, "n_samples": n_samples, "batch_size": batch_size, "rng": rng, "ode": ode}
        found = self.summarize(adata, **arguments, displacement=displacement)
        names = self._some_adata(adata).obs_names[found.rows]
        return pd.DataFrame({"cos_var": found.cos_var, "variance": found.variance}, index=names)

    def describe(self) -> dict[str, str | float | int]:
        """Return what the model maps and how, in plain values that an AnnData can store."""
        spec, config = self._spec, self._coupling_config
        return {
            "population_key": spec.population_key,
            "source": str(spec.source),
            "target": str(spec.target),
            "source_rep": spec.source_rep,
            "target_rep": spec.target_rep,
            "problem": self._problem,
            "coupling": self._coupling_kind,
            "cost": cost_name(config.cost),
            "epsilon": float(config.epsilon),
            "tau_source": float(config.tau_source),
            "tau_target": float(config.tau_target),
        }

    def _some_adata(self, adata: AnnData | None) -> AnnData:
        if adata is None:
            adata = self.adata
        if adata is None:
            raise ValueError("this model was loaded without data. Pass `adata` with the cells that you want to map.")
        return adata

    def _source_cells(self, adata: AnnData | None, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and representation of the cells that are asked for."""
        self._check_if_trained(
            warn=False, message="this model is not trained: it has nothing to sample from. Call `model.train()` first."
        )
        adata = self._some_adata(adata)
        rep = self._spec.source_rep
        rows = select_source_rows(adata, self._spec, indices)
        if len(rows) == 0:
            raise ValueError(
                f"no cells to map: adata.obs[{self._spec.population_key!r}] has no cell {self._spec.source!r}. "
                "Name the cells with `indices`."
            )
        cells = read_representation(adata, rep, rows)
        if cells.shape[1] != self._solver.source_dim:
            raise ValueError(
                f"the model was trained with {self._solver.source_dim} features in {rep!r}, this adata has "
                f"{cells.shape[1]}. Compute the representation as for the training data, on the same features."
            )
        if rep == "X":
            self._check_var_names(adata)
        return rows, cells

    def _check_var_names(self, adata: AnnData) -> None:
        expected = self._var_names
        if expected is not None and list(adata.var_names) != expected:
            missing = [name for name in expected if name not in adata.var_names]
            raise ValueError(
                f"adata.var_names are not those of training, in order ({len(missing)} are missing). "
                "Use `adata[:, model.var_names].copy()`."
            )

    def _blocks(self, cells, rows, n_samples, batch_size, rng, ode) -> Iterator[tuple[slice, np.ndarray]]:
        if batch_size is not None:
            check_count("batch_size", batch_size)
            batch_size = batch_size * n_samples
        return self._solver.sample_blocks(rng, cells, n_samples, ode=ode, cell_ids=rows, rows=batch_size)
