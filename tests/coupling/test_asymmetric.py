"""Costs that differ by direction: taken from source to target everywhere, or refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist
from tests.coupling.helpers import plan_of

from scgenot.costs import Anchored, AnchoredCost
from scgenot.coupling import CouplingConfig, solve_coupling

KEY = jax.random.key(0)


def uphill(x, y):
    """Climbing costs, descending does not."""
    return cdist(x, y, "sqeuclidean") + 3.0 * np.maximum(y[None, :, 0] - x[:, None, 0], 0.0)


def pots_plan(cost, epsilon):
    a, b = (np.full(size, 1 / size) for size in cost.shape)
    return ot.sinkhorn(a, b, cost / cost.mean(), epsilon, method="sinkhorn", numItermax=20_000, stopThr=1e-10)


@pytest.mark.parametrize(("cells", "options"), [(300, {}), (300, {"landmarks": 40, "dense_limit": 100}), (5000, {})])
def test_plan_of_asymmetric_precomputed_costs_is_pots(cells, options):
    rng = np.random.default_rng(0)
    n = cells // 2
    joint = rng.uniform(0.2, 2.0, (cells, cells)).astype(np.float32)
    config = CouplingConfig(cost="precomputed", epsilon=0.2, tolerance=1e-5, **options)
    found = solve_coupling(KEY, joint[:n], joint[n:], config=config)
    plan = plan_of(found)
    across = joint[:n, n:].astype(np.float64)
    assert np.abs(plan - pots_plan(across, 0.2)).sum() < 1e-3
    assert np.abs(plan - pots_plan(joint[n:, :n].T.astype(np.float64), 0.2)).sum() > 0.3
    back = plan_of(found.swapped())
    assert np.abs(back - plan.T).sum() < 1e-4


@pytest.fixture(scope="module")
def hill():
    """Coupled and new cells on a hill: all costs between them."""
    rng = np.random.default_rng(1)
    sizes = {"source": 60, "target": 50, "new_source": 9, "new_target": 7}
    cells = rng.normal(size=(sum(sizes.values()), 2))
    stops = np.cumsum(list(sizes.values()))
    places = dict(zip(sizes, np.split(np.arange(len(cells)), stops[:-1]), strict=True))
    return places, uphill(cells, cells).astype(np.float32)


def exact_extension(found, costs, places, source, target):
    """The plan that the potentials of `found` imply between other cells, term by term."""
    scaled = costs / (found.scale * found.config.epsilon)
    u, old = np.asarray(found.potentials.u, np.float64), (places["source"], places["target"])
    new_v = -np.log(np.mean(np.exp(u[:, None] - scaled[np.ix_(old[0], places[target])]), axis=0))
    # Each new source cell sends all its mass, to the new target cells.
    new_u = -np.log(np.mean(np.exp(new_v[None, :] - scaled[np.ix_(places[source], places[target])]), axis=1))
    plan = np.exp(new_u[:, None] + new_v[None, :] - scaled[np.ix_(places[source], places[target])])
    return plan / plan.size


def coupled(hill, columns):
    places, costs = hill
    joint = np.concatenate([places["source"], places["target"]])
    config = CouplingConfig(cost="precomputed", epsilon=0.1, tolerance=1e-5)
    rows = lambda name: costs[np.ix_(places[name], joint)]
    ways = lambda name: costs[np.ix_(joint, places[name])].T if columns else rows(name)
    return solve_coupling(KEY, rows("source"), ways("target"), config=config), rows, ways


@pytest.mark.parametrize("source", ["source", "new_source"])
def test_extension_to_new_source_cells_takes_costs_to_the_targets(hill, source):
    found, rows, ways = coupled(hill, columns=False)
    extended = found.extend(rows(source), ways("target"))
    expected = exact_extension(found, hill[1].astype(np.float64), hill[0], source, "target")
    assert np.abs(plan_of(extended) - expected).sum() < 1e-3


def test_the_other_side_reads_rows_that_begin_with_its_own_cells(hill):
    places, costs = hill
    symmetric = costs + costs.T
    found, rows, _ = coupled((places, symmetric), columns=False)
    joint = np.concatenate([places["target"], places["source"]])
    back = lambda name: symmetric[np.ix_(places[name], joint)]
    costs_of = lambda coupling: np.asarray(coupling.geometry.stored().matrix)
    there = costs_of(found.extend(rows("new_source"), rows("new_target")))
    again = costs_of(found.swapped().extend(back("new_target"), back("new_source")))
    np.testing.assert_allclose(again, there.T, rtol=1e-4, atol=1e-4 * there.max())


def test_new_target_cells_are_refused_where_the_way_there_is_not_known(hill):
    found, rows, ways = coupled(hill, columns=False)
    with pytest.raises(ValueError, match="`target` has 7 of 7 cells that were not coupled.*not symmetric.*Give target"):
        found.extend(rows("source"), ways("new_target"))


@pytest.mark.parametrize("source", ["source", "new_source"])
def test_new_target_cells_are_served_by_the_costs_of_reaching_them(hill, source):
    found, rows, ways = coupled(hill, columns=True)
    extended = found.extend(rows(source), ways("new_target"))
    expected = exact_extension(found, hill[1].astype(np.float64), hill[0], source, "new_target")
    # Between two new cells costs are approximated through the coupled ones.
    assert np.abs(plan_of(extended) - expected).sum() < (1e-3 if source == "source" else 0.1)


class Uphill(AnchoredCost):
    """A cost over the whole population that is not symmetric."""

    name = "uphill"

    def fit(self, cells, anchors):
        return ToAnchors(np.asarray(cells)[anchors])


class ToAnchors(Anchored):
    def __init__(self, points):
        self.points = points

    def __call__(self, cells):
        return uphill(np.asarray(cells), self.points).astype(np.float32)


def test_asymmetric_cost_over_the_population_is_right_or_refused(rng):
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))
    config = CouplingConfig(cost=Uphill(), epsilon=0.2, tolerance=1e-5)
    found = solve_coupling(KEY, x, y, config=config)
    assert np.abs(plan_of(found) - pots_plan(uphill(x, y), 0.2)).sum() < 1e-3
    with pytest.raises(ValueError, match="'uphill' is not symmetric"):
        found.extend(x[:3], y[:4])
    with pytest.raises(ValueError, match="'uphill' is not symmetric.*`landmarks`"):
        solve_coupling(KEY, x, y, config=CouplingConfig(cost=Uphill(), landmarks=20))


def jax_uphill(x, y):
    return jnp.sum((x - y) ** 2) + 3.0 * jnp.maximum(y[0] - x[0], 0.0)


@pytest.mark.parametrize("kind", ["global", "low_rank"])
@pytest.mark.parametrize("cost", [jax_uphill, "precomputed"], ids=["function", "precomputed"])
def test_quadratic_problems_refuse_asymmetric_costs(cost, kind, rng):
    cells = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    if cost == "precomputed":
        cells = tuple(uphill(one, one) for one in cells)
    config = CouplingConfig(cost=cost, **({"rank": 4} if kind == "low_rank" else {}))
    with pytest.raises(ValueError, match="quadratic problems need symmetric costs within a population.*average"):
        solve_coupling(KEY, *cells, problem="quadratic", kind=kind, config=config)
