"""Costs against SciPy, POT and their own definition."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from jaxtyping import TypeCheckError
from ott.geometry import costs as ott_costs
from scipy.spatial.distance import cdist

from scgenot.costs import Cost, available_costs, cost_scale, displaced_cost, register_cost, resolve_cost
from scgenot.coupling import CouplingConfig, solve_coupling

SCIPY = {"sqeuclidean": "sqeuclidean", "euclidean": "euclidean", "cosine": "cosine", "pearson": "correlation"}


@pytest.fixture
def clouds(rng):
    return rng.normal(size=(17, 5)).astype(np.float32), rng.normal(size=(13, 5)).astype(np.float32) + 0.5


def uphill(x, y):
    """Climbing costs, descending does not: not symmetric."""
    return jnp.sum((x - y) ** 2) + 3.0 * jnp.maximum(y[0] - x[0], 0.0)


def uphill_matrix(x, y):
    return cdist(x, y, "sqeuclidean") + 3.0 * np.maximum(y[None, :, 0] - x[:, None, 0], 0.0)


@pytest.mark.parametrize("name", SCIPY)
def test_named_cost_is_scipys(name, clouds):
    x, y = clouds
    found = resolve_cost(name)(jnp.asarray(x), jnp.asarray(y))
    # float32: 5 features of size about 1 and the expansion of the square leave about 1e-6 of the largest term.
    np.testing.assert_allclose(found, cdist(x, y, SCIPY[name]), rtol=1e-5, atol=2e-5)


def test_every_named_cost_is_compared_with_scipy():
    assert set(SCIPY) <= set(available_costs())


@pytest.mark.parametrize("name", SCIPY)
def test_named_cost_is_symmetric_as_it_says(name, clouds):
    x, y = map(jnp.asarray, clouds)
    cost = resolve_cost(name)
    assert cost.symmetric
    np.testing.assert_allclose(cost(x, y), cost(y, x).T, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", SCIPY)
def test_single_pairs_agree_with_blocks(name, clouds):
    # The trainer's diagnostics look at single pairs, the solver at blocks: one cost.
    x, y = map(jnp.asarray, clouds)
    cost = resolve_cost(name)
    pairs = jnp.stack([cost(x[i : i + 1], y[:1])[0, 0] for i in range(len(x))])
    np.testing.assert_allclose(pairs, cost(x, y)[:, 0], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean"])
def test_distances_far_from_the_origin(name, clouds):
    x, y = (cells + np.float32(1000.0) for cells in clouds)
    found = resolve_cost(name)(jnp.asarray(x), jnp.asarray(y))
    # Coordinates of size 1e3 are on a float32 grid of 6e-5, but exactly those values go into both computations.
    np.testing.assert_allclose(found, cdist(x.astype(np.float64), y.astype(np.float64), name), rtol=1e-4, atol=1e-3)


def test_costs_are_never_negative_between_equal_cells(rng):
    x = jnp.asarray(rng.normal(size=(50, 8)) * 100, jnp.float32)
    for name in SCIPY:
        block = resolve_cost(name)(x, x)
        assert np.isfinite(block).all() and (block >= 0).all(), name


@pytest.mark.parametrize("name", ["cosine", "pearson"])
def test_all_zero_and_constant_cells_have_finite_costs(name):
    x = jnp.asarray([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
    block = resolve_cost(name)(x, x)
    assert np.isfinite(block).all()
    assert block[0, 2] == 1.0


@pytest.mark.parametrize(
    "cost", [ott_costs.SqEuclidean(), ott_costs.Euclidean(), ott_costs.PNormP(1.5), ott_costs.Cosine()]
)
def test_ott_cost_is_ott(cost, clouds):
    x, y = map(jnp.asarray, clouds)
    pairwise = jnp.stack([jnp.stack([cost(one, other) for other in y]) for one in x])
    np.testing.assert_allclose(resolve_cost(cost)(x, y), pairwise, rtol=1e-5, atol=2e-5)


def test_ott_squared_distance_has_no_half(clouds):
    x, y = map(jnp.asarray, clouds)
    ours, theirs = resolve_cost("sqeuclidean")(x, y), resolve_cost(ott_costs.SqEuclidean())(x, y)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


def test_callable_is_evaluated_source_first(clouds):
    x, y = clouds
    found = resolve_cost(uphill)(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(found, uphill_matrix(x, y), rtol=1e-5, atol=2e-5)
    assert np.abs(uphill_matrix(x, y) - uphill_matrix(y, x).T).max() > 1  # the order of arguments matters


def test_swapped_cost_exchanges_arguments_and_swaps_back(clouds):
    x, y = map(jnp.asarray, clouds)
    cost = resolve_cost(uphill)
    assert not cost.symmetric
    np.testing.assert_array_equal(cost.swapped()(y, x), cost(x, y).T)
    assert cost.swapped().swapped() == cost
    named = resolve_cost("cosine")
    assert named.swapped() is named


@pytest.mark.parametrize("limits", [{}, {"dense_limit": 1}], ids=["dense", "blocked"])
def test_asymmetric_cost_is_transposed_nowhere(clouds, limits):
    x, y = clouds
    config = CouplingConfig(cost=uphill, epsilon=0.1, tolerance=1e-5, **limits)
    coupling = solve_coupling(jax.random.key(0), x, y, config=config)
    cost = uphill_matrix(x.astype(np.float64), y.astype(np.float64))
    assert coupling.diagnostics.scale == pytest.approx(cost.mean(), rel=1e-5)
    a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    plan = ot.sinkhorn(a, b, cost / cost.mean(), 0.1, method="sinkhorn_log", stopThr=1e-12, numItermax=20000)
    # Both marginals agree by construction, so compare rows through draws: 4000 a row, each off by at most 1/4000.
    drawn = np.asarray(coupling.conditional(jax.random.key(1), jnp.arange(len(x)), 4000))
    rows = np.stack([np.bincount(row, minlength=len(y)) / 4000 for row in drawn])
    # Systematic draws miss an entry by at most one count; 1e-3 is the solver's tolerance times the number of cells.
    np.testing.assert_allclose(rows, plan / plan.sum(1, keepdims=True), atol=1 / 4000 + 1e-3)


def test_scale_is_the_mean_or_the_max(clouds):
    x, y = map(jnp.asarray, clouds)
    cost = resolve_cost("sqeuclidean")
    matrix = cdist(x, y, "sqeuclidean")
    assert cost_scale(cost, x, y) == pytest.approx(matrix.mean(), rel=1e-5)
    assert cost_scale(cost, x, y, "max") == pytest.approx(matrix.max(), rel=1e-5)
    assert cost_scale(cost, x, y, 2.5) == 2.5
    assert cost_scale(cost, x, y, np.float64(2.5)) == 2.5


def test_scale_follows_the_unit_of_the_data(clouds):
    x, y = map(jnp.asarray, clouds)
    cost = resolve_cost("sqeuclidean")
    assert cost_scale(cost, 1e3 * x, 1e3 * y) == pytest.approx(1e6 * cost_scale(cost, x, y), rel=1e-4)
    assert cost_scale(cost, 1e-6 * x, 1e-6 * y) == pytest.approx(1e-12 * cost_scale(cost, x, y), rel=1e-4)


def test_scale_of_many_cells_is_estimated_from_a_sample(rng):
    x, y = rng.normal(size=(20000, 2)).astype(np.float32), rng.normal(size=(9000, 2)).astype(np.float32)
    # E|x - y|^2 = 4 with standard deviation 4; the mean over 8192 a side has a standard error of about 0.03.
    exact = np.mean(np.sum(x.astype(float) ** 2, 1)) + np.mean(np.sum(y.astype(float) ** 2, 1))
    exact -= 2 * x.mean(0).astype(float) @ y.mean(0).astype(float)
    x, y = jnp.asarray(x), jnp.asarray(y)
    found = cost_scale(resolve_cost("sqeuclidean"), x, y)
    assert found == pytest.approx(exact, abs=5 * 0.03)
    assert found == cost_scale(resolve_cost("sqeuclidean"), x, y)


def test_scale_of_equal_cells_is_one():
    cells = jnp.ones((4, 3))
    assert cost_scale(resolve_cost("sqeuclidean"), cells, cells) == 1.0


def test_cost_that_is_not_finite_is_named(clouds):
    def reciprocal(x, y):
        return 1.0 / jnp.sum((x - y) ** 2)

    with pytest.raises(ValueError, match="'reciprocal'.*not finite"):
        cost_scale(resolve_cost(reciprocal), jnp.asarray(clouds[0]), jnp.asarray(clouds[0]))


@pytest.mark.parametrize(
    ("wrong", "right"), [("sqeuclidian", "sqeuclidean"), ("cosin", "cosine"), ("Pearson", "pearson")]
)
def test_misspelt_name_names_the_closest(wrong, right):
    with pytest.raises(ValueError, match=f"`cost` must be one of .*got '{wrong}'. Did you mean '{right}'"):
        resolve_cost(wrong)


@pytest.mark.parametrize("wrong", ["median", 0.0, -1.0, float("nan"), float("inf"), True])
def test_wrong_scale_is_refused(wrong, clouds):
    # Annotations refuse some of these first while tests run; users get the package's own message.
    with pytest.raises((ValueError, TypeCheckError), match="scale_cost"):
        cost_scale(resolve_cost("sqeuclidean"), *map(jnp.asarray, clouds), wrong)


def test_something_that_is_no_cost(plain_calls):
    with pytest.raises(TypeError, match="`cost` must be a name .*sqeuclidean.* an OTT CostFn or a function.* got int"):
        resolve_cost(3)


def test_a_new_cost_is_one_registration(clouds):
    @register_cost("test_manhattan")
    def manhattan(x, y):
        return jnp.abs(x[:, None, :] - y[None, :, :]).sum(axis=-1)

    try:
        assert "test_manhattan" in available_costs()
        found = resolve_cost("test_manhattan")(*map(jnp.asarray, clouds))
        np.testing.assert_allclose(found, cdist(*clouds, "cityblock"), rtol=1e-5)
    finally:
        from scgenot import costs

        del costs._COSTS["test_manhattan"]


def test_cost_objects_pass_through():
    cost = Cost("mine", lambda x, y: x @ y.T)
    assert resolve_cost(cost) is cost


@pytest.mark.parametrize("make", [lambda p: ott_costs.PNormP(p), lambda p: ott_costs.Cosine(ridge=p)])
def test_equal_ott_costs_are_compiled_once(make, clouds, plain_calls):
    first, again, other = resolve_cost(make(1.5)), resolve_cost(make(1.5)), resolve_cost(make(1.25))
    assert first == again and hash(first) == hash(again)
    assert first != other
    from scgenot.costs._cost import block

    before = block._cache_size()
    sizes = []
    for cost in (first, again, other):
        block(cost, *clouds)
        sizes.append(block._cache_size() - before)
    assert sizes == [1, 1, 2]


def test_a_taken_name_is_not_overwritten_in_passing():
    from scgenot import costs

    before = resolve_cost("cosine")
    with pytest.raises(ValueError, match="'cosine' is a cost already.*`overwrite=True`"):
        register_cost("cosine")(lambda x, y: x @ y.T)
    assert resolve_cost("cosine") is before
    try:
        register_cost("cosine", overwrite=True)(lambda x, y: x @ y.T)
        assert resolve_cost("cosine") is not before
    finally:
        costs._COSTS["cosine"] = before


def test_a_cost_over_the_population_cannot_be_displaced():
    with pytest.raises(ValueError, match="'geodesic' is a cost over the whole population.*'sqeuclidean'"):
        displaced_cost("geodesic", np.zeros(5))
