"""How many programs fitting, sampling and growth compile, on a coupling that compiles none."""

import os
import subprocess
import sys

from tests.conftest import UNOPTIMIZED

SCRIPT = """
import numpy as np
from jax import monitoring
compiled = []
monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
)
from scgenot.flow import FlowConfig, HeldOut, TrainConfig
from scgenot.methods import GENOTSolver
from tests.methods.conftest import KnownPairs

def programs(n):
    before, rng = len(compiled), np.random.default_rng(n)
    source, target = rng.normal(size=(2, n, 3)).astype(np.float32)
    solver = GENOTSolver.fit(
        0, source, target, coupling=KnownPairs(np.arange(n), growth=np.linspace(0.5, 1.5, n)),
        flow_config=FlowConfig(hidden=(32, 32), time_frequencies=4),
        train_config=TrainConfig(max_steps=30, batch_size=64, check_every=20),
        held_out=HeldOut(source[: n // 10], target[: n // 10]), progress_bar=False,
    )[0]
    fitted = len(compiled)
    solver.sample(0, source, 5)
    solver.growth(source)
    return fitted - before, len(compiled) - fitted

print("PROGRAMS", programs(110), programs(523), programs(64), programs(1500))
"""


def test_few_programs_are_compiled_and_none_for_another_number_of_cells():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | UNOPTIMIZED,
    )
    assert done.returncode == 0, done.stderr
    first, second, third, larger = eval(done.stdout.split("PROGRAMS", 1)[1].strip().replace(") (", "), ("))
    # Of the first fit: the seed (2), keys, initial weights, optimiser, growth, steps, validation loss, its noise, samples and
    # divergence, and a few that libraries compile as they trace.
    assert first[0] <= 16 and first[1] <= 2
    assert second == (0, 0) and third == (0, 0)
    # The next size that cells are padded to: training and growth anew. And more held-out cells for the divergence.
    assert larger[0] <= 5 and larger[1] == 0
