"""Learned conditional laws against closed forms: Gaussian pairs, and with ``--mixture`` the mixtures of the EOT benchmark.

The mixture's parameters are our own (S_k = 0.5 I, five components at radius 5, 1/2 |x - y|^2 with epsilon 1): the
official ones are not public. Figures are cBW-UVP in %, over 1000 test cells with 1000 samples each. The floor is
the true law sampled at the same sizes; the independent plan ignores the source cell.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd

import scgenot
from benchmarks._common import parser, report, two_populations
from benchmarks._tables import Table, from_columns
from scgenot.datasets import gaussian_mixture, gaussian_pair
from scgenot.metrics import cbw_uvp


def measure(problem, d: int, options) -> dict[str, float]:
    """Train on samples of a problem and score the learned conditional laws."""
    rng = np.random.default_rng(options.rng)
    source, target = problem.sample_source(rng, options.cells), problem.sample_target(rng, options.cells)
    adata = two_populations(source, target)
    started = time.perf_counter()
    scgenot.GENOT.setup_anndata(
        adata, population_key="population", source="source", target="target", source_rep="X_rep"
    )
    # The closed form fixes epsilon in units of the raw cost.
    model = scgenot.GENOT(adata, epsilon=float(problem.epsilon), scale_cost=1.0)
    model.train(
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        validation_size=0.0,
        progress_bar=False,
        rng=options.rng,
    )
    trained = time.perf_counter()
    test = problem.sample_source(rng, options.test_cells)
    samples = model.sample(two_populations(test, test[:2]), indices=np.arange(len(test)), n_samples=options.samples)
    sampled = time.perf_counter()
    moments = (
        problem.conditional_moments(test) if hasattr(problem, "conditional_moments") else problem.conditional(test)
    )
    variance = float(np.trace(problem.target_cov))

    def score(drawn: np.ndarray) -> float:
        return cbw_uvp(drawn, *moments, variance)

    truth = problem.sample_conditional(rng, test, options.samples)
    independent = problem.sample_target(rng, len(test) * options.samples).reshape(truth.shape)
    floor, learned = score(truth), score(samples)
    return {
        "d": d,
        "floor": floor,
        "scgenot": learned,
        "above floor": learned - floor,
        "independent": score(independent),
        "train s": trained - started,
        "sample s": sampled - trained,
    }


def options_of(words: list[str] | None = None):
    """Return what the command line says; an empty list: the defaults."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--dims", type=int, nargs="+", default=None)
    arguments.add_argument("--mixture", action="store_true", help="mixtures of Gaussians instead of Gaussian pairs")
    arguments.add_argument("--cells", type=int, default=16384, help="training cells a side")
    arguments.add_argument("--test-cells", type=int, default=1000)
    arguments.add_argument("--samples", type=int, default=1000, help="samples of each test cell")
    arguments.add_argument("--max-steps", type=int, default=4500)
    arguments.add_argument("--learning-rate", type=float, default=2e-3)
    arguments.add_argument("--rng", type=int, default=0)
    return arguments.parse_args(words)


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness."""
    sizes = "--cells 512 --test-cells 50 --samples 50 --max-steps 100" if quick else ""
    options = options_of([*sizes.split(), "--rng", str(seed)])
    kinds = {
        "Gaussian pairs, epsilon 5 % of the mean cost": (gaussian_pair, [2] if quick else [2, 8, 16]),
        "mixtures, our parameters": (gaussian_mixture, [2] if quick else [16]),
    }
    roles = {"floor": "floor", "scgenot": "solver", "independent": "baseline"}
    for kind, (problem_of, dims) in kinds.items():
        found = pd.DataFrame([measure(problem_of(d, rng=seed), d, options) for d in dims]).set_index("d")
        title = f"cBW-UVP of learned conditional laws, {kind}"
        yield from_columns(found, title, "cBW-UVP, %", roles, seconds={"scgenot": "train s"})


def main() -> None:
    options = options_of()
    problem_of = gaussian_mixture if options.mixture else gaussian_pair
    dims = options.dims or ([16] if options.mixture else [2, 8, 16])
    found = [measure(problem_of(d, rng=options.rng), d, options) for d in dims]
    kind = "mixtures, our parameters" if options.mixture else "Gaussian pairs, epsilon 5 % of the mean cost"
    report(pd.DataFrame(found).set_index("d"), f"cBW-UVP in % of learned conditional laws, {kind}", options.json)


if __name__ == "__main__":
    main()
