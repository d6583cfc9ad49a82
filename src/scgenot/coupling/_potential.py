"""The global coupling: dual potentials over all cells, rows of the plan drawn from them in streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_array
from scipy.special import kl_div

from scgenot._blocks import ENTRIES
from scgenot._random import random_bits, related
from scgenot._sampling import host_rng, systematic
from scgenot._sizes import pad_edge, pad_with, padded_cells, padded_size
from scgenot.coupling import _plan
from scgenot.coupling._base import Coupling, Diagnostics, MarginalKind, StartReport
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._given_costs import GivenLift
from scgenot.coupling._inputs import checked_cells, checked_marginal
from scgenot.coupling._lift import Between, Lift, NoLift, lifted_cost
from scgenot.coupling._pair_scores import PairScores
from scgenot.sinkhorn import LANDMARK_TOLERANCE, Geometry, Potentials, draw_rows, pair_costs, soft_min_rows

_ENTROPY_CELLS = 512


@dataclasses.dataclass(frozen=True)
class PotentialCoupling(Coupling):
    """A plan held as its dual potentials: ``P_ij = a_i b_j exp(u_i + v_j - C_ij / epsilon)``.

    Nothing of size n x m is kept, but the costs where they have at most `dense_limit` entries. Rows are drawn in one blocked
    pass into a pool of `n_draws` targets a source cell; training reads the pool, which is drawn afresh each time it has been
    used up on average.

    Potentials that were extended to new cells meet these cells' marginals only up to sampling error, and less where the new
    cells are others than the old ones. With ``tau_source`` 1 rows of an extended plan are scaled to the source weights, as
    drawing from them does; what arrives at the target cells is then the target marginal, and the diagnostics say how far
    it is from the weights.
    """

    geometry: Geometry
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    potentials: Potentials
    config: CouplingConfig
    kind: str
    scale: float
    lift: tuple[Lift | GivenLift | NoLift, Lift | GivenLift | NoLift] | None = None
    starts: tuple[StartReport, ...] = ()
    extended: bool = False

    @cached_property
    def _row_weights(self) -> Float[Array, " m"]:
        return _log_weights(self.potentials.v, self.b)

    @cached_property
    def source_marginal(self) -> Float[Array, " n"]:
        """Mass that each source cell sends, ``P 1``."""
        if self.config.tau_source == 1.0 and not self.extended:
            return self.a
        return _masses(self.a, self.potentials.u, soft_min_rows(self.geometry, self._row_weights))

    @cached_property
    def target_marginal(self) -> Float[Array, " m"]:
        """Mass that each target cell gets, ``P' 1``."""
        if self.config.tau_target == 1.0 and self.config.tau_source == 1.0 and not self.extended:
            return self.b
        return _masses(self.b, self.potentials.v, soft_min_rows(self.geometry.T, self._column_weights))

    @property
    def marginal_kinds(self) -> tuple[MarginalKind, MarginalKind]:
        """Which marginals are relaxed: those whose tau is below 1."""
        taus = self.config.tau_source, self.config.tau_target
        return tuple("kept" if tau == 1.0 else "relaxed" for tau in taus)

    @property
    def priors(self) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
        """Prior weights a and b."""
        return self.a, self.b

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """How solving went."""
        found, config = self.potentials, self.config
        mass = float(np.asarray(self.source_marginal, np.float64).sum())
        violation, converged = found.violation, found.converged
        if self.extended:
            violation = self._violation()
            converged = violation <= max(config.sinkhorn.tolerance, LANDMARK_TOLERANCE)
        cost, kl, penalty = self._parts()
        whole = cost + config.epsilon * kl + penalty if self.extended else self._objective(mass)
        source_scale, target_scale, shared_scale = self._scales()
        return Diagnostics(
            kind=self.kind,
            objective=self.starts[0].objective if self.starts and not self.extended else whole,
            scale=self.scale,
            epsilon=config.epsilon,
            iterations=found.iterations,
            marginal_violation=violation,
            mass=mass,
            effective_targets=self._effective_targets(),
            converged=converged,
            starts=() if self.extended else self.starts,
            source_scale=source_scale,
            target_scale=target_scale,
            shared_scale=shared_scale,
            cost=cost,
            shared_cost=self._shared_cost(),
            kl=kl,
            penalty=penalty,
        )

    @property
    def pair_scores(self) -> PairScores:
        """How likely any pairs are: from potentials, costs, and what target cells get, of extended couplings what they should get."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(np.asarray(self.b, np.float64)) - np.log(np.asarray(self.target_marginal, np.float64))
        # Cells without mass are in no pair.
        potential = np.asarray(self.potentials.v) + np.where(np.isfinite(ratio), ratio, 0.0).astype(np.float32)
        # Costs of features are sooner computed again than looked up; stored ones of lifted features are the exact ones.
        geometry = self.geometry if self.lift else dataclasses.replace(self.geometry, matrix=None)
        return PairScores(geometry.padded(), _padded(potential))

    def conditional(
        self, key: jax.Array, source_indices: Int[Array | np.ndarray, " k"], n_draws: int
    ) -> Int[Array, "k n_draws"]:
        """Draw `n_draws` target indices for each source index from its row of the plan, rows independently."""
        chosen = np.asarray(source_indices, np.int32)
        k = len(chosen)
        # A few sizes only, each of which is compiled once.
        padded = np.pad(chosen, (0, padded_size(k) - k), mode="edge" if k else "constant")
        # Ids are places in the list, so that a cell that is asked for twice gets draws of its own each time.
        some = self.geometry.rows(padded, np.arange(self.geometry.shape[1]))
        drawn = draw_rows(some, self._row_weights, key, jax.device_put(np.arange(len(padded))), n_draws)
        return jax.device_put(np.asarray(drawn)[:k])

    def pairs(
        self, key: jax.Array, *, batch_size: int, steps: int
    ) -> Iterator[tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]]:
        """Yield, without end, source and target indices for `steps` training batches at a time."""
        n = self.geometry.shape[0]
        weights, every = np.asarray(self.source_marginal), jax.device_put(np.arange(n))
        pool, used, round_ = None, 0, 0
        while True:
            round_key = jax.random.fold_in(key, round_)
            if pool is None or used >= n * self.config.n_draws:
                pool_key = jax.random.fold_in(round_key, 1)
                pool = draw_rows(self.geometry, self._row_weights, pool_key, every, self.config.n_draws)
                used, pool = 0, jax.device_put(pad_with(pool, padded_cells(n), 0))
            # Systematic over the batch: each batch spreads over the source cells in proportion to their mass.
            source = systematic(host_rng(round_key), weights, (steps, batch_size))
            yield _pairs_from_pool(pool, source, round_key)
            used += steps * batch_size
            round_ += 1

    def push(self, values: Float[Array | np.ndarray, "n ..."]) -> Float[Array, "m ..."]:
        """Return ``P' values``: what target cells get where source cell i sends its mass times ``values[i]``."""
        return _plan.sums(self.geometry.T, self._column_weights, self._row_weights, values)

    def pull(self, values: Float[Array | np.ndarray, "m ..."]) -> Float[Array, "n ..."]:
        """Return ``P values``: sums over target cells, weighted by the plan."""
        return _plan.sums(self.geometry, self._row_weights, self._column_weights, values)

    def barycentric(self, values: Float[Array | np.ndarray, "m ..."]) -> Float[Array, "n ..."]:
        """Return the mean of `values` over each source cell's row of the plan; with target cells, its projection."""
        return _plan.means(self.geometry, self._row_weights, values)

    def top_k(self, k: int) -> csr_array:
        """Return the `k` largest entries of each row of the plan, n x m and sparse; its sum says what share that is."""
        return _plan.top_k(self.geometry, self._row_weights, self._column_weights, k)

    def light(self) -> PotentialCoupling:
        """Return the same coupling without stored costs, which then come from the cells again; diagnostics stay."""
        light = dataclasses.replace(self, geometry=dataclasses.replace(self.geometry, matrix=None))
        # What was measured with stored costs, at the price of a few passes, is not measured again.
        vars(light)["diagnostics"] = self.diagnostics
        return light

    def swapped(self) -> PotentialCoupling:
        """Return the same coupling seen from the other side."""
        found, (_, target_scale, _) = self.potentials, self._scales()
        return dataclasses.replace(
            self,
            geometry=self.geometry.T,
            a=self.b,
            b=self.a,
            potentials=dataclasses.replace(found, u=found.v, v=found.u),
            config=self.config.swapped(),
            lift=None if self.lift is None else tuple(one.swapped() for one in self.lift[::-1]),
            scale=self.scale if target_scale is None else target_scale,
        )

    def extend(
        self,
        source: Float[Array | np.ndarray, "k dx"],
        target: Float[Array | np.ndarray, "l dy"],
        *,
        source_weights: Float[Array | np.ndarray, " k"] | None = None,
        target_weights: Float[Array | np.ndarray, " l"] | None = None,
        shared: tuple[Float[Array | np.ndarray, "k s"], Float[Array | np.ndarray, "l s"]] | None = None,
    ) -> PotentialCoupling:
        """Return the coupling between other cells of the two populations that these potentials imply.

        Cells are given as they were to be coupled, with weights of their own (equal ones if ``None``); `shared` are their
        shared features in a problem that has them. Marginals and diagnostics are those of the new cells.

        Raises
        ------
        ValueError
            As :func:`scgenot.coupling.solve_coupling`, about these cells and weights.
        """
        old, config = self.geometry, self.config
        source, target = (np.asarray(checked_cells(*one)) for one in (("source", source), ("target", target)))
        a = checked_marginal("source_weights", source_weights, len(source))
        b = checked_marginal("target_weights", target_weights, len(target))
        if self.lift is not None:
            own = shared or (None, None)
            source, target = self.lift[0](source, own[0]), self.lift[1](target, own[1])
        source, target = jax.device_put(source), jax.device_put(target)
        to_target = dataclasses.replace(old, y=_padded(target), matrix=None)
        # Stored where those of the coupled cells are: the same compiled programs then do for both.
        stores = old.matrix is not None and len(source) * len(target) <= ENTRIES
        kept = lambda geometry: geometry.stored() if stores else geometry
        v = _damped(config.tau_target, soft_min_rows(kept(to_target.T), self._column_weights), len(target))
        to_source = dataclasses.replace(old, x=_padded(source), matrix=None)
        weights = self._row_weights
        if config.tau_source == 1.0:
            # As rows are drawn: of all mass that a cell sends, none is left to target cells that are not there.
            to_source = dataclasses.replace(to_source, y=to_target.y)
            with np.errstate(divide="ignore"):
                weights = _padded(np.asarray(v) + np.log(np.asarray(b)), fill=-np.inf)
        u = _damped(config.tau_source, soft_min_rows(kept(to_source), weights), len(source))
        return dataclasses.replace(
            self,
            geometry=kept(dataclasses.replace(old, x=source, y=target, matrix=None)),
            a=a,
            b=b,
            potentials=dataclasses.replace(self.potentials, u=u, v=v, iterations=0),
            extended=True,
        )

    @cached_property
    def _column_weights(self) -> Float[Array, " n"]:
        return _log_weights(self.potentials.u, self.a)

    def _scales(self) -> tuple[float | None, float | None, float | None]:
        """Return what costs within either population and between shared features were divided by, where there are such."""
        left, right = (None, None) if self.lift is None else self.lift
        if not (isinstance(left, Lift) and isinstance(right, Lift)) or self.kind.startswith("linear"):
            return None, None, None
        weight = left.weight
        shared = None if weight is None else (1.0 - self.config.alpha) / weight**2
        return left.scale, right.scale, shared

    def _violation(self) -> float:
        """Return how far the marginals are from what they should be, which relaxed potentials tell."""
        sides = (
            (self.config.tau_source, self.a, self.potentials.u, self.source_marginal),
            (self.config.tau_target, self.b, self.potentials.v, self.target_marginal),
        )
        off = []
        for tau, weights, potential, marginal in sides:
            wanted = _masses(weights, np.asarray(potential) * (tau - 1.0) / tau)
            off.append(float(np.abs(np.asarray(marginal, np.float64) - wanted).sum()))
        return max(off)

    def _parts(self) -> tuple[float, float, float]:
        """Return ``<C, P>`` in units of the scaled cost, ``KL(P | a b')`` and the penalties of relaxed marginals."""
        some, share = self._measured_rows
        epsilon, u = self.config.epsilon, some.potentials.u
        mass_of_row, mean_v, costs = some._row_statistics()
        mass_of_row = mass_of_row * share
        used = mass_of_row > 0
        cost = float(mass_of_row[used] @ costs[used])
        gained = float(mass_of_row[used] @ (np.asarray(u, np.float64) + mean_v)[used])
        sent, received = (np.asarray(one, np.float64) for one in (self.source_marginal, self.target_marginal))
        penalty = 0.0
        for tau, weights, marginal in (
            (self.config.tau_source, self.a, sent),
            (self.config.tau_target, self.b, received),
        ):
            if tau < 1.0:
                divergence = float(kl_div(marginal, np.asarray(weights, np.float64)).sum())
                penalty += epsilon * tau / (1.0 - tau) * divergence
        return epsilon * cost, gained - cost - mass_of_row.sum() + 1.0, penalty

    def _shared_cost(self) -> float | None:
        """Return what shared features contribute to the cost; ``None`` without them."""
        between = self.geometry.cost.pairwise
        if not isinstance(between, Between) or between.split is None:
            return None
        some, share = self._measured_rows
        x, y = (cells[:, between.split :] for cells in (some.geometry.x, some.geometry.y))
        alone = Geometry(x, y, self.geometry.inverse, lifted_cost(0, between.cost))
        masses, _, costs = some._row_statistics(alone)
        masses = masses * share
        return self.config.epsilon * float(masses[masses > 0] @ costs[masses > 0])

    @property
    def _measured_rows(self) -> tuple[PotentialCoupling, Float[np.ndarray, " k"] | float]:
        """The rows that diagnostics go through, and how many each stands for."""
        return self, 1.0

    def _row_statistics(self, other: Geometry | None = None):
        v = jax.device_put(np.where(np.asarray(self.b) > 0, np.asarray(self.potentials.v), np.float32(0)))
        return _plan.row_statistics(self.geometry, self._row_weights, self._column_weights, v, other)

    def _objective(self, mass: float) -> float:
        """Return the dual value, which equals the primal one once converged."""
        value = 0.0
        for tau, weights, potential in (
            (self.config.tau_source, self.a, self.potentials.u),
            (self.config.tau_target, self.b, self.potentials.v),
        ):
            weights = np.asarray(weights, np.float64)
            used = np.where(weights > 0, np.asarray(potential, np.float64), 0.0)
            if tau == 1.0:
                value += float(weights @ used)
            else:
                ratio = tau / (1.0 - tau)
                value -= ratio * float(weights @ np.expm1(-used / ratio))
        # The entropy is relative to a b', of mass 1; its conjugate leaves 1 - mass.
        return self.config.epsilon * (value + 1.0 - mass)

    def _effective_targets(self) -> float:
        """Return exp of the mean conditional entropy, estimated from draws at some of the cells."""
        n, m = self.geometry.shape
        # Of one number, so that another number of cells compiles nothing.
        rows = np.linspace(0, n - 1, _ENTROPY_CELLS).round().astype(np.int32)
        drawn = np.asarray(self.conditional(jax.random.key(0), rows, self.config.n_draws))
        sources = np.broadcast_to(rows[:, None], drawn.shape)
        log_total = np.asarray(soft_min_rows(self.geometry.rows(rows, np.arange(m)), self._row_weights))[:, None]
        costs = np.asarray(pair_costs(self.geometry, jax.device_put(sources), jax.device_put(drawn)))
        log_p = np.asarray(self._row_weights)[drawn] - costs - log_total
        # Rounding, at a tiny epsilon, must not spread mass over more cells than there are.
        return float(np.clip(np.exp(-log_p.mean(dtype=np.float64)), 1.0, m))


def _log_weights(potential: Float[Array, " n"], weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return ``potential + log weights``, on the host: JAX would compile it for each number of cells."""
    with np.errstate(divide="ignore"):
        return jax.device_put(np.asarray(potential) + np.log(np.asarray(weights)))


def _masses(weights: Float[Array, " n"], *log_ratios: Float[Array | np.ndarray, " n"]) -> Float[Array, " n"]:
    """Return the masses of cells; one without weight has none, however much its potential would give to it."""
    weights, log_ratio = np.asarray(weights), sum(np.asarray(one) for one in log_ratios)
    with np.errstate(over="ignore", invalid="ignore"):
        return jax.device_put(np.where(weights > 0, weights * np.exp(log_ratio), 0.0).astype(np.float32))


def _padded(array: Float[Array | np.ndarray, "n ..."], fill: float | None = None) -> Float[Array, "size ..."]:
    """Return an array with copies of its last entry behind, or with `fill`, up to the next size on the ladder."""
    size = padded_size(len(array))
    return jax.device_put(pad_edge(array, size) if fill is None else pad_with(array, size, fill))


def _damped(tau: float, soft_min: Float[Array, " size"], n: int) -> Float[Array, " n"]:
    """Return the potential that sums over rows imply, of the first `n` of them."""
    return jax.device_put(np.float32(-tau) * np.asarray(soft_min)[:n])


@jax.jit
def _pairs_from_pool(
    pool: Int[Array, "n k"], source: Int[Array | np.ndarray, "steps batch"], key: jax.Array
) -> tuple[Int[Array, "steps batch"], Int[Array, "steps batch"]]:
    steps, batch = source.shape
    bits = random_bits(related(key, 2), jnp.arange(steps)[:, None], jnp.arange(batch)[None, :])[0]
    slots = bits % np.uint32(pool.shape[1])
    return source, pool[source, slots]
