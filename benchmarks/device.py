"""Which block sizes and which precision suit the device that JAX sees: products, passes over costs, training, samples, laws.

``python -m benchmarks.device`` fills these tables on whatever device there is, the first that JAX lists. "used" marks what the package does
there now. What half precision costs shows in "error" (of a pass: the largest error of a row's soft minimum against double precision, in units
of epsilon) and in the last table: cBW-UVP of learned conditional laws of a mixture (D = 16) in %, whose seeds 1 and 2 nothing was chosen on.
Times are the quickest of several rounds, after compilation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.special import logsumexp

from benchmarks._common import parser, report
from benchmarks._tables import Row, Table
from benchmarks.speed import FEATURES, WIDTHS
from scgenot import _blocks
from scgenot.costs import _named, resolve_cost
from scgenot.coupling import CouplingConfig, solve_coupling
from scgenot.datasets import gaussian_mixture
from scgenot.flow import FlowConfig, ODEConfig, TrainConfig
from scgenot.flow._path import NoiseToTarget
from scgenot.flow._sampler import FlowWeights, default_rows, sample_blocks
from scgenot.flow._scaling import Standardizer
from scgenot.flow._trainer import _run_steps, initial_state
from scgenot.flow._velocity import abstract_velocity, initial_weights
from scgenot.methods import GENOTSolver
from scgenot.metrics import cbw_uvp
from scgenot.sinkhorn import Geometry, _geometry

# How single precision is multiplied: at the device's pace (TF32 on recent GPUs), or in full.
DEFAULT, FULL, HALF = "float32, as the device does", "float32, in full", "bfloat16"
MATMUL = {DEFAULT: "default", FULL: "highest"}
TIME = "time has none"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes
    ----------
    rounds
        Of which the quickest counts.
    products
        Sides of square matrices.
    cells
        On both sides of a pass.
    blocks
        Rows and columns of its blocks.
    batches, steps
        Pairs of a training step, and steps of a compiled loop.
    rows
        Samples solved at once.
    samples, ode_steps
        Samples in all, and midpoint steps.
    law_cells, law_steps, law_tests, law_samples
        Cells a side, training steps, test cells and samples of each, of the table of laws.
    """

    rounds: int = 5
    products: Sequence[int] = (256, 1024, 4096)
    cells: int = 16384
    blocks: Sequence[int] = (256, 512, 1024, 2048, 4096)
    batches: Sequence[int] = (1024, 8192)
    steps: int = 20
    rows: Sequence[int] = (1024, 2048, 8192, 65536)
    samples: int = 65536
    ode_steps: int = 16
    law_cells: int = 8192
    law_steps: int = 2000
    law_tests: int = 100
    law_samples: int = 200


QUICK = Sizes(2, (256,), 2048, (512, 1024), (256,), 3, (512, 1024), 2048, 2, 256, 30, 20, 50)


def quickest(call: Callable[[], Any], rounds: int) -> float:
    """Return the seconds of the quickest call, the first one, which compiles, left out."""
    jax.block_until_ready(call())
    best = np.inf
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(call())
        best = min(best, time.perf_counter() - started)
    return best


@contextlib.contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Let a module have another value under a name."""
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


def used(yes: bool) -> str:
    return "yes" if yes else ""


def products(sizes: Sizes) -> Table:
    """Return what square products reach, the most that anything here can."""
    lines = []
    for side in sizes.products:
        a, b = (jax.random.normal(jax.random.key(k), (side, side)) for k in (0, 1))
        for precision in (DEFAULT, FULL, HALF):
            one, two = (a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)) if precision == HALF else (a, b)
            multiply = jax.jit(partial(jnp.matmul, precision=MATMUL.get(precision)))
            seconds = quickest(partial(multiply, one, two), sizes.rounds)
            labels = {"side": side, "precision": precision}
            lines.append(Row(labels, {"ms": 1e3 * seconds, "GFLOPS": 2 * side**3 / seconds / 1e9}, "reference"))
    return Table("Products of square matrices", lines, no_floor=TIME, no_baseline=TIME)


def passes(sizes: Sizes) -> Table:
    """Return a pass of linear couplings, by the size of blocks and by how costs are multiplied."""
    rng = np.random.default_rng(0)
    x, y = (np.float32(rng.normal(size=(sizes.cells, FEATURES))) for _ in range(2))
    h = np.float32(rng.normal(size=sizes.cells))
    # A scale of 1 and epsilon .05: squared distances have the mean 2 x FEATURES.
    geometry = Geometry(*jax.device_put((x, y)), 1 / (0.05 * 2 * FEATURES), resolve_cost("sqeuclidean"))
    some = x[:128].astype(np.float64)
    costs = (some**2).sum(1)[:, None] + (y.astype(np.float64) ** 2).sum(1) - 2 * some @ y.astype(np.float64).T
    exact = logsumexp(h - geometry.inverse * costs, axis=1)
    lines = []
    for block in sizes.blocks:
        for precision in (DEFAULT, FULL):
            multiply = partial(jnp.matmul, precision=MATMUL[precision])
            with replaced(_geometry, "BLOCK", block), replaced(_named, "matmul", multiply):
                # Not the package's own compiled function: it would not be traced again.
                one_pass = jax.jit(lambda geometry, h: _geometry._soft_min(geometry, h))
                call = partial(one_pass, geometry, jax.device_put(h))
                seconds = quickest(call, sizes.rounds)
            values = {
                "ms": 1e3 * seconds,
                "ns a pair": 1e9 * seconds / sizes.cells**2,
                "GFLOPS of products": 2 * FEATURES * sizes.cells**2 / seconds / 1e9,
                "error": float(np.abs(np.asarray(call())[: len(some)] - exact).max()),
                "used": used(block == _geometry.BLOCK and precision == FULL),
            }
            lines.append(Row({"block": block, "costs": precision}, values))
    title = f"A pass over the costs of {sizes.cells} x {sizes.cells} cells, {FEATURES} features"
    return Table(title, lines, no_floor=TIME, no_baseline=TIME)


def training(sizes: Sizes) -> Table:
    """Return training steps, by pairs of a batch and by precision."""
    lines = []
    for batch in sizes.batches:
        for precision in (DEFAULT, FULL, HALF):
            seconds = _steps(batch, precision, sizes) / sizes.steps
            widths = (2 * FEATURES + 2 * FlowConfig().time_frequencies, *WIDTHS, FEATURES)
            flops = 6 * batch * sum(before * after for before, after in zip(widths, widths[1:], strict=False))
            values = {"ms a step": 1e3 * seconds, "pairs a second": batch / seconds, "GFLOPS": flops / seconds / 1e9}
            labels = {"pairs": batch, "precision": precision}
            lines.append(Row(labels, values | {"used": used(precision == DEFAULT and batch == 1024)}))
    return Table(f"A training step, {FEATURES} features, hidden {WIDTHS}", lines, no_floor=TIME, no_baseline=TIME)


def _field(precision: str):
    config = FlowConfig(hidden=WIDTHS, precision="bfloat16" if precision == HALF else "float32")
    graphdef, _ = abstract_velocity(FEATURES, FEATURES, config)
    return graphdef, initial_weights(jax.random.key(0), FEATURES, FEATURES, config)


def _steps(batch: int, precision: str, sizes: Sizes) -> float:
    """Return the seconds of some training steps."""
    train, rng = TrainConfig(), np.random.default_rng(0)
    graphdef, params = _field(precision)
    cells = tuple(jnp.asarray(rng.normal(size=(4096, FEATURES)), jnp.float32) for _ in range(2))
    shape = (sizes.steps, batch)
    pairs = tuple(jnp.asarray(rng.integers(0, 4096, shape), jnp.int32) for _ in range(2))
    pairs += (np.zeros(shape, np.int32),)
    state, table = initial_state(train.max_grad_norm, 1, params), np.zeros((1, 0), np.float32)
    rates = np.full(sizes.steps, 1e-4, np.float32)
    step = partial(_run_steps, graphdef, NoiseToTarget(), 1, train.max_grad_norm, train.ema_decay, None)
    call = partial(step, state, cells, None, table, pairs, rates, jax.random.key(1), 0, sizes.steps)
    with jax.default_matmul_precision(MATMUL.get(precision, "default")):
        return quickest(call, sizes.rounds)


def sampling(sizes: Sizes) -> Table:
    """Return samples of the flow, by how many are solved at once and by precision."""
    rng, ode = np.random.default_rng(0), ODEConfig("midpoint", n_steps=sizes.ode_steps)
    units = Standardizer(*jax.device_put((np.zeros(FEATURES, np.float32), np.ones(FEATURES, np.float32))))
    cells = np.float32(rng.normal(size=(sizes.samples, FEATURES)))
    lines = []
    for rows in sizes.rows:
        for precision in (DEFAULT, FULL, HALF):
            graphdef, params = _field(precision)
            weights, ids = FlowWeights(params, units, units), np.arange(len(cells))
            call = partial(sample_blocks, graphdef, weights, jax.random.key(0), cells, ids, 1, ode, rows=rows)
            with jax.default_matmul_precision(MATMUL.get(precision, "default")):
                seconds = quickest(lambda call=call: [block for _, block in call()], max(1, sizes.rounds // 2))
            values = {"s": seconds, "samples a second": len(cells) / seconds}
            values |= {"used": used(rows == default_rows() and precision == DEFAULT)}
            lines.append(Row({"rows at once": rows, "precision": precision}, values))
    title = f"{sizes.samples} samples in {sizes.ode_steps} midpoint steps, {FEATURES} features, hidden {WIDTHS}"
    return Table(title, lines, no_floor=TIME, no_baseline=TIME)


def laws(seed: int, sizes: Sizes) -> Table:
    """Return how good learned laws are by the precision that the field was trained in, and sampled in."""
    problem, rng = gaussian_mixture(16, rng=seed), np.random.default_rng(seed)
    source, target = (np.float32(draw(rng, sizes.law_cells)) for draw in (problem.sample_source, problem.sample_target))
    config = CouplingConfig(epsilon=float(problem.epsilon), scale_cost=1.0)
    coupling = solve_coupling(jax.random.key(seed), source, target, config=config)
    test_rng = np.random.default_rng([seed, 1])
    test = problem.sample_source(test_rng, sizes.law_tests)
    truth = problem.sample_conditional(test_rng, test, sizes.law_samples)
    independent = problem.sample_target(test_rng, truth.shape[0] * truth.shape[1]).reshape(truth.shape)
    moments, variance = problem.conditional_moments(test), float(np.trace(problem.target_cov))

    def scored(drawn: np.ndarray) -> dict[str, float]:
        return {"cBW-UVP, %": cbw_uvp(drawn, *moments, variance)}

    lines = [
        Row({"trained in": "truth (floor)", "sampled in": ""}, scored(truth), "floor"),
        Row({"trained in": "independent", "sampled in": ""}, scored(independent), "baseline"),
    ]
    train = TrainConfig(max_steps=sizes.law_steps, learning_rate=2e-3)
    for precision in ("float32", "bfloat16"):
        flow_config = FlowConfig(precision=precision)
        solver, _, _ = GENOTSolver.fit(
            seed, source, target, coupling=coupling, flow_config=flow_config, train_config=train, progress_bar=False
        )
        for other in ("float32", "bfloat16"):
            asked = dataclasses.replace(solver, config=dataclasses.replace(solver.config, precision=other))
            drawn = asked.sample(seed, np.float32(test), sizes.law_samples)
            lines.append(Row({"trained in": precision, "sampled in": other}, scored(drawn)))
    return Table(f"Mixture, D = 16, {sizes.law_cells} cells a side, {sizes.law_steps} steps", lines)


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness."""
    sizes = QUICK if quick else Sizes()
    note = f"Device: {jax.devices()[0].device_kind} ({jax.default_backend()})."
    for table in (products(sizes), passes(sizes), training(sizes), sampling(sizes), laws(seed, sizes)):
        yield dataclasses.replace(table, note=note)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    arguments.add_argument("--seed", type=int, default=1, help="of the mixture, and of what is learned from it")
    parts = {"products": products, "passes": passes, "training": training, "sampling": sampling}
    arguments.add_argument("--only", nargs="+", default=[*parts, "laws"], choices=[*parts, "laws"])
    arguments.add_argument("--law-cells", type=int, default=None, help="cells a side of the mixture")
    arguments.add_argument("--law-steps", type=int, default=None, help="training steps on it")
    options = arguments.parse_args()
    given = {name: getattr(options, name) for name in ("law_cells", "law_steps") if getattr(options, name)}
    sizes = dataclasses.replace(QUICK if options.quick else Sizes(), **given)
    print(f"{jax.devices()[0].device_kind} ({jax.default_backend()}), {_blocks.ENTRIES} numbers in a block of rows")
    for name in options.only:
        table = laws(options.seed, sizes) if name == "laws" else parts[name](sizes)
        frame = pd.DataFrame([row.labels | row.values for row in table.rows])
        report(frame.set_index(list(table.rows[0].labels)), table.title, options.json, digits=3)


if __name__ == "__main__":
    main()
