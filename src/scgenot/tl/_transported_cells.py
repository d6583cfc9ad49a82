"""Transported cells as an AnnData of their own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from jaxtyping import Float, Int, Shaped
from mudata import MuData

from scgenot._blocks import rows_per_block
from scgenot._messages import check_count
from scgenot._rng import RNG, as_key
from scgenot.data import in_memory
from scgenot.flow import ODEConfig
from scgenot.tl._cell_file import check_new_file, write_cells
from scgenot.tl._writing import sent_mass

if TYPE_CHECKING:
    from scgenot.model import GENOT
    from scgenot.model._conditions import Asked


def transported_cells(
    adata: AnnData | MuData,
    model: GENOT,
    *,
    n_samples: int = 1,
    indices: Sequence[int] | np.ndarray | None = None,
    weight_by_growth: bool = False,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
    until: Hashable | None = None,
    file: str | os.PathLike[str] | None = None,
) -> AnnData:
    """Return transported cells: samples, not means, so that they look like cells of the target population.

    What it returns can be the `adata` of a model of the next step: chains of steps keep the cell that they began with.

    Parameters
    ----------
    adata
        Cells with the source representation. It is not changed.
    model
        A trained model.
    n_samples
        Transported cells for each source cell.
    indices
        Which cells, as rows or as a boolean mask; by default the source cells. A row that is named twice is drawn twice.
    weight_by_growth
        Draw source cells in proportion to the mass that they send (prior weight times growth), as many as there are, so
        that transported cells are composed as the plan's targets are: cells without a counterpart are left out, growing
        ones come several times.
    batch_size
        Source cells at once.
    rng
        Seed or generator.
    ode
        How the flow's equation is solved.
    conditions
        Which conditions, in a model that has several: as in :meth:`scgenot.GENOT.sample`. Of several, the cells of one stand
        after those of another.
    until
        In a model of a time course, the time that cells are taken to; by default each cell's next one.
    file
        A new ``.h5ad`` file that cells are written to block by block, where they would be too many for memory: 30 samples of a million
        cells in 50 features are 6 GB. What is drawn is the same. ``None``: they are held in memory.

    Returns
    -------
    AnnData with cells x `n_samples` rows, the samples of one source cell after another. ``X`` and, unless it is
    ``"X"``, ``obsm`` under the name of the target representation hold the samples, and ``var_names`` are those of the
    target space where it has names. ``obs`` is carried over from the source cells, but for:

    ``obs["source_cell"]``
        Name of the source cell; of the first one, where `adata` has transported cells itself.
    ``obs[population_key]``
        The target's category, or the name of the condition; of a time course, the time of arrival in ``obs[time_key]``. The source cell's own is in ``obs["source_<population_key>"]``.
    slots and contexts
        Those of the condition, in a model that has several; ``obs["condition"]`` has its name.

    With `file` it is backed by it (``"r"``): ``X`` and the representation in ``obsm``, which the file holds once, are read where they
    are asked for, and ``obs`` is in memory. Opened again by ``anndata.read_h5ad(file, backed="r")``, ``obsm`` is read as a whole.

    Raises
    ------
    RuntimeError, KeyError, ValueError
        As :meth:`scgenot.GENOT.sample` and, with `weight_by_growth`, :meth:`scgenot.GENOT.get_growth`; also if there are
        no source cells in `adata`, or prior weights are missing or wrong.
    FileExistsError, OSError, ValueError, TypeError
        If `file` is there already, cannot be written, or is no ``.h5ad``. A call that fails leaves none behind.

    Examples
    --------
    >>> cells = scgenot.tl.transported_cells(adata, model, n_samples=5)  # doctest: +SKIP
    >>> cells.obs["source_cell"]  # doctest: +SKIP
    >>> cells = scgenot.tl.transported_cells(adata, model, n_samples=30, file="cells.h5ad")  # doctest: +SKIP
    >>> cells.X[:100]  # doctest: +SKIP
    """
    path = None if file is None else check_new_file(file)
    params = model.describe() | {"n_samples": n_samples, "weight_by_growth": weight_by_growth}
    params |= {} if until is None else {"until": until}
    awaited = await_cells(
        adata,
        model,
        n_samples=n_samples,
        indices=indices,
        weight_by_growth=weight_by_growth,
        batch_size=batch_size,
        rng=rng,
        ode=ode,
        conditions=conditions,
        until=until,
    )
    rep, width = params["target_rep"], model._method.target_dim
    names = model.target_var_names or [f"{rep}_{k}" for k in range(width)]
    about = {"var": pd.DataFrame(index=pd.Index(names)), "uns": {"genot": {"params": params}}}
    if path is not None:
        # Whole cells: of one that two blocks shared, samples would be drawn twice.
        size = n_samples * max(1, rows_per_block(width) // n_samples)
        obs = below_each_other([one.obs for one in awaited])
        return write_cells(path, obs, rep=rep, blocks=_in_blocks(awaited, size), **about)
    drawn = _all_of_them(awaited)
    cells = AnnData(X=drawn.values, obs=drawn.obs, **about)
    if rep != "X":
        cells.obsm[rep] = drawn.values.copy()
    return cells


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Transported cells.

    Attributes
    ----------
    values
        Their places in the target representation.
    obs
        What is known of them.
    rows
        Rows of the source cells that they come from.
    """

    values: Float[np.ndarray, "n d"]
    obs: pd.DataFrame
    rows: Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Awaited:
    """Transported cells of one condition, before they are drawn.

    Attributes
    ----------
    obs, rows
        As in :class:`Drawn`.
    draw
        Returns the values of some of them.
    """

    obs: pd.DataFrame
    rows: Int[np.ndarray, " n"]
    draw: Callable[[slice], Float[np.ndarray, "k d"]]


def draw_cells(adata: AnnData | MuData, model: GENOT, **options: Any) -> Drawn:
    """Draw the cells of :func:`transported_cells`, which has the same parameters."""
    return _all_of_them(await_cells(adata, model, **options))


def await_cells(
    adata: AnnData | MuData,
    model: GENOT,
    *,
    n_samples: int,
    indices: Sequence[int] | np.ndarray | None = None,
    weight_by_growth: bool = False,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
    until: Hashable | None = None,
) -> list[Awaited]:
    """Return the cells of :func:`transported_cells`, which has the same parameters, by condition and not drawn yet."""
    check_count("n_samples", n_samples)
    params = model.describe()
    how = {"batch_size": batch_size, "rng": as_key(rng), "ode": ode, "until": until}
    return [
        _of_condition(adata, model, one, n_samples, indices, weight_by_growth, how, params)
        for one in model.resolve_conditions(conditions) or [None]
    ]


def _all_of_them(awaited: Sequence[Awaited]) -> Drawn:
    parts = [Drawn(one.draw(slice(None)), one.obs, one.rows) for one in awaited]
    if len(parts) == 1:
        return parts[0]
    return Drawn(
        np.concatenate([part.values for part in parts]),
        below_each_other([part.obs for part in parts]),
        np.concatenate([part.rows for part in parts]),
    )


def _in_blocks(awaited: Sequence[Awaited], size: int) -> Iterator[tuple[slice, Float[np.ndarray, "k d"]]]:
    """Yield so many cells at a time, and which rows they are below each other."""
    before = 0
    for one in awaited:
        for start in range(0, len(one.rows), size):
            stop = min(start + size, len(one.rows))
            yield slice(before + start, before + stop), one.draw(slice(start, stop))
        before += len(one.rows)


def below_each_other(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return several ``obs`` as one, with unique names; what was categorical in one of them stays so."""
    if len(parts) == 1:
        return parts[0]
    obs = pd.concat(parts)
    obs.index = make_index_unique(pd.Index(obs.index))
    for column in obs:
        kinds = {part[column].dtype for part in parts if column in part}
        if any(isinstance(kind, pd.CategoricalDtype) for kind in kinds) and obs[column].dtype == object:
            obs[column] = obs[column].astype("category")
    return obs


def _of_condition(
    adata: AnnData | MuData,
    model: GENOT,
    condition: Asked | None,
    n_samples: int,
    indices: Sequence[int] | np.ndarray | None,
    weight_by_growth: bool,
    how: dict[str, Any],
    params: dict[str, Any],
) -> Awaited:
    """Return transported cells of one condition, not drawn yet."""
    until = how["until"]
    rows = model.source_rows(adata, indices=indices, conditions=condition, until=until)
    if len(rows) == 0:
        raise ValueError(
            f"there are no source cells in this adata: none is {params['source']!r} in "
            f"obs[{params.get('population_key')!r}]. Name cells with `indices`, or pass cells of that population."
        )
    if weight_by_growth:
        rows = np.repeat(
            rows, copies_by_mass(sent_mass(model, adata, rows, conditions=condition, until=until), how["rng"])
        )
    rows = np.repeat(rows, n_samples)
    numbers = occurrences(rows)
    key, category = model.population_of("target")
    category = category if condition is None else condition.perturbation_name
    columns = {} if condition is None else condition.columns
    arrival = None if model.times is None else model.get_times(adata, indices=rows, until=until)["to"].to_numpy()
    obs = in_memory(model.source_adata(adata).obs).iloc[rows]

    def draw(some: slice) -> Float[np.ndarray, "k d"]:
        return samples_of(model, adata, rows[some], numbers[some], conditions=condition, **how)

    return Awaited(carried_over(obs, key, category, columns, arrival), rows, draw)


def copies_by_mass(mass: Float[np.ndarray, " n"], key: jax.Array) -> Int[np.ndarray, " n"]:
    """Return how often each of the cells is taken, in proportion to its mass; as many as there are in all."""
    share = np.cumsum(mass)
    offset = float(jax.random.uniform(jax.random.fold_in(key, 0)))
    # Evenly spaced quantiles: a cell comes as often as its share says, up to rounding.
    quantiles = (np.arange(len(mass)) + offset) / len(mass) * share[-1]
    chosen = np.minimum(np.searchsorted(share, quantiles, side="right"), len(mass) - 1)
    return np.bincount(chosen, minlength=len(mass))


def occurrences(values: Shaped[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return how many equal values stand before each value."""
    return pd.Series(1, index=values).groupby(level=0, sort=False).cumsum().to_numpy() - 1


def samples_of(
    model: GENOT, adata: AnnData | MuData, rows: Int[np.ndarray, " n"], numbers: Int[np.ndarray, " n"], **options
) -> Float[np.ndarray, "n d"]:
    """Return sample `numbers[i]` of the cell in `rows[i]`; of each cell no more are drawn than are asked for.

    Samples of a cell are numbered, and the first ones are the same however many are drawn.
    """
    cells, back = np.unique(rows, return_inverse=True)
    counts = np.zeros(len(cells), int)
    np.maximum.at(counts, back, numbers + 1)
    values = None
    for count in np.unique(counts):
        asked = counts == count
        drawn = model.sample(adata, indices=cells[asked], n_samples=int(count), **options)
        values = np.empty((len(rows), drawn.shape[2]), np.float32) if values is None else values
        place = np.cumsum(asked) - 1
        here = asked[back]
        values[here] = drawn[place[back[here]], numbers[here]]
    return values


def carried_over(
    obs: pd.DataFrame,
    key: Hashable | None,
    category: Hashable,
    columns: Mapping[str, Any] | None = None,
    arrival: Shaped[np.ndarray, " n"] | None = None,
) -> pd.DataFrame:
    """Return ``obs`` of source cells as that of transported cells: their own names, the target's category, or their times.

    Parameters
    ----------
    obs
        One row a transported cell, that of its source cell.
    key, category
        Column that tells populations apart, and the target's category in it.
    columns
        Columns that the condition sets.
    arrival
        Times at which cells arrive, in a time course; they take the category's place.
    """
    obs = obs.copy()
    parents = obs.index.to_numpy().astype(str)
    roots, chained = parents, "source_cell" in obs
    if chained:
        first = obs["source_cell"].astype(object)
        roots = np.where(first.notna(), first, parents).astype(str)
    obs["source_cell"] = roots
    # In a chain, names tell the way: "cell3-transported-0", then "cell3-transported-0.1".
    stem = "." if chained else "-transported-"
    names = [f"{name}{stem}{k}" for name, k in zip(parents, occurrences(parents), strict=True)]
    obs.index = make_index_unique(pd.Index(names))
    if key is not None and key in obs:
        if f"source_{key}" not in obs:
            obs[f"source_{key}"] = obs[key]
        obs[key] = _all_of(obs[key], category) if arrival is None else _at(obs[key], arrival)
    for column, value in (columns or {}).items():
        # Controls' own slots are empty already.
        if value is None:
            continue
        obs[column] = _all_of(obs[column], value) if column in obs else value
    return obs


def _at(column: pd.Series, times: Shaped[np.ndarray, " n"]) -> pd.Series:
    """Return a column of the same kind with other times; numbers between those that a category has are plain numbers."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        known = pd.Categorical(times, dtype=column.dtype)
        return pd.Series(known if not known.isna().any() else times, index=column.index)
    found = pd.Series(times, index=column.index).infer_objects()
    same = found.astype(column.dtype, errors="ignore")
    return same if (same == found).all() else found


def _all_of(column: pd.Series, category: Hashable) -> pd.Series:
    """Return a column of the same kind in which all cells have one category."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        if category not in column.cat.categories:
            column = column.cat.add_categories([category])
        filled = pd.Categorical([category] * len(column), dtype=column.dtype)
        return pd.Series(filled, index=column.index)
    return pd.Series([category] * len(column), index=column.index)
