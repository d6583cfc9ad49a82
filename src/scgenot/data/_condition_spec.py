"""Which columns say what was done to cells: the arguments of setup that conditions add, read and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from scgenot._messages import did_you_mean, listed
from scgenot.data._time_course import STEP, TimeCourse

_NAME_COLUMNS = ("condition", "perturbation", "condition_name", "perturbation_name")
# What a table of conditions says beside slots and contexts.
_TOLD = ("cells", "controls", "trained", "converged", "mass", "effective_targets", "agreement", *_NAME_COLUMNS[2:])


@dataclasses.dataclass(frozen=True)
class ConditionSpec:
    """Which columns of ``obs`` say what was done to a cell, where, and what it is compared with.

    Attributes
    ----------
    covariates
        From the name of a covariate to its columns, its slots. Slots of different covariates belong together by position.
    reps
        From the name of a covariate, or a context's column, to a key of ``uns``.
    context_keys
        Columns that the model sees beside the perturbation.
    match_keys
        Columns in which a treated cell and its controls agree.
    source
        The category of untreated cells: in a slot it stands for nothing.
    target
        The category of treated cells, where there is one; between whole modalities, that of the target.
    population_key
        Column of both categories.
    reversed
        Whether treated cells are the source, as in a model of the opposite direction: `source` is the category of the target
        then.
    course
        The times of a time course, whose steps are the conditions; ``None`` elsewhere.
    """

    covariates: Mapping[str, tuple[str, ...]]
    reps: Mapping[str, str]
    context_keys: tuple[str, ...]
    match_keys: tuple[str, ...]
    source: Hashable
    target: Hashable | None = None
    population_key: str | None = None
    reversed: bool = False
    course: TimeCourse | None = None

    @property
    def treated(self) -> str:
        """The population whose cells are in conditions: ``"target"``, or ``"source"`` where they are reversed."""
        return "source" if self.reversed else "target"

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> ConditionSpec | None:
        """Read the arguments of setup, as they were given or saved; ``None`` for a plain pair of populations."""
        if (course := TimeCourse.from_arguments(arguments)) is not None:
            return cls({}, {}, (STEP,), (), None, population_key=course.key, reversed=course.backwards, course=course)
        given, context = arguments.get("condition_keys"), tuple(arguments.get("context_keys") or ())
        match, source, target = arguments.get("match_keys"), arguments.get("source"), arguments.get("target")
        # Where whole modalities are mapped, what cells become is the other modality.
        called = arguments.get("target_modality") if target is None else target
        single = (source is not None and target is not None) or "source_modality" in arguments
        backwards = source is None and not single
        if given is None and not context and single and not match:
            return None
        covariates = {str(name): tuple(columns) for name, columns in (given or {}).items()}
        if given is None and not single:
            covariates = {arguments["population_key"]: (arguments["population_key"],)}
        return cls(
            covariates,
            dict(arguments.get("condition_reps") or {}),
            context,
            context if match is None else tuple(match),
            target if backwards else source,
            source if backwards else called,
            arguments.get("population_key"),
            backwards,
        )

    @property
    def slots(self) -> int:
        """Number of slots."""
        return max((len(columns) for columns in self.covariates.values()), default=0)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that slots and contexts are read from."""
        slots = [column for columns in self.covariates.values() for column in columns]
        return tuple(dict.fromkeys([*slots, *self.context_keys]))

    @property
    def name_column(self) -> str:
        """The column of tables that names perturbations: ``"condition"``, or another where a slot or context is called so."""
        return next(name for name in _NAME_COLUMNS if name not in self.columns)

    @property
    def has_vector(self) -> bool:
        """Whether the model sees conditions. Otherwise cells are only matched."""
        return bool(self.covariates) or bool(self.context_keys)


def check_condition_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of setup with those of conditions as lists and dicts that files hold.

    Raises
    ------
    TypeError
        If one is of another kind.
    ValueError
        If slots are of unequal number, or a representation belongs to no covariate and no context.
    """
    checked = dict(arguments)
    given = arguments.get("condition_keys")
    if isinstance(given, str):
        given = {given: (given,)}
    if given is not None:
        if not isinstance(given, Mapping) or not given:
            raise TypeError(
                f"`condition_keys` must map covariates to columns of obs, got {given!r}. For example "
                "{'drug': ('drug1', 'drug2'), 'dose': ('dose1', 'dose2')}."
            )
        given = {name: _texts("condition_keys", columns) for name, columns in given.items()}
        lengths = {name: len(columns) for name, columns in given.items()}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise ValueError(
                f"`condition_keys` must have as many slots for each covariate, since they belong together by position, got "
                f"{lengths}. Name one column for each slot."
            )
        repeated = [column for column in sum(given.values(), []) if sum(given.values(), []).count(column) > 1]
        if repeated:
            raise ValueError(f"`condition_keys` names {repeated[0]!r} twice. Each slot needs a column of its own.")
        checked["condition_keys"] = given
    for name in ("context_keys", "match_keys"):
        if arguments.get(name) is not None:
            checked[name] = _texts(name, arguments[name])
    reps = arguments.get("condition_reps")
    if reps is not None:
        texts = isinstance(reps, Mapping) and all(isinstance(one, str) for pair in reps.items() for one in pair)
        if not texts:
            raise TypeError(
                f"`condition_reps` must map covariates to keys of uns, got {reps!r}. For example {{'drug': 'fingerprints'}}."
            )
        known = [*(given or [arguments.get("population_key")]), *(checked.get("context_keys") or ())]
        for name in reps:
            if name not in known:
                raise ValueError(
                    f"`condition_reps` has {name!r}, which is no covariate and no context.{did_you_mean(name, known)} There "
                    f"are: {listed(known)}."
                )
        checked["condition_reps"] = dict(reps)
    slots = sum((checked.get("condition_keys") or {}).values(), [])
    clash = [column for column in (*slots, *(checked.get("context_keys") or ())) if column in _TOLD]
    if clash:
        raise ValueError(
            f"a slot or context is called {clash[0]!r}, which `model.conditions` has another column for. Rename it in obs."
        )
    both = [column for column in checked.get("context_keys") or () if column in slots]
    if both:
        raise ValueError(
            f"`context_keys` has {both[0]!r}, which is a slot of `condition_keys`. A column is one or the other."
        )
    return checked


def _texts(name: str, value: Any) -> list[str]:
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"`{name}` must name columns of obs, got {value!r}. For example ('donor',).")
    return list(value)
