"""How close transported held-out source cells come to held-out target cells."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from scgenot.flow._config import ODEConfig
from scgenot.flow._sampler import FlowWeights, sample_blocks
from scgenot.metrics import sinkhorn_divergence

_CELLS = 256
_ODE = ODEConfig(n_steps=8)


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
