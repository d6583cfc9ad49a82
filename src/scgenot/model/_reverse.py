"""The model of the opposite direction, on the same coupling. `reverse` is a method of models."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from scgenot._rng import RNG, as_key
from scgenot.data import TransportData, swapped, swapped_arguments
from scgenot.flow import HeldOut
from scgenot.model._problem import coupling_options, swapped_config
from scgenot.model._scvi import make_current
from scgenot.model._training import coupled_data, held_out, learn, train_config_of

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def reverse(
    model: TransportModel,
    *,
    max_epochs: int | None = None,
    max_steps: int | None = None,
    progress_bar: bool = True,
    rng: RNG = 0,
    **train_options: Any,
) -> TransportModel:
    """Train the model of the opposite direction, on the same coupling and with the same cells held out.

    The two models then describe one plan, from either side; two trainings could pick two optima of a quadratic
    problem.

    Parameters
    ----------
    max_epochs, max_steps, progress_bar
        As in :meth:`train`.
    rng
        Seed or generator.
    train_options
        Any other field of :class:`scgenot.flow.TrainConfig`, such as ``batch_size`` or ``early_stopping``.

    Returns
    -------
    A new model on the same data, with source and target exchanged. This model is left as it was, and so is its setup.

    Raises
    ------
    RuntimeError
        If this model has no coupling: it is not trained, was loaded (couplings are not saved), or got other data.
    ValueError
        If the data are not those that the coupling was solved for.

    Examples
    --------
    >>> backward = model.reverse()  # doctest: +SKIP
    >>> backward.sample(adata)  # doctest: +SKIP
    """
    found = coupled_data(model, "to reverse")
    kind, registry = type(model), model.registry_
    arguments = swapped_arguments(registry["setup_args"])
    try:
        getattr(kind, registry["setup_method_name"])(model.adata, **arguments)
        config = swapped_config(model._coupling_config, model._problem)
        options = coupling_options(config) | {"problem": model._problem, "coupling": model._coupling_kind}
        other = kind(model.adata, **options, **{kind._config_argument: model._method.config})
    finally:
        make_current(model)
    held = _held_out_of_given_costs(found)
    found = swapped(found, other._spec)
    train_config = train_config_of(found, max_epochs, max_steps, train_options)
    coupling = None if model.coupling_ is None else model.coupling_.swapped()
    learn(other, as_key(rng), found, coupling, train_config, progress_bar, held=held)
    return other


def _held_out_of_given_costs(found: TransportData) -> HeldOut | None:
    """Return the held-out cells of a linear problem with given costs, seen from the other side; ``None`` elsewhere.

    Costs may depend on the direction, and that of the coupling stays. Columns are turned, as the reverse has its source cells first.
    """
    given = found.problem == "linear" and any(place.distances is not None for place in found.spec.places)
    held = held_out(found) if given and found.conditions is None else None
    if held is None:
        return None
    held, n_source = held.swapped(), len(found.split.source_train)
    turned = {name: np.roll(getattr(held, name), -n_source, axis=1) for name in ("source_costs", "target_costs")}
    return dataclasses.replace(held, **turned)
