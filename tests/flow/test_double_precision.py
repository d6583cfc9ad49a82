"""With JAX's 64-bit numbers switched on, networks stay in float32 and everything works."""

import os
import subprocess
import sys

SCRIPT = """
import numpy as np
from scgenot.flow import FlowConfig, HeldOut, ODEConfig, TrainConfig
from scgenot.methods import GENOTSolver
from tests.methods.conftest import KnownPairs

source, target = np.random.default_rng(0).normal(size=(2, 64, 2))
solver, result, _ = GENOTSolver.fit(
    0, source, target, coupling=KnownPairs(np.arange(64), growth=np.linspace(0.5, 1.5, 64)),
    flow_config=FlowConfig(hidden=(32, 32), time_frequencies=4),
    train_config=TrainConfig(max_steps=25, batch_size=64, check_every=20, ema_decay=0.9),
    held_out=HeldOut(source[:10], target[:10]), progress_bar=False,
)
assert result.steps == 25
for ode in (ODEConfig(), ODEConfig(solver="tsit5")):
    samples = solver.sample(0, source, 3, ode=ode)
    assert samples.dtype == np.float32 and np.isfinite(samples).all()
assert solver.growth(source).dtype == np.float32
print("DONE")
"""


def test_a_flow_trains_and_samples_with_x64():
    environment = os.environ | {"JAX_ENABLE_X64": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600, check=False, env=environment
    )
    assert "DONE" in done.stdout, done.stderr[-2000:]
