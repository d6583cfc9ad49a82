"""A small job on all devices that JAX sees, in a process of its own: ``python -m tests.top.shared_job OUT [RANK PORT]``.

With a rank, two processes are joined by it. Results go into the file OUT.
"""

import sys
from types import ModuleType

import jax
import numpy as np

from scgenot import flow, methods
from scgenot._devices import Devices
from scgenot.costs import resolve_cost
from scgenot.coupling import CouplingConfig, Extended, Global, solve_coupling
from scgenot.sinkhorn import Geometry, soft_min_groups

STEPS, BATCH, ROWS, HIDDEN = 40, 60, 100, 32
# What in a compiled program has as many rows as a whole batch or a whole block of samples.
WHOLE = {"_run_steps": f"f32[{BATCH},{HIDDEN}]", "_solve_rows": f"f32[{ROWS},{HIDDEN}]"}


def populations() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(1301, 6)).astype(np.float32) * np.linspace(2.0, 0.5, 6, dtype=np.float32)
    cells[701:] += np.where(rng.random((600, 1)) < 0.5, 1.5, -1.5).astype(np.float32)
    return cells[:701], cells[701:]


def results(devices) -> dict[str, np.ndarray]:
    """Couple, learn and sample; of sizes that 8 does not divide."""
    source, target = populations()
    found = {}
    kinds = {
        "blocked": Global(dense_limit=1, coarse_limit=2**16),
        "extended": Extended(n_cells=200, n_targets=500, n_sweeps=2, tolerance=0.05),
    }
    for name, kind in kinds.items():
        config = CouplingConfig(epsilon=0.2, tau_target=0.9 if name == "blocked" else 1.0)
        coupling = solve_coupling(jax.random.key(1), source, target, kind=kind, config=config, devices=devices)
        found[f"{name} u"], found[f"{name} v"] = coupling.potentials.u, coupling.potentials.v
        found[f"{name} received"] = coupling.target_marginal
        told = coupling.diagnostics
        found[f"{name} told"] = np.array([told.cost, told.kl, told.marginal_violation])
        found[f"{name} effective"] = told.effective_targets
        found[f"{name} pairs"] = next(coupling.pairs(jax.random.key(2), batch_size=BATCH, steps=STEPS))
    for targets in ("batch", "pair"):
        learned, result, _ = methods.GENOTSolver.fit(
            3,
            source,
            target,
            coupling=coupling,
            flow_config=flow.FlowConfig(hidden=(HIDDEN, HIDDEN), time_frequencies=4),
            train_config=flow.TrainConfig(
                max_steps=STEPS, batch_size=BATCH, check_every=10, warmup_steps=5, targets=targets
            ),
            held_out=flow.HeldOut(source[:50], target[:50]),
            devices=devices,
            progress_bar=False,
        )
        for name, (_, values) in result.history.items():
            found[f"{targets} {name}"] = np.array(values)
    assert all(leaf.is_fully_addressable and len(leaf.devices()) == 1 for leaf in jax.tree.leaves(learned.weights))
    found["samples"] = learned.sample(4, source[:77], 3, ode=flow.ODEConfig(n_steps=4), rows=ROWS)
    return {name: np.asarray(one) for name, one in found.items()}


def recorded(module: ModuleType, name: str, texts: dict[str, str]) -> None:
    """Keep the text of the compiled program when it is called first."""
    program = getattr(module, name)

    def called(*args, **options):
        if name not in texts:
            texts[name] = program.lower(*args, **options).compile().as_text()
        return program(*args, **options)

    setattr(module, name, called)


def rows_of_a_device() -> int:
    """Return how many of the rows of a pass one device has."""
    source, target = populations()
    geometry = Geometry(source, target, 1.0, resolve_cost("sqeuclidean"), devices=Devices.of()).padded()
    sums = soft_min_groups(geometry, np.zeros(geometry.shape[1], np.float32), 1024)
    return sums.addressable_shards[0].data.shape[0]


def main(out: str, rank: str | None = None, port: str | None = None) -> None:
    if rank is not None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(rank))
    texts = {}
    recorded(flow._trainer, "_run_steps", texts)
    recorded(flow._sampler, "_solve_rows", texts)
    found = results("auto")
    # Whether a program has rows of the whole batch in it: then one device computes what others compute as well.
    found |= {f"whole {name}": np.array(WHOLE[name] in text) for name, text in texts.items()}
    found["rows a device"] = np.array(rows_of_a_device())
    found["reduced"] = np.array("all-reduce" in texts["_run_steps"])
    if rank is None:
        # 3 divides no padded size.
        source, target = populations()
        config = CouplingConfig(epsilon=0.2, tau_target=0.9, dense_limit=1, coarse_limit=2**16)
        three = solve_coupling(jax.random.key(1), source, target, config=config, devices=[0, 2, 5])
        found["three u"] = np.asarray(three.potentials.u)
    np.savez(out, devices=jax.device_count(), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
