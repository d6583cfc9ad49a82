"""Products of the field in half precision: weights, gradients and samples stay in single precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scgenot.flow import FlowConfig
from scgenot.flow._velocity import abstract_velocity, initial_weights

pytestmark = pytest.mark.once
HALF = FlowConfig(hidden=(32, 32), time_frequencies=4, precision="bfloat16")
FULL = dataclasses.replace(HALF, precision="float32")


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    t, z, x = rng.random(64), rng.normal(size=(64, 3)), rng.normal(size=(64, 5))
    return tuple(jnp.asarray(one, jnp.float32) for one in (t, z, x))


def loss_of(config, given):
    graphdef, _ = abstract_velocity(5, 3, config)
    return lambda params: jnp.mean((nnx.merge(graphdef, params)(*given) - given[1]) ** 2)


def test_products_are_halved_and_nothing_else(given):
    params = initial_weights(jax.random.key(0), 5, 3, FULL)
    # The last layer starts from zero.
    params = jax.tree.map(lambda one: one + 0.05 * jax.random.normal(jax.random.key(1), one.shape), params)
    assert jax.tree.structure(params) == jax.tree.structure(initial_weights(jax.random.key(0), 5, 3, HALF))
    results = {}
    for config in (FULL, HALF):
        value, gradients = jax.value_and_grad(loss_of(config, given))(params)
        assert value.dtype == jnp.float32 and {one.dtype for one in jax.tree.leaves(gradients)} == {
            jnp.dtype("float32")
        }
        results[config.precision] = jax.flatten_util.ravel_pytree(gradients)[0]
        text = jax.jit(jax.grad(loss_of(config, given))).lower(params).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        # Forward, and with respect to weights and to the layers before, but for the inputs.
        assert len(products) == 8
        assert all(("xbf16>" in line) == (config is HALF) for line in products)
    off = np.linalg.norm(results["bfloat16"] - results["float32"]) / np.linalg.norm(results["float32"])
    # 8 bits of mantissa: a rounding is off by up to .004.
    assert 1e-4 < off < 0.05


def test_precision_is_saved_and_checked(plain_calls):
    assert FlowConfig.from_dict(dataclasses.asdict(HALF)) == HALF
    before = dataclasses.asdict(FULL)
    del before["precision"]
    assert FlowConfig.from_dict(before) == FULL
    with pytest.raises(ValueError, match="`precision` must be .*'float32'.*got 'float16'"):
        FlowConfig(precision="float16")
