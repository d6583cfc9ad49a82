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
    logs = logs.astype(np.float64)
    return np.asarray(coupling.a)[:, None] * np.asarray(coupling.b)[None, :] * np.exp(logs)


def brute_force_cost(x_costs, y_costs, plan):
    """Sum over k, l of |cX_ik - cY_jl|^2 P_kl with all four indices."""
    return np.einsum("ijkl,kl->ij", (x_costs[:, None, :, None] - y_costs[None, :, None, :]) ** 2, plan)
