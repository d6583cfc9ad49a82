"""Conditions as rows of numbers: categories as one-hot or given vectors, doses as strengths, contexts beside them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from scgenot._messages import did_you_mean, listed
from scgenot.data._conditions import Conditions, ConditionSpec, text_of
from scgenot.data._places import Data
from scgenot.flow import ConditionLayout


@dataclasses.dataclass(frozen=True)
class Levels:
    """The values of a covariate or context, and a vector for each.

    Attributes
    ----------
    names
        The values, as text.
    vectors
        One row a value.
    given
        The key of ``uns`` that vectors are from; ``None`` for one-hot vectors.
    """

    names: tuple[str, ...]
    vectors: Float[np.ndarray, "levels d"]
    given: str | None = None

    def of(self, values: Sequence[Any], argument: str) -> Float[np.ndarray, "n d"]:
        """Return the vectors of values, zeros for ``None``; raise a ``ValueError`` for a value that is not known."""
        where = {name: number for number, name in enumerate(self.names)}
        found = np.zeros((len(values), self.vectors.shape[1]), np.float32)
        for row, value in enumerate(values):
            if value is None:
                continue
            name = text_of(value)
            if name not in where:
                told = f"{argument} has {name!r}, which was in no condition that was trained on"
                remedy = (
                    f" and has no row in uns[{self.given!r}]. Add one, and train again."
                    if self.given is not None
                    else ", and without a representation nothing is known of it. Describe categories by vectors with "
                    "`condition_reps` in setup, so that an unseen one can be placed among them."
                )
                raise ValueError(
                    f"{told}{remedy}{did_you_mean(name, self.names)} There are: {listed(self.names[:20])}."
                )
            found[row] = self.vectors[where[name]]
        return found


@dataclasses.dataclass(frozen=True)
class ConditionEncoding:
    """How conditions become rows of numbers, as it was settled from those that a model is trained on.

    Attributes
    ----------
    spec
        Columns of slots and contexts.
    doses
        Columns of slots that hold doses.
    reference_doses
        By covariate: the dose at which a slot has strength 1, the median of those above 0.
    levels
        By covariate or context: its values.
    scales
        By context that is a number: mean and standard deviation.
    """

    spec: ConditionSpec
    doses: tuple[str, ...]
    reference_doses: Mapping[str, float]
    levels: Mapping[str, Levels]
    scales: Mapping[str, tuple[float, float]]

    @property
    def layout(self) -> ConditionLayout:
        """What the numbers of a row mean."""
        token = sum(self.levels[name].vectors.shape[1] for name in self.spec.covariates if name in self.levels)
        context = sum(self.levels[key].vectors.shape[1] if key in self.levels else 1 for key in self.spec.context_keys)
        return ConditionLayout(self.spec.slots, token, context)

    def rows(self, table: pd.DataFrame) -> Float[np.ndarray, "k c"]:
        """Return the rows of conditions.

        Parameters
        ----------
        table
            Slots as :func:`perturbations` returns them, and contexts.

        Raises
        ------
        ValueError
            If a value is not known.
        """
        n, spec = len(table), self.spec
        tokens, strengths = [], np.ones((n, spec.slots), np.float32)
        for slot in range(spec.slots):
            parts = []
            for name, columns in spec.covariates.items():
                column = columns[slot]
                if name in self.levels:
                    values = [None if pd.isna(value) else value for value in table[column]]
                    parts.append(self.levels[name].of(values, f"`{column}`"))
                    strengths[:, slot] *= [value is not None for value in values]
                else:
                    ratio = table[column].to_numpy(np.float64) / self.reference_doses[name]
                    strengths[:, slot] *= np.log1p(ratio) / math.log(2.0)
            tokens.append(np.concatenate([np.zeros((n, 0), np.float32), *parts], axis=1))
        context = [
            self.levels[key].of(list(table[key]), f"`{key}`")
            if key in self.levels
            else ((pd.to_numeric(table[key]).to_numpy(np.float64) - self.scales[key][0]) / self.scales[key][1])[:, None]
            for key in spec.context_keys
        ]
        return np.concatenate([np.zeros((n, 0)), *tokens, strengths, *context], axis=1).astype(np.float32)

    def to_plain(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the encoding as plain values that JSON holds, and arrays by name."""
        plain = {
            "doses": list(self.doses),
            "reference_doses": dict(self.reference_doses),
            "levels": {name: {"names": list(one.names), "given": one.given} for name, one in self.levels.items()},
            "scales": {name: list(one) for name, one in self.scales.items()},
        }
        return plain, {name: one.vectors for name, one in self.levels.items()}

    @classmethod
    def from_plain(
        cls, spec: ConditionSpec, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> ConditionEncoding:
        """Return the encoding that :meth:`to_plain` described."""
        levels = {}
        for name, one in plain["levels"].items():
            names, vectors = tuple(map(str, one["names"])), np.asarray(arrays[name], np.float32)
            if vectors.ndim != 2 or len(vectors) != len(names):
                raise ValueError(
                    f"`conditions` has {len(names)} values of {name!r}, and vectors of shape {vectors.shape}"
                )
            levels[name] = Levels(names, vectors, one["given"])
        return cls(
            spec,
            tuple(map(str, plain["doses"])),
            {str(name): float(value) for name, value in plain["reference_doses"].items()},
            levels,
            {str(name): (float(one[0]), float(one[1])) for name, one in plain["scales"].items()},
        )


def settle_encoding(data: Data, conditions: Conditions, seen: Sequence[int] | None = None) -> ConditionEncoding:
    """Settle how conditions are encoded.

    Parameters
    ----------
    data
        Its ``uns`` has the representations.
    conditions
        The conditions.
    seen
        Those that are trained on; all if ``None``.

    Raises
    ------
    KeyError
        If a representation is missing; the message names the closest key.
    ValueError
        If one is no table of finite numbers, names a row twice, or lacks one of a value.
    """
    spec, table = conditions.spec, conditions.table
    table = table if seen is None else table.iloc[list(seen)]
    levels, references, scales = {}, {}, {}
    for name, columns in spec.covariates.items():
        values = [value for column in columns for value in table[column]]
        if columns[0] in conditions.doses:
            positive = [value for value in values if value > 0]
            references[name] = float(np.median(positive)) if positive else 1.0
        else:
            levels[name] = _levels(data, spec, name, [value for value in values if not pd.isna(value)])
    for key in spec.context_keys:
        values = table[key]
        if (
            key not in spec.reps
            and all(isinstance(one, int | float | np.number) for one in values)
            and values.nunique() > 1
        ):
            numbers = values.to_numpy(np.float64)
            scales[key] = (float(numbers.mean()), float(numbers.std()) or 1.0)
        else:
            levels[key] = _levels(data, spec, key, list(values))
    return ConditionEncoding(spec, conditions.doses, references, levels, scales)


def _levels(data: Data, spec: ConditionSpec, name: str, values: Sequence[Any]) -> Levels:
    names = tuple(dict.fromkeys(sorted(map(text_of, values))))
    if name not in spec.reps:
        return Levels(names, np.eye(len(names), dtype=np.float32))
    key = spec.reps[name]
    if key not in data.uns:
        raise KeyError(
            f"`condition_reps`: {key!r} is no key of uns.{did_you_mean(key, data.uns)} There are: {listed(data.uns)}."
        )
    frame = data.uns[key]
    if not isinstance(frame, pd.DataFrame) or not all(pd.api.types.is_numeric_dtype(one) for one in frame.dtypes):
        raise ValueError(
            f"uns[{key!r}] must be a data frame of numbers, one row a category, got {type(frame).__name__}."
        )
    index = [text_of(one) for one in frame.index]
    repeated = frame.index[pd.Index(index).duplicated()]
    if len(repeated):
        raise ValueError(f"uns[{key!r}] has {text_of(repeated[0])!r} twice. Each category needs one row.")
    missing = [one for one in names if one not in index]
    if missing:
        raise ValueError(
            f"uns[{key!r}] lacks {len(missing)} of {len(names)} categories of {name!r}, such as {missing[0]!r}."
            f"{did_you_mean(missing[0], index)} Add a row for each."
        )
    vectors = frame.to_numpy(np.float64)
    if not np.isfinite(vectors).all():
        wrong = index[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise ValueError(f"uns[{key!r}] must hold finite numbers; those of {wrong!r} are not.")
    known = vectors[[index.index(one) for one in names]]
    # In units of the spread among categories that are trained on, so that fingerprints of any size do.
    centre = known.mean(axis=0) if len(known) > 1 else np.zeros(vectors.shape[1])
    spread = math.sqrt(float(np.square(known - centre).mean())) or 1.0
    return Levels(tuple(index), ((vectors - centre) / spread).astype(np.float32), key)
