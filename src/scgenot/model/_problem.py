"""Which transport problem a model solves, and with which costs."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np

from scgenot._messages import did_you_mean, one_of
from scgenot.costs import Cost, resolve_cost
from scgenot.coupling import CouplingConfig
from scgenot.data import PopulationSpec

PROBLEMS = ("linear", "quadratic", "fused")
GIVEN = "precomputed"
Config = TypeVar("Config")


def with_options(config: Config, options: dict[str, Any], caller: str) -> Config:
    """Return the frozen config with some fields replaced; a misspelt field gets an answer that names the closest."""
    known = [field.name for field in dataclasses.fields(config)]
    for name in options:
        if name not in known:
            raise TypeError(f"{caller}() has no argument {name!r}.{did_you_mean(name, known)}")
    return dataclasses.replace(config, **options)


def coupling_config(problem: str, spec: PopulationSpec, options: dict[str, Any], caller: str) -> CouplingConfig:
    """Return how a model couples, from the options that its user chose: the one place where these are read."""
    chosen = options | {"cost": with_given_costs(options.get("cost"), problem, spec)}
    if not isinstance(chosen.get("alpha", 0.5), int | float | np.number) or isinstance(chosen.get("alpha"), bool):
        raise ValueError(f"`alpha` must lie in (0, 1), got {chosen['alpha']!r}.")
    return with_options(CouplingConfig(), chosen, caller)


def coupling_options(config: CouplingConfig) -> dict[str, Any]:
    """Return the options that :func:`coupling_config` makes the same config of."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def choose_problem(problem: str, spec: PopulationSpec) -> str:
    """Return the problem that is meant; ``"auto"`` reads it off where the populations live.

    Raises
    ------
    ValueError
        If it is not known, or a fused one has nothing that ties the populations.
    """
    tied = spec.source.shared_rep is not None or spec.source.pairs_key is not None
    if problem == "auto":
        return "fused" if tied else "linear" if spec.one_space else "quadratic"
    if problem not in PROBLEMS:
        raise ValueError(one_of("problem", problem, ("auto", *PROBLEMS)))
    if problem == "fused" and not tied:
        raise ValueError(
            "a fused problem needs something that ties the populations. Give `shared_rep` or `pairs_key` in setup, or "
            "use problem='quadratic'."
        )
    return problem


def check_widths(problem: str, spec: PopulationSpec, source_dim: int, target_dim: int) -> None:
    """Raise a ``ValueError`` if a linear problem has spaces of different width."""
    if problem == "linear" and source_dim != target_dim:
        raise ValueError(
            f"a linear problem compares cells in one space, got {source_dim} features in {spec.source.rep!r} and "
            f"{target_dim} in {spec.target.rep!r}. Use one representation, or problem='quadratic'."
        )


def with_given_costs(cost: Any, problem: str, spec: PopulationSpec) -> Any:
    """Return the cost, with ``"precomputed"`` for populations that have a matrix of costs.

    Raises
    ------
    ValueError
        If a cost is asked for where a matrix was given, or the other way round.
    """
    given = [place.distances is not None for place in (spec.source, spec.target)]
    if problem == "linear":
        if all(given) and spec.source.distances != spec.target.distances:
            raise ValueError(
                "a linear problem has one matrix of costs, between source and target cells. Give `source_distances` "
                f"alone, got {spec.source.distances!r} and {spec.target.distances!r}."
            )
        if any(given) and spec.source.modality != spec.target.modality:
            raise ValueError("a matrix of costs lies in one AnnData: no linear problem between two modalities has one.")
        given = [any(given)] * 2
    pair = cost if isinstance(cost, tuple) and len(cost) == 2 else (cost, cost)
    chosen = []
    for side, one, has in zip(("source", "target"), pair, given, strict=True):
        if one == GIVEN and not has:
            raise ValueError(f"`cost`='precomputed' needs `{side}_distances`, a key of obsp, in setup.")
        if has and one not in (None, GIVEN) and (isinstance(cost, tuple) or all(given)):
            raise ValueError(
                f"`{side}_distances` was given in setup and takes the place of `cost`, got {cost_name(one)!r}. "
                "Leave `cost` out, or set up the data without it."
            )
        chosen.append(GIVEN if has else one)
    if not any(given):
        return cost
    return GIVEN if chosen == [GIVEN, GIVEN] else tuple(one or _default_cost(problem) for one in chosen)


def swapped_config(config: CouplingConfig, problem: str) -> CouplingConfig:
    """Return the config of the opposite direction."""
    config = config.swapped()
    # Between populations, only a named cost is known to be the same in both directions.
    if problem == "linear" and isinstance(cost := resolve_cost(config.cost or _default_cost(problem)), Cost):
        return config if cost.symmetric else dataclasses.replace(config, cost=cost.swapped())
    return config


def cost_name(cost: Any) -> str:
    """Return what a cost, or a pair of costs, is called."""
    if isinstance(cost, tuple):
        return " / ".join(cost_name(one) for one in cost)
    if isinstance(cost, str):
        return cost
    return getattr(cost, "name", None) or getattr(cost, "__name__", None) or type(cost).__name__


def _default_cost(problem: str) -> Any:
    return CouplingConfig().resolved(problem).cost
