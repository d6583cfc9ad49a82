"""From data and a config to a coupling: checks, marginals, and the register of coupling kinds."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._devices import Devices, DevicesLike
from scgenot._messages import one_of
from scgenot._progress import Progress
from scgenot.coupling._base import Coupling, Diagnostics
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._extended import extended_coupling, extended_quadratic_coupling
from scgenot.coupling._global_linear import linear_coupling
from scgenot.coupling._global_quadratic import quadratic_coupling
from scgenot.coupling._inputs import checked_cells, checked_marginal
from scgenot.coupling._kinds import Auto, Global, Kind, automatic, kind_named, with_options
from scgenot.coupling._low_rank import lowrank_coupling
from scgenot.coupling._minibatch_linear import minibatch_coupling
from scgenot.coupling._minibatch_quadratic import quadratic_minibatch_coupling

CouplingKind: TypeAlias = Literal["auto", "global", "extended", "minibatch", "low_rank"]


@dataclasses.dataclass(frozen=True)
class Solver:
    """How one kind of coupling solves one problem, and what it can.

    Attributes
    ----------
    solve
        ``(key, source, target, a, b, config) -> Coupling``; in fused problems with ``shared`` or ``pairs`` besides. The
        config is resolved: it holds the options of the kind.
    unused
        Options of the kind that do nothing here: they are refused.
    relaxed
        Whether taus below 1 are allowed.
    known_plan
        Whether there is one plan: marginals, mass and objective are known, and it says when it has not converged.
    reports
        Whether `solve` takes ``progress``.
    starts_from
        Whether `solve` takes ``init``, a plan to start from.
    shared
        Whether `solve` takes ``devices``, which share its passes over costs.
    """

    solve: Callable[..., Coupling]
    unused: frozenset[str] = frozenset()
    relaxed: bool = True
    known_plan: bool = True
    reports: bool = False
    starts_from: bool = False
    shared: bool = False


# To add a kind of coupling, write it in a file of its own, its options in `_kinds.py`, and name it here.
_FIXED_REPEATS = frozenset({"max_iterations"})
SOLVERS: dict[tuple[str, str], Solver] = {
    ("linear", "global"): Solver(linear_coupling, reports=True, shared=True),
    ("linear", "extended"): Solver(extended_coupling, reports=True, shared=True),
    ("linear", "minibatch"): Solver(minibatch_coupling, frozenset({"warm_start"}), known_plan=False),
    ("quadratic", "global"): Solver(quadratic_coupling, reports=True, starts_from=True),
    ("quadratic", "extended"): Solver(extended_quadratic_coupling, reports=True, starts_from=True),
    ("quadratic", "minibatch"): Solver(quadratic_minibatch_coupling, _FIXED_REPEATS, known_plan=False),
    ("quadratic", "low_rank"): Solver(lowrank_coupling, relaxed=False),
    ("fused", "global"): Solver(quadratic_coupling, reports=True, starts_from=True),
    ("fused", "extended"): Solver(extended_quadratic_coupling, reports=True, starts_from=True),
    ("fused", "minibatch"): Solver(quadratic_minibatch_coupling, _FIXED_REPEATS, known_plan=False),
}

# Below this share of the mass a coupling tells more about its taus than about the cells.
_LITTLE_MASS = 0.05


def available_couplings(problem: str = "linear") -> list[str]:
    """Return the kinds of coupling that exist for a problem."""
    return [kind for known, kind in SOLVERS if known == problem]


def kind_with_options(kind: str | Kind, problem: str, options: dict[str, Any], pairs: int | None = None) -> Kind:
    """Return a kind of coupling with its options, each of which this kind uses in this problem.

    Parameters
    ----------
    kind
        ``"auto"``, ``"global"``, ``"extended"``, ``"minibatch"``, ``"low_rank"``, or one of :class:`Global`, :class:`Extended`,
        :class:`Minibatch`, :class:`LowRank`.
    problem
        ``"linear"``, ``"quadratic"`` or ``"fused"``.
    options
        Options by name, such as ``{"landmarks": 500}``.
    pairs
        Number of pairs of cells, by which ``"auto"`` is one of the others; without it, it may stay.

    Raises
    ------
    ValueError
        If the problem or the kind is not known, does not fit the other, or if it would ignore an option.
    """
    name = kind_named(kind)
    if name == Auto.name and (problem, Global.name) in SOLVERS:
        name = kind = automatic(problem, options, pairs)
        if name == Auto.name:
            # Nothing that was given belongs to one of the two alone.
            with_options(Global.name, options, unused=frozenset(), problem=problem)
            return Auto()
    if (problem, name) not in SOLVERS:
        if problem not in {known for known, _ in SOLVERS}:
            raise ValueError(one_of("problem", problem, sorted({known for known, _ in SOLVERS})))
        raise ValueError(one_of("coupling", name, [*available_couplings(problem), Auto.name]))
    return with_options(kind, options, unused=SOLVERS[problem, name].unused, problem=problem)


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
    kind: CouplingKind | Kind = "global",
    config: CouplingConfig | None = None,
    init: Coupling | Float[Array | np.ndarray, "_ _"] | None = None,
    only_init: bool = True,
    devices: DevicesLike = "auto",
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
        ``"global"``, one problem over all cells (quadratic ones over landmarks where there are many), ``"extended"``, the same in
        time linear in the number of cells, ``"auto"``, one of these two by that number, ``"minibatch"``, the paper's, or
        ``"low_rank"``, quadratic problems over plans of low rank; or one of these with its options, such as
        ``Global(landmarks=500)``.
    config
        Cost, epsilon, taus. Options of the kind can be given here as well.
    init
        Global and extended quadratic and fused problems only: a plan to start from, or a global coupling of other cells of the same two
        spaces, which implies a plan between these. It says which of several optima is meant, such as one of two mirror
        images; the result still solves the problem, and its only start is called ``"given"``.
    only_init
        Whether `init` is the only start; otherwise it is one more beside the usual ones, of which the best is chosen.
    devices
        Devices that share the rows of each pass over the costs, in linear problems of kind ``"global"`` and ``"extended"``: ``"auto"``,
        all that JAX sees; a number, the first so many; a list of numbers, these. Others are solved on one device.
    progress_bar
        Whether to show the stage of solving, how far the marginals are off, and what remains.

    Returns
    -------
    The coupling. A global one that has not converged warns and says what to do.

    Raises
    ------
    ValueError
        If arrays are empty, not finite, or of different width in a linear problem; if weights are negative or all
        zero; if the problem or the kind is not known; if an option would be ignored; if a fused problem has neither shared
        features nor pairs, or another problem has them; if there are no such devices, or several for a problem that is solved on one.
    """
    config, solver = resolved_solver(problem, kind, config, np.size(source, 0) * np.size(target, 0))
    asked = Asked(source, target, source_weights, target_weights, shared, pairs)
    with Progress(progress_bar) as progress:
        given = {"init": init, "only_init": only_init, "devices": sharing(devices, solver, problem)}
        found = solved(key, asked, problem, solver, config, progress=progress, **given)
    for complaint in complaints(found, solver, config):
        warnings.warn(complaint, RuntimeWarning, stacklevel=2)
    return found


def sharing(devices: DevicesLike, solver: Solver, problem: str) -> Devices | None:
    """Return the devices that share the passes over costs; ``None`` for one."""
    found = Devices.of(devices)
    if found is None or solver.shared:
        return found
    if devices != "auto" and not isinstance(devices, Devices):
        raise ValueError(
            f"`devices`={devices!r}: a {problem} problem of this kind is solved on one device; linear ones of kind 'global' or "
            "'extended' are shared. Leave `devices` out."
        )
    return None


@dataclasses.dataclass(frozen=True)
class Asked:
    """The arrays of a problem as they were given, not checked: see :func:`solve_coupling`."""

    source: Any
    target: Any
    source_weights: Any = None
    target_weights: Any = None
    shared: Any = None
    pairs: Any = None


def resolved_solver(
    problem: str, kind: str | Kind, config: CouplingConfig | None, pairs: int
) -> tuple[CouplingConfig, Solver]:
    """Return the config with everything that was not chosen, and what solves the problem between so many pairs of cells."""
    config = config or CouplingConfig()
    kind = kind_with_options(kind, problem, config.options, pairs)
    return config.resolved(problem, kind), SOLVERS[problem, kind.name]


def solved(
    key: jax.Array,
    asked: Asked,
    problem: str,
    solver: Solver,
    config: CouplingConfig,
    *,
    progress: Progress,
    init: Coupling | Float[Array | np.ndarray, "_ _"] | None = None,
    only_init: bool = True,
    devices: Devices | None = None,
) -> Coupling:
    """Check the arrays of :func:`solve_coupling`, and solve; the config is resolved."""
    source, target = checked_cells("source", asked.source), checked_cells("target", asked.target)
    if problem == "linear" and source.shape[1] != target.shape[1]:
        raise ValueError(
            f"a linear problem compares cells in one space, got {source.shape[1]} features in `source` and "
            f"{target.shape[1]} in `target`. Use the same representation for both."
        )
    a = checked_marginal("source_weights", asked.source_weights, len(source))
    b = checked_marginal("target_weights", asked.target_weights, len(target))
    given = in_common(problem, asked.shared, asked.pairs, len(source), len(target))
    if init is not None:
        if not solver.starts_from:
            raise ValueError(
                "`init` is a start for quadratic and fused problems of kind 'global' or 'extended', which have many optima; got "
                f"problem={problem!r}. Linear problems have one, whatever they start from. Leave it out."
            )
        given |= {"init": init, "only_init": only_init}
    if solver.reports:
        given["progress"] = progress
    if solver.shared:
        given["devices"] = devices
    return solver.solve(key, source, target, a, b, config, **given)


def complaints(found: Coupling, solver: Solver, config: CouplingConfig) -> list[str]:
    """Return a sentence for each thing about the plan that one has to know."""
    said = []
    if solver.known_plan and not found.diagnostics.converged:
        said.append(_not_converged(found.diagnostics, config))
    if solver.known_plan and found.diagnostics.mass < _LITTLE_MASS:
        said.append(
            f"The coupling carries only {found.diagnostics.mass:.2g} of the mass: most cells have no counterpart at "
            f"`tau_source`={config.tau_source:g}, `tau_target`={config.tau_target:g} and `epsilon`={config.epsilon:g}. Try "
            "taus nearer to 1."
        )
    return said


def _not_converged(summary: Diagnostics, config: CouplingConfig) -> str:
    best = summary.starts[0] if summary.starts else None
    if summary.violation_error is not None and (best is None or best.converged):
        return (
            f"The extended coupling's marginals are off by {summary.marginal_violation:.2g} (+- {summary.violation_error:.1g}; "
            f"tolerance {config.tolerance:.2g}). Try more `n_sweeps` (got {config.n_sweeps}) or more `n_cells` (got "
            f"{config.n_cells}), or allow a larger `tolerance`."
        )
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


def in_common(problem: str, shared, pairs, n: int, m: int) -> dict[str, Any]:
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
    features = tuple(checked_cells(f"shared[{side}]", one) for side, one in enumerate(shared))
    if [len(one) for one in features] != [n, m] or features[0].shape[1] != features[1].shape[1]:
        raise ValueError(
            f"`shared` must hold the same features for all {n} source and {m} target cells, got shapes "
            f"{features[0].shape} and {features[1].shape}."
        )
    return {"shared": features}
