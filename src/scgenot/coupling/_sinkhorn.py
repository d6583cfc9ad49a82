"""Entropic transport by Sinkhorn iterations on dual potentials, balanced or not, coarse to fine."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._geometry import Geometry, soft_min_rows

# Marginals of potentials that were extended from landmarks: off by no more than this, they have converged.
LANDMARK_TOLERANCE = 0.05
_PLAIN_STEPS = 10
_COARSEST = 2048
_REFINEMENT = 8
_ENTRIES_A_CALL = 2e9
# Extended potentials are swept over all cells as often as this many costs allow, and at least so often.
_SWEPT_ENTRIES, _FEWEST_SWEEPS = 1e10, 30
# Beyond this, exponentials would leave single precision.
_LOG_LARGE = 50.0


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("u", "v"),
    meta_fields=("violation", "iterations", "converged"),
)
@dataclasses.dataclass(frozen=True)
class Potentials:
    """Dual potentials over epsilon, and how finding them went.

    The plan is ``P_ij = a_i b_j exp(u_i + v_j - C_ij / epsilon)``.
    """

    u: Float[Array, " n"]
    v: Float[Array, " m"]
    violation: float = float("nan")
    iterations: int = 0
    converged: bool = False


def extend_rows(
    geometry: Geometry, log_b: Float[Array, " m"], v: Float[Array, " m"], tau: float | Float[Array, ""]
) -> Float[Array, " n"]:
    """Return the row potential that column potentials imply: the soft c-transform, damped by `tau`.

    It is defined for any cells, also for ones that were not part of the problem.
    """
    return -tau * soft_min_rows(geometry, v + log_b)


def solve_potentials(
    geometry: Geometry,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
    *,
    key: jax.Array,
) -> Potentials:
    """Solve for the dual potentials of a linear problem.

    Parameters
    ----------
    geometry
        Costs over epsilon.
    a, b
        Marginals, each summing to 1; zeros are allowed.
    config
        Taus, tolerance, limits.
    key
        Chooses the subsets of the coarse problems.

    Returns
    -------
    The potentials at the last iteration, converged or not.

    Notes
    -----
    Large problems start from the potentials of a random subset of the cells, extended to all cells by the soft
    c-transform; these are right up to sampling error, so few iterations remain at full size. The coarsest problem
    is annealed from a large epsilon. Over-relaxation follows Lehmann et al., 2022, "A note on overrelaxation in
    the Sinkhorn algorithm", with the rate measured while iterating.
    """
    n, m = geometry.shape
    if n * m <= config.coarse_limit or max(n, m) <= _COARSEST:
        v = _annealed(geometry.stored() if n * m <= config.dense_limit else geometry, a, b, config)
        return _iterate(_stored(geometry, config), a, b, v, config, config.tolerance, config.max_iterations)
    shrink = min(_REFINEMENT, max(n, m) / _COARSEST)
    source_key, target_key, coarse_key = jax.random.split(key, 3)
    source = _subset(source_key, a, shrink)
    target = _subset(target_key, b, shrink)
    coarse = solve_potentials(
        geometry.rows(source, target), _uniform(len(source)), _uniform(len(target)), config, key=coarse_key
    )
    # Extended from the coarse source cells, the column potential is defined on every target cell.
    v = extend_rows(geometry.rows(source, np.arange(m)).T, _log(_uniform(len(source))), coarse.u, config.tau_target)
    return _iterate(_stored(geometry, config), a, b, v, config, config.tolerance, config.max_iterations)


def refine_potentials(
    geometry: Geometry,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    landmarks: tuple[Int[np.ndarray, " k"], Float[Array, " k"], Float[Array, " k"]],
    config: CouplingConfig,
) -> Potentials:
    """Extend potentials from landmarks to all cells, and sweep over these until the marginals fit, or often enough.

    Parameters
    ----------
    geometry, a, b
        Costs over epsilon and marginals of all cells.
    landmarks
        Rows of the source cells that are landmarks, their weights, and their potentials.
    config
        Taus, tolerance, limits.

    Returns
    -------
    Potentials of all cells. Sampling of the landmarks shows in the marginals. Most of it goes in the first sweeps; what is
    left is mass between groups of cells, which thousands of sweeps would have to carry from one to the other. The
    optimal plan of a sample does not deserve these.
    """
    (n, m), (rows, weights, potential) = geometry.shape, landmarks
    known = geometry.rows(rows, np.arange(m)).T
    v = extend_rows(known, _log(weights), potential, config.tau_target)
    geometry = _stored(geometry, config)
    u = extend_rows(geometry, _log(b), v, config.tau_source)
    sweeps = min(max(int(_SWEPT_ENTRIES / (n * m)), _FEWEST_SWEEPS), config.max_iterations)
    per_call, done, violation = int(np.clip(_ENTRIES_A_CALL / (n * m), 1, _PLAIN_STEPS)), 0, float("inf")
    while done < sweeps and violation > config.tolerance:
        # Over-relaxation sped up nothing here: sampling noise goes as fast without it, and the rest is too slow with it.
        steps = min(per_call, sweeps - done)
        u, v, seen = sinkhorn_steps(
            geometry, _log(a), _log(b), u, v, (config.tau_source, config.tau_target), 1.0, steps
        )
        done, violation = done + steps, float(seen)
        if not np.isfinite(violation):
            break
    return Potentials(u, v, violation, done, violation <= max(config.tolerance, LANDMARK_TOLERANCE))


def _stored(geometry: Geometry, config: CouplingConfig) -> Geometry:
    n, m = geometry.shape
    return geometry.stored() if geometry.matrix is None and n * m <= config.dense_limit else geometry


def _annealed(geometry: Geometry, a, b, config: CouplingConfig) -> Float[Array, " m"]:
    """Return a column potential to start from, found at larger epsilons (four times smaller each time)."""
    v = jnp.zeros(geometry.shape[1], jnp.float32)
    first = 1.0 / config.epsilon
    factors = [4.0**k for k in range(int(np.log(max(first, 1.0)) / np.log(4.0)), 0, -1)]
    for previous, factor in zip([None, *factors], factors, strict=False):
        # Potentials here are divided by epsilon, so they grow when epsilon shrinks.
        v = v * (1.0 if previous is None else previous / factor)
        v = _iterate(geometry.at_epsilon(factor), a, b, v, config, 10 * config.tolerance, 20).v
    return v * (factors[-1] if factors else 1.0)


def _iterate(geometry: Geometry, a, b, v, config: CouplingConfig, tolerance: float, max_iterations: int) -> Potentials:
    """Run Sinkhorn from `v` until the marginals fit, a few iterations a compiled call."""
    n, m = geometry.shape
    log_a, log_b = _log(a), _log(b)
    per_call = int(np.clip(_ENTRIES_A_CALL / (n * m), 1, _PLAIN_STEPS))
    taus = (config.tau_source, config.tau_target)
    u = extend_rows(geometry, log_b, v, config.tau_source)
    omega, history, done = 1.0, [], 0
    best = float("inf")
    while done < max_iterations:
        u, v, violation = sinkhorn_steps(
            geometry, log_a, log_b, u, v, taus, omega, min(per_call, max_iterations - done)
        )
        done += per_call
        violation = float(violation)
        history.append(violation)
        if not np.isfinite(violation) or violation <= tolerance:
            break
        if violation > 4 * best:
            omega = 1.0
        elif done >= _PLAIN_STEPS and omega == 1.0 and len(history) > 1:
            omega = _relaxation((history[-1] / history[-2]) ** (1 / per_call))
        best = min(best, violation)
    return Potentials(u, v, history[-1], min(done, max_iterations), bool(history[-1] <= tolerance))


@jax.jit
def sinkhorn_steps(geometry: Geometry, log_a, log_b, u, v, taus, omega, n_steps):
    """Run `n_steps` over-relaxed iterations; return the potentials and the violation seen in the last one."""

    def step(_, state):
        u, v, _ = state
        new_u = extend_rows(geometry, log_b, v, taus[0])
        # (u, v) has row masses a exp((u - new_u) / tau): what the update corrects is the violation before it.
        rows = _violation(log_a, u - new_u)
        u = u + omega * (new_u - u)
        new_v = extend_rows(geometry.T, log_a, u, taus[1])
        columns = _violation(log_b, v - new_v)
        return u, v + omega * (new_v - v), jnp.maximum(rows, columns)

    return jax.lax.fori_loop(0, n_steps, step, (u, v, jnp.inf))


def _violation(log_weights: Float[Array, " n"], log_ratio: Float[Array, " n"]) -> Float[Array, ""]:
    """Return the L1 distance between masses ``weights exp(log_ratio)`` and `weights`; finite, however far these are apart."""
    return jnp.sum(jnp.exp(log_weights) * jnp.abs(jnp.expm1(jnp.clip(log_ratio, -_LOG_LARGE, _LOG_LARGE))))


def _relaxation(rate: float) -> float:
    """Return the over-relaxation that is optimal for a linear rate per plain iteration."""
    return 2.0 / (1.0 + np.sqrt(1.0 - np.clip(rate, 0.0, 0.99)))


def _subset(key: jax.Array, weights: Float[Array, " n"], shrink: float) -> np.ndarray:
    """Choose one in `shrink` cells without replacement, in proportion to their weights."""
    weights = np.asarray(weights, dtype=np.float64)
    size = min(int(np.ceil(len(weights) / shrink)), int(np.count_nonzero(weights)))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return np.sort(rng.choice(len(weights), size, replace=False, p=weights / weights.sum()))


def _uniform(n: int) -> Float[Array, " n"]:
    return jnp.full(n, 1.0 / n, jnp.float32)


def _log(weights: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.log(weights)
