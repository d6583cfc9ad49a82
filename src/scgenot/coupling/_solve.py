"""From data and a config to a coupling: checks, marginals, and the register of coupling kinds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._messages import one_of
from scgenot._progress import Progress
from scgenot.coupling._base import Coupling, Diagnostics
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._global_linear import linear_coupling
from scgenot.coupling._global_quadratic import quadratic_coupling
from scgenot.coupling._low_rank import lowrank_coupling
from scgenot.coupling._minibatch_linear import minibatch_coupling
from scgenot.coupling._minibatch_quadratic import quadratic_minibatch_coupling

CouplingKind: TypeAlias = Literal["global", "minibatch", "low_rank"]

# To add a coupling, write it in a file of its own and name it here.
_SOLVERS: dict[tuple[str, str], Callable[..., Coupling]] = {
    ("linear", "global"): linear_coupling,
    ("linear", "minibatch"): minibatch_coupling,
    ("quadratic", "global"): quadratic_coupling,
    ("quadratic", "minibatch"): quadratic_minibatch_coupling,
    ("quadratic", "low_rank"): lowrank_coupling,
    ("fused", "global"): quadratic_coupling,
    ("fused", "minibatch"): quadratic_minibatch_coupling,
}

# Below this share of the mass a coupling tells more about its taus than about the cells.
_LITTLE_MASS = 0.05


def available_couplings(problem: str = "linear") -> list[str]:
    """Return the kinds of coupling that exist for a problem."""
    return [kind for known, kind in _SOLVERS if known == problem]


def solve_coupling(
    key: jax.Array,
    source: Float[Array | np.ndarray, "n dx"],
    target: Float[Array | np.ndarray, "m dy"],
    *,
    source_weights: Float[Array | np.ndarray, " n"] | None = None,
    target_weights: Float[Array | np.ndarray, " m"] | None = None,
    shared: tuple[Float[Array | np.ndarray, "n s"], Float[Array | np.ndarray, "m s"]] | None = None,
    pairs: Int[np.ndarray, "p 2"] | None = None,
    problem: str = "linear",
    kind: CouplingKind = "global",
    config: CouplingConfig | None = None,
    progress_bar: bool = False,
) -> Coupling:
    """Couple two populations.

    Parameters
    ----------
    key
        JAX key.
    source, target
        Cells of the two populations, as the cost sees them: features, or for the cost ``"precomputed"`` their rows of costs
        to all cells of their population (in linear problems: to all source and then all target cells).
    source_weights, target_weights
        Non-negative weights of the cells; uniform if ``None``. They are normalised to sum to 1.
    shared
        Features that both populations have, for fused problems.
    pairs
        Instead of `shared`: rows of source and target cells that are known to correspond.
    problem
        ``"linear"``: both populations lie in one space. ``"quadratic"``: they need not. ``"fused"``: they need not, but
        share some features, or some pairs of cells are known.
    kind
        ``"global"``, one problem over all cells (quadratic ones over landmarks where there are many), ``"minibatch"``, the
        paper's, or ``"low_rank"``, quadratic problems over plans of low rank.
    config
        Cost, epsilon, taus, limits.
    progress_bar
        Whether to show the stage of solving and what remains, in quadratic and fused global problems.

    Returns
    -------
    The coupling. A global one that has not converged warns and says what to do.

    Raises
    ------
    ValueError
        If arrays are empty, not finite, or of different width in a linear problem; if weights are negative or all
        zero; if the problem or the kind is not known; if a fused problem has neither shared features nor pairs, or another
        problem has them.
    """
    if (problem, kind) not in _SOLVERS:
        if problem not in {known for known, _ in _SOLVERS}:
            raise ValueError(one_of("problem", problem, sorted({known for known, _ in _SOLVERS})))
        raise ValueError(one_of("coupling", kind, available_couplings(problem)))
    config = (config or CouplingConfig()).resolved(problem)
    source, target = _cells("source", source), _cells("target", target)
    if problem == "linear" and source.shape[1] != target.shape[1]:
        raise ValueError(
            f"a linear problem compares cells in one space, got {source.shape[1]} features in `source` and "
            f"{target.shape[1]} in `target`. Use the same representation for both."
        )
    a = _marginal("source_weights", source_weights, len(source))
    b = _marginal("target_weights", target_weights, len(target))
    given = _in_common(problem, shared, pairs, len(source), len(target))
    with Progress(progress_bar) as progress:
        if _SOLVERS[problem, kind] is quadratic_coupling:
            given["progress"] = progress
        found = _SOLVERS[problem, kind](key, source, target, a, b, config, **given)
    if kind != "minibatch" and not found.diagnostics.converged:
        warnings.warn(_not_converged(found.diagnostics, config), RuntimeWarning, stacklevel=2)
    if kind != "minibatch" and found.diagnostics.mass < _LITTLE_MASS:
        warnings.warn(
            f"The coupling carries only {found.diagnostics.mass:.2g} of the mass: most cells have no counterpart at "
            f"`tau_source`={config.tau_source:g}, `tau_target`={config.tau_target:g} and `epsilon`={config.epsilon:g}. Try "
            "taus nearer to 1.",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


def _not_converged(summary: Diagnostics, config: CouplingConfig) -> str:
    best = summary.starts[0] if summary.starts else None
    if best is not None and best.converged:
        return (
            f"The quadratic coupling converged over its landmarks, but over all cells its marginals are off by "
            f"{summary.marginal_violation:.2g}. Try more `landmarks` (got {config.landmarks}) or a larger `epsilon` (got "
            f"{config.epsilon:g})."
        )
    if best is not None:
        return (
            f"The quadratic coupling did not converge in {best.iterations} linearisations: the plan of its best start "
            f"({best.start}) changed by {best.plan_change:.2g} in the last one, and its marginals are off by "
            f"{summary.marginal_violation:.2g}. Try a larger `epsilon` (got {config.epsilon:g})."
        )
    return (
        f"The coupling did not converge: its marginals are off by {summary.marginal_violation:.2g} after "
        f"{summary.iterations:.0f} iterations (tolerance {config.tolerance:.2g}). Try a larger `epsilon` "
        f"(got {config.epsilon:g}) or more `max_iterations`."
    )


def _in_common(problem: str, shared, pairs, n: int, m: int) -> dict[str, Any]:
    """Check what a fused problem compares directly; return it by the name of its argument."""
    if problem != "fused":
        if shared is not None or pairs is not None:
            name = "shared" if shared is not None else "pairs"
            raise ValueError(f"`{name}` belongs to fused problems, got problem={problem!r}. Use problem='fused'.")
        return {}
    if (shared is None) == (pairs is None):
        raise ValueError(
            "a fused problem needs `shared` features or known `pairs`, one of the two; got "
            + ("neither." if shared is None else "both.")
        )
    if pairs is not None:
        pairs = np.asarray(pairs)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or not np.issubdtype(pairs.dtype, np.integer):
            raise ValueError(f"`pairs` must be whole numbers, pairs x 2, got {pairs.dtype} of shape {pairs.shape}.")
        if (pairs < 0).any() or (pairs >= (n, m)).any():
            raise ValueError(
                f"`pairs` must name rows below {n} (source) and {m} (target), got up to {pairs.max(axis=0)}."
            )
        return {"pairs": pairs}
    features = tuple(_cells(f"shared[{side}]", one) for side, one in enumerate(shared))
    if [len(one) for one in features] != [n, m] or features[0].shape[1] != features[1].shape[1]:
        raise ValueError(
            f"`shared` must hold the same features for all {n} source and {m} target cells, got shapes "
            f"{features[0].shape} and {features[1].shape}."
        )
    return {"shared": features}


def _cells(name: str, cells) -> Float[Array, "n d"]:
    array = np.asarray(cells)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"`{name}` must be a cells x features array with at least one of each, got shape {array.shape}."
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            f"`{name}` has NaN or inf in {len(bad)} of {len(array)} rows (rows {shown}). Drop these cells first."
        )
    return jnp.asarray(array, jnp.float32)


def _marginal(name: str, weights, n: int) -> Float[Array, " n"]:
    if weights is None:
        return jnp.full(n, 1.0 / n, jnp.float32)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"`{name}` must hold one weight for each of the {n} cells, got shape {array.shape}.")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"`{name}` must be finite and not negative, got values down to {np.nanmin(array):g}.")
    if array.sum() <= 0:
        raise ValueError(f"`{name}` must not all be zero: no cell would be used.")
    return jnp.asarray(array / array.sum(), jnp.float32)
