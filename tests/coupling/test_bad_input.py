"""Bad input to a coupling: what the message says."""

import jax
import numpy as np
import pytest

from scgenot.coupling import CouplingConfig, Global, LowRank, Minibatch, kind_with_options, solve_coupling

KEY = jax.random.key(0)


@pytest.fixture
def clouds(rng):
    return rng.normal(size=(8, 2)).astype(np.float32), rng.normal(size=(6, 2)).astype(np.float32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_rows_that_are_not_finite_are_counted_and_named(clouds, bad, side):
    clouds[side][[2, 5], 1] = bad
    name, n = ("source", 8) if side == 0 else ("target", 6)
    with pytest.raises(ValueError, match=rf"`{name}` has NaN or inf in 2 of {n} rows \(rows 2, 5\)"):
        solve_coupling(KEY, *clouds)


def test_many_bad_rows_are_not_all_listed(clouds):
    clouds[0][:] = np.nan
    with pytest.raises(ValueError, match=r"8 of 8 rows \(rows 0, 1, 2, 3, 4, \.\.\.\)"):
        solve_coupling(KEY, *clouds)


def test_widths_differ(clouds):
    with pytest.raises(ValueError, match="one space, got 2 features in `source` and 1 in `target`"):
        solve_coupling(KEY, clouds[0], clouds[1][:, :1])


@pytest.mark.parametrize("cells", [np.zeros((0, 2), np.float32), np.zeros((3, 0), np.float32)])
def test_no_cells_or_no_features(clouds, cells):
    with pytest.raises(ValueError, match="`source` must be a cells x features array"):
        solve_coupling(KEY, cells, clouds[1])


def test_wrong_number_of_axes(clouds, plain_calls):
    with pytest.raises(ValueError, match=r"`target` must be a cells x features array.* got shape \(6,\)"):
        solve_coupling(KEY, clouds[0], clouds[1][:, 0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(8), "`source_weights` must not all be zero"),
        (np.array([-1.0, *np.ones(7)]), "`source_weights` must be finite and not negative, got values down to -1"),
        (np.array([np.nan, *np.ones(7)]), "`source_weights` must be finite"),
        (np.array([np.inf, *np.ones(7)]), "`source_weights` must be finite"),
    ],
)
def test_weights(clouds, weights, message):
    with pytest.raises(ValueError, match=message):
        solve_coupling(KEY, *clouds, source_weights=weights)


def test_number_of_weights(clouds, plain_calls):
    with pytest.raises(ValueError, match=r"`target_weights` must hold one weight for each of the 6 cells.*\(5,\)"):
        solve_coupling(KEY, *clouds, target_weights=np.ones(5))


@pytest.mark.parametrize("value", [0.0, -0.1, float("nan"), float("inf")])
def test_epsilon(value):
    with pytest.raises(ValueError, match="`epsilon` must be a finite number above 0, got .*Start from 0.05"):
        CouplingConfig(epsilon=value)


@pytest.mark.parametrize("name", ["tau_source", "tau_target"])
@pytest.mark.parametrize("value", [0.0, -0.5, 1.01, float("nan")])
def test_taus(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must lie in \(0, 1\], got .*1.0 keeps the"):
        CouplingConfig(**{name: value})


@pytest.mark.parametrize("name", ["max_iterations", "n_draws", "rank", "landmarks", "dense_limit", "coarse_limit"])
@pytest.mark.parametrize("value", [0, -5, 2.0, "3", True])
def test_counts(name, value, plain_calls):
    smallest = 2 if name == "landmarks" else 1
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least {smallest}, got {value!r}"):
        CouplingConfig(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least {smallest}, got {value!r}"):
        (LowRank if name == "rank" else Global)(**{name: value})


def test_numbers_of_numpy_are_numbers(plain_calls):
    config = CouplingConfig(epsilon=np.float32(0.1), n_draws=np.int64(3), tau_source=np.float64(0.5))
    assert config.n_draws == 3


@pytest.mark.parametrize(
    ("problem", "kind", "options", "message"),
    [
        (
            "linear",
            "minibatch",
            {"rank": 3},
            "`rank` does nothing in a linear problem with the 'minibatch'.*'low_rank'",
        ),
        ("linear", "minibatch", {"warm_start": False}, "`warm_start` does nothing in a linear problem"),
        ("linear", "minibatch", {"n_draws": 3}, "`n_draws` does nothing.*belongs to 'global' and 'low_rank'"),
        ("linear", "global", {"warm_start": True}, "`warm_start` does nothing.*belongs to 'minibatch'"),
        ("linear", "global", {"rank": 50}, "`rank` does nothing"),
        ("linear", Minibatch(warm_start=False), {}, "`warm_start` does nothing in a linear problem"),
        ("linear", Global(n_draws=3), {"n_draws": 4}, "`n_draws` was given twice: 3 with the kind, 4 in the config"),
        ("quadratic", "minibatch", {"max_iterations": 3}, "`max_iterations` does nothing in a quadratic problem"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(clouds, problem, kind, options, message):
    with pytest.raises(ValueError, match=message):
        solve_coupling(KEY, *clouds, problem=problem, kind=kind, config=CouplingConfig(**options))


def test_options_can_be_given_with_the_kind_or_in_the_config(clouds):
    ways = [
        solve_coupling(KEY, *clouds, kind=Global(n_draws=3)),
        solve_coupling(KEY, *clouds, config=CouplingConfig(n_draws=3)),
    ]
    assert [one.config.n_draws for one in ways] == [3, 3]
    np.testing.assert_array_equal(*(next(one.pairs(KEY, batch_size=8, steps=2))[1] for one in ways))
    assert kind_with_options("low_rank", "quadratic", {"rank": 7}) == LowRank(rank=7)
    with pytest.raises(
        ValueError, match="`coupling` must be one of 'global', 'extended', 'minibatch', 'auto', got 'low_rank'"
    ):
        kind_with_options(LowRank(), "linear", {})


@pytest.mark.parametrize("value", ["small", "0.1", [0.1], True])
def test_epsilon_of_another_type(value, plain_calls):
    with pytest.raises(ValueError, match="`epsilon` must be a finite number"):
        CouplingConfig(epsilon=value)


@pytest.mark.parametrize("value", [0.0, -1e-3])
def test_tolerance(value):
    with pytest.raises(ValueError, match="`tolerance` must be a finite number above 0"):
        CouplingConfig(tolerance=value)


def test_unknown_problem(clouds):
    with pytest.raises(
        ValueError, match="`problem` must be one of 'fused', 'linear', 'quadratic', got 'liner'. Did you mean 'linear'"
    ):
        solve_coupling(KEY, *clouds, problem="liner")


def test_unknown_kind(clouds, plain_calls):
    with pytest.raises(
        ValueError, match="`coupling` must be one of 'global', 'extended', 'minibatch', 'auto', got 'minibach'. Did you"
    ):
        solve_coupling(KEY, *clouds, kind="minibach")


def test_unknown_cost(clouds):
    with pytest.raises(ValueError, match="`cost` must be one of .*Did you mean 'euclidean'"):
        solve_coupling(KEY, *clouds, config=CouplingConfig(cost="euclidian"))


def test_indices_keep_their_input(clouds):
    before = [one.copy() for one in clouds]
    solve_coupling(KEY, *clouds, source_weights=np.arange(8.0))
    for one, was in zip(clouds, before, strict=True):
        np.testing.assert_array_equal(one, was)
