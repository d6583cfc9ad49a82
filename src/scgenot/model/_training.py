"""Training a model from its AnnData: split, couple, fit, and keep what happened."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import jax
import numpy as np
import pandas as pd

from scgenot._messages import check_count
from scgenot._rng import RNG, as_key
from scgenot.coupling import Coupling, Diagnostics, solve_coupling
from scgenot.data import CostArrays, Population, Split, cost_arrays, known_pairs, read_population, split_cells
from scgenot.flow import HeldOut, TrainConfig, reference_rows
from scgenot.methods import GENOTSolver
from scgenot.model._problem import with_options


class TrainingMixin:
    """``train``, ``history`` and ``coupling_summary``."""

    def train(
        self,
        max_epochs: int | None = None,
        *,
        max_steps: int | None = None,
        batch_size: int = 1024,
        validation_size: float = 0.1,
        early_stopping: bool = False,
        learning_rate: float = 1e-3,
        progress_bar: bool = True,
        rng: RNG = 0,
        **train_options: Any,
    ) -> None:
        """Couple the two populations and learn where source cells go.

        Each call starts anew. An interrupted or diverging training leaves the last good weights.

        Parameters
        ----------
        max_epochs
            Passes over the training source cells; instead of `max_steps`.
        max_steps
            Optimisation steps; 3000 if neither is given.
        batch_size
            Pairs of cells a step. Not bounded by the number of cells: each pair has noise and a time of its own.
        validation_size
            Share of the cells of each population that is held out, in [0, 1). Known partners are held out together as
            far as possible.
        early_stopping
            Stop when the validation loss has not improved for `patience` checks, and keep the best weights.
        learning_rate
            Peak learning rate.
        progress_bar
            Whether to show one.
        rng
            Seed or generator: same seed, same machine, same weights.
        train_options
            Any other field of :class:`scgenot.flow.TrainConfig`, such as ``ema_decay`` or ``patience``.

        Raises
        ------
        ValueError
            If a value is not allowed, or the AnnData was changed so that it does not fit any more.
        """
        source, target = self._populations()
        if not 0 <= validation_size < 1:
            raise ValueError(f"`validation_size` must lie in [0, 1), got {validation_size!r}. 0.1 holds out a tenth.")
        split_key, solve_key, fit_key = jax.random.split(as_key(rng), 3)
        split_rng = np.random.default_rng(np.asarray(jax.random.key_data(split_key)))
        split = split_cells(split_rng, source, target, validation_size)
        options = {"batch_size": batch_size, "learning_rate": learning_rate, "early_stopping": early_stopping}
        config = self._train_config(split, max_epochs, max_steps, options | train_options)
        coupling = self._couple(solve_key, source, target, split)
        self._learn(fit_key, coupling, split, config, progress_bar, source, target)

    def _train_config(
        self, split: Split, max_epochs: int | None, max_steps: int | None, options: dict[str, Any]
    ) -> TrainConfig:
        if max_epochs is not None and max_steps is not None:
            raise ValueError(f"give `max_epochs` or `max_steps`, not both (got {max_epochs!r} and {max_steps!r}).")
        if options.get("early_stopping") and not split.holds_out:
            raise ValueError("`early_stopping` needs held-out cells, got `validation_size`=0. Use, for example, 0.1.")
        batch_size = options.get("batch_size", TrainConfig().batch_size)
        check_count("batch_size", batch_size)
        if max_epochs is not None:
            check_count("max_epochs", max_epochs)
            max_steps = max_epochs * math.ceil(len(split.source_train) / batch_size)
        options |= {} if max_steps is None else {"max_steps": max_steps}
        return with_options(TrainConfig(), options, "train")

    def _learn(
        self,
        key: jax.Array,
        coupling: Coupling,
        split: Split,
        config: TrainConfig,
        progress_bar: bool,
        source: Population,
        target: Population,
    ) -> None:
        """Fit the flow to a coupling of the training cells, and keep all that came of it."""
        solver, result, _ = GENOTSolver.fit(
            key,
            source.cells[split.source_train],
            target.cells[split.target_train],
            coupling=coupling,
            flow_config=self._solver.config,
            train_config=config,
            held_out=self._held_out(source, target, split) if split.holds_out else None,
            progress_bar=progress_bar,
        )
        if result.steps == 0:
            warnings.warn(
                f"Training ended before its first check ({result.stopped}); the model is left as it was.",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        # Only now is anything kept: a call that fails leaves the model as it was.
        self._solver = solver
        self.coupling_, self._split = coupling, split
        trained_on = target.cells[split.target_train]
        self._reference = trained_on[reference_rows(len(trained_on), np.random.default_rng(0))]
        self._regions = None
        self._coupling_diagnostics = _summary_rows(coupling.diagnostics)
        self.history_ = _history(result.history)
        self.train_indices_ = self._rows(source, target, split.source_train, split.target_train)
        self.validation_indices_ = self._rows(source, target, split.source_held, split.target_held)
        self.steps_, self.stopped_ = result.steps, result.stopped
        self.is_trained_ = True

    def coupling_summary(self) -> pd.DataFrame:
        """Return how solving for the coupling went, one row a start of the solver.

        Returns
        -------
        Columns as in :class:`scgenot.coupling.Diagnostics`: objective, scale of the cost, epsilon, iterations,
        marginal violation, mass, effective number of targets a source cell, converged or not. For quadratic problems also as
        in :class:`scgenot.coupling.StartReport`; objectives of starts that were not followed to the end are rough ones.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        """
        if not self._coupling_diagnostics:
            raise RuntimeError("there is no coupling yet. Call `model.train()` first.")
        table = pd.DataFrame(self._coupling_diagnostics)
        return table.set_index("start") if "start" in table else table.rename_axis("start")

    def _populations(self) -> tuple[Population, Population]:
        """Read both populations as they are now; raise if they are not those that were set up."""
        if self.adata is None or self.adata_manager is None:
            raise ValueError(
                "this model has no AnnData with both populations. Load it with `adata`, or set up an AnnData and "
                "create a new model."
            )
        found = []
        for place in (self._spec.source, self._spec.target):
            population = read_population(self.adata, place)
            side = place.side
            expected = self.summary_stats[f"n_{side}_cells"], getattr(self._solver, f"{side}_dim")
            if population.cells.shape != expected:
                method = self.registry_["setup_method_name"]
                raise ValueError(
                    f"adata was changed after setup: the {side} population has shape {population.cells.shape}, it "
                    f"had {expected}. Call `{method}` again and create a new model."
                )
            found.append(population)
        return found[0], found[1]

    def _couple(self, key, source: Population, target: Population, split: Split) -> Coupling:
        def of(population: Population, some: np.ndarray) -> np.ndarray | None:
            return None if population.weights is None else population.weights[some]

        train = split.source_train, split.target_train
        arrays = self._cost_arrays(source, target, train, train)
        ties = {"shared": arrays.shared} if arrays.shared is not None else {}
        if self._problem == "fused" and not ties:
            pairs = known_pairs(source, target, *train)
            if len(pairs) == 0:
                raise ValueError(
                    "none of the known pairs is among the training cells. Use a smaller `validation_size`, or 0."
                )
            ties = {"pairs": pairs}
        return solve_coupling(
            key,
            arrays.source,
            arrays.target,
            **ties,
            source_weights=of(source, split.source_train),
            target_weights=of(target, split.target_train),
            problem=self._problem,
            kind=self._coupling_kind,
            config=self._coupling_config,
        )

    def _held_out(self, source: Population, target: Population, split: Split) -> HeldOut:
        train, held = (split.source_train, split.target_train), (split.source_held, split.target_held)
        arrays = self._cost_arrays(source, target, held, train)
        return HeldOut(
            source.cells[split.source_held],
            target.cells[split.target_held],
            source_costs=arrays.source if arrays.given[0] else None,
            target_costs=arrays.target if arrays.given[1] else None,
            shared=arrays.shared,
        )

    def _cost_arrays(self, source: Population, target: Population, cells, train) -> CostArrays:
        return cost_arrays(self.adata, self._spec, self._problem, (source, target), cells, train)

    def _rows(self, source: Population, target: Population, source_some, target_some) -> Any:
        """Return rows of the AnnData, or of each modality: rows of two objects cannot stand in one array."""
        chosen = {"source": source.rows[source_some], "target": target.rows[target_some]}
        if self._spec.source.modality != self._spec.target.modality:
            return chosen
        return np.sort(np.concatenate(list(chosen.values())))


def _summary_rows(diagnostics: Diagnostics) -> list[dict[str, Any]]:
    """Return one row a start; a linear problem has one optimum and one row."""
    whole = dataclasses.asdict(diagnostics)
    rows = [whole | start for start in whole.pop("starts")] or [whole]
    # The best start may have converged over its landmarks, and the coupling of all cells not.
    rows[0]["converged"] = whole["converged"]
    return rows


def _history(recorded: dict[str, tuple[list[int], list[float]]]) -> dict[str, pd.DataFrame]:
    return {
        name: pd.DataFrame({name: values}, index=pd.Index(steps, name="step"))
        for name, (steps, values) in recorded.items()
    }
