"""Cells that training does not see: how well their pairs are learned, and how close they are brought to their targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from scgenot.coupling import Coupling
from scgenot.flow._config import ODEConfig
from scgenot.flow._sampler import FlowWeights, sample_blocks
from scgenot.flow._scaling import Standardizer
from scgenot.flow._trainer import ValidationSet
from scgenot.metrics import sinkhorn_divergence

_CELLS = 256
_ODE = ODEConfig(n_steps=8)


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
    """

    source: Float[np.ndarray, "n dx"]
    target: Float[np.ndarray, "m dy"]
    source_costs: Float[np.ndarray, "n kx"] | None = None
    target_costs: Float[np.ndarray, "m ky"] | None = None
    shared: tuple[Float[np.ndarray, "n s"], Float[np.ndarray, "m s"]] | None = None

    def coupled_by(self, coupling: Coupling) -> Coupling:
        """Return the coupling between these cells that a solved one implies."""
        source = self.source if self.source_costs is None else self.source_costs
        target = self.target if self.target_costs is None else self.target_costs
        return coupling.extend(source, target, **({} if self.shared is None else {"shared": self.shared}))


def validate_on(
    key: jax.Array,
    graphdef: nnx.GraphDef,
    coupling: Coupling,
    units: tuple[Standardizer, Standardizer],
    held_out: HeldOut | None,
) -> tuple[ValidationSet | None, Callable[[Any], dict[str, float]] | None]:
    """Return held-out pairs for the loss, and a function of the parameters for what else is measured."""
    if held_out is None:
        return None, None
    pair_key, sample_key = jax.random.split(key)
    between = held_out.coupled_by(coupling)
    source, target = (
        unit.forward(jnp.asarray(cells, jnp.float32))
        for unit, cells in zip(units, (held_out.source, held_out.target), strict=True)
    )
    pairs = ValidationSet.draw(pair_key, between, source, target)

    def metrics(params: Any) -> dict[str, float]:
        weights = FlowWeights(params, *units)
        return held_out_divergence(graphdef, weights, sample_key, held_out.source, held_out.target)

    return pairs, metrics


def held_out_divergence(
    graphdef: nnx.GraphDef,
    weights: FlowWeights,
    key: jax.Array,
    source: Float[np.ndarray, "n dx"],
    target: Float[np.ndarray, "m dy"],
) -> dict[str, float]:
    """Return the Sinkhorn divergence between one sample for each of up to 256 source cells and as many target cells.

    In squared units of the target space. The same cells and noise are used each time, so that checks compare.
    """
    some = {"source": source, "target": target}
    for name, cells in some.items():
        some[name] = cells[np.linspace(0, len(cells) - 1, min(_CELLS, len(cells))).round().astype(int)]
    blocks = sample_blocks(graphdef, weights, key, some["source"], np.arange(len(some["source"])), 1, _ODE, rows=_CELLS)
    transported = np.concatenate([block[:, 0] for _, block in blocks])
    return {"validation_sinkhorn_divergence": sinkhorn_divergence(transported, some["target"])}
