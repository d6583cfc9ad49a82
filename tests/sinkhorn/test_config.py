"""What a linear problem is solved with: numbers out of range are refused, units do not matter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scgenot.costs import resolve_cost
from scgenot.coupling import CouplingConfig
from scgenot.sinkhorn import Geometry, SinkhornConfig, solve_potentials


@pytest.mark.parametrize("name", ["dense_limit", "coarse_limit", "max_iterations", "tolerance", "epsilon"])
@pytest.mark.parametrize("value", [-5, 0])
def test_number_out_of_range_is_refused(name, value, plain_calls):
    with pytest.raises(ValueError, match=f"`{name}` must be .*got {value}"):
        SinkhornConfig(**({"epsilon": 0.1} | {name: value}))
    with pytest.raises(ValueError, match=f"`{name}` must be .*got {value}"):
        CouplingConfig(**{name: value})


def test_annealing_does_not_depend_on_the_unit_of_the_cost(rng):
    x, y = (jnp.asarray(rng.normal(size=(n, 3)), jnp.float32) for n in (40, 30))
    cost, found = resolve_cost("sqeuclidean"), []
    a, b = jnp.full(40, 1 / 40), jnp.full(30, 1 / 30)
    config = SinkhornConfig(0.01, tolerance=1e-4)
    # A power of two: rounding is then the same.
    for factor in (1.0, 1024.0):
        # As with `scale_cost=1.0`: epsilon is then a number of squared units of the data.
        geometry = Geometry(factor * x, factor * y, 1.0 / (0.01 * factor**2), cost)
        config = dataclasses.replace(config, epsilon=0.01 * factor**2)
        found.append(solve_potentials(geometry, a, b, config, key=jax.random.key(0)))
    assert found[0].iterations == found[1].iterations
    np.testing.assert_allclose(found[0].u, found[1].u, atol=1e-2)
