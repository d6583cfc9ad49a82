"""Quadratic and fused minibatch couplings, as the GENOT paper has them, with a warm start for each batch."""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._blocks import matmul
from scgenot._sampling import choose, cumulative_table, host_rng, independent
from scgenot._sizes import pad_edge, padded_cells
from scgenot.costs import AnchoredCost, Cost, cost_scale, resolve_cost, resolve_cost_pair
from scgenot.coupling._config import CouplingConfig
from scgenot.coupling._global_quadratic import best_state
from scgenot.coupling._inputs import checked_cells, checked_marginal
from scgenot.coupling._lift import lifted_cost
from scgenot.coupling._minibatch import BatchCoupling, batches_of, draw_batch
from scgenot.coupling.quadratic._iterate import iterate, plan_for, settle
from scgenot.coupling.quadratic._problem import dense_problem
from scgenot.sinkhorn import Geometry

_REFERENCE = 512
_REPEATS = 20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cells:
    """Cells of one population: features, shared features (none: width 0), and one over the scale of their costs."""

    features: Float[Array, "n d"]
    shared: Float[Array, "n s"]
    inverse: Float[Array, ""] | float

    def rows(self, chosen: Int[Array | np.ndarray, " k"]) -> Cells:
        """Return some of the cells."""
        return Cells(self.features[chosen], self.shared[chosen], self.inverse)

    def padded(self, size: int) -> Cells:
        """Return the cells with copies of the last one behind."""
        return Cells(*(jax.device_put(pad_edge(one, size)) for one in (self.features, self.shared)), self.inverse)


@dataclasses.dataclass(frozen=True)
class QuadraticMinibatchCoupling(BatchCoupling):
    """Pairs from quadratic or fused problems between small random samples (Klein et al., algorithm 1).

    Nothing ties one batch's optimum to the next one's: each is free to flip or turn. With ``warm_start`` each batch starts
    from the plan that the solution of one reference batch implies for its cells. (The paper uses the push-forward of the
    network so far instead, after training on one batch for a while; the coupling does not see the network.)
    """

    source: Cells
    target: Cells
    costs: tuple[Cost, Cost, Cost]
    shared_inverse: float
    reference: tuple[Cells, Cells, Float[Array, "r s"]] | None

    @property
    def kind(self) -> str:
        """What its diagnostics call it."""
        problem = "fused" if self.source.shared.shape[1] else "quadratic"
        return f"{problem}, minibatch, {'warm' if self.reference is not None else 'cold'} start"

    @property
    def unit(self) -> float:
        """What the costs within the source population are divided by."""
        return 1.0 / float(self.source.inverse)

    def swapped(self) -> QuadraticMinibatchCoupling:
        """Return the same coupling seen from the other side."""
        reference = None
        if self.reference is not None:
            left, right, plan = self.reference
            reference = (right, left, plan.T)
        left, right, shared = self.costs
        return dataclasses.replace(
            self,
            source=self.target,
            target=self.source,
            a=self.b,
            b=self.a,
            costs=(right, left, shared.swapped()),
            config=self.config.swapped(),
            reference=reference,
        )

    def extend(
        self,
        source: Float[Array | np.ndarray, "k dx"],
        target: Float[Array | np.ndarray, "l dy"],
        *,
        source_weights: Float[Array | np.ndarray, " k"] | None = None,
        target_weights: Float[Array | np.ndarray, " l"] | None = None,
        shared: tuple[Float[Array | np.ndarray, "k s"], Float[Array | np.ndarray, "l s"]] | None = None,
    ) -> QuadraticMinibatchCoupling:
        """Return minibatch couplings between other cells, with the same costs, scales and reference batch."""
        a = checked_marginal("source_weights", source_weights, len(source))
        b = checked_marginal("target_weights", target_weights, len(target))
        sides = [
            Cells(checked_cells(name, cells), _shared(one, len(cells)), old.inverse)
            for name, cells, one, old in zip(
                ("source", "target"), (source, target), shared or (None, None), (self.source, self.target), strict=True
            )
        ]
        return dataclasses.replace(self, source=sides[0], target=sides[1], a=a, b=b)

    def solve(
        self,
        key: jax.Array,
        source: Int[Array | np.ndarray, "steps batch"],
        *,
        resample: bool,
        asked: Int[np.ndarray, " k"] | None = None,
    ) -> tuple[Int[Array, "steps rows"], Int[Array, "steps rows"], dict[str, Float[Array, " steps"]]]:
        """Solve one problem for each row of `source`."""
        config = self.config
        alpha = config.alpha if self.source.shared.shape[1] else 1.0
        numbers = (alpha, config.epsilon, (config.tau_source, config.tau_target), self.shared_inverse)
        relaxed = min(config.tau_source, config.tau_target) < 1.0
        static = self.costs, resample, relaxed
        return _solve_batches(*static, *self._in_shape, self._target_table, source, asked, key, numbers)

    @cached_property
    def _in_shape(self) -> tuple[tuple[Cells, Cells], tuple[Cells, Cells, Float[Array, "k s"]] | None]:
        """Return the cells and the reference in one of a few shapes; what is added is not drawn, or has no mass."""
        sides = tuple(one.padded(padded_cells(len(one.features))) for one in (self.source, self.target))
        if self.reference is None:
            return sides, None
        left, right, plan = self.reference
        sizes = [_REFERENCE if max(plan.shape) > _REFERENCE // 2 else _REFERENCE // 2] * 2
        plan = np.pad(np.asarray(plan), [(0, size - had) for size, had in zip(sizes, plan.shape, strict=True)])
        return sides, (left.padded(sizes[0]), right.padded(sizes[1]), jax.device_put(plan))


def quadratic_minibatch_coupling(
    key: jax.Array,
    source: Float[Array, "n dx"],
    target: Float[Array, "m dy"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    config: CouplingConfig,
    *,
    shared: tuple[Float[Array, "n s"], Float[Array, "m s"]] | None = None,
    pairs: None = None,
) -> QuadraticMinibatchCoupling:
    """Set up the paper's coupling; only the reference batch is solved. See :class:`QuadraticMinibatchCoupling`.

    Raises
    ------
    ValueError
        If a cost needs the whole population, or pairs are given.
    """
    costs = (*resolve_cost_pair(config.cost), resolve_cost(config.shared_cost))
    for cost in costs:
        if isinstance(cost, AnchoredCost):
            raise ValueError(
                f"`cost`={cost.name!r} is a cost over the whole population, which a batch does not see. Use "
                "coupling='global'."
            )
    if pairs is not None:
        raise ValueError("`pairs` belong to the global coupling: a batch rarely holds both members. Use 'global'.")
    sides = [
        Cells(
            jnp.asarray(cells), _shared(one, len(cells)), 1.0 / cost_scale(cost, cells, cells, config.scale_of(number))
        )
        for number, (cells, one, cost) in enumerate(zip((source, target), shared or (None, None), costs, strict=False))
    ]
    shared_inverse = 1.0 if shared is None else 1.0 / cost_scale(costs[2], *shared, config.scale_of(2))
    found = QuadraticMinibatchCoupling(a, b, config, *sides, costs, shared_inverse, None)
    if not config.warm_start:
        return found
    rng = host_rng(key)
    left, right = (
        side.rows(independent(rng, cumulative_table(weights), (min(_REFERENCE, len(weights)),)))
        for side, weights in zip(sides, (a, b), strict=True)
    )
    alpha = 1.0 if shared is None else config.alpha
    taus = (config.tau_source, config.tau_target)
    problem = _problem(costs, left, right, (alpha, config.epsilon, taus, shared_inverse))
    state, _ = best_state(problem, None if shared is None else problem.shared)
    return dataclasses.replace(found, reference=(left, right, state.plan))


def _shared(features, n: int) -> Float[Array, "n s"]:
    return jnp.zeros((n, 0), jnp.float32) if features is None else jnp.asarray(features, jnp.float32)


def _problem(costs, left: Cells, right: Cells, numbers):
    alpha, epsilon, taus, _ = numbers
    n, m = len(left.features), len(right.features)
    return dense_problem(
        costs[0](left.features, left.features) * left.inverse,
        costs[1](right.features, right.features) * right.inverse,
        _across(costs, left, right, numbers),
        jnp.full(n, 1.0 / n),
        jnp.full(m, 1.0 / m),
        alpha,
        epsilon,
        taus,
    )


def _across(costs, left: Cells, right: Cells, numbers):
    """Return the scaled costs between shared features; zeros without any."""
    if left.shared.shape[1] == 0:
        return jnp.zeros((len(left.features), len(right.features)))
    return costs[2](left.shared, right.shared) * numbers[3]


@partial(jax.jit, static_argnames=("costs", "resample", "relaxed"))
def _solve_batches(costs, resample, relaxed, sides, reference, table, source, asked, key, numbers):
    source_cells, target_cells = sides
    size = source.shape[1]

    def one_batch(batch):
        rows, columns = batch["source"], choose(batch["target"], table)
        left, right = source_cells.rows(rows), target_cells.rows(columns)
        problem = _problem(costs, left, right, numbers)
        anneal = 50.0
        plan = jnp.full((size, size), 1.0 / size**2)
        if reference is not None:
            anneal = 1.0
            plan = plan_for(problem, _implied_cost(costs, left, right, reference, problem.shared, numbers))
        state = iterate(problem, plan, anneal, relaxed, _REPEATS)
        matrix, u, v, violation = settle(problem, state)
        geometry = Geometry(left.features, right.features, 1.0 / problem.epsilon, lifted_cost(), matrix)
        others = None
        if asked is not None:
            own = source_cells.rows(asked)
            rows, across = asked, _across(costs, own, right, numbers)
            costs_of = _implied_cost(costs, own, right, (left, right, state.plan), across, numbers)
            others = dataclasses.replace(geometry, x=own.features, matrix=costs_of)
        order, drawn, report = draw_batch(
            geometry, u, v, key, batch["row_ids"], batch["order"], resample=resample, asked=others
        )
        report |= {"violation": jnp.maximum(violation, state.change), "iterations": jnp.asarray(_REPEATS)}
        return rows[order], columns[drawn], report

    return jax.lax.map(one_batch, batches_of(key, source, size if asked is None else len(asked)))


def _implied_cost(costs, left: Cells, right: Cells, reference, across, numbers):
    """Return the linearised cost at the reference batch's plan, for the cells of another batch."""
    alpha = numbers[0]
    anchors_left, anchors_right, plan = reference
    x = costs[0](left.features, anchors_left.features) * left.inverse
    y = costs[1](right.features, anchors_right.features) * right.inverse
    squares = matmul(jnp.square(x), plan.sum(axis=1))[:, None] + matmul(jnp.square(y), plan.sum(axis=0))[None, :]
    return 2.0 * alpha * (squares - 2.0 * matmul(matmul(x, plan), y.T)) + (1.0 - alpha) * across
