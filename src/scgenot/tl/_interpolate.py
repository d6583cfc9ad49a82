"""Cells at a time between two that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgenot._messages import check_count, is_number, listed
from scgenot._rng import RNG, as_key
from scgenot.data import Place, in_memory, read_representation
from scgenot.flow import ODEConfig
from scgenot.tl._fates import check_course
from scgenot.tl._transported_cells import carried_over, copies_by_mass, occurrences, samples_of
from scgenot.tl._writing import sent_mass

if TYPE_CHECKING:
    from scgenot.model import GENOT


def interpolate(
    adata: AnnData,
    model: GENOT,
    time: float,
    *,
    n_samples: int = 1,
    indices: Sequence[int] | np.ndarray | None = None,
    weight_by_growth: bool = True,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
) -> AnnData:
    """Return cells at a time between two of a time course.

    A cell of the time before and a sample of where it goes by the time after are joined by a straight line, on which the cell in
    between lies in proportion to the time that has passed: McCann's displacement interpolation of the learned plan.

    Parameters
    ----------
    adata
        Cells of the time before. They are not changed.
    model
        A trained model of a time course whose times are numbers.
    time
        A time between two that follow each other in the model.
    n_samples
        Cells in between for each cell of the time before.
    indices
        Which cells of that time, as rows or as a boolean mask; by default all.
    weight_by_growth
        Draw cells in proportion to the mass that they send, as in :func:`transported_cells`. Makes no difference in a balanced
        problem without prior weights, or where growth is not known.
    batch_size
        Cells at once.
    rng
        Seed or generator.
    ode
        How the flow's equation is solved.

    Returns
    -------
    AnnData as :func:`transported_cells` returns it, with `time` in ``obs[time_key]``.

    Raises
    ------
    ValueError
        If the model has no times, or these are no numbers; if `time` is not between two of them; if there are no cells of the
        time before.
    TypeError
        If `time` is no number.
    RuntimeError, KeyError
        As :meth:`scgenot.GENOT.sample`.

    Examples
    --------
    >>> between = scgenot.tl.interpolate(adata, model, 4.5)  # doctest: +SKIP
    """
    check_course(model)
    check_count("n_samples", n_samples)
    params: dict[str, Any] = model.describe() | {"n_samples": n_samples, "time": time}
    before, after, passed = _between(model, time)
    rows = model.source_rows(adata, indices=indices, until=after)
    leaving = model.get_times(adata, indices=rows, until=after)["from"].to_numpy()
    if indices is not None and (leaving != before).any():
        raise ValueError(
            f"`indices` names {int((leaving != before).sum())} cells that are not at {before!r}, the time before `time`={time!r}. "
            "Leave them out."
        )
    rows = rows[leaving == before]
    if len(rows) == 0:
        raise ValueError(
            f"`time`={time!r} lies between {before!r} and {after!r}, and no cell of adata is at {before!r}. Pass these cells."
        )
    key = as_key(rng)
    if weight_by_growth:
        grows = model.knows_growth()
        rows = np.repeat(rows, copies_by_mass(sent_mass(model, adata, rows, growth=grows, until=after), key))
    rows = np.repeat(rows, n_samples)
    options = {"batch_size": batch_size, "rng": key, "ode": ode, "until": after}
    ends = samples_of(model, adata, rows, occurrences(rows), **options)
    source, rep = model.source_adata(adata), params["source_rep"]
    place = Place("source", rep, layer=params.get("layer"))
    starts = read_representation(source, rep, rows, "source_rep", place)
    values = ((1 - passed) * starts + passed * ends).astype(np.float32)
    key = model.population_of("target")[0]
    obs = carried_over(in_memory(source.obs).iloc[rows], key, None, arrival=np.full(len(rows), time))
    names = model.target_var_names or [f"{rep}_{k}" for k in range(values.shape[1])]
    cells = AnnData(X=values, obs=obs, var=pd.DataFrame(index=pd.Index(names)), uns={"genot": {"params": params}})
    if rep != "X":
        cells.obsm[rep] = values.copy()
    return cells


def _between(model: GENOT, time: Any) -> tuple[Any, Any, float]:
    """Return the times before and after a time in the order of the model, and the share of the way between that has passed."""
    times = model.times
    if any(isinstance(one, str) for one in times):
        raise ValueError(
            f"`time`={time!r}: the times {listed(times)} of this model are categories, between which there is no time. Set up "
            "the data with a column of numbers."
        )
    if not is_number(time):
        raise TypeError(f"`time` must be a number, got {time!r}.")
    if time in times:
        raise ValueError(
            f"`time`={time!r} is one of the times {listed(times)}: its cells were measured. Give one in between."
        )
    for before, after in zip(times[:-1], times[1:], strict=True):
        if min(before, after) < time < max(before, after):
            return before, after, (time - before) / (after - before)
    raise ValueError(f"`time` must lie between two of {listed(times)}, got {time!r}.")
