"""The scan of epsilons: its numbers against single couplings, and whether it warns where the cells do not determine a plan."""

import jax
import numpy as np
import pytest
from tests.coupling.helpers import plan_of

from scgenot._progress import Progress
from scgenot.coupling import CouplingConfig, scan_epsilons, solve_coupling

KEY = jax.random.key(0)
QUADRATIC = {"problem": "quadratic", "epsilons": (0.02, 0.005)}


@pytest.fixture(scope="module")
def shape():
    """A lopsided cloud, and the same cells turned, in another order and in other dimensions."""
    rng = np.random.default_rng(1)
    source = (rng.gamma(1.5, size=(200, 3)) * [2.0, 1.0, 0.5]).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0][:3]
    return source, (source @ turn)[rng.permutation(200)].astype(np.float32)


@pytest.fixture(scope="module")
def stable(shape):
    return scan_epsilons(KEY, *shape, **QUADRATIC)


def test_a_row_is_the_coupling_there(shape, stable):
    config = CouplingConfig(epsilon=0.02)
    found = solve_coupling(KEY, *shape, problem="quadratic", config=config).diagnostics
    np.testing.assert_array_equal(stable.table["epsilon"], [0.02, 0.005])
    for name in ("objective", "effective_targets", "converged"):
        assert stable.table[name][0] == pytest.approx(getattr(found, name), rel=1e-4), name
    assert stable.table["effective_targets"][1] < stable.table["effective_targets"][0]


def test_a_shape_that_determines_its_match_is_stable(stable):
    assert stable.stable and stable.table["agreement"].min() > 0.95
    assert stable.epsilon in (0.02, 0.005) and f"epsilon {stable.epsilon:g}" in stable.why and "agree" in stable.why


def test_round_clouds_that_have_nothing_to_do_with_each_other_get_a_warning():
    """Sharp, converged, with few effective targets, and wrong: nothing but leaving cells out shows it."""
    rng = np.random.default_rng(0)
    clouds = (rng.normal(size=(80, size)).astype(np.float32) for size in (3, 5))
    found = scan_epsilons(KEY, *clouds, **QUADRATIC)
    assert not found.stable and found.table["agreement"].max() < 0.9
    assert found.why.startswith("Do not trust this coupling") and "shared features or known pairs" in found.why
    assert found.epsilon == found.table["epsilon"][np.argmax(found.table["agreement"])]


def test_mirror_images_have_no_gap():
    rng = np.random.default_rng(1)
    half = rng.gamma(2.0, size=(40, 2)) * [1.0, 0.6] + [0.2, 0.0]
    cells = np.concatenate([half, half * [-1, 1]]).astype(np.float32)
    found = scan_epsilons(KEY, cells, cells[rng.permutation(80)], problem="quadratic", epsilons=(0.005,))
    assert found.table["gap"][0] < 1e-3
    assert "Another plan costs only" in found.why or not found.stable


def test_linear_problems(rng):
    x = rng.normal(size=(80, 3)).astype(np.float32)
    y = (rng.normal(size=(80, 3)) + [3.0, 0.0, 0.0]).astype(np.float32)
    found = scan_epsilons(KEY, x, y, epsilons=(0.5, 0.02))
    assert found.stable and found.epsilon == 0.02 and np.isinf(found.table["gap"]).all()
    coupling = solve_coupling(KEY, x, y, config=CouplingConfig(epsilon=0.02))
    rows = 80 * plan_of(coupling)
    entropy = -(rows * np.log(rows + 1e-300)).sum(axis=1).mean()
    assert found.table["effective_targets"][1] == pytest.approx(np.exp(entropy), rel=0.1)


def test_progress_counts_couplings(rng):
    class Heard(Progress):
        total, steps = None, 0

        def stage(self, name, total=None):
            self.total = total

        def advance(self, steps=1, **seen):
            self.steps += steps

    heard = Heard()
    scan_epsilons(KEY, *(rng.normal(size=(80, 3)).astype(np.float32) for _ in "xy"), epsilons=(0.5,), progress=heard)
    assert heard.total == heard.steps == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem": "fused"}, "`problem` must be one of 'linear', 'quadratic', got 'fused'"),
        ({"epsilons": ()}, "`epsilons` must hold at least one value"),
        ({"epsilons": (0.0,)}, "`epsilons` must be a finite number above 0"),
        ({"max_cells": 2}, "`max_cells` must be a whole number of at least 4"),
        ({"source_weights": np.ones(9)}, r"`source_weights` must hold one value for each of the 200 cells"),
        ({"config": CouplingConfig(cost="precomputed")}, "not scanned over `cost`='precomputed'"),
    ],
)
def test_bad_input(shape, plain_calls, options, message):
    with pytest.raises(ValueError, match=message):
        scan_epsilons(KEY, *shape, **options)
    with pytest.raises(ValueError, match="`source` must have at least 4 cells"):
        scan_epsilons(KEY, shape[0][:3], shape[1])
