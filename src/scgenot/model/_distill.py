"""Few steps in place of many: `distill` is a method of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from scgenot._messages import check_count
from scgenot._rng import RNG, as_key
from scgenot._sampling import host_rng
from scgenot.data import Data
from scgenot.flow import DistillConfig
from scgenot.model._cells import Cells, check_is_trained
from scgenot.model._conditions import answer
from scgenot.model._problem import with_options
from scgenot.model._training import history_frames

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

# Cells in all conditions that are held at a time; a run of default length draws 270,000 trajectories.
_MOST_CELLS = 2**17


def distill(
    model: TransportModel,
    steps: int = 1,
    *,
    adata: Data | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
    progress_bar: bool = True,
    rng: RNG = 0,
    **distill_options: Any,
) -> None:
    """Learn a second field that samples in one or a few steps, from trajectories of the trained one.

    It is kept beside the trained field, saved with it, and used where it is asked for: ``ode=ODEConfig("distilled")`` takes one step,
    ``ODEConfig("distilled", n_steps=2)`` two. All else, densities above all, goes on to use the trained field. The same seed gives
    the same samples up to the error of the second field. Training anew forgets it.

    Parameters
    ----------
    steps
        The most steps that samples will be taken in: 1, 2, 4, ..., a power of two that divides `teacher_steps`. 4 learns 1 and 2 as well.
    adata, indices
        Source cells to learn it for, as in :meth:`sample`: those of the model's data by default. Only source cells are seen, so that
        cells that are to be mapped later may be among them.
    conditions
        As in :meth:`sample`; all that the model knows by default.
    progress_bar
        Whether to show one.
    rng
        Seed or generator.
    distill_options
        Any field of :class:`scgenot.flow.DistillConfig`, such as ``max_steps``.

    Raises
    ------
    RuntimeError
        If the model is not trained, or distilling diverges, which leaves it as it was.
    NotImplementedError
        If its method solves no equation.
    KeyError, ValueError
        As :meth:`sample`; if `steps` is not allowed.

    Examples
    --------
    >>> model.distill(steps=2)  # doctest: +SKIP
    >>> model.sample(adata, ode=scgenot.flow.ODEConfig("distilled", n_steps=2))  # doctest: +SKIP
    """
    check_is_trained(model)
    check_count("steps", steps)
    config = with_options(DistillConfig(), distill_options, "distill")
    key = as_key(rng)
    spec = model._spec.conditions
    asks_all = spec is not None and spec.has_vector and spec.course is None and not spec.reversed
    if conditions is None and asks_all:
        conditions = list(model._conditions.table[spec.name_column].unique())
    found = answer(model, lambda cells: cells, adata, indices, conditions)
    values, rows = _joined(list(found.values()) if isinstance(found, dict) else [found], host_rng(key))
    method, history = model._method.distill(key, values, rows, int(steps), config, progress_bar=progress_bar)
    model._method = method
    model.history_ = dict(model.history_ or {}) | history_frames(history)


def _joined(
    parts: list[Cells], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n c"] | None]:
    """Return the cells of all conditions, or as many of each as there is room for, and their conditions."""
    most = max(1, _MOST_CELLS // len(parts))
    chosen = [rng.choice(len(one.rows), min(len(one.rows), most), replace=False) for one in parts]
    values = np.concatenate([one.values[some] for one, some in zip(parts, chosen, strict=True)])
    if parts[0].condition is None:
        return values, None
    return values, np.concatenate([one.condition[some] for one, some in zip(parts, chosen, strict=True)])
