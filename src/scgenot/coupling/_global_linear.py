"""The linear global coupling."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from scgenot._devices import Devices
from scgenot._progress import Progress
from scgenot._sampling import host_rng
from scgenot.costs import AnchoredCost, Precomputed, cost_scale, is_symmetric, matrix_scale, resolve_cost
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._given_costs import given_costs
from scgenot.coupling._lift import Lift, NoLift, anchor_lifts, lifted_cost
from scgenot.coupling._potential import PotentialCoupling
from scgenot.sinkhorn import Geometry, solve_potentials


def linear_coupling(
    key: jax.Array,
    source: Float[Array, "n d"],
    target: Float[Array, "m d"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
    *,
    progress: Progress | None = None,
    devices: Devices | None = None,
) -> PotentialCoupling:
    """Solve the linear entropic problem over all cells.

    Minimises ``<C, P> + epsilon KL(P | a b')``, with the marginals relaxed where a tau is below 1 (Klein et al. 2024, section 2).

    Parameters
    ----------
    key
        Chooses the subsets that large problems start from.
    source, target
        Cells of the two populations, in one space. Costs are always those from source to target cells.
    a, b
        Marginals; each sums to 1.
    config
        Cost, epsilon, taus, limits.
    progress
        Is told of each call of iterations, and how far the marginals are off.
    devices
        Devices that share the rows of each pass over the costs; ``None``: one.

    Returns
    -------
    The coupling, converged or not: see its diagnostics.
    """
    geometry, lift, scale = linear_costs(key, source, target, config)
    geometry = geometry.shared_by(devices)
    if source.shape[0] * target.shape[0] <= config.dense_limit:
        geometry = geometry.stored()
    potentials = solve_potentials(geometry, a, b, config.sinkhorn, key=key, progress=progress)
    return PotentialCoupling(geometry, a, b, potentials, config, "linear, global", scale, lift=lift)


def linear_costs(
    key: jax.Array, source: Float[Array, "n d"], target: Float[Array, "m d"], config: CouplingConfig
) -> tuple[Geometry, Any, float]:
    """Return the costs from source to target cells, how other cells come in, and what costs are divided by."""
    cost = resolve_cost(config.cost)
    if cost.name == "inner_product":
        raise ValueError(
            "`cost`='inner_product' compares cells within a population, in quadratic problems. Use 'cosine'."
        )
    lift = None
    if isinstance(cost, Precomputed):
        geometry, lift, scale = given_costs(source, target, config)
    elif isinstance(cost, AnchoredCost):
        geometry, lift, scale = _anchored(key, cost, source, target, config)
    else:
        scale = cost_scale(cost, source, target, config.scale_of(0))
        geometry = Geometry(source, target, 1.0 / (scale * config.epsilon), cost)
    return geometry, lift, scale


def _anchored(
    key: jax.Array, cost: AnchoredCost, source, target, config: CouplingConfig
) -> tuple[Geometry, tuple[Lift, Lift] | tuple[NoLift, NoLift], float]:
    """Return costs over the joint population, exact where it is small, through landmarks where it is not.

    Raises
    ------
    ValueError
        If the population is not small, and its costs differ by direction: of those from a landmark nothing is known.
    """
    n = len(source)
    joint = np.concatenate([np.asarray(source), np.asarray(target)])
    anchors = np.arange(len(joint))
    if len(joint) > 2 * config.landmarks:
        rng = host_rng(key)
        anchors = np.sort(rng.choice(len(joint), 2 * config.landmarks, replace=False))
    fitted = cost.fit(joint, anchors)
    within = np.asarray(fitted(joint[anchors]))
    across = within[np.ix_(anchors < n, anchors >= n)]
    scale = matrix_scale(across if across.size else within, config.scale_of(0))
    inverse, whole = 1.0 / config.epsilon, len(anchors) == len(joint)
    if not is_symmetric(within):
        if not whole:
            raise ValueError(
                f"`cost`={cost.name!r} is not symmetric, so that {len(joint)} cells cannot be coupled through landmarks. Give "
                f"at least {-(-len(joint) // 2)} `landmarks`, got {config.landmarks}, or make it symmetric."
            )
        matrix = jax.device_put(np.asarray(across / scale, np.float32))
        geometry = Geometry(source, target, inverse, lifted_cost(), matrix)
        return geometry, (NoLift(cost.name), NoLift(cost.name)), scale
    lift = anchor_lifts(fitted, within, scale, config.epsilon)
    geometry = Geometry(lift[0](source), lift[1](target), inverse, lifted_cost())
    if whole:
        geometry = dataclasses.replace(geometry, matrix=jax.device_put(np.asarray(across / scale, np.float32)))
    return geometry, lift, scale
