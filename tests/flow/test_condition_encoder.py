"""Conditions made of slots: what their numbers mean, and how they are encoded."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scgenot.flow import ConditionConfig, ConditionEncoder, ConditionLayout, FlowConfig, VelocityField

LAYOUT = ConditionLayout(slots=2, token=3, context=2)


def row(tokens, strengths, context=(0.0, 0.0)):
    return np.concatenate([np.ravel(tokens), strengths, context]).astype(np.float32)


A, B, EMPTY = (1.0, 0.0, 2.0), (0.0, -1.0, 1.0), (0.0, 0.0, 0.0)
ROWS = np.stack(
    [
        row((A, B), (1.0, 0.5)),
        row((B, A), (0.5, 1.0)),
        row((A, EMPTY), (1.0, 0.0)),
        row((A, B), (1.0, 0.0)),
        row((EMPTY, B), (0.0, 0.5)),
        row((EMPTY, EMPTY), (0.0, 0.0)),
        row((EMPTY, EMPTY), (0.0, 0.0), (1.0, -1.0)),
    ]
)
BOTH, TURNED, A_ALONE, A_WITH_NONE, B_ALONE, NOTHING, CONTEXT = range(len(ROWS))


def test_a_layout_takes_rows_apart_as_they_were_put_together():
    assert LAYOUT.width == ROWS.shape[1] == 10
    np.testing.assert_array_equal(LAYOUT.tokens(ROWS)[BOTH], [A, B])
    np.testing.assert_array_equal(LAYOUT.strengths(ROWS)[TURNED], [0.5, 1.0])
    np.testing.assert_array_equal(LAYOUT.context_of(ROWS)[CONTEXT], [1.0, -1.0])


def test_slots_are_pooled_by_strength():
    pooled = LAYOUT.pooled(ROWS)
    assert pooled.shape == (len(ROWS), LAYOUT.pooled_width)
    np.testing.assert_allclose(pooled[BOTH], [*(np.array(A) + 0.5 * np.array(B)), 1.5, 0.0, 0.0])
    np.testing.assert_allclose(pooled[BOTH], pooled[TURNED])
    np.testing.assert_array_equal(pooled[NOTHING], 0.0)


def test_slots_add_up_and_empty_ones_add_nothing():
    found = np.asarray(ConditionEncoder(LAYOUT, ConditionConfig(width=5, hidden=(7,)), rngs=nnx.Rngs(0))(ROWS))
    np.testing.assert_allclose(found[BOTH], found[TURNED], atol=1e-6)
    np.testing.assert_allclose(found[A_ALONE], found[A_WITH_NONE], atol=1e-6)
    # The context's offset stands once in each.
    np.testing.assert_allclose(found[BOTH] + found[NOTHING], found[A_ALONE] + found[B_ALONE], atol=1e-5)
    assert np.abs(found[A_ALONE] - found[NOTHING]).max() > 0.01
    assert np.abs(found[CONTEXT] - found[NOTHING]).max() > 0.01


@pytest.mark.parametrize("injection", ["film", "concat"])
def test_the_field_sees_its_condition(injection):
    config = FlowConfig(hidden=(8, 8), conditions=ConditionConfig(width=4, hidden=(4,), injection=injection))
    field = VelocityField(2, 2, config, LAYOUT.width, LAYOUT, rngs=nnx.Rngs(0))
    # From weights as after some training: films and the last layer start from zero.
    for layer in [*field.films, field.out]:
        layer.kernel[...] = 0.5 * np.random.default_rng(0).normal(size=layer.kernel[...].shape)
    n = len(ROWS)
    t, z = jnp.full(n, 0.3), jnp.ones((n, 2))
    moved = np.asarray(field(t, z, z, field.encode(jnp.asarray(ROWS))))
    np.testing.assert_allclose(moved[BOTH], moved[TURNED], atol=1e-5)
    assert np.abs(moved[A_ALONE] - moved[B_ALONE]).max() > 1e-3
    assert np.abs(moved[CONTEXT] - moved[NOTHING]).max() > 1e-3


@pytest.mark.parametrize("wrong", [{"width": 0}, {"hidden": ()}])
def test_wrong_configs_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ConditionConfig(**wrong)
