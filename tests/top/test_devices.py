"""Several devices, and several processes, find what one device finds."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tests.conftest import BRIEF, SETUP, SMALL, make_adata
from tests.top.shared_job import results

from scgenot import GENOT
from scgenot._devices import Devices, chosen_devices
from scgenot.coupling import solve_coupling

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[2]
# Rounding in sums that other devices take the terms of. Potentials are over epsilon; losses are about 1.
BOUNDS = {"u": 1e-5, "v": 1e-5, "received": 1e-6, "told": 1e-4, "effective": 0, "pairs": 0, "samples": 1e-4}
LOSSES = ("train_loss", "validation_loss", "validation_sinkhorn_divergence")


@pytest.fixture(scope="module")
def on_one():
    return results(1)


def started(out: Path, devices: int, *joined: object) -> subprocess.Popen:
    """Start the job on so many simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "tests.top.shared_job", str(out), *map(str, joined)]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def found_by(process: subprocess.Popen, out: Path) -> dict[str, np.ndarray]:
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said[-3000:]
    with np.load(out) as held:
        return dict(held)


def check_alike(found: dict[str, np.ndarray], one: dict[str, np.ndarray]) -> None:
    for name, expected in one.items():
        bound = 1e-4 if name.split()[-1] in LOSSES else BOUNDS[name.split()[-1]]
        # Effective targets, some 250, are estimated from draws: one that lies between two cells may flip.
        rtol = 1e-3 if name.endswith("effective") else 0
        np.testing.assert_allclose(found[name], expected, rtol=rtol, atol=bound, err_msg=name)
    # The work was shared: no device had all rows of a batch or of samples, and gradients came from all.
    assert not found["whole _run_steps"] and not found["whole _solve_rows"] and found["reduced"]


def test_eight_devices(on_one, tmp_path):
    found = found_by(started(tmp_path / "found.npz", 8), tmp_path / "found.npz")
    assert found["devices"] == 8
    check_alike(found, on_one)
    np.testing.assert_allclose(found["three u"], on_one["blocked u"], rtol=0, atol=1e-5)
    assert found["rows a device"] == 2048 // 8


def test_two_processes(on_one, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    outs = [tmp_path / f"{rank}.npz" for rank in (0, 1)]
    both = [started(out, 2, rank, port) for rank, out in enumerate(outs)]
    try:
        for process, out in zip(both, outs, strict=True):
            found = found_by(process, out)
            assert found["devices"] == 4 and found["rows a device"] == 2048 // 4
            check_alike(found, on_one)
    finally:
        for process in both:
            process.kill()


def test_a_model_hands_its_devices_on(monkeypatch):
    """A mesh of one device takes every way that one of eight takes, and nothing of it stays in the model."""
    adata = make_adata()
    GENOT.setup_anndata(adata, **SETUP)
    plain, shared = GENOT(adata, flow_config=SMALL), GENOT(adata, flow_config=SMALL)
    plain.train(**BRIEF)
    expected = plain.sample(n_samples=3)
    mesh, asked = Devices(Mesh(np.array(jax.devices()[:1]), ("cells",))), []

    def of(devices="auto", accelerator="auto"):
        asked.append(devices)
        return mesh

    monkeypatch.setattr(Devices, "of", of)
    shared.train(**BRIEF, devices=-1)
    assert shared.coupling_.geometry.devices is mesh and shared._method.devices is None
    np.testing.assert_allclose(shared.sample(n_samples=3, devices=[0]), expected, atol=1e-4)
    assert asked[0] == -1 and asked[-1] == [0]
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(shared.history[name], plain.history[name], atol=1e-4)


@pytest.mark.parametrize("asked", [0, -2, True, 1.5, "two", "0", [], [0, 0], [-1], [99], ["0"]])
def test_devices_that_cannot_be(asked):
    with pytest.raises(ValueError, match="`devices` must be"):
        chosen_devices(asked)


def test_more_devices_than_there_are():
    there = len(jax.devices())
    with pytest.raises(ValueError, match=rf"`devices`={there + 1}, and JAX sees {there} .*'auto'"):
        solve_coupling(jax.random.key(0), np.zeros((5, 2)), np.ones((5, 2)), devices=there + 1)
    for same in ("auto", -1, there, str(there), list(range(there))):
        assert chosen_devices(same) == jax.devices()


def test_a_quadratic_problem_refuses_several(monkeypatch):
    monkeypatch.setattr("scgenot._devices.chosen_devices", lambda *_: jax.devices()[:1] * 2)
    monkeypatch.setattr("scgenot._devices.Mesh", lambda *_: None)
    cells = np.random.default_rng(0).normal(size=(5, 2))
    with pytest.raises(ValueError, match="`devices`=2: a quadratic problem of this kind is solved on one device"):
        solve_coupling(jax.random.key(0), cells, cells, problem="quadratic", devices=2)
