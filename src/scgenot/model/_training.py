"""Training a model from its data: split, couple, learn, and keep what happened. `train` is a method of models."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd

from scgenot._devices import Devices, chosen_devices
from scgenot._messages import check_count
from scgenot._rng import RNG, as_key, keys
from scgenot._sampling import host_rng
from scgenot.coupling import Coupling, solve_blocks, solve_coupling
from scgenot.data import (
    ConditionEncoding,
    TransportData,
    blocks_among,
    cost_arrays,
    fingerprint,
    hold_out,
    read_transport,
    training_pairs,
    weights_among,
)
from scgenot.flow import HeldOut, TrainConfig, Unseen, reference_rows
from scgenot.methods import FitData, Method
from scgenot.model._cells import on_devices
from scgenot.model._conditions import known, settle, unseen_conditions
from scgenot.model._coupling_summary import summary_rows
from scgenot.model._outliers import reference_cells
from scgenot.model._problem import with_options
from scgenot.model._trained_on import TrainedOn

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

# What scvi-tools calls things that have another name here.
_OURS = {
    "train_size": "`validation_size`, the share that is held out (1 - train_size)",
    "plan_kwargs": "its entries themselves, such as `learning_rate` in place of plan_kwargs={'lr': ...}",
    "early_stopping_patience": "`patience`, in checks of `check_every` steps",
    "check_val_every_n_epoch": "`check_every`, in steps",
    "enable_progress_bar": "`progress_bar`",
    "lr": "`learning_rate`",
    "seed": "`rng`",
    "use_gpu": "`accelerator`",
}


def train(
    model: TransportModel,
    max_epochs: int | None = None,
    *,
    max_steps: int | None = None,
    batch_size: int = 1024,
    validation_size: float = 0.1,
    validation_conditions: str | Sequence[str] | pd.DataFrame | float | None = None,
    early_stopping: bool = False,
    learning_rate: float = 1e-3,
    accelerator: str = "auto",
    devices: int | str | Sequence[int] = "auto",
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
        far as possible. Where it rounds to no cell of one population, nothing is held out.
    validation_conditions
        Conditions that training does not see: names of ``model.conditions``, a data frame of some of its columns, or a share of
        them at random. How far predictions of them are from their cells, the unbiased energy distance, is followed in
        ``history["validation_energy_distance"]``, and as a share of what doing nothing leaves in
        ``history["validation_energy_ratio"]``.
    early_stopping
        Stop when the validation loss has not improved for `patience` checks, and keep the best weights.
    learning_rate
        Peak learning rate.
    accelerator
        ``"cpu"``, ``"gpu"``, ``"tpu"``, or ``"auto"`` for JAX's own choice.
    devices
        Devices that share each batch, and the passes over costs of linear problems without conditions: ``"auto"``, all that JAX
        sees; a number, the first so many; a list of numbers, these. Other problems are coupled on the first of them.
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

    Examples
    --------
    >>> model.train(max_steps=2000, rng=0)  # doctest: +SKIP
    >>> scgenot.pl.history(model)  # doctest: +SKIP
    """
    for name in train_options:
        if name in _OURS:
            raise TypeError(f"train() has no argument {name!r}, as scvi-tools has. Here it is {_OURS[name]}.")
    found = current_data(model)
    if (
        isinstance(validation_size, bool)
        or not isinstance(validation_size, numbers.Real)
        or not 0 <= validation_size < 1
    ):
        raise ValueError(f"`validation_size` must lie in [0, 1), got {validation_size!r}. 0.1 holds out a tenth.")
    method = on_devices(dataclasses.replace(model._method, weights=None), devices, accelerator)
    with _on(accelerator, devices):
        split_key, solve_key, fit_key = keys(as_key(rng), 3)
        split_rng = host_rng(split_key)
        unseen = unseen_conditions(found, validation_conditions, split_rng)
        found = hold_out(found, split_rng, float(validation_size), unseen)
        options = {"batch_size": batch_size, "learning_rate": learning_rate, "early_stopping": early_stopping}
        config = train_config_of(found, max_epochs, max_steps, options | train_options)
        coupling = None
        if model._method.needs != "samples":
            coupling = couple(model, solve_key, found, progress_bar, method.devices)
        learn(model, fit_key, found, coupling, config, progress_bar, method=method)


def current_data(model: TransportModel) -> TransportData:
    """Read both populations as they are now; raise if they are not those that were set up."""
    if model.adata is None or model.adata_manager is None:
        raise ValueError(
            "this model has no AnnData with both populations. Load it with `adata`, or set up an AnnData and "
            "create a new model."
        )
    found = read_transport(model.adata, model._spec, model._problem)
    dims = model._method.source_dim, model._method.target_dim
    for place, population, dim in zip(found.spec.places, found.populations, dims, strict=True):
        expected = model.summary_stats[f"n_{place.side}_cells"], dim
        if population.cells.shape != expected:
            method = model.registry_["setup_method_name"]
            raise ValueError(
                f"adata was changed after setup: the {place.side} population has shape {population.cells.shape}, it "
                f"had {expected}. Call `{method}` again and create a new model."
            )
    return found


def coupled_data(model: TransportModel, purpose: str) -> TransportData:
    """Read the data that the coupling of a model was solved for, and its split; raise as :meth:`TransportModel.reverse`."""
    if model._training is None or model._training.split is None:
        raise RuntimeError(
            f"there is no coupling {purpose}: the model is not trained, was loaded from a file, which holds no "
            "coupling, or its data were replaced after training. Call `model.train()` first."
        )
    found = dataclasses.replace(current_data(model), split=model._training.split, unseen=model._training.unseen)
    if fingerprint(found) != model._training.fingerprint:
        raise ValueError(
            "adata was changed after training: cells, their features or their weights are not those that the coupling "
            "was solved for. Call `model.train()` again, or restore them."
        )
    return found


def couple(
    model: TransportModel, key: jax.Array, found: TransportData, progress_bar: bool, devices: Devices | None
) -> Coupling:
    """Solve for the coupling of the training cells, on several devices where the problem can be shared."""
    arrays = cost_arrays(found, found.training)
    ties = {"shared": arrays.shared} if arrays.shared is not None else {}
    if found.problem == "fused" and not ties:
        ties = {"pairs": training_pairs(found)}
    source_weights, target_weights = weights_among(found, found.training)
    options = {
        **ties,
        "source_weights": source_weights,
        "target_weights": target_weights,
        "problem": found.problem,
        "kind": model._coupling_kind,
        "config": model._coupling_config,
        "progress_bar": progress_bar,
    }
    if found.conditions is None:
        return solve_coupling(key, arrays.source, arrays.target, devices=devices, **options)
    blocks = blocks_among(found, found.training)
    rows = [(left, right) for _, left, right in blocks]
    names = [str(found.conditions.table.index[number]) for number, *_ in blocks]
    return solve_blocks(key, arrays.source, arrays.target, rows, names=names, **options)


def held_out(found: TransportData, encoding: ConditionEncoding | None = None) -> HeldOut | None:
    """Return the held-out cells with what the coupling sees of them."""
    unseen = _unseen(found, encoding)
    if not found.split.holds_out:
        empty = (np.zeros((0, population.cells.shape[1]), np.float32) for population in found.populations)
        return HeldOut(*empty, unseen=unseen) if unseen else None
    arrays = cost_arrays(found, found.held)
    source, target = (population.cells[some] for population, some in zip(found.populations, found.held, strict=True))
    # Few held-out cells may all have weight 0: then they count alike.
    weights = (None if some is None or some.sum() <= 0 else some for some in weights_among(found, found.held))
    source_weights, target_weights = weights
    return HeldOut(
        source,
        target,
        source_costs=arrays.source if arrays.given[0] else None,
        target_costs=arrays.target if arrays.given[1] else None,
        shared=arrays.shared,
        source_weights=source_weights,
        target_weights=target_weights,
        blocks=None
        if found.conditions is None
        else [(left, right) for _, left, right in blocks_among(found, found.held)],
        unseen=unseen,
    )


def _unseen(found: TransportData, encoding: ConditionEncoding | None) -> tuple[Unseen, ...]:
    """Return the conditions that training does not see, with their controls, of which training does see most."""
    if not found.unseen or encoding is None:
        return ()
    rows = encoding.rows(found.conditions.table)
    return tuple(
        Unseen(found.source.cells[block.source], found.target.cells[block.target], rows[block.condition])
        for block in found.conditions.blocks
        if block.condition in found.unseen
    )


def learn(
    model: TransportModel,
    key: jax.Array,
    found: TransportData,
    coupling: Coupling | None,
    config: TrainConfig,
    progress_bar: bool,
    *,
    method: Method | None = None,
    held: HeldOut | None = None,
) -> None:
    """Learn from the training cells, coupled or not, and keep all that came of it.

    `method` is that of the model, on the devices that share the work; all that JAX sees, if ``None``. `held` are the held-out cells,
    where the coupling does not see of them what the data say.
    """
    source, target = (
        population.cells[some] for population, some in zip(found.populations, found.training, strict=True)
    )
    weights = dict(zip(("source_weights", "target_weights"), weights_among(found, found.training), strict=True))
    encoding = None if found.conditions is None else settle(found)
    if encoding is not None and encoding.spec.has_vector:
        numbers = [number for number, *_ in blocks_among(found, found.training)]
        weights = {"conditions": encoding.rows(found.conditions.table)[numbers], "layout": encoding.layout}
    elif coupling is not None:
        weights = {}
    data = FitData(source, target, coupling, held_out=held or held_out(found, encoding), **weights)
    method = method or on_devices(dataclasses.replace(model._method, weights=None), "auto")
    method, result = method.learn(key, data, config, progress_bar=progress_bar)
    if result.steps == 0:
        warnings.warn(
            f"Training ended before its first check ({result.stopped}); the model is left as it was.",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    trained_on = TrainedOn.of(found)
    # Only now is anything kept: a call that fails leaves the model as it was.
    model._method = dataclasses.replace(method, devices=None)
    model.coupling_ = coupling
    model._conditions = None if encoding is None else known(found, encoding, coupling)
    model._reference = target[reference_rows(len(target), np.random.default_rng(0))]
    model._regions = None
    model._source_reference = reference_cells(source)
    model._coupling_diagnostics = [] if coupling is None else summary_rows(coupling.diagnostics)
    model.history_ = history_frames(result.history)
    model._remember(trained_on)
    model.steps_, model.stopped_ = result.steps, result.stopped
    model.is_trained_ = True


def train_config_of(
    found: TransportData, max_epochs: int | None, max_steps: int | None, options: dict[str, Any]
) -> TrainConfig:
    """Return how to train, from the arguments of :meth:`train`; raise where they contradict each other."""
    if max_epochs is not None and max_steps is not None:
        raise ValueError(f"give `max_epochs` or `max_steps`, not both (got {max_epochs!r} and {max_steps!r}).")
    if options.get("early_stopping") and not found.split.holds_out:
        raise ValueError(
            "`early_stopping` needs held-out cells, got `validation_size`=0, or a share that is no cell of a small "
            "population. Use, for example, 0.1."
        )
    batch_size = options.get("batch_size", TrainConfig().batch_size)
    check_count("batch_size", batch_size)
    if max_epochs is not None:
        check_count("max_epochs", max_epochs)
        max_steps = int(max_epochs) * math.ceil(len(found.split.source_train) / int(batch_size))
    options |= {} if max_steps is None else {"max_steps": max_steps}
    config = with_options(TrainConfig(), options, "train")
    # Whole numbers may come as floats; sizes of arrays and loops may not.
    whole = {
        field.name: int(getattr(config, field.name)) for field in dataclasses.fields(config) if field.type == "int"
    }
    return dataclasses.replace(config, **whole)


def _on(accelerator: str, devices: int | str | Sequence[int]) -> contextlib.AbstractContextManager:
    """Return a context in which what is not shared runs on the first of the devices."""
    first = chosen_devices(devices, accelerator)[0]
    if accelerator == "auto" and isinstance(devices, int | str):
        return contextlib.nullcontext()
    # Of joined processes, each has a first device of its own.
    return contextlib.nullcontext() if first.process_index != jax.process_index() else jax.default_device(first)


def history_frames(recorded: dict[str, tuple[list[int], list[float]]]) -> dict[str, pd.DataFrame]:
    """Return what was recorded as scvi-tools does: a data frame each, by step."""
    return {
        name: pd.DataFrame({name: values}, index=pd.Index(steps, name="step"))
        for name, (steps, values) in recorded.items()
    }
