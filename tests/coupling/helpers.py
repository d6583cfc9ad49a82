"""What several tests of couplings need."""

import numpy as np


def plan_of(coupling):
    """Return the dense plan of a small coupling."""
    found, geometry = coupling.potentials, coupling.geometry
    logs = (
        np.asarray(found.u)[:, None]
        + np.asarray(found.v)[None, :]
        - float(geometry.inverse) * np.asarray(geometry.stored().matrix)
    )
    weights = np.asarray(coupling.a, np.float64)[:, None] * np.asarray(coupling.b, np.float64)[None, :]
    # Cells without weight have no mass, whatever potential they have.
    return weights * np.exp(np.where(weights > 0, logs.astype(np.float64), -np.inf))


def brute_force_cost(x_costs, y_costs, plan):
    """Sum over k, l of |cX_ik - cY_jl|^2 P_kl with all four indices."""
    return np.einsum("ijkl,kl->ij", (x_costs[:, None, :, None] - y_costs[None, :, None, :]) ** 2, plan)
