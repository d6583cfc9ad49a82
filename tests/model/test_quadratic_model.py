"""A quadratic problem through the model, against its closed form."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgenot import GENOT
from scgenot.datasets import quadratic_gaussian
from scgenot.flow import FlowConfig


@pytest.mark.once
def test_conditional_law_of_a_quadratic_problem():
    problem = quadratic_gaussian(epsilon=1.0)
    n = 800
    adata = ad.AnnData(obs=pd.DataFrame({"side": np.repeat(["x", "y"], n)}, index=[f"c{i}" for i in range(2 * n)]))
    adata.obsm["X_x"], adata.obsm["X_y"] = np.full((2 * n, 3), np.nan), np.full((2 * n, 2), np.nan)
    adata.obsm["X_x"][:n], adata.obsm["X_y"][n:] = problem.sample_source(0, n), problem.sample_target(1, n)
    GENOT.setup_anndata(adata, population_key="side", source="x", target="y", source_rep="X_x", target_rep="X_y")
    model = GENOT(adata, cost="inner_product", epsilon=1.0, scale_cost=1.0, flow_config=FlowConfig(hidden=(64, 64)))
    model.train(max_steps=1500, batch_size=256, learning_rate=3e-3, progress_bar=False)
    assert len(model.coupling_summary()) > 1 and model.coupling_summary()["converged"].any()

    test = ad.AnnData(obsm={"X_x": problem.sample_source(2, 300)})
    samples = model.sample(test, n_samples=100)
    mean = samples.mean(axis=1)
    truth, covariance = problem.conditional(test.obsm["X_x"])
    # Only the sign of each axis is free. It is read off the means, then all else must agree.
    signs = np.sign((mean * truth).sum(axis=0))
    error = ((mean - signs * truth) ** 2).sum(axis=1).mean()
    # The plan of 800 cells carries a few per cent of error. A model that ignores its source is off by all of `spread`.
    spread = (truth**2).sum(axis=1).mean()
    assert error < 0.1 * spread
    within = np.mean([np.cov(one, rowvar=False) for one in samples], axis=0)
    np.testing.assert_allclose(np.diag(within), np.diag(covariance), rtol=0.2)
