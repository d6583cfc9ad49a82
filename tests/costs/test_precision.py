"""Products of costs and plans are computed in full single precision, whatever the accelerator's default is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scgenot.costs import resolve_cost
from scgenot.coupling._given_costs import Given
from scgenot.coupling._lift import _bilinear, lifted_cost
from scgenot.sinkhorn import dense_sinkhorn

X = jnp.zeros((7, 5))


def products(jaxpr):
    """Yield all matrix products of a program, of its loops and functions too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from products(inner)


PROGRAMS = {
    name: (resolve_cost(name), X, X) for name in ("sqeuclidean", "euclidean", "cosine", "pearson", "inner_product")
}
PROGRAMS |= {
    "lifted": (lifted_cost(), X, X),
    "lifted and shared": (lifted_cost(2, resolve_cost("sqeuclidean")), X, X),
    "given": (Given(2, 2), X, X),
    "lift": (_bilinear, X, jnp.zeros((5, 3)), jnp.zeros(5), 0.0),
    "sinkhorn": (
        lambda cost: dense_sinkhorn(cost, jnp.ones(7), jnp.ones(5), jnp.zeros(7), jnp.zeros(5), (1.0, 1.0), 0.1, 2),
        X,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_products_have_the_highest_precision(name, plain_calls):
    function, *arguments = PROGRAMS[name]
    found = list(products(jax.make_jaxpr(function)(*arguments).jaxpr))
    assert found
    for equation in found:
        assert equation.params["precision"] == (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs an accelerator")
def test_costs_on_an_accelerator(rng):
    x, y = (np.float32(rng.normal(size=(500, 50))) for _ in range(2))
    found = resolve_cost("sqeuclidean")(jnp.asarray(x), jnp.asarray(y))
    # TF32 is off by 1e-2 here.
    np.testing.assert_allclose(found, cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean"), atol=1e-3)
