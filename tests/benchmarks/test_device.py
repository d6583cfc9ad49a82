"""Tables of a device: every row is there, block sizes and products are really exchanged, and put back."""

import jax
import jax.numpy as jnp
import pytest
from benchmarks import device
from benchmarks._registry import BENCHMARKS

from scgenot.costs import _named
from scgenot.sinkhorn import _geometry

pytestmark = pytest.mark.once
TINY = device.Sizes(
    rounds=1,
    products=(64,),
    cells=256,
    blocks=(64, 1024),
    batches=(32,),
    steps=2,
    rows=(64,),
    samples=128,
    ode_steps=1,
)


def test_passes_by_block_and_product(monkeypatch):
    before, matmul = _named.matmul, jnp.matmul
    shapes = []

    def rounded(a, b, **options):
        shapes.append((len(a), b.shape[1]))
        # Not by a type and back, which XLA leaves out.
        half = [jax.lax.reduce_precision(one, exponent_bits=8, mantissa_bits=7) for one in (a, b)]
        return matmul(*half, **options)

    exact = [row.values["error"] for row in device.passes(TINY).rows]
    monkeypatch.setattr(device.jnp, "matmul", rounded)
    table = device.passes(TINY)
    assert max(exact) < 1e-4 and min(row.values["error"] for row in table.rows) > 1e-3
    # A block is no larger than the data.
    assert set(shapes) == {(64, 64), (256, 256)}
    assert [row.labels["block"] for row in table.rows if row.values["used"]] == [1024]
    assert _geometry.BLOCK == 1024 and _named.matmul is before


def test_products_steps_and_samples():
    for table, wanted in ((device.products, 3), (device.training, 3), (device.sampling, 3)):
        found = table(TINY)
        assert len(found.rows) == wanted and {row.labels["precision"] for row in found.rows} == {
            device.DEFAULT,
            device.FULL,
            device.HALF,
        }
        assert all(value > 0 for row in found.rows for value in row.values.values() if not isinstance(value, str))
    assert "device" in BENCHMARKS
