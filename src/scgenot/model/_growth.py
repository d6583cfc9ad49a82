"""How much mass cells send or get: growth, death, and cells without a counterpart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from scgenot._messages import one_of
from scgenot.data import Data
from scgenot.methods import GENOTSolver

_POPULATIONS = ("source", "target")


class GrowthMixin:
    """``get_growth``."""

    _solver: GENOTSolver

    def get_growth(
        self,
        adata: Data | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        population: Literal["source", "target"] = "source",
    ) -> Float[np.ndarray, " n"]:
        """Return how much mass cells send, or get, per unit of their prior mass: the learned rescaling functions.

        Of a cell of the source population this is eta(x) of Klein et al. 2024 (section 3), of the target population xi(y).
        Between two days it reads as growth, between two assays as having a counterpart.

        Parameters
        ----------
        adata
            As in :meth:`sample`.
        indices
            Which cells; by default those of the population, in their order.
        population
            Whose cells they are.

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
        """
        if population not in _POPULATIONS:
            raise ValueError(one_of("population", population, _POPULATIONS))
        _, cells = self._cells_of(population, adata, indices)
        return self._solver.growth(cells, population)

    def knows_growth(self, population: Literal["source", "target"] = "source") -> bool:
        """Return whether :meth:`get_growth` has an answer."""
        return self._solver.marginal_kinds[_POPULATIONS.index(population)] != "unknown"
