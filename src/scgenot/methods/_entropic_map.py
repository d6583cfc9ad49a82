"""The entropic map: the plan itself, extended to new cells by its dual potential. Nothing is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from scgenot._blocks import matmul, rows_per_block
from scgenot._devices import Devices  # noqa: F401 (annotations of the base class name it)
from scgenot._messages import check_count, check_positive, one_of
from scgenot._rng import RNG, as_key
from scgenot._sizes import pad_edge, pad_with, padded_size
from scgenot.costs import resolve_cost
from scgenot.coupling import Coupling, MarginalKind, solve_coupling
from scgenot.coupling._potential import PotentialCoupling
from scgenot.flow._conditions import ConditionLayout  # noqa: F401 (annotations of the base class name it)
from scgenot.flow._config import ODEConfig, TrainConfig
from scgenot.flow._result import Stopped, TrainResult
from scgenot.methods._method import Abilities, FitData, Method
from scgenot.sinkhorn import Geometry, draw_rows

MAPS = ("entropic", "progressive")
SAMPLES = ("mean", "plan")
_COST = resolve_cost("sqeuclidean")
_MOST_ROWS = 512


@dataclasses.dataclass(frozen=True)
class EntropicMapConfig:
    """How the plan is read.

    Attributes
    ----------
    map
        ``"entropic"``: a cell goes to the mean of its row of the plan (Pooladian and Niles-Weed 2021). ``"progressive"``: it goes a
        part of the way there, and a new plan is solved from where cells are then (ProgOT; Kassraie et al. 2024).
    n_steps
        Plans of the progressive map, which cells go along at constant speed. With 1 it is the entropic map.
    end_epsilon
        The progressive map's epsilon falls linearly along the way, from that of the plan towards this share of it.
    samples
        ``"mean"``: all samples of a cell are its image, a map. ``"plan"``: training target cells, drawn from the cell's row of the
        plan; for the entropic map.
    """

    map: Literal["entropic", "progressive"] = "entropic"
    n_steps: int = 4
    end_epsilon: float = 0.1
    samples: Literal["mean", "plan"] = "mean"

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        if self.map not in MAPS:
            raise ValueError(one_of("map", self.map, MAPS))
        if self.samples not in SAMPLES:
            raise ValueError(one_of("samples", self.samples, SAMPLES))
        check_count("n_steps", self.n_steps)
        check_positive("end_epsilon", self.end_epsilon)
        if self.samples == "plan" and self.map == "progressive":
            raise ValueError(
                "`samples`='plan' draws from one plan, and the progressive map has several. Use map='entropic'."
            )

    @property
    def steps(self) -> int:
        """Plans of the map."""
        return self.n_steps if self.map == "progressive" else 1


@dataclasses.dataclass(frozen=True)
class EntropicMapSolver(Method):
    r"""The plan's own law or mean for any source cell, through the soft c-transform of its target potential.

    ``w_j(x)`` in proportion to ``b_j exp((g_j - |x - y_j|^2 / s) / epsilon)`` is the law of a cell, and ``sum_j w_j(x) y_j`` its image. At
    training cells these are the rows of the plan, and its barycentric projection. Images lie within the hull of the target cells.
    """

    name: ClassVar[str] = "entropic_map"
    needs: ClassVar[Literal["potentials"]] = "potentials"
    can: ClassVar[Abilities] = Abilities(stochastic=False)
    config_type: ClassVar[type] = EntropicMapConfig

    def __post_init__(self) -> None:
        """Say that samples are draws, where they are."""
        if self.config.samples == "plan":
            object.__setattr__(self, "can", Abilities(stochastic=True))

    def learn(
        self, key: jax.Array, data: FitData, train_config: TrainConfig, *, progress_bar: bool = True
    ) -> tuple[EntropicMapSolver, TrainResult]:
        """Keep the potential of the coupling; the progressive map solves for one more a step. `train_config` has no use.

        Raises
        ------
        ValueError
            If the coupling has no potentials, or they are not those of a linear problem with squared Euclidean costs.
        """
        coupling = _checked(data.coupling)
        x, y = self.cells(data.source), self.cells(data.target, "target")
        # Of cells without weight, -inf.
        with np.errstate(divide="ignore"):
            first = np.asarray(coupling.potentials.v) + np.log(np.asarray(coupling.b))
        potentials, inverses, shares = [first], [float(coupling.geometry.inverse)], [1.0 / self.config.steps]
        told = {"training_cells": (len(x), len(y)), "marginal_kinds": _kinds(coupling)}
        steps = self.config.steps
        # An unbalanced plan is the balanced one between its own marginals.
        marginals = [np.asarray(side, np.float64) for side in (coupling.source_marginal, coupling.target_marginal)]
        a, b = (side / side.sum() for side in marginals)
        moved = x
        for k in range(1, steps):
            last = self._weights(y, potentials[-1:], inverses[-1:], shares[-1:], coupling)
            moved = np.concatenate([block for _, block in self._images(last, moved)])
            epsilon = coupling.config.epsilon * (1.0 - (1.0 - self.config.end_epsilon) * k / steps)
            options = {"epsilon": epsilon, "tau_source": 1.0, "tau_target": 1.0, "scale_cost": coupling.scale}
            config = dataclasses.replace(coupling.config, **options)
            found = _checked(
                solve_coupling(jax.random.fold_in(key, k), moved, y, source_weights=a, target_weights=b, config=config)
            )
            with np.errstate(divide="ignore"):
                potentials.append(np.asarray(found.potentials.v) + np.log(np.asarray(found.b)))
            inverses.append(float(found.geometry.inverse))
            shares.append(1.0 / (steps - k))
        weights = self._weights(y, potentials, inverses, shares, coupling)
        history = {"train_loss": ([steps], [float(coupling.diagnostics.objective)])}
        learned = dataclasses.replace(self, weights=weights, **told)
        return learned, TrainResult(None, history, steps, Stopped.MAX_STEPS)

    def sample_blocks(
        self,
        rng: RNG,
        x: Float[Array | np.ndarray, "n dx"],
        n_samples: int = 30,
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
        ode: ODEConfig | None = None,
        cell_ids: Int[np.ndarray, " n"] | None = None,
        rows: int | None = None,
    ) -> Iterator[tuple[slice, Float[np.ndarray, "k s dy"]]]:
        """Yield what :meth:`sample` returns, a run of consecutive cells at a time, to summarise without keeping it."""
        weights, x = self.trained(), self.cells(x)
        check_count("n_samples", n_samples)
        self.condition_rows(condition, len(x))
        if not self.can.stochastic:
            for place, images in self._images(weights, x):
                yield place, np.repeat(images[:, None], n_samples, axis=1)
            return
        ids = np.arange(len(x)) if cell_ids is None else np.asarray(cell_ids)
        key, padded, targets = as_key(rng), _padded(weights), np.asarray(weights["targets"])
        for place, block in _blocks(x, len(targets)):
            own = pad_edge(ids[place], len(block)).astype(np.uint32)
            drawn = _draws(padded, block, key, own, int(n_samples))
            yield place, targets[np.asarray(drawn)[: place.stop - place.start]]

    def growth(
        self,
        x: Float[Array | np.ndarray, "n d"],
        population: Literal["source", "target"] = "source",
        *,
        condition: Float[Array | np.ndarray, "..."] | None = None,
    ) -> Float[np.ndarray, " n"]:
        """Return how much mass source cells send per unit of their prior mass, which the potential tells; see :meth:`Method.growth`."""
        weights, x = self.trained(), self.cells(x, population)
        if population == "target" or self.marginal_kinds[0] == "kept":
            return self.growth_without_network(x, population)
        padded = _padded(weights)
        sums = [
            np.asarray(_log_sums(padded, block))[: at.stop - at.start]
            for at, block in _blocks(x, len(padded["targets"]))
        ]
        return np.exp(np.asarray(weights["damping"]) * np.concatenate([*sums, np.zeros(0, np.float32)]))

    def weights_template(self) -> dict[str, Any]:
        """Return the shapes of the weights, to read saved ones into."""
        m, k = (self.training_cells or (0, 0))[1], self.config.steps
        shapes = {
            "targets": (m, self.target_dim),
            "potentials": (k, m),
            "inverses": (k,),
            "shares": (k,),
            "damping": (1,),
        }
        return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}

    @staticmethod
    def _weights(y, potentials, inverses, shares, coupling: PotentialCoupling) -> dict[str, Array]:
        weights = {"targets": y, "potentials": np.stack(potentials), "inverses": inverses, "shares": shares}
        weights["damping"] = [1.0 - coupling.config.tau_source]
        return {name: jax.device_put(np.asarray(one, np.float32)) for name, one in weights.items()}

    @staticmethod
    def _images(
        weights: dict[str, Array], x: Float[np.ndarray, "n d"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "k d"]]]:
        padded = _padded(weights)
        for place, block in _blocks(x, len(padded["targets"])):
            yield place, np.asarray(_moved(padded, block))[: place.stop - place.start]


def _checked(coupling: Coupling | None) -> PotentialCoupling:
    if coupling is None:
        raise ValueError("`data.coupling` is None, and the entropic map is made of one. Solve for a coupling first.")
    if not isinstance(coupling, PotentialCoupling) or coupling.lift is not None or coupling.geometry.cost != _COST:
        raise ValueError(
            "the entropic map needs the potentials of a linear problem with the cost 'sqeuclidean', solved over all cells, got a "
            f"coupling of another kind: {coupling.diagnostics.kind!r}. Use kind='global' and cost='sqeuclidean'."
        )
    return coupling


def _kinds(coupling: Coupling) -> tuple[MarginalKind, MarginalKind]:
    """Return how marginals relate to the prior ones: of target cells, growth is not known here."""
    source, target = coupling.marginal_kinds
    return source, "unknown" if target == "relaxed" else target


def _blocks(x: Float[np.ndarray, "n d"], m: int) -> Iterator[tuple[slice, Float[np.ndarray, "rows d"]]]:
    """Yield cells in blocks of one size, the last one filled up: what becomes of a cell depends on no other."""
    rows = min(_MOST_ROWS, rows_per_block(m))
    for start in range(0, len(x), rows):
        place = slice(start, min(start + rows, len(x)))
        yield place, pad_edge(x[place], rows)


def _padded(weights: dict[str, Array]) -> dict[str, Array]:
    """Return the weights with target cells without mass behind, so that another number of cells compiles nothing."""
    targets, potentials = np.asarray(weights["targets"]), np.asarray(weights["potentials"])
    size = padded_size(len(targets))
    filled = {"targets": pad_edge(targets, size), "potentials": pad_with(potentials.T, size, -np.inf).T}
    return weights | {name: jax.device_put(np.ascontiguousarray(one)) for name, one in filled.items()}


def _logits(
    weights, h: Float[Array, " m"], inverse: Float[Array, ""], x: Float[Array, "rows d"]
) -> Float[Array, "rows m"]:
    """Return ``h_j - |x - y_j|^2 / (s epsilon)``."""
    centre = weights["targets"][0]
    x, y = x - centre, weights["targets"] - centre
    costs = jnp.square(x).sum(1)[:, None] + jnp.square(y).sum(1)[None] - 2.0 * matmul(x, y.T)
    return h[None] - inverse * jnp.maximum(costs, 0.0)


@jax.jit
def _moved(weights: dict[str, Array], x: Float[Array | np.ndarray, "rows d"]) -> Float[Array, "rows d"]:
    def step(x, plan):
        h, inverse, share = plan
        image = matmul(jax.nn.softmax(_logits(weights, h, inverse, x), axis=1), weights["targets"])
        return (1.0 - share) * x + share * image, None

    return jax.lax.scan(step, x, (weights["potentials"], weights["inverses"], weights["shares"]))[0]


@jax.jit
def _log_sums(weights: dict[str, Array], x: Float[Array | np.ndarray, "rows d"]) -> Float[Array, " rows"]:
    return jax.nn.logsumexp(_logits(weights, weights["potentials"][0], weights["inverses"][0], x), axis=1)


@partial(jax.jit, static_argnames="n")
def _draws(
    weights: dict[str, Array],
    x: Float[Array | np.ndarray, "rows d"],
    key: jax.Array,
    ids: UInt[Array | np.ndarray, " rows"],
    n: int,
) -> Int[Array, "rows n"]:
    h, inverse = weights["potentials"][0], weights["inverses"][0]
    costs = -_logits(weights, jnp.zeros_like(h), inverse, x)
    return draw_rows(Geometry(x, weights["targets"], 1.0, _COST, costs), h, key, ids.astype(jnp.int32), n)
