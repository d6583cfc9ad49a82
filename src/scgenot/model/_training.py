"""Training a model from its AnnData: split, couple, fit, and keep what happened."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any, TypeVar

import jax
import numpy as np
import pandas as pd

from scgenot._messages import check_count, did_you_mean
from scgenot._rng import RNG, as_key
from scgenot.coupling import Coupling, Diagnostics, solve_coupling
from scgenot.flow import GENOTSolver, HeldOut, TrainConfig
from scgenot.model._populations import Population, read_population

Config = TypeVar("Config")
_FEWEST_TRAINING = 2


def with_options(config: Config, options: dict[str, Any], caller: str) -> Config:
    """Return the frozen config with some fields replaced; a misspelt field gets an answer that names the closest."""
    known = [field.name for field in dataclasses.fields(config)]
    for name in options:
        if name not in known:
            raise TypeError(f"{caller}() has no argument {name!r}.{did_you_mean(name, known)}")
    return dataclasses.replace(config, **options)


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
            Share of the cells of each population that is held out, in [0, 1).
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
        if max_epochs is not None and max_steps is not None:
            raise ValueError(f"give `max_epochs` or `max_steps`, not both (got {max_epochs!r} and {max_steps!r}).")
        if not 0 <= validation_size < 1:
            raise ValueError(f"`validation_size` must lie in [0, 1), got {validation_size!r}. 0.1 holds out a tenth.")
        if early_stopping and validation_size == 0:
            raise ValueError("`early_stopping` needs held-out cells, got `validation_size`=0. Use, for example, 0.1.")
        check_count("batch_size", batch_size)
        if max_epochs is not None:
            check_count("max_epochs", max_epochs)
        split_key, solve_key, fit_key = jax.random.split(as_key(rng), 3)
        split_rng = np.random.default_rng(np.asarray(jax.random.key_data(split_key)))
        source_train, source_held = _split(split_rng, len(source.rows), validation_size)
        target_train, target_held = _split(split_rng, len(target.rows), validation_size)
        if max_epochs is not None:
            max_steps = max_epochs * math.ceil(len(source_train) / batch_size)
        options = {"batch_size": batch_size, "learning_rate": learning_rate, "early_stopping": early_stopping}
        options |= {} if max_steps is None else {"max_steps": max_steps}
        config = with_options(TrainConfig(), options | train_options, "train")
        coupling = self._couple(solve_key, source, target, source_train, target_train)
        held_out = None
        if len(source_held) and len(target_held):
            held_out = HeldOut(source.cells[source_held], target.cells[target_held])
        solver, result, _ = GENOTSolver.fit(
            fit_key,
            source.cells[source_train],
            target.cells[target_train],
            coupling=coupling,
            flow_config=self._solver.config,
            train_config=config,
            held_out=held_out,
            progress_bar=progress_bar,
        )
        if result.steps == 0:
            warnings.warn(
                f"Training ended before its first check ({result.stopped}); the model is left as it was.",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        # Only now is anything kept: a call that fails leaves the model as it was.
        self._solver = solver
        self._coupling_diagnostics = _summary_rows(coupling.diagnostics)
        self.history_ = _history(result.history)
        self.train_indices_ = np.sort(np.concatenate([source.rows[source_train], target.rows[target_train]]))
        self.validation_indices_ = np.sort(np.concatenate([source.rows[source_held], target.rows[target_held]]))
        self.steps_, self.stopped_ = result.steps, result.stopped
        self.is_trained_ = True

    def coupling_summary(self) -> pd.DataFrame:
        """Return how solving for the coupling went, one row a start of the solver.

        Returns
        -------
        Columns as in :class:`scgenot.coupling.Diagnostics`: objective, scale of the cost, epsilon, iterations,
        marginal violation, mass, effective number of targets a source cell, converged or not.

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
        for side in ("source", "target"):
            population = read_population(self.adata, self._spec, side)
            expected = self.summary_stats[f"n_{side}_cells"], getattr(self._solver, f"{side}_dim")
            if population.cells.shape != expected:
                raise ValueError(
                    f"adata was changed after setup: the {side} population has shape {population.cells.shape}, it "
                    f"had {expected}. Call `setup_anndata` again and create a new model."
                )
            found.append(population)
        return found[0], found[1]

    def _couple(self, key, source: Population, target: Population, source_train, target_train) -> Coupling:
        def of(population: Population, some: np.ndarray) -> np.ndarray | None:
            return None if population.weights is None else population.weights[some]

        return solve_coupling(
            key,
            source.cells[source_train],
            target.cells[target_train],
            source_weights=of(source, source_train),
            target_weights=of(target, target_train),
            problem=self._problem,
            kind=self._coupling_kind,
            config=self._coupling_config,
        )


def _split(rng: np.random.Generator, n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return places of training and held-out cells; at least two are left for training."""
    held = min(int(round(share * n)), n - _FEWEST_TRAINING)
    order = rng.permutation(n)
    return np.sort(order[held:]), np.sort(order[:held])


def _summary_rows(diagnostics: Diagnostics) -> list[dict[str, Any]]:
    """Return one row a start; a linear problem has one optimum and one row."""
    whole = dataclasses.asdict(diagnostics)
    return [whole | start for start in whole.pop("starts")] or [whole]


def _history(recorded: dict[str, tuple[list[int], list[float]]]) -> dict[str, pd.DataFrame]:
    return {
        name: pd.DataFrame({name: values}, index=pd.Index(steps, name="step"))
        for name, (steps, values) in recorded.items()
    }
