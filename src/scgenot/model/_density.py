"""Densities that a trained model answers with: of any point, and of its own samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from scgenot._blocks import not_finite
from scgenot._rng import RNG, as_key
from scgenot.data import Data
from scgenot.flow import DivergenceConfig, ODEConfig
from scgenot.model._cells import Cells, Sampling, check_is_trained, sample_blocks
from scgenot.model._conditions import answer

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def get_log_prob(
    model: TransportModel,
    target_points: Float[np.ndarray, "..."],
    adata: Data | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    divergence: DivergenceConfig | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
) -> Float[np.ndarray, "n k"] | dict[str, Float[np.ndarray, "n k"]]:
    """Return log pi(y | x): how probable points of the target space are as targets of source cells.

    The flow is solved backwards along with its divergence. Each point of each cell takes as many derivatives a step as there are
    features: some 2 ms at 8 features and 12 ms at 50 on two cores, with hidden layers of 256.

    Parameters
    ----------
    target_points
        Points in units of the target representation. (points, features): each point is asked of each cell. (cells, k,
        features): each cell has points of its own, as :meth:`sample` returns them; ``[:, None]`` for one a cell.
    adata, indices, conditions
        As in :meth:`sample`.
    batch_size
        Pairs of a cell and a point at once; memory is in proportion to it.
    rng
        Seed or generator of random probes; see `divergence`.
    ode
        How the flow's equation is solved; 16 midpoint steps by default.
    divergence
        How the divergence is computed: exactly up to 100 features, by 16 random probes above; see
        :class:`scgenot.flow.DivergenceConfig`.

    Returns
    -------
    Array (cells, points) or (cells, k): natural logarithms of densities with respect to volume in units of the target
    representation; a dict of them by name for several conditions. Changed units add a constant, so densities in two representations do
    not compare.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    NotImplementedError
        If its method has no density.
    KeyError, ValueError
        As :meth:`sample`; also if points have another width than the target representation, are not finite, or are of another
        number of cells.

    Examples
    --------
    >>> samples = model.sample(adata, n_samples=10)  # doctest: +SKIP
    >>> model.get_log_prob(samples, adata).shape  # doctest: +SKIP
    (936, 10)
    """
    check_is_trained(model)
    points, options = checked_points(model, target_points), density_options(batch_size, rng, ode, divergence)
    return answer(model, lambda cells: log_prob_of(model, cells, points, options), adata, indices, conditions)


def get_entropy(
    model: TransportModel,
    adata: Data | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    divergence: DivergenceConfig | None = None,
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
) -> pd.DataFrame | dict[str, pd.DataFrame]:
    """Return the differential entropy of the law of each source cell: the mean of ``-log pi(y | x)`` over samples.

    Unlike the variance it does not grow with the distance between two narrow modes. It may be negative, and its zero depends on
    the units of the representation: compare cells, not representations. (The entropy of *labels* is
    :meth:`get_uncertainty`'s, with `label_key`.)

    Parameters
    ----------
    adata, indices, n_samples, batch_size, rng, ode, conditions
        As in :meth:`sample`.
    divergence
        As in :meth:`get_log_prob`.

    Returns
    -------
    One row a cell, named as in ``obs_names``: ``entropy`` in nats, and its ``standard_error``, NaN for one sample.

    Raises
    ------
    RuntimeError, NotImplementedError, KeyError, ValueError
        As :meth:`get_log_prob`.

    Examples
    --------
    >>> model.get_entropy(adata, n_samples=30)  # doctest: +SKIP
    """
    check_is_trained(model)
    sampling = Sampling(n_samples, batch_size, rng, ode)
    options = density_options(None, sampling.rng, ode, divergence)

    def entropies(cells: Cells) -> pd.DataFrame:
        found = np.empty((len(cells.rows), sampling.n_samples))
        for place, _, logs in samples_with_log_prob(model, cells, sampling, options):
            found[place] = -logs
        spread = found.std(axis=1, ddof=1) if sampling.n_samples > 1 else np.full(len(found), np.nan)
        columns = {"entropy": found.mean(axis=1), "standard_error": spread / np.sqrt(sampling.n_samples)}
        return pd.DataFrame(columns, index=cells.names)

    return answer(model, entropies, adata, indices, conditions)


def density_options(
    batch_size: int | None, rng: RNG, ode: ODEConfig | None, divergence: DivergenceConfig | None
) -> dict[str, object]:
    """Return what methods take for densities; raise if a value is of another kind."""
    checked = Sampling(1, batch_size, rng, ode)
    if not isinstance(divergence, DivergenceConfig | None):
        raise TypeError(
            f"`divergence` must be a scgenot.flow.DivergenceConfig or None, got {type(divergence).__name__}."
        )
    return {"ode": ode, "divergence": divergence, "rng": as_key(checked.rng), "rows": checked.batch_size}


def checked_points(model: TransportModel, points: object) -> Float[np.ndarray, "..."]:
    """Return points as float32, (points, features) or (cells, k, features); raise unless they are."""
    width = model._method.target_dim
    try:
        found = np.asarray(points, np.float32)
    except (TypeError, ValueError):
        raise TypeError(f"`target_points` must be an array of numbers, got {type(points).__name__}.") from None
    if found.ndim not in (2, 3) or found.shape[-1] != width:
        raise ValueError(
            f"`target_points` must have shape (points, {width}), or (cells, k, {width}) for points of each cell, got "
            f"{found.shape}. Use the target representation."
        )
    if (wrong := not_finite(found)) is not None:
        raise ValueError(f"`target_points` has NaN or inf in {wrong[0]} rows (first: {wrong[1]}). Leave them out.")
    return found


def pairs_of(points: np.ndarray, n_cells: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], tuple[int, int]]:
    """Return points in a row, which pairs of a point and a cell are asked for, and the shape of the answer."""
    if points.ndim == 2:
        shape = n_cells, len(points)
        return points, (np.tile(np.arange(len(points)), n_cells), np.repeat(np.arange(n_cells), len(points))), shape
    if len(points) != n_cells:
        raise ValueError(
            f"`target_points` has points of {len(points)} cells, and {n_cells} are asked for. Give (cells, k, features), or "
            "(points, features) to ask each point of each cell."
        )
    shape = points.shape[:2]
    return (
        points.reshape(-1, points.shape[2]),
        (np.arange(shape[0] * shape[1]), np.repeat(np.arange(n_cells), shape[1])),
        shape,
    )


def log_prob_of(
    model: TransportModel, cells: Cells, points: Float[np.ndarray, "..."], options: dict[str, object]
) -> Float[np.ndarray, "n k"]:
    """Return what :meth:`get_log_prob` does, of cells and points that were read already."""
    flat, pairs, shape = pairs_of(points, len(cells.rows))
    return model._method.log_prob(flat, cells.values, condition=cells.condition, pairs=pairs, **options).reshape(shape)


def samples_with_log_prob(
    model: TransportModel, cells: Cells, sampling: Sampling, options: dict[str, object]
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield the place of some cells, their samples, and the log-densities of these."""
    for place, block in sample_blocks(model, cells, sampling):
        yield place, block, log_prob_of(model, some_cells(cells, place), block, options)


def some_cells(cells: Cells, place: slice) -> Cells:
    """Return some of the cells."""
    condition = None if cells.condition is None else cells.condition[place]
    return Cells(cells.adata, cells.rows[place], cells.values[place], condition)
