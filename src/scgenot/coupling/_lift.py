"""A solved quadratic problem as a linear one: features in which the linearised cost is an inner product.

At the solved plan the linearised cost is ``2 alpha (sum_k cX(x, x_k)^2 p_k + sum_l cY(y, y_l)^2 q_l - 2 cX(x, .) P cY(., y))``
and so is defined for any pair of cells, also ones that were not solved over.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot.costs import Cost

_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class Lift:
    """From cells of one population to features; costs are inner products with the other population's features.

    Attributes
    ----------
    anchors
        Cells that the problem was solved over.
    cost, scale
        Cost within this population, and what it is divided by.
    map
        From costs to the anchors to the features of the bilinear term.
    mass
        Weight of each anchor in the square term, times its factor.
    one_first
        Whether the constant feature comes before the square term (source) or after it (target).
    """

    anchors: Float[Array, "k d"]
    cost: Cost
    scale: float
    map: Float[Array, "k r"]
    mass: Float[Array, " k"]
    one_first: bool

    def __call__(self, cells: Float[Array | np.ndarray, "n d"]) -> Float[Array, "n f"]:
        """Return the features of cells, block by block."""
        cells = jnp.asarray(cells, jnp.float32)
        blocks = [
            _features(self.cost, self.scale, self.anchors, self.map, self.mass, self.one_first, cells[i : i + _BLOCK])
            for i in range(0, len(cells), _BLOCK)
        ]
        return jnp.concatenate(blocks)


@partial(jax.jit, static_argnames=("cost", "one_first"))
def _features(cost, scale, anchors, map_, mass, one_first, cells):
    costs = cost(cells, anchors) / scale
    square = jnp.square(costs) @ mass
    ends = [jnp.ones_like(square), square] if one_first else [square, jnp.ones_like(square)]
    return jnp.concatenate([costs @ map_, jnp.stack(ends, axis=1)], axis=1)


def product(x: Float[Array, "n f"], y: Float[Array, "m f"]) -> Float[Array, "n m"]:
    """Return inner products."""
    return x @ y.T


# Symmetric as a function of the two sides' features.
LIFTED = Cost("linearised", product, symmetric=True)


def lifts(
    source: Float[Array, "n dx"],
    target: Float[Array, "m dy"],
    costs: tuple[Cost, Cost],
    scales: tuple[float, float],
    bases: tuple[Float[Array, "n r"], Float[Array, "m s"]],
    plan: Float[Array, "n m"],
    alpha: float,
) -> tuple[Lift, Lift]:
    """Return the lifts of both populations for a solved plan.

    Costs within a population have few directions (exactly d + 2 for squared Euclidean ones), so the bilinear term is
    kept in the leading ones only.
    """
    # Costs to the anchors of any cell are nearly in the span of the anchors' own costs: c = c Q Q'.
    middle = -4.0 * alpha * bases[0].T @ plan @ bases[1]
    left = Lift(source, costs[0], scales[0], bases[0] @ middle, 2.0 * alpha * plan.sum(axis=1), one_first=False)
    right = Lift(target, costs[1], scales[1], bases[1], 2.0 * alpha * plan.sum(axis=0), one_first=True)
    return left, right
