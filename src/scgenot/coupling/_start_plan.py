"""Plans that quadratic problems are told to start from: given as they are, or implied by another coupling."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from scgenot.coupling._base import Coupling
from scgenot.coupling._lift import Lift
from scgenot.coupling._potential import PotentialCoupling
from scgenot.coupling.quadratic._sides import Side


def dense_plan(coupling: PotentialCoupling) -> Float[np.ndarray, "n m"]:
    """Return the whole plan; cells without weight have no mass, whatever potential they have."""
    found, geometry = coupling.potentials, coupling.geometry
    u, v, matrix = (np.asarray(one, np.float32) for one in (found.u, found.v, geometry.stored().matrix))
    weights = np.asarray(coupling.a, np.float64)[:, None] * np.asarray(coupling.b, np.float64)[None, :]
    logs = np.where(weights > 0, u[:, None] + v[None, :] - np.float32(geometry.inverse) * matrix, -np.inf)
    return weights * np.exp(logs)


def start_plan(
    init: Coupling | Float[Array | np.ndarray, "_ _"],
    sides: list[Side],
    shared: tuple[Float[Array | np.ndarray, "n s"], Float[Array | np.ndarray, "m s"]] | None,
) -> Float[np.ndarray, "k l"]:
    """Return the plan between the landmarks to start from; it need not have their marginals.

    Parameters
    ----------
    init
        A plan between all cells, or a coupling of the same spaces that extends to these cells.
    sides
        Source and target population with their landmarks.
    shared
        Shared features of all cells, where there are any.

    Raises
    ------
    ValueError
        If it is no plan of this shape, a coupling without a plan, or one of other spaces.
    """
    if isinstance(init, Coupling):
        plan = _implied(init, sides, shared)
    else:
        plan = np.asarray(init, np.float64)
        shape = tuple(len(side.cells) for side in sides)
        if plan.shape != shape:
            raise ValueError(f"`init` must be a plan of shape {shape} or a coupling, got shape {plan.shape}.")
        if not np.isfinite(plan).all() or (plan < 0).any():
            raise ValueError(f"`init` must be finite and not negative, got values down to {np.nanmin(plan):g}.")
        plan = plan[np.ix_(sides[0].chosen, sides[1].chosen)]
    if not (np.isfinite(plan).all() and plan.sum() > 0):
        raise ValueError("`init` has no mass between these cells. Give a coupling of cells that lie near them.")
    return plan / plan.sum()


def _implied(init: Coupling, sides: list[Side], shared: Any) -> Float[np.ndarray, "k l"]:
    if not isinstance(init, PotentialCoupling):
        raise ValueError(
            f"`init` must be a coupling with one plan over all cells, got a {type(init).__name__}. Use one of kind 'global', "
            "or the `coupling` of one of the `parts` of blocks."
        )
    lift = init.lift[0] if init.lift is not None else None
    if not isinstance(lift, Lift) or init.kind.startswith("linear"):
        raise ValueError(f"`init` must be a quadratic or fused coupling, or a plan; got one that is {init.kind!r}.")
    if lift.weight is not None and lift.profile is None and shared is None:
        raise ValueError("`init` was coupled with `shared` features, and this problem has none. Give these as well.")
    cells = [np.asarray(side.cells)[side.chosen] for side in sides]
    weights = [np.asarray(side.weights) for side in sides]
    own = None
    if lift.weight is not None and lift.profile is None:
        own = tuple(np.asarray(one)[side.chosen] for one, side in zip(shared, sides, strict=True))
    try:
        extended = init.extend(*cells, source_weights=weights[0], target_weights=weights[1], shared=own)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`init` does not extend to these cells: {error}") from error
    return dense_plan(extended)
