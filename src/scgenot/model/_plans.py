"""The plans of a time course, with the cells that they are between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from scgenot.coupling import BlockCoupling, Coupling
from scgenot.model._training import coupled_data

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


def plans_in_time(
    model: TransportModel,
) -> list[tuple[Coupling, Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]]:
    """Return each step's plan with its earlier and its later cells, in the order of time, whichever way the model goes.

    Raises
    ------
    RuntimeError, ValueError
        As :meth:`scgenot.GENOT.reverse`; also if the method learned without a coupling.
    """
    found, coupling = coupled_data(model, "to read"), model.coupling_
    if coupling is None:
        raise RuntimeError(
            f"the method {model._method.name!r} learned without a coupling. Use one that needs it, such as GENOT."
        )
    sides = zip(found.populations, found.training, strict=True)
    source, target = (population.cells[some] for population, some in sides)
    if model.goes_back:
        source, target, coupling = target, source, coupling.swapped()
    if not isinstance(coupling, BlockCoupling):
        return [(coupling, source, target)]
    return [(part.coupling, source[part.source_rows], target[part.target_rows]) for part in coupling.parts]
