"""Train OTT 0.5's GENOT on arrays and sample it, in an environment of its own; see ``benchmarks/environments.sh``.

``python ott05_genot.py IN.npz OUT.npz --options '{"epsilon_b": 1.0}' > OUT.json``. IN holds ``x``, ``y`` and the cells ``at`` which samples are wanted;
OUT gets ``samples``, stages x cells x n x features: one stage after ``steps`` steps, or one after each of ``lengths``, all of one training.
It imports nothing of this project. The class trains as it was released, except that its matching is compiled:
as shipped it runs uncompiled, which takes some five times as long.
"""

import functools
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _arrays import Stages, main
from ott.neural.methods.flows import dynamics, genot
from ott.neural.networks import velocity_field
from ott.solvers import utils


def run(x, y, at, *, epsilon_b, steps=1000, lengths=(), batch_size=512, width=256, learning_rate=1e-3, n=30, seed=0):
    """Return samples, what each stage took, and what else there is to tell."""
    d, rng = x.shape[1], np.random.default_rng(seed)
    matching = jax.jit(functools.partial(utils.match_linear, epsilon=2.0 * epsilon_b, scale_cost=1.0))

    def batches():
        while True:
            i, j = rng.integers(len(x), size=batch_size), rng.integers(len(y), size=batch_size)
            yield {"src_lin": x[i], "tgt_lin": y[j]}

    solver = genot.GENOT(
        velocity_field.VelocityField([width] * 3, [width] * 2 + [d], condition_dims=[width] * 3),
        flow=dynamics.ConstantNoiseFlow(0.0),
        data_match_fn=matching,
        source_dim=d,
        target_dim=d,
        rng=jax.random.PRNGKey(seed),
        optimizer=optax.adam(learning_rate),
    )
    stages, step = Stages(steps, lengths), solver.step_fn

    def counted(*given):
        loss, state = jax.block_until_ready(step(*given))
        stages.step(state)
        return loss, state

    solver.step_fn = counted
    losses = solver(batches(), n_iters=stages.lengths[-1], rng=jax.random.PRNGKey(seed + 1))["loss"]

    def draw(state):
        solver.vf_state = state
        # All samples in one call: each compiles anew.
        found = solver.transport(jnp.repeat(jnp.asarray(at), n, axis=0), rng=jax.random.PRNGKey(seed + 2))
        return np.asarray(found).reshape(len(at), n, d)

    return *stages.sampled(draw), {"last_loss": float(losses[-1]), "ott": importlib.metadata.version("ott-jax")}


if __name__ == "__main__":
    main(run)
