"""Samples in one or a few steps: the distilled field beside the trained one, and the error of the trained one's steps.

``mixtures``: cBW-UVP in % of the true conditional laws, over test cells that training did not see; ``kang``: the unbiased energy distance
of transported to real held-out stimulated cells, in % of doing nothing (a fifth of both populations held out, neither trained nor
distilled on). "excess" is what stands above the floor: for mixtures the truth sampled at the same sizes, for Kang the training cells of
the target. "of fine" is a row's excess over that of the finest solve. "rms" is the root mean square distance of samples to those of the
finest solve from the same noise, in units of the root mean variance of the conditional laws (a feature): an error of the solver alone.
``speed``: 30 samples for 10,000 cells in 50 features, hidden layers of 256. ``--evaluations 4 8 16 32 64`` compares solvers that evaluate the
network equally often in place of equal steps; ``--tolerances`` adds the adaptive one, whose evaluations are the mean over samples, and in brackets
those of the sample that takes most: all that are solved at once wait for it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx

import scgenot
from benchmarks._common import data, parser, report, two_populations
from benchmarks._tables import Row, Table
from benchmarks.perturbation import KEY, SOURCE, TARGET
from scgenot.datasets import gaussian_mixture
from scgenot.flow import ODEConfig
from scgenot.metrics import cbw_uvp, energy_distance

# Evaluations of the network in a step.
_PER_STEP = {"midpoint": 2, "heun": 2, "euler": 1}


def ways(options) -> dict[str, ODEConfig]:
    """Return the ways to sample that are compared."""
    pairs = [(solver, steps) for solver in options.solvers for steps in options.steps]
    if options.evaluations:
        pairs = [(solver, count // _PER_STEP[solver]) for solver in options.solvers for count in options.evaluations]
    found = {f"{solver}, {steps} steps": ODEConfig(solver, n_steps=steps) for solver, steps in pairs}
    found |= {f"tsit5, tolerance {one:g}": ODEConfig("tsit5", rtol=one, atol=one) for one in options.tolerances}
    few = [2**k for k in range(options.distill.bit_length())] if options.distill else []
    return found | {f"distilled, {steps} steps": ODEConfig("distilled", n_steps=steps) for steps in few}


def evaluations(ode: ODEConfig) -> int:
    """Return how often the network is evaluated for a sample."""
    return _PER_STEP.get(ode.solver, 1) * ode.for_samples.n_steps


def adaptive_evaluations(model: scgenot.GENOT, cells: np.ndarray, ode: ODEConfig) -> tuple[float, int]:
    """Return how often the adaptive solver evaluates the network for a sample, in the mean and at most, from one sample of each cell."""
    method = model._method
    field, units = nnx.merge(method.graphdef, method.weights.params), method.weights.source_units
    path = method.weights.path
    x = jnp.asarray(units.on_host(cells))
    z = jax.random.normal(jax.random.key(0), (len(cells), method.target_dim))

    @jax.jit
    @jax.vmap
    def steps(z, x):
        velocity = lambda t, z, _: field(jnp.full(1, t, jnp.float32), z[None], path.seen(x[None]), None)[0]
        controller = diffrax.PIDController(rtol=ode.rtol, atol=ode.atol)
        given = {
            "dt0": None,
            "y0": path.start(z[None], x[None])[0],
            "stepsize_controller": controller,
            "adjoint": diffrax.ForwardMode(),
        }
        found = diffrax.diffeqsolve(diffrax.ODETerm(velocity), diffrax.Tsit5(), 0.0, 1.0, **given)
        return found.stats["num_steps"]

    # Six evaluations a step, the first of which the step before has left; two choose the first step.
    taken = 6 * np.asarray(steps(z, x)) + 3
    return float(taken.mean()), int(taken.max())


def distilled(model: scgenot.GENOT, options) -> float:
    """Distil, if asked to; return the seconds it took."""
    started = time.perf_counter()
    if options.distill:
        chosen = {"max_steps": options.distill_steps} | dict(one.split("=") for one in options.distill_option)
        kinds = {"whole": float, "learning_rate": float}
        chosen = {name: kinds.get(name, int)(value) for name, value in chosen.items()}
        model.distill(options.distill, rng=options.rng, progress_bar=False, **chosen)
    return time.perf_counter() - started


def compared(model, cells, sample, score, scale: float, floor: float, options) -> pd.DataFrame:
    """Return a row for each way to sample; `cells` are those that the model is asked about."""
    finest = ODEConfig("midpoint", n_steps=options.finest)
    fine = sample(finest)
    best = score(fine) - floor
    rows = {}
    for name, ode in ways(options).items():
        started = time.perf_counter()
        drawn = sample(ode)
        seconds = time.perf_counter() - started
        excess = score(drawn) - floor
        mean, most = adaptive_evaluations(model, cells, ode) if ode.solver == "tsit5" else (evaluations(ode), None)
        rows[name] = {
            "evaluations": mean,
            "at most": most,
            "rms": float(np.sqrt(np.mean((drawn - fine) ** 2))) / scale,
            "score": excess + floor,
            "floor": floor,
            "excess": excess,
            "of fine": excess / best,
            "s": seconds,
        }
    rows["finest"] = {"evaluations": evaluations(finest), "score": best + floor, "floor": floor, "excess": best}
    return pd.DataFrame(rows).T


def mixture(d: int, options) -> pd.DataFrame:
    """Train on samples of a mixture, or read the model of ``--models``, and compare."""
    problem, rng = gaussian_mixture(d, rng=options.rng), np.random.default_rng(options.rng)
    cells = two_populations(problem.sample_source(rng, options.cells), problem.sample_target(rng, options.cells))
    if options.models:
        model = scgenot.GENOT.load(f"{options.models}/mix{d}", cells)
    else:
        told = {"population_key": "population", "source": "source", "target": "target", "source_rep": "X_rep"}
        scgenot.GENOT.setup_anndata(cells, **told)
        model = scgenot.GENOT(cells, epsilon=float(problem.epsilon), scale_cost=1.0)
        training = {"max_steps": options.max_steps, "learning_rate": 2e-3, "validation_size": 0.0}
        model.train(progress_bar=False, rng=options.rng, **training)
    seconds = distilled(model, options)
    test_rng = np.random.default_rng(options.rng + 1000)
    test = problem.sample_source(test_rng, options.test_cells)
    asked = two_populations(test, test[:2])
    moments, variance = problem.conditional_moments(test), float(np.trace(problem.target_cov))
    truth = problem.sample_conditional(test_rng, test, options.samples)
    scale = float(np.sqrt(truth.var(axis=1).mean()))

    def sample(ode: ODEConfig) -> np.ndarray:
        return model.sample(asked, indices=np.arange(len(test)), n_samples=options.samples, ode=ode)

    def score(drawn: np.ndarray) -> float:
        return cbw_uvp(drawn, *moments, variance)

    table = compared(model, test, sample, score, scale, score(truth), options)
    return table.assign(**{"distilling s": seconds})


def kang(options) -> pd.DataFrame:
    """Hold out a fifth of both populations, train and distil on the others, compare on the held-out ones."""
    adata, rng = data("kang_ifnb_pbmc"), np.random.default_rng(options.rng)
    held = np.zeros(adata.n_obs, dtype=bool)
    for condition in (SOURCE, TARGET):
        population = np.flatnonzero(adata.obs[KEY] == condition)
        held[rng.choice(population, round(0.2 * len(population)), replace=False)] = True
    train, test = adata[~held].copy(), adata[held].copy()
    scgenot.GENOT.setup_anndata(train, population_key=KEY, source=SOURCE, target=TARGET, source_rep="X_pca")
    model = scgenot.GENOT(train)
    model.train(max_steps=options.max_steps, validation_size=0.0, progress_bar=False, rng=options.rng)
    seconds = distilled(model, options)
    cells = lambda some, condition: some.obsm["X_pca"][(some.obs[KEY] == condition).to_numpy()]
    truth = cells(test, TARGET)
    nothing = energy_distance(cells(test, SOURCE), truth, unbiased=True)

    def score(drawn: np.ndarray) -> float:
        found = [energy_distance(drawn[:, k], truth, unbiased=True) for k in range(drawn.shape[1])]
        return 100 * float(np.mean(found)) / nothing

    scale = float(np.sqrt(model.sample(test, n_samples=options.samples).var(axis=1).mean()))
    floor = score(cells(train, TARGET)[:, None])
    sample = lambda ode: model.sample(test, n_samples=options.samples, ode=ode)
    return compared(model, cells(test, SOURCE), sample, score, scale, floor, options).assign(
        **{"distilling s": seconds}
    )


def speed(options) -> pd.DataFrame:
    """Return the seconds that 30 samples for 10,000 cells in 50 features take, after compilation; the quickest of three calls."""
    rng = np.random.default_rng(0)
    cells = two_populations(*(rng.normal(size=(10_000, 50)) for _ in range(2)))
    told = {"population_key": "population", "source": "source", "target": "target", "source_rep": "X_rep"}
    scgenot.GENOT.setup_anndata(cells, **told)
    model = scgenot.GENOT(cells, coupling="minibatch")
    model.train(max_steps=2, batch_size=64, validation_size=0.0, progress_bar=False)
    model.distill(2, max_steps=2, batch_size=64, pool_size=64, fresh=64, progress_bar=False)
    rows = {}
    for name, ode in ways(options).items():
        model.sample(indices=np.arange(100), ode=ode)
        seconds = []
        for _ in range(3 if ode.solver == "distilled" else 1):
            started = time.perf_counter()
            model.sample(n_samples=30, ode=ode)
            seconds.append(time.perf_counter() - started)
        rows[name] = {"evaluations": evaluations(ode), "s": min(seconds)}
    return pd.DataFrame(rows).T


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness: what the finest solve leaves above the floor is the reference."""
    small = ["--distill-steps", "50", "--max-steps", "50", "--cells", "512", "--test-cells", "50", "--samples", "50"]
    small += ["--steps", "4", "--finest", "8"]
    options = arguments().parse_args(["mixtures", "--rng", str(seed), *(small if quick else [])])
    # What takes no learning: all of the target, whatever the cell is, and cells as they are.
    for d in [2] if quick else [2, 16]:
        problem, rng = gaussian_mixture(d, rng=seed), np.random.default_rng([seed, 1])
        test = problem.sample_source(rng, options.test_cells)
        any_cell = problem.sample_target(rng, len(test) * options.samples).reshape(len(test), -1, d)
        moments, variance = problem.conditional_moments(test), float(np.trace(problem.target_cov))
        trivial = {"independent": cbw_uvp(any_cell, *moments, variance)}
        yield _table(mixture(d, options), f"Mixture, D = {d}, cBW-UVP in %", trivial)
    yield _table(kang(options), "Kang, held-out cells, energy distance in % of doing nothing", {"nothing": 100.0})
    found = [Row({"way": name}, values) for name, values in speed(options).to_dict("index").items()]
    reason = "speed has none; the trained field's steps are what is to be saved"
    yield Table("30 samples for 10,000 cells in 50 features", found, no_floor=reason, no_baseline=reason)


def _table(found: pd.DataFrame, title: str, trivial: dict[str, float]) -> Table:
    """Return a table with rows for the floor and for what takes no learning."""
    columns = ["evaluations", "rms", "score", "excess", "of fine"]
    lines = [Row({"way": "floor"}, {"score": float(found["floor"].iloc[0])}, "floor")]
    lines += [Row({"way": name}, {"score": value}, "baseline") for name, value in trivial.items()]
    for name, values in found[columns].to_dict("index").items():
        lines.append(Row({"way": name}, values, "reference" if name == "finest" else "solver"))
    return Table(title, lines)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("what", choices=("mixtures", "kang", "speed"))
    arguments.add_argument("--dims", type=int, nargs="+", default=[2, 16, 50])
    arguments.add_argument("--steps", type=int, nargs="*", default=[4, 8, 16, 32], help="steps of the trained field")
    arguments.add_argument("--evaluations", type=int, nargs="*", default=[], help="of the network, in place of steps")
    arguments.add_argument("--tolerances", type=float, nargs="*", default=[], help="of the adaptive solver")
    arguments.add_argument("--solvers", nargs="+", default=["midpoint"], choices=("midpoint", "heun", "euler"))
    arguments.add_argument("--finest", type=int, default=64, help="steps of the finest solve")
    arguments.add_argument("--distill", type=int, default=2, help="steps to distil for; 0: not at all")
    arguments.add_argument("--distill-steps", type=int, default=3000, help="optimisation steps of distilling")
    arguments.add_argument("--distill-option", nargs="*", default=[], help="fields of DistillConfig, as whole=0.9")
    arguments.add_argument("--cells", type=int, default=16384, help="training cells a side")
    arguments.add_argument("--test-cells", type=int, default=500)
    arguments.add_argument("--samples", type=int, default=500, help="samples of each test cell")
    arguments.add_argument("--max-steps", type=int, default=4500)
    arguments.add_argument(
        "--models", default=None, help="folder of models mix2, mix16, ... that were saved, not to be trained"
    )
    arguments.add_argument("--rng", type=int, default=0)
    return arguments


def main() -> None:
    options = arguments().parse_args()
    if options.what == "mixtures":
        for d in options.dims:
            report(mixture(d, options), f"mixture, {d} features, cBW-UVP in %", options.json, digits=4)
    elif options.what == "kang":
        report(
            kang(options), f"Kang, seed {options.rng}, energy distance in % of doing nothing", options.json, digits=4
        )
    else:
        report(speed(options), "30 samples for 10,000 cells in 50 features", options.json, digits=3)


if __name__ == "__main__":
    main()
