"""Cells that training does not see: how well their pairs are learned, and how close they are brought to their targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from scgenot._rng import keys
from scgenot._sampling import host_rng, stratified
from scgenot.coupling import Coupling
from scgenot.flow._config import ODEConfig
from scgenot.flow._path import Path
from scgenot.flow._sampler import FlowWeights, sample_blocks
from scgenot.flow._scaling import Standardizer
from scgenot.flow._trainer import ValidationSet
from scgenot.metrics import energy_distance, sinkhorn_divergence

# Cells of each population that the divergence is between: the smallest of these that holds all held-out cells, or the last.
# Two sizes, so that little is compiled. Between 256 cells a check takes a tenth of a second on two cores.
_CELLS = (64, 256)
_ODE = ODEConfig(n_steps=8)


@dataclasses.dataclass(frozen=True)
class Unseen:
    """A condition that training does not see, to follow how well it is predicted.

    Attributes
    ----------
    source, target
        Its controls and its cells, in the user's units.
    condition
        Its row of numbers.
    """

    source: Float[np.ndarray, "n dx"]
    target: Float[np.ndarray, "m dy"]
    condition: Float[np.ndarray, " c"]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Cells of both populations that training does not see.

    Attributes
    ----------
    source, target
        In the user's units.
    source_costs, target_costs
        What the coupling sees of them where it does not see these features, such as their costs to the coupled cells.
    shared
        Features of both in a space that they share, in fused problems with one.
    source_weights, target_weights
        Prior weights, where cells have any.
    blocks
        Rows of source and target cells for each block, where the coupling has blocks.
    unseen
        Conditions that training does not see.
    """

    source: Float[np.ndarray, "n dx"]
    target: Float[np.ndarray, "m dy"]
    source_costs: Float[np.ndarray, "n kx"] | None = None
    target_costs: Float[np.ndarray, "m ky"] | None = None
    shared: tuple[Float[np.ndarray, "n s"], Float[np.ndarray, "m s"]] | None = None
    source_weights: Float[np.ndarray, " n"] | None = None
    target_weights: Float[np.ndarray, " m"] | None = None
    blocks: Sequence[tuple[Any, Any]] | None = None
    unseen: tuple[Unseen, ...] = ()

    def swapped(self) -> HeldOut:
        """Return them seen from the other side. What the coupling sees of them stays: costs keep their direction."""
        return HeldOut(
            self.target,
            self.source,
            self.target_costs,
            self.source_costs,
            None if self.shared is None else self.shared[::-1],
            self.target_weights,
            self.source_weights,
            None if self.blocks is None else [(right, left) for left, right in self.blocks],
        )

    def coupled_by(self, coupling: Coupling) -> Coupling:
        """Return the coupling between these cells that a solved one implies."""
        source = self.source if self.source_costs is None else self.source_costs
        target = self.target if self.target_costs is None else self.target_costs
        given = {name: getattr(self, name) for name in ("shared", "source_weights", "target_weights", "blocks")}
        return coupling.extend(source, target, **{name: one for name, one in given.items() if one is not None})


def validate_on(
    key: jax.Array,
    graphdef: nnx.GraphDef,
    path: Path,
    coupling: Coupling,
    units: tuple[Standardizer, Standardizer],
    held_out: HeldOut | None,
    conditions: Float[np.ndarray, "blocks dc"] | None = None,
    n_models: int = 1,
) -> tuple[ValidationSet | None, Callable[[Any], dict[str, float]] | None]:
    """Return held-out pairs for the loss, and a function of the parameters for what else is measured.

    `conditions` are those of the coupling's blocks in standardised units. With conditions the loss is measured, and how far
    predictions of unseen conditions are from their cells.
    """
    if held_out is None:
        return None, None
    pair_key, sample_key = keys(key, 2)
    metrics = None
    if held_out.unseen:
        some = tuple(_some(host_rng(sample_key), one) for one in held_out.unseen)

        def metrics(params: Any) -> dict[str, float]:
            return unseen_energy(graphdef, FlowWeights(params, *units, path=path, n_models=n_models), sample_key, some)

    if not len(held_out.source) or not len(held_out.target):
        return None, metrics
    between = held_out.coupled_by(coupling)
    source, target = (
        unit.on_host(cells) for unit, cells in zip(units, (held_out.source, held_out.target), strict=True)
    )
    pairs = ValidationSet.draw(pair_key, between, source, target, conditions)
    if conditions is not None:
        return pairs, metrics
    size = next((size for size in _CELLS if max(len(source), len(target)) <= size), _CELLS[-1])
    # By the mass that cells send and get in the plan: that is the source which its target is to be reached from.
    rng = host_rng(sample_key)
    source_some = held_out.source[stratified(rng, between.source_marginal, (size,))]
    target_some = held_out.target[stratified(rng, between.target_marginal, (size,))]

    def divergence(params: Any) -> dict[str, float]:
        weights = FlowWeights(params, *units, path=path, n_models=n_models)
        return held_out_divergence(graphdef, weights, sample_key, source_some, target_some)

    return pairs, divergence


def _some(rng: np.random.Generator, one: Unseen) -> Unseen:
    cells = (rng.choice(side, min(len(side), _CELLS[-1]), replace=False) for side in (one.source, one.target))
    return Unseen(*cells, one.condition)


def unseen_energy(
    graphdef: nnx.GraphDef,
    weights: FlowWeights,
    key: jax.Array,
    unseen: Sequence[Unseen],
) -> dict[str, float]:
    """Return the unbiased energy distance between predicted and true cells, its mean over unseen conditions.

    In one space also its share of what doing nothing leaves, a ratio of sums over the conditions.
    """
    distances, nothing = [], []
    for one in unseen:
        rows, ids = np.broadcast_to(one.condition, (len(one.source), len(one.condition))), np.arange(len(one.source))
        blocks = sample_blocks(graphdef, weights, key, one.source, ids, 1, _ODE, rows=_CELLS[-1], conditions=rows)
        predicted = np.concatenate([block[:, 0] for _, block in blocks])
        distances.append(energy_distance(predicted, one.target, unbiased=True))
        if one.source.shape[1] == one.target.shape[1]:
            nothing.append(energy_distance(one.source, one.target, unbiased=True))
    found = {"validation_energy_distance": float(np.mean(distances))}
    if sum(nothing) > 0:
        found["validation_energy_ratio"] = float(np.sum(distances) / np.sum(nothing))
    return found


def held_out_divergence(
    graphdef: nnx.GraphDef,
    weights: FlowWeights,
    key: jax.Array,
    source: Float[Array | np.ndarray, "n dx"],
    target: Float[Array | np.ndarray, "m dy"],
) -> dict[str, float]:
    """Return the Sinkhorn divergence between one sample for each source cell and the target cells.

    In squared units of the target space. The same cells and noise are used each time, so that checks compare.
    """
    ids = np.arange(len(source))
    blocks = sample_blocks(graphdef, weights, key, source, ids, 1, _ODE, rows=_CELLS[-1])
    transported = np.concatenate([block[:, 0] for _, block in blocks])
    # OTT's loops mix precisions where 64-bit numbers are switched on; a divergence in float32 is all that is asked for.
    with jax.enable_x64(False):
        return {"validation_sinkhorn_divergence": sinkhorn_divergence(transported, target)}
