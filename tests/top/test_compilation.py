"""How many programs a whole job compiles: few the first time, next to none for data of another size."""

import json
import os
import subprocess
import sys

import pytest
from tests.conftest import UNOPTIMIZED

SCRIPT = """
import json, warnings
import numpy as np
from jax import monitoring
warnings.simplefilter("ignore")
count = [0]
monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: count.__setitem__(0, count[0] + (event == "/jax/core/compile/backend_compile_duration"))
)
import anndata as ad
import pandas as pd
import scgenot

def programs(n, m, target_rep):
    rng = np.random.default_rng(n)
    cells = rng.normal(size=(n + m, 6)).astype(np.float32) * np.linspace(2.0, 0.5, 6, dtype=np.float32)
    cells[n:] += 1.0
    obs = pd.DataFrame({"population": ["a"] * n + ["b"] * m}, index=[f"cell{i}" for i in range(n + m)])
    adata = ad.AnnData(np.zeros((n + m, 1), np.float32), obs=obs, obsm={"X_pca": cells, "X_other": cells[:, :4].copy()})
    before = count[0]
    scgenot.GENOT.setup_anndata(
        adata, population_key="population", source="a", target="b", source_rep="X_pca", target_rep=target_rep
    )
    model = scgenot.GENOT(adata, flow_config=scgenot.flow.FlowConfig(hidden=(32, 32)))
    model.train(max_steps=20, batch_size=64, check_every=10, progress_bar=False)
    scgenot.tl.transport(adata, model, n_samples=5)
    return count[0] - before

def run(target_rep):
    return [programs(*size, target_rep) for size in SIZES]

SIZES = [(120, 130), (97, 150), (140, 111)]
print("PROGRAMS", json.dumps(run(REP)))
"""


def compiled(rep: str) -> list[int]:
    """Return the programs of three data sets, one after another, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("REP)", f"{rep})")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=os.environ | UNOPTIMIZED,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("PROGRAMS", 1)[1])


def test_a_linear_job():
    first, *others = compiled("None")
    assert 10 < first <= 35
    assert max(others) <= 5


# All that a linear job compiles, and what finds a plan: on other stacks the linear one tells what JAX itself adds.
@pytest.mark.once
def test_a_quadratic_job():
    first, *others = compiled('"X_other"')
    assert 10 < first <= 60
    assert max(others) <= 10
