"""How many programs are compiled: few for the first problem, none for another number of cells nearby."""

import jax
import numpy as np
import pytest

from scgenot.costs import Cost, cost_scale
from scgenot.sinkhorn import (
    Geometry,
    SinkhornConfig,
    draw_rows,
    extend_rows,
    pair_costs,
    soft_min_rows,
    solve_potentials,
)

EVENT = "/jax/core/compile/backend_compile_duration"
_SEEN = [0]
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: _SEEN.__setitem__(0, _SEEN[0] + (event == EVENT))
)


def squares(x, y):
    """A cost that no other test compiles."""
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2)


COST = Cost("squares of this file", squares, symmetric=True)


def uniform(n):
    return jax.device_put(np.full(n, 1 / n, np.float32))


def solved(n, m, dense):
    """Solve, draw, extend and look at pairs; return the potentials and the number of programs."""
    rng = np.random.default_rng(n)
    x, y = (jax.device_put(rng.normal(size=(size, 3)).astype(np.float32)) for size in (n, m))
    key, ids, pairs = jax.random.key(0), jax.device_put(np.arange(n)), np.zeros((n, 4), np.int32)
    before = _SEEN[0]
    scale = cost_scale(COST, x, y)
    geometry = Geometry(x, y, 1.0 / (0.1 * scale), COST)
    geometry = geometry.stored() if dense else geometry
    config = SinkhornConfig(0.1, dense_limit=2**24 if dense else 1)
    found = solve_potentials(geometry, uniform(n), uniform(m), config, key=key)
    h = jax.device_put(np.asarray(found.v) - np.log(m).astype(np.float32))
    draw_rows(geometry, h, key, ids, 4)
    soft_min_rows(geometry, h)
    extend_rows(geometry, np.full(m, -np.log(m), np.float32), found.v, 1.0)
    pair_costs(geometry, jax.device_put(pairs), jax.device_put(pairs))
    return geometry, found, _SEEN[0] - before


@pytest.mark.parametrize("dense", [True, False])
def test_another_number_of_cells_compiles_nothing(dense, plain_calls):
    # Few, whatever was compiled before: costs (measured, stored), stages, first half, draws, row sums, pairs.
    *_, first = solved(110, 100, dense)
    assert 0 < first <= 10
    for n, m in ((120, 99), (97, 128)):
        *_, again = solved(n, m, dense)
        assert again == 0


@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.9, 0.8)])
def test_padding_changes_nothing(taus, monkeypatch, plain_calls):
    from scgenot import _sizes
    from scgenot.sinkhorn import _geometry, _groups

    rng = np.random.default_rng(0)
    x, y = (jax.device_put(rng.normal(size=(size, 3)).astype(np.float32) + 50.0) for size in (70, 45))
    a, b = rng.uniform(0.5, 2.0, 70), rng.uniform(0.5, 2.0, 45)
    a[[0, -1]], b[-2:] = 0.0, 0.0
    a, b = (jax.device_put(np.float32(one / one.sum())) for one in (a, b))
    config = SinkhornConfig(0.1, *taus, tolerance=1e-6)
    plans = []
    for exact in (False, True):
        if exact:
            for module in (_sizes, _geometry, _groups):
                monkeypatch.setattr(module, "padded_size", lambda n: n)
        geometry = Geometry(x, y, 1.0 / 0.6, COST).stored()
        found = solve_potentials(geometry, a, b, config, key=jax.random.key(0))
        u, v = np.asarray(found.u, np.float64), np.asarray(found.v, np.float64)
        assert np.isfinite(u).all() and np.isfinite(v).all()
        plan = np.exp(u[:, None] + v[None, :] - np.asarray(geometry.matrix) / 0.6)
        plans.append(np.asarray(a)[:, None] * np.asarray(b)[None, :] * plan)
    assert np.abs(plans[0] - plans[1]).sum() < 1e-5


@pytest.mark.parametrize("n", [1, 31, 512, 513, 2048, 2049, 5000, 16_384, 16_385, 100_000])
def test_sizes_are_few_and_waste_is_bounded(n):
    from scgenot._sizes import padded_cells, padded_size

    for ladder in (padded_size, padded_cells):
        assert ladder(n) >= n and ladder(ladder(n)) == ladder(n)
    assert padded_size(n) <= 2048 if n <= 2048 else padded_size(n) <= 1.25 * n
    assert n <= 16_384 or padded_size(n) <= 1.125 * n
