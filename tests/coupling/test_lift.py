"""Features of lifted cells: the costs that follow from them are within .05 epsilon of the costs that are meant."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scgenot.costs import matrix_scale, resolve_cost
from scgenot.coupling._lift import anchor_lifts, lifted_cost, lifts

N, EPSILON = 300, 0.002


def blurred_plan(x, y):
    plan = np.exp(-cdist(x, y, "sqeuclidean") / x.shape[1] / 0.05)
    for _ in range(50):
        plan /= plan.sum(axis=1, keepdims=True) * N
        plan /= plan.sum(axis=0, keepdims=True) * N
    return plan


@pytest.mark.parametrize("probed", [False, True], ids=["anchors", "others"])
@pytest.mark.parametrize("d", [3, 30])
def test_largest_error_in_units_of_epsilon(d, probed, rng):
    x, y, other_x, other_y = (np.float32(rng.normal(size=(N, d))) for _ in range(4))
    plan = blurred_plan(x, y)
    cost = resolve_cost("euclidean")
    anchored = cost.fit(x, np.arange(N)), cost.fit(y, np.arange(N))
    within = [np.asarray(one(cells)) for one, cells in zip(anchored, (x, y), strict=True)]
    scales = [matrix_scale(one) for one in within]
    scaled = tuple(jnp.asarray(one / scale) for one, scale in zip(within, scales, strict=True))
    probes = (other_x, other_y) if probed else None
    found = lifts(anchored, scaled, tuple(scales), jnp.asarray(plan, jnp.float32), 1.0, 0.0, EPSILON, probes)
    cells = probes or (x, y)
    features = [one(some) for one, some in zip(found, cells, strict=True)]
    lifted = np.asarray(lifted_cost()(*features), np.float64)
    cx, cy = (np.asarray(one(some), np.float64) / s for one, some, s in zip(anchored, cells, scales, strict=True))
    plan = np.float64(np.float32(plan))
    exact = 2 * ((cx**2 @ plan.sum(axis=1))[:, None] + (cy**2 @ plan.sum(axis=0))[None] - 2 * cx @ plan @ cy.T)
    assert np.abs(lifted - exact).max() / EPSILON < 0.05
    if probed:
        # Fewer directions than cells: the bound is not met by keeping everything.
        assert found[0].map.shape[1] < N // 2


def test_largest_error_between_anchors_of_one_population(rng):
    x = np.float32(rng.normal(size=(N, 30)))
    anchored = resolve_cost("euclidean").fit(x, np.arange(N))
    within = np.asarray(anchored(x))
    scale = matrix_scale(within)
    left, right = anchor_lifts(anchored, within, scale, EPSILON)
    lifted = np.asarray(lifted_cost()(left(x), right(x)), np.float64)
    assert np.abs(lifted - within / scale).max() / EPSILON < 0.05
