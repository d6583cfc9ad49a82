"""Train CellFlow 0.0.9 on arrays, one condition, and sample it, in an environment of its own; see ``benchmarks/environments.sh``.

``python cellflow_genot.py IN.npz OUT.npz --options '{"epsilon_b": 1.0, "solver": "genot"}' > OUT.json``; arrays as in ``ott05_genot.py``. Its GENOT regresses on
another target than the paper's in all releases, so that it gets worse as it trains; ``"otfm"`` is its flow matching, a map.
"""

import functools
import importlib.metadata

import anndata as ad
import jax
import numpy as np
import optax
import pandas as pd
from _arrays import Stages, main
from cellflow.model import CellFlow
from cellflow.utils import match_linear


def run(
    x,
    y,
    at,
    *,
    epsilon_b,
    solver="genot",
    steps=1000,
    lengths=(),
    batch_size=512,
    width=256,
    learning_rate=1e-3,
    n=30,
    seed=0,
):
    """Return samples, what each stage took, and what else there is to tell."""
    model = CellFlow(_adata(x, y), solver=solver)
    model.prepare_data(
        sample_rep="cells",
        control_key="control",
        perturbation_covariates={"drug": ["drug"]},
        perturbation_covariate_reps={"drug": "drug_reps"},
    )
    own = {"genot_source_dims": [width] * 3, "genot_source_dropout": 0.0} if solver == "genot" else None
    model.prepare_model(
        condition_embedding_dim=8,
        cond_output_dropout=0.0,
        pooling="mean",
        time_freqs=64,
        time_encoder_dims=[width] * 2,
        hidden_dims=[width] * 3,
        decoder_dims=[width] * 3,
        vf_kwargs=own,
        match_fn=functools.partial(match_linear, epsilon=2.0 * epsilon_b, scale_cost=1.0),
        # Without its accumulation over 20 steps: there is one condition.
        optimizer=optax.adam(learning_rate),
        seed=seed,
    )
    stages, step = Stages(steps, lengths), model.solver.step_fn

    def counted(*given):
        loss = jax.block_until_ready(step(*given))
        stages.step(model.solver.vf_state)
        return loss

    model.solver.step_fn = counted
    last = stages.lengths[-1]
    model.train(num_iterations=last, batch_size=batch_size, valid_freq=last + 1)
    # One call for all samples: of GENOT each row has noise of its own, and a call a sample takes many times as long.
    copies = n if solver == "genot" else 1
    asked, one = _adata(np.repeat(at, copies, axis=0), y[:1]), pd.DataFrame({"drug": ["drug"], "control": [False]})
    asked = asked[asked.obs["control"].to_numpy()].copy()
    options = {"rng_genot": jax.random.PRNGKey(seed + 1)} if solver == "genot" else {}

    def draw(state):
        model.solver.vf_state = state
        found = next(iter(model.predict(asked, one, sample_rep="cells", **options).values()))
        return np.repeat(np.asarray(found).reshape(len(at), copies, -1), n // copies, axis=1)

    versions = {name: importlib.metadata.version(name) for name in ("cellflow-tools", "ott-jax")}
    return *stages.sampled(draw), {"solver": solver} | versions


def _adata(x, y):
    control = np.arange(len(x) + len(y)) < len(x)
    obs = pd.DataFrame({"control": control, "drug": pd.Categorical(np.where(control, "none", "drug"))})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)
    adata.obsm["cells"] = np.concatenate([x, y])
    adata.uns["drug_reps"] = {"none": np.zeros(1, np.float32), "drug": np.ones(1, np.float32)}
    return adata


if __name__ == "__main__":
    main(run)
