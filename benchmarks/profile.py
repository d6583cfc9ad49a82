"""Where a training step, a pass over costs and a sample spend their time, beside what their matrix products alone would take.

Each part is a compiled loop of its own, at the sizes of `benchmarks.speed` (1024 pairs, 50 features, three hidden layers of 256; a block of 1024 x
1024 costs), measured one after the other, the quickest of several rounds. Parts need not add up to the whole: in one program they are fused and share caches. "of
the whole" is a part's time over that of the whole; "products alone" are the same multiplications with nothing between them, the most that could be reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx

from benchmarks._common import parser, report
from benchmarks._tables import Table, from_frame
from benchmarks.speed import BATCH, FEATURES, WIDTHS
from scgenot._random import random_bits
from scgenot.costs import resolve_cost
from scgenot.flow import FlowConfig, TrainConfig
from scgenot.flow._path import NoiseToTarget, noise_and_time
from scgenot.flow._trainer import _run_steps, adam, initial_state
from scgenot.flow._velocity import abstract_velocity, initial_weights

ROUNDS = 5


def quickest(function: Callable[..., Any], *arguments: Any, count: int) -> float:
    """Return the milliseconds of one of `count` iterations that a compiled loop makes, its quickest round."""
    jax.block_until_ready(function(*arguments))
    best = np.inf
    for _ in range(ROUNDS):
        started = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        best = min(best, time.perf_counter() - started)
    return 1e3 * best / count


def looped(body: Callable[[Any, jax.Array], Any], count: int) -> Callable[[Any], Any]:
    """Return a compiled loop of `count` iterations, each of which takes what the one before left."""
    return jax.jit(lambda carry: jax.lax.fori_loop(0, count, lambda k, carry: body(carry, k), carry))


def _products(count: int, backward: bool) -> float:
    """Return the milliseconds of a network's products: forward, and with respect to inputs and weights."""
    config = FlowConfig(hidden=WIDTHS)
    widths = (2 * FEATURES + 2 * config.time_frequencies, *WIDTHS, FEATURES)
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=pair) / 16, jnp.float32) for pair in zip(widths, widths[1:], strict=False)]
    layers = [jnp.asarray(rng.normal(size=(BATCH, width)), jnp.float32) for width in widths]

    def body(carry, k):
        layers, weights = carry
        found = [layers[0]]
        for number, weight in enumerate(weights):
            found.append(layers[number] @ weight)
        if backward:
            grown = [layers[number].T @ layers[number + 1] for number in range(len(weights))]
            back = [layers[number + 1] @ weight.T for number, weight in enumerate(weights)]
            # All of it is used, or it would not be computed; a millionth keeps the numbers where they are.
            weights = [weight + 1e-6 * one for weight, one in zip(weights, grown, strict=True)]
            found = [one + 1e-6 * other for one, other in zip(found, [*back, found[-1]], strict=True)]
        return [one + 1e-6 * other for one, other in zip(layers, found, strict=True)], weights

    return quickest(looped(body, count), (layers, weights), count=count)


def training(count: int) -> pd.DataFrame:
    """Return the parts of a training step."""
    config, train, path = FlowConfig(hidden=WIDTHS), TrainConfig(), NoiseToTarget()
    network = (FEATURES, FEATURES, config)
    graphdef, _ = abstract_velocity(*network)
    params, key = initial_weights(jax.random.key(0), *network), jax.random.key(1)
    rng = np.random.default_rng(0)
    cells = tuple(jnp.asarray(rng.normal(size=(4096, FEATURES)), jnp.float32) for _ in range(2))
    i, j = (jnp.asarray(rng.integers(0, 4096, (count, BATCH)), jnp.int32) for _ in range(2))
    state = initial_state(train.max_grad_norm, 1, params)
    rates, table, block = np.full(count, 1e-4, np.float32), np.zeros((1, 0), np.float32), np.zeros(i.shape, np.int32)
    step = partial(_run_steps, graphdef, path, 1, train.max_grad_norm, train.ema_decay, None)
    whole = quickest(step, state, cells, None, table, (i, j, block), rates, key, 0, count, count=count)

    def loss_of(params, x, y, z, t):
        return path.loss(nnx.merge(graphdef, params), x, y, z, t)

    def drawn(carry, k):
        z, t = noise_and_time(random_bits(key, k, 0), BATCH, FEATURES)
        return carry + z.sum() + t.sum()

    def gathered(carry, k):
        return carry + cells[0][i[k]].sum() + cells[1][j[k]].sum()

    x, y, z = cells[0][:BATCH], cells[1][:BATCH], cells[0][-BATCH:]
    t = jnp.linspace(0, 1, BATCH)

    def forward(z, k):
        return z + 1e-6 * nnx.merge(graphdef, params)(t, z, x)

    def gradients(params, k):
        found = jax.grad(loss_of)(params, x, y, z, t)
        return jax.tree.map(lambda one, other: one - 1e-6 * other, params, found)

    optimizer = adam(train.max_grad_norm)

    def updated(carry, k):
        params, moments = carry
        updates, moments = optimizer.update(params, moments, params)
        return jax.tree.map(lambda one, other: one - 1e-6 * other, params, updates), moments

    rows = {
        "whole step": whole,
        "products alone, forward and backward": _products(count, True),
        "gradients": quickest(looped(gradients, count), params, count=count),
        "optimiser": quickest(looped(updated, count), (params, optimizer.init(params)), count=count),
        "noise and times": quickest(looped(drawn, count), jnp.float32(0), count=count),
        "cells of a batch": quickest(looped(gathered, count), jnp.float32(0), count=count),
        "network, forward": quickest(looped(forward, count), z, count=count),
        "products alone, forward": _products(count, False),
    }
    return _table(rows, "whole step")


def passes(count: int, side: int = 1024) -> pd.DataFrame:
    """Return the parts of a pass over a block of costs."""
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(side, FEATURES)), jnp.float32) for _ in range(2))
    h, cost = jnp.zeros(side), resolve_cost("sqeuclidean")
    stored = cost(x, y)

    def whole(h, k):
        return -jax.nn.logsumexp(h[None, :] - cost(x, y + 1e-9 * h[:, None]), axis=1)

    def costs(y, k):
        return y + 1e-9 * cost(x, y).sum(axis=0)[:, None]

    def products(y, k):
        return y + 1e-9 * (x @ y.T).sum(axis=0)[:, None]

    def sums(h, k):
        return -jax.nn.logsumexp(h[None, :] - stored, axis=1)

    rows = {
        "whole block": quickest(looped(whole, count), h, count=count),
        "costs": quickest(looped(costs, count), y, count=count),
        "products alone": quickest(looped(products, count), y, count=count),
        "sums of exponentials of stored costs": quickest(looped(sums, count), h, count=count),
    }
    return _table(rows, "whole block")


def _table(rows: dict[str, float], whole: str) -> pd.DataFrame:
    found = pd.DataFrame({"ms": rows}).rename_axis("part")
    return found.assign(**{"of the whole": found["ms"] / found.loc[whole, "ms"]})


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness. A sample is `n_steps` times two forward passes of the network, and little else."""
    count = 5 if quick else 100
    for title, found in (
        (f"Training step, {BATCH} pairs", training(count)),
        ("Block of 1024 x 1024 costs", passes(count)),
    ):
        reason = "time has none; the products alone are what arithmetic leaves"
        yield from_frame(found, title, reference="products alone", no_floor=reason, no_baseline="time has none")


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--count", type=int, default=100, help="iterations of a compiled loop")
    options = arguments.parse_args()
    device = jax.devices()[0].device_kind
    report(training(options.count), f"a training step of {BATCH} pairs, {device}", options.json, digits=3)
    report(passes(options.count), f"a block of 1024 x 1024 costs, {device}", options.json, digits=3)


if __name__ == "__main__":
    main()
