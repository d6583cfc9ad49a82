"""How much mass cells send or get: growth, death, and cells without a counterpart."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from scgenot._messages import one_of
from scgenot._rng import RNG
from scgenot.data import POPULATIONS, Data, digest_of, read_representation
from scgenot.model._cells import Cells, Sampling, travellers
from scgenot.model._conditions import answer
from scgenot.model._way import growth_on_the_way

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def get_growth(
    model: TransportModel,
    adata: Data | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    population: Literal["source", "target"] = "source",
    conditions: str | Sequence[str] | pd.DataFrame | None = None,
    until: Hashable | None = None,
    n_samples: int = 30,
    rng: RNG = 0,
) -> Float[np.ndarray, " n"] | dict[str, Float[np.ndarray, " n"]]:
    """Return how much mass cells send, or get, per unit of their prior mass.

    Of a cell of the source population this is eta(x) of Klein et al. 2024 (section 3), of the target population xi(y).
    Between two days it reads as growth, between two assays as having a counterpart. For cells that the model was trained on,
    it is the plan's own; for others, what the rescaling functions learned from these.

    Parameters
    ----------
    adata
        As in :meth:`sample`.
    indices
        Which cells; by default those of the population, in their order.
    population
        Whose cells they are.
    conditions
        As in :meth:`sample`; target cells are in conditions of their own by default.
    until
        As in :meth:`sample`. Over several steps, growth is the product of the steps' growth along a sample, averaged over
        samples.
    n_samples, rng
        Samples a cell, and their seed, over several steps; one step takes none.

    Returns
    -------
    Positive numbers, one a cell. 1 is kept, near 0 has no counterpart; all 1 where the tau of this population is 1.
    Their mean over training cells is the mass of the plan, not 1.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError, ValueError
        As :meth:`sample`; also for a minibatch coupling with this tau below 1, which does not tell growth.

    Examples
    --------
    >>> model = scgenot.GENOT(adata, tau_source=0.95)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> adata.obs.loc[adata.obs["condition"] == "control", "growth"] = model.get_growth()  # doctest: +SKIP
    """
    _check_population(population)
    sampling = Sampling(n_samples, rng=rng)

    def growth_of(cells: Cells) -> Float[np.ndarray, " n"]:
        if cells.way is not None and cells.way.is_long:
            return growth_on_the_way(model._method, travellers(cells, sampling))
        growth = model._method.growth(cells.values, population, condition=cells.condition)
        known = _of_training_cells(model, cells, population)
        return growth if known is None else np.where(np.isnan(known), growth, known)

    return answer(model, growth_of, adata, indices, conditions, population, until)


def knows_growth(model: TransportModel, population: Literal["source", "target"] = "source") -> bool:
    """Return whether :meth:`get_growth` has an answer.

    Examples
    --------
    >>> model.knows_growth()  # doctest: +SKIP
    True
    """
    _check_population(population)
    return model._method.marginal_kinds[POPULATIONS.index(population)] != "unknown"


def _of_training_cells(model: TransportModel, cells: Cells, population: str) -> Float[np.ndarray, " n"] | None:
    """Return the plan's own growth of cells, NaN for those that did not train; ``None`` if it is not known of any.

    It is known of the data that it was trained on, or of a copy: the rows of training cells hold the features of these.
    """
    place = getattr(model._spec, population)
    if model._training is None:
        return None
    learned = model._method.training_growth(population)
    side = POPULATIONS.index(population)
    rows = model._training.train_rows[side]
    if learned is None or len(learned) != len(rows) or rows.max() >= cells.adata.n_obs:
        return None
    try:
        values = read_representation(cells.adata, place.rep, rows, f"{population}_rep", place)
    except (KeyError, ValueError):
        # Other cells, in which these rows need not even be finite.
        return None
    if digest_of(values) != model._training.digests[side]:
        return None
    everywhere = np.full(cells.adata.n_obs, np.nan, np.float32)
    everywhere[rows] = learned
    return everywhere[cells.rows]


def _check_population(population: str) -> None:
    if population not in POPULATIONS:
        raise ValueError(one_of("population", population, POPULATIONS))
