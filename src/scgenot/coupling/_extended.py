"""The extended coupling: potentials of all cells from some of them, pairs from random subsets; linear in the number of cells."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._devices import Devices
from scgenot._progress import Progress
from scgenot._sampling import further_subset, host_rng, systematic, weighted_subset
from scgenot.coupling._base import Diagnostics
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._global_linear import linear_costs, linear_coupling
from scgenot.coupling._global_quadratic import linearised, quadratic_coupling
from scgenot.coupling._kinds import OPTIONS, Global
from scgenot.coupling._potential import PotentialCoupling
from scgenot.sinkhorn import Extension, Geometry, draw_rows, extended_potentials, soft_min_rows

# Source cells that one pool of draws is for, and those of them that see the same targets. Half a million pairs: five
# checks of training at the default batch.
_POOLED, _TOGETHER = 16384, 4096
# Landmarks are solved over as sharply as in the global coupling.
_SHARP = Global.tolerance
# Marginals off by more than this (L1; two plans differ by 2 at the most) are those of no plan. Up to 1.2 were met where learning from the
# plan still gave most of what the converged one gives (`docs/scale.md`).
_LOST = 1.5
# Rows of the plan that diagnostics go through; every one is compared with all targets.
_MEASURED = 2048


def extended_coupling(
    key: jax.Array,
    source: Float[Array, "n d"],
    target: Float[Array, "m d"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
    *,
    progress: Progress | None = None,
    devices: Devices | None = None,
) -> PotentialCoupling:
    """Solve the linear problem over some cells, and extend it to all.

    Parameters
    ----------
    key
        Chooses cells.
    source, target, a, b, config, progress, devices
        As in :func:`scgenot.coupling._global_linear.linear_coupling`.
    """
    geometry, lift, scale = linear_costs(key, source, target, config)
    geometry = geometry.shared_by(devices)
    found = _extended(key, geometry, a, b, config, ("linear, extended", scale, lift, ()), progress=progress)
    if not _is_lost(found):
        return found
    config = _over_all_cells(config, "linear")
    return linear_coupling(key, source, target, a, b, config, progress=progress, devices=devices)


def extended_quadratic_coupling(
    key: jax.Array,
    source: Float[Array, "n dx"],
    target: Float[Array, "m dy"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
    **given: Any,
) -> PotentialCoupling:
    """Solve the quadratic or fused problem over landmarks, the linearised one over more cells, and extend that to all.

    Parameters
    ----------
    key, source, target, a, b, config, given
        As in :func:`scgenot.coupling._global_quadratic.quadratic_coupling`.
    """
    # Landmarks are solved over as sharply as ever: a plan that has not settled has other costs.
    sharp = dataclasses.replace(config, tolerance=min(config.tolerance or _SHARP, _SHARP))
    found = linearised(key, source, target, a, b, sharp, **given)
    told = f"{found.problem}, extended{found.sample}", found.scale, found.lift, found.starts
    coupling = _extended(
        key, found.geometry, a, b, config, told, landmarks=found.landmarks, progress=given.get("progress")
    )
    if _is_lost(coupling):
        return quadratic_coupling(key, source, target, a, b, _over_all_cells(config, found.problem), **given)
    return dataclasses.replace(coupling, potentials=found.accepted(coupling.potentials))


def _is_lost(found: ExtendedCoupling) -> bool:
    """Return whether the potentials are those of no plan, and say so: with a sharp epsilon, no sampled cell may be near another cell."""
    violation, config = found.potentials.violation, found.config
    # The marginals of two plans differ by 2 at the most.
    if not found.extension.sampled or violation < _LOST:
        return False
    warnings.warn(
        f"{config.n_cells} cells are too few for `epsilon`={config.epsilon:g} here: extended to all cells, the marginals are off by "
        f"{violation:.2g}. The problem is solved over all cells instead, as with `coupling`='global', which takes longer. Try a larger "
        "`epsilon`, or more `n_cells`.",
        RuntimeWarning,
        stacklevel=5,
    )
    return True


def _over_all_cells(config: CouplingConfig, problem: str) -> CouplingConfig:
    options = dict.fromkeys(OPTIONS)
    return dataclasses.replace(config, **options).resolved(problem, Global(landmarks=config.landmarks))


def _extended(key, geometry: Geometry, a, b, config: CouplingConfig, told, *, landmarks=None, progress=None):
    kind, scale, lift, starts = told
    found = extended_potentials(
        geometry,
        a,
        b,
        config.sinkhorn,
        key=key,
        n_cells=config.n_cells,
        n_sweeps=config.n_sweeps,
        landmarks=landmarks,
        progress=progress,
    )
    if found.sampled:
        kind += f" from {len(found.source.rows)} x {len(found.target.rows)} cells"
    return ExtendedCoupling(
        geometry, a, b, found.potentials, config, kind, scale, lift=lift, starts=starts, extension=found
    )


@dataclasses.dataclass(frozen=True)
class ExtendedCoupling(PotentialCoupling):
    """A plan held as dual potentials that are soft minima over some cells.

    What learning needs takes time linear in the number of cells: pairs come from a random subset of the source cells at a time,
    each of which sees a random subset of the target cells. As long as the potentials are those of a plan, a pair is as
    likely as it is in the plan: a source cell that finds much of its mass among the targets it sees is drawn more often then.
    Marginals of single cells follow from the potentials. Questions about the whole plan (:meth:`push`, :meth:`pull`,
    :meth:`barycentric`, :meth:`top_k`) still take a pass over all pairs of cells.
    """

    extension: Extension = dataclasses.field(kw_only=True)

    @cached_property
    def source_marginal(self) -> Float[Array, " n"]:
        """Mass that each source cell should send, which potentials tell; :attr:`diagnostics` says how far off it is."""
        return self._wanted(self.a, self.potentials.u, self.config.tau_source)

    @cached_property
    def target_marginal(self) -> Float[Array, " m"]:
        """Mass that each target cell should get, likewise."""
        return self._wanted(self.b, self.potentials.v, self.config.tau_target)

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """How solving went; what all pairs of cells would be needed for is measured on a random sample of the rows."""
        return dataclasses.replace(super().diagnostics, violation_error=self.extension.error)

    def pairs(
        self, key: jax.Array, *, batch_size: int, steps: int
    ) -> Iterator[tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]]:
        """Yield, without end, source and target indices for `steps` training batches at a time."""
        pool, used, round_ = None, 0, 0
        # Each pool is of other cells than those before, until all had their turn: by chance, as many pools as hold all miss a third.
        seen = np.zeros(0, int)
        while True:
            rng = host_rng(key, round_)
            if pool is None or used >= pool[1].size:
                pool, used = self._pool(jax.random.fold_in(key, round_), rng, seen), 0
                seen = np.concatenate([seen, pool[0]])
                seen = seen if len(seen) + len(pool[0]) <= len(self.a) else np.zeros(0, int)
            rows, targets, weights = pool
            # As in the global coupling: each batch spreads over the source cells in proportion to their mass.
            slots = systematic(rng, weights, (steps, batch_size))
            drawn = targets[slots, rng.integers(targets.shape[1], size=slots.shape)]
            yield jax.device_put(rows[slots].astype(np.int32)), jax.device_put(drawn)
            used += steps * batch_size
            round_ += 1

    def extend(self, source, target, **given: Any) -> PotentialCoupling:
        """Return the coupling between other cells, as :meth:`PotentialCoupling.extend` does.

        Potentials of new cells are soft minima over the same cells as those of the old ones.
        """
        return self._between_anchors.extend(source, target, **given)

    def swapped(self) -> ExtendedCoupling:
        """Return the same coupling seen from the other side."""
        return dataclasses.replace(super().swapped(), extension=self.extension.swapped)

    @property
    def _between_anchors(self) -> PotentialCoupling:
        sides = self.extension.source, self.extension.target
        weights = (jax.device_put(np.asarray(side.weights, np.float32)) for side in sides)
        u, v = (jax.device_put(np.asarray(side.potential, np.float32)) for side in sides)
        return PotentialCoupling(
            self.geometry.rows(*(side.rows for side in sides)),
            *weights,
            dataclasses.replace(self.potentials, u=u, v=v),
            self.config,
            self.kind,
            self.scale,
            lift=self.lift,
            starts=self.starts,
        )

    def _pool(
        self, key: jax.Array, rng: np.random.Generator, seen: Int[np.ndarray, " l"]
    ) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, "k draws"], Float[np.ndarray, " k"]]:
        """Return some source cells, others than `seen` where they are alike in weight, targets of each, and how often each is to be used."""
        config = self.config
        rows, weights = further_subset(rng, np.asarray(self.source_marginal), seen, _POOLED)
        # Rows in no order: each block of them is a sample of its own.
        order = rng.permutation(len(rows))
        rows, weights, drawn = rows[order], weights[order], []
        b, v, u = (np.asarray(one) for one in (self.b, self.potentials.v, self.potentials.u))
        for number, start in enumerate(range(0, len(rows), _TOGETHER)):
            some = slice(start, start + _TOGETHER)
            columns, own = weighted_subset(rng, b, config.n_targets)
            between = self.geometry.rows(rows[some], columns)
            logs = v[columns] + np.log(own).astype(np.float32)
            ids, own_key = jax.device_put(np.arange(len(rows[some]))), jax.random.fold_in(key, number)
            drawn.append(columns[np.asarray(draw_rows(between, jax.device_put(logs), own_key, ids, config.n_draws))])
            if len(columns) < np.count_nonzero(b):
                # Not scaled to the row's sum over these targets: the expected use of a pair is then its share of the plan.
                seen = np.asarray(soft_min_rows(between, logs), np.float64)
                weights[some] *= np.exp(u[rows[some]].astype(np.float64) / config.tau_source + seen)
        return rows, np.concatenate(drawn).astype(np.int32), weights

    @cached_property
    def _measured_rows(self) -> tuple[PotentialCoupling, Float[np.ndarray, " k"] | float]:
        marginal = np.asarray(self.source_marginal, np.float64)
        rows, weights = weighted_subset(np.random.default_rng(0), marginal, _MEASURED)
        u = jax.device_put(np.asarray(self.potentials.u)[rows])
        some = dataclasses.replace(
            self,
            geometry=self.geometry.rows(rows, np.arange(self.geometry.shape[1])),
            a=jax.device_put(np.asarray(self.a)[rows]),
            potentials=dataclasses.replace(self.potentials, u=u),
        )
        return some, weights * marginal.sum() / marginal[rows]

    def _objective(self, mass: float) -> float:
        """Return the dual value of these potentials, with the mass of the plan that they make."""
        some, share = self._measured_rows
        return super()._objective(float((some._row_statistics()[0] * share).sum()))

    @staticmethod
    def _wanted(weights, potential, tau: float) -> Float[Array, " n"]:
        weights, potential = np.asarray(weights), np.asarray(potential)
        if tau == 1.0:
            return jax.device_put(weights)
        return jax.device_put(np.where(weights > 0, weights * np.exp(potential * (tau - 1.0) / tau), 0.0))
