"""Transition matrices between the times of a course, as CellRank reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from sklearn.neighbors import NearestNeighbors

from scgenot._messages import check_count, did_you_mean, listed
from scgenot._rng import RNG
from scgenot.data import Place, in_memory, read_representation
from scgenot.flow import ODEConfig
from scgenot.tl._fates import check_course
from scgenot.tl._writing import sent_mass

if TYPE_CHECKING:
    from scgenot.model import GENOT

# Samples that are asked for their neighbours at once: 2**20 samples of 50 features are 200 MB.
_SAMPLES = 2**20


def couplings(
    adata: AnnData,
    model: GENOT,
    *,
    n_samples: int = 30,
    n_neighbors: int = 5,
    weight_by_growth: bool = False,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
) -> dict[tuple[Any, Any], AnnData]:
    """Return which cells of the next time the cells of each time go to, as sparse matrices.

    Each sample of a cell is shared out among its nearest cells of the next time. So all cells have a row, also those that training
    did not see.

    Parameters
    ----------
    adata
        Cells of all times of the model. They are not changed.
    model
        A trained model of a time course that goes forward.
    n_samples
        Samples a cell.
    n_neighbors
        Cells of the next time that each sample is shared out among.
    weight_by_growth
        Whether rows sum to the mass that their cells send, of 1 over all cells of a time. Otherwise each sums to 1.
    batch_size
        Cells at once.
    rng
        Seed or generator.
    ode
        How the flow's equation is solved.

    Returns
    -------
    By pair of times that follow each other: an AnnData with cells of the first in ``obs`` and cells of the second in ``var``, and
    in ``X`` a sparse matrix of at most `n_samples` times `n_neighbors` numbers a row. ``cellrank.kernels.RealTimeKernel`` takes it
    as `couplings`, with a categorical column of the times.

    Raises
    ------
    ValueError
        If the model has no times, or goes back in time; if a time has no cells, or fewer than `n_neighbors`.
    RuntimeError, KeyError
        As :meth:`scgenot.GENOT.sample`.

    Examples
    --------
    >>> adata.obs["day"] = adata.obs["day"].astype("category")  # doctest: +SKIP
    >>> found = scgenot.tl.couplings(adata, model)  # doctest: +SKIP
    >>> kernel = cellrank.kernels.RealTimeKernel(adata, time_key="day", couplings=found)  # doctest: +SKIP
    >>> kernel.compute_transition_matrix(threshold=None)  # doctest: +SKIP
    """
    check_course(model)
    check_count("n_samples", n_samples)
    check_count("n_neighbors", n_neighbors)
    if model.goes_back:
        raise ValueError("this model goes back in time, and couplings lead forward. Pass the model that was reversed.")
    params = model.describe()
    key, rep = params["population_key"], params["source_rep"]
    obs = in_memory(adata.obs)
    if key not in obs:
        raise KeyError(f"`time_key`={key!r} is no column of adata.obs.{did_you_mean(key, obs)}")
    place = Place("target", rep, layer=params.get("layer"))
    of_time = {time: np.flatnonzero((obs[key] == time).to_numpy()) for time in model.times}
    few = {
        time: len(rows) for time, rows in of_time.items() if len(rows) < (1 if time == model.times[0] else n_neighbors)
    }
    if few:
        time, n = next(iter(few.items()))
        raise ValueError(
            f"adata has {n} cells at the time {time!r}, and `n_neighbors`={n_neighbors}. Pass cells of all times "
            f"{listed(model.times)}, or lower `n_neighbors`."
        )
    found = {}
    for before, after in zip(model.times[:-1], model.times[1:], strict=True):
        rows, columns = of_time[before], of_time[after]
        values = read_representation(adata, rep, columns, "target_rep", place)
        search = NearestNeighbors(n_neighbors=int(n_neighbors)).fit(values)
        options = {"n_samples": n_samples, "batch_size": batch_size, "rng": rng, "ode": ode}
        at_once = max(1, _SAMPLES // int(n_samples))
        parts = []
        for first in range(0, len(rows), at_once):
            samples = model.sample(adata, indices=rows[first : first + at_once], until=after, **options)
            near = search.kneighbors(samples.reshape(-1, samples.shape[-1]), return_distance=False)
            parts.append(near.reshape(len(samples), -1))
        near = np.concatenate(parts)
        cells = np.repeat(np.arange(len(rows)), near.shape[1])
        share = np.full(near.size, 1.0 / near.shape[1])
        matrix = sp.csr_matrix((share, (cells, near.ravel())), shape=(len(rows), len(columns)))
        if weight_by_growth:
            mass = sent_mass(model, adata, rows, growth=model.knows_growth(), until=after)
            matrix = sp.csr_matrix(sp.diags(mass) @ matrix)
        found[before, after] = AnnData(matrix, obs=obs.iloc[rows].copy(), var=obs.iloc[columns].copy())
    return found
