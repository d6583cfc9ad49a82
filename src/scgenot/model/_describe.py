"""What a model says of itself: in plain values, and in a few lines. Both are methods of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scgenot.model._problem import cost_name

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def describe(model: TransportModel) -> dict[str, str | float | int]:
    """Return what the model maps and how, in plain values that an AnnData can store.

    Examples
    --------
    >>> model.describe()["problem"]  # doctest: +SKIP
    'linear'
    """
    source, target, config = model._spec.source, model._spec.target, model._coupling_config.resolved(model._problem)
    told = model._spec.conditions
    known = {
        "population_key": source.population_key,
        "times": None if model.times is None else list(model.times),
        "source": source.label if source.category is None else str(source.category),
        "target": target.label if target.category is None else str(target.category),
        "source_modality": source.modality,
        "target_modality": target.modality,
        "source_rep": source.rep,
        "target_rep": target.rep,
        "layer": source.layer,
        "weights_key": source.weights_key,
        "condition_keys": None
        if told is None
        else {name: list(keys) for name, keys in told.covariates.items()} or None,
        "context_keys": None if told is None or told.course is not None else list(told.context_keys) or None,
        "match_keys": None if told is None else list(told.match_keys) or None,
        "shared_rep": source.shared_rep if model._problem == "fused" else None,
        "pairs_key": source.pairs_key if model._problem == "fused" else None,
        "problem": model._problem,
    }
    if model._method.needs != "samples":
        known |= {
            "coupling": model._coupling_kind,
            "cost": cost_name(config.cost),
            "alpha": float(config.alpha) if model._problem == "fused" else None,
            "epsilon": float(config.epsilon),
            "tau_source": float(config.tau_source),
            "tau_target": float(config.tau_target),
        }
    else:
        known["epsilon"] = getattr(model._method.config, "epsilon", None)
    return {name: value for name, value in known.items() if value is not None}


def representation(model: TransportModel) -> str:
    """Describe data, problem and state in a few lines."""
    source, target, stats = model._spec.source, model._spec.target, model.summary_stats
    config = model._coupling_config.resolved(model._problem)
    state = f"trained, {model.steps_} steps ({model.stopped_})" if model.is_trained_ else "not trained"
    told_by = "" if source.population_key is None else f", by obs[{source.population_key!r}]"
    reps = source.rep if model._spec.one_space else f"{source.rep} -> {target.rep}"
    alpha = f", alpha {config.alpha:g}" if model._problem == "fused" else ""
    own = getattr(model._method.config, "epsilon", None)
    solved = (
        "no coupling" + ("" if own is None else f", epsilon {own:g}")
        if model._method.needs == "samples"
        else f"{model._coupling_kind} coupling, cost {cost_name(config.cost)}{alpha}, epsilon {config.epsilon:g}, tau "
        f"{config.tau_source:g} / {config.tau_target:g}"
    )
    several = f"  conditions: {stats.n_conditions}, plans: {stats.n_plans}\n" if "n_conditions" in stats else ""
    if model.times is not None:
        several = f"  time course: {' -> '.join(map(str, model.times))}\n"
    return (
        f"{type(model).__name__} model: {source.label} ({stats.n_source_cells} cells) -> {target.label} "
        f"({stats.n_target_cells} cells){told_by}\n"
        f"  representation: {reps} ({model._method.source_dim} -> {model._method.target_dim} features)\n"
        f"{several}"
        f"  problem: {model._problem}, {solved}\n"
        f"  {model._method_line()}\n"
        f"  status: {state}"
    )
