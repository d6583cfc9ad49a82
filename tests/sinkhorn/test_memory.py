"""What passes over costs hold at once: never all of the costs."""

import jax
import numpy as np
import pytest

from scgenot.costs import resolve_cost
from scgenot.sinkhorn import Geometry
from scgenot.sinkhorn._geometry import BLOCK
from scgenot.sinkhorn._groups import _steps

COST = resolve_cost("sqeuclidean")


@pytest.mark.parametrize(("n", "m"), [(8192, 6144), (6144, 8192)])
def test_iterations_hold_a_few_blocks_of_costs(n, m):
    def iterations(x, y, log_a, log_b, u, v):
        return _steps(Geometry(x, y, 10.0, COST), log_a, log_b, u, v, (1.0, 1.0), (32, 32), 5, 1e-3, True)

    # Compiled, not run.
    shapes = (n, 2), (m, 2), (n,), (m,), (n,), (m,)
    compiled = jax.jit(iterations).lower(*(jax.ShapeDtypeStruct(one, np.float32) for one in shapes)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 20 * BLOCK**2 * 4 < n * m * 4
