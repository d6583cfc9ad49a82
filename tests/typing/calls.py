"""Calls of the array rooms as a user's type checker sees them: `mypy` checks this file in full, and never runs it.

What comes out is asserted. What is wrong carries the error that it has to get, and mypy says so if it gets none. Shapes are
not among what it knows; those are checked while tests run.
"""

from typing import assert_type

import jax
import numpy as np

from scgenot.costs import (
    AnchoredCost,
    Cost,
    Geodesic,
    available_costs,
    cost_scale,
    displaced_cost,
    resolve_cost,
    resolve_cost_pair,
)
from scgenot.coupling import Coupling, CouplingConfig, TauScan, available_couplings, scan_taus, solve_coupling
from scgenot.datasets import GaussianProblem, SwissRollSpiral, gaussian_pair, swiss_roll_spiral
from scgenot.flow import FlowConfig, ODEConfig, TrainConfig, conditional_mean
from scgenot.metrics import energy_distance, foscttm, label_transfer_accuracy, mmd_rbf, sinkhorn_divergence, wasserstein
from scgenot.sinkhorn import Geometry, Potentials, SinkhornConfig, solve_potentials

key = jax.random.key(0)
cells = np.zeros((5, 2), np.float32)
weights = np.full(5, 0.2)
on_device = jax.numpy.asarray(cells)

# Costs
assert_type(available_costs(), list[str])
assert_type(resolve_cost("cosine"), Cost | AnchoredCost)
resolve_cost(lambda x, y: abs(x - y).sum())
resolve_cost(1)  # type: ignore[arg-type]
resolve_cost_pair(("euclidean", Geodesic(n_neighbors=5)))
assert_type(displaced_cost("sqeuclidean", cells[0]), Cost)
Geodesic(method="diffusion")  # type: ignore[arg-type]

# Sinkhorn
one_cost = resolve_cost("sqeuclidean")
assert isinstance(one_cost, Cost)
assert_type(cost_scale(one_cost, on_device, on_device), float)
cost_scale(one_cost, on_device, on_device, "median")  # type: ignore[arg-type]
geometry = Geometry(on_device, on_device, 1.0, one_cost)
found = solve_potentials(geometry, on_device[:, 0], on_device[:, 0], SinkhornConfig(epsilon=0.1), key=key)
assert_type(found, Potentials)
assert_type(found.u, jax.Array)
SinkhornConfig()  # type: ignore[call-arg]

# Metrics
assert_type(wasserstein(cells, on_device), float)
assert_type(energy_distance(cells, cells, unbiased=True), float)
assert_type(mmd_rbf(cells, cells, bandwidths=[1.0, 2.0]), float)
assert_type(sinkhorn_divergence(cells, cells), float)
assert_type(foscttm(cells, cells), float)
assert_type(label_transfer_accuracy(cells, ["a"] * 5, cells, ["a"] * 5), float)
wasserstein(cells)  # type: ignore[call-arg]

# Data with known answers
assert_type(gaussian_pair(3), GaussianProblem)
assert_type(swiss_roll_spiral(10), SwissRollSpiral)
gaussian_pair("3")  # type: ignore[arg-type]

# Couplings
config = CouplingConfig(cost="euclidean", epsilon=0.1, tau_source=0.9)
coupling = solve_coupling(key, cells, on_device, source_weights=weights, config=config)
assert_type(coupling, Coupling)
assert_type(coupling.diagnostics.converged, bool)
assert_type(available_couplings("linear"), list[str])
assert_type(scan_taus(key, cells, cells, taus=[1.0, 0.9]), TauScan)
solve_coupling(key, [[0.0]], cells)  # type: ignore[arg-type]
CouplingConfig(epsilon="0.1")  # type: ignore[arg-type]

# Flow
FlowConfig(hidden=(32, 32), standardize="global")
FlowConfig(standardize="standard")  # type: ignore[arg-type]
ODEConfig(solver="rk4")  # type: ignore[arg-type]
TrainConfig(max_steps=100, ema_decay=None)
conditional_mean(cells[:, None])
