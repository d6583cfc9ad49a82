"""Densities, entropies, regions and outliers that a trained model answers with; and their shapes, cells and refusals."""

import warnings

import numpy as np
import pytest
from tests.conftest import SETUP, SHIFT, assert_same, make_adata, snapshot

from scgenot import GENOT
from scgenot.flow import DivergenceConfig, ODEConfig


@pytest.fixture(scope="module")
def sources(trained):
    return np.flatnonzero(trained.adata.obs["condition"] == "control")


def test_points_for_all_cells_and_points_of_each_cell(trained, sources):
    points = trained.adata.obsm["X_pca"][:7]
    whole = trained.get_log_prob(points)
    assert whole.shape == (60, 7) and np.isfinite(whole).all()
    each = trained.get_log_prob(np.broadcast_to(points, (60, 7, 3)))
    np.testing.assert_array_equal(each, whole)
    some = sources[[5, 2]]
    np.testing.assert_array_equal(trained.get_log_prob(points, indices=some), whole[[5, 2]])
    own = trained.get_log_prob(points[:2, None], indices=some)
    np.testing.assert_array_equal(own[:, 0], whole[[5, 2], [0, 1]])


def test_density_is_high_where_samples_are_and_sums_to_one(trained, sources):
    samples = trained.sample(indices=sources[:1], n_samples=400)
    own = trained.get_log_prob(samples, indices=sources[:1])
    away = trained.get_log_prob(samples - SHIFT, indices=sources[:1])
    assert own.mean() > away.mean() + 2
    # Importance sampling from a wider Gaussian in the user's units: without the Jacobian of these the sum would be off by its factor.
    rng = np.random.default_rng(0)
    mean, width = samples[0].mean(0), 1.7 * samples[0].std(0)
    z = rng.standard_normal((1500, 3))
    proposed = -0.5 * (z**2).sum(1) - 1.5 * np.log(2 * np.pi) - np.log(width).sum()
    logs = trained.get_log_prob((mean + z * width).astype("f4"), indices=sources[:1])[0]
    assert abs(np.mean(np.exp(logs - proposed)) - 1) < 0.1
    assert abs(np.log(np.asarray(trained._method.weights.target_units.scale)).sum()) > 0.15


def test_random_probes_and_finer_steps(trained, sources):
    points = trained.adata.obsm["X_pca"][:5]
    exact = trained.get_log_prob(points, indices=sources[:3])
    probes = DivergenceConfig("hutchinson", 64)
    one, again, other = (trained.get_log_prob(points, indices=sources[:3], divergence=probes, rng=k) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() and np.abs(one - exact).mean() < 0.2
    fine = trained.get_log_prob(points, indices=sources[:3], ode=ODEConfig(n_steps=64))
    np.testing.assert_allclose(exact, fine, atol=0.1)


def test_entropy_is_the_mean_of_minus_log_density(trained, sources):
    samples = trained.sample(n_samples=6, rng=3)
    found = trained.get_entropy(n_samples=6, rng=3)
    logs = trained.get_log_prob(samples)
    np.testing.assert_allclose(found["entropy"], -logs.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["standard_error"], logs.std(1, ddof=1) / np.sqrt(6), rtol=1e-4)
    assert list(found.index) == list(trained.adata.obs_names[sources])
    assert trained.get_entropy(n_samples=1, indices=sources[:2])["standard_error"].isna().all()


@pytest.mark.parametrize("score", ["density", "neighbours"])
def test_raw_levels_of_samples_are_uniform(trained, sources, score):
    points = trained.sample(n_samples=20, rng=11)
    with pytest.warns(UserWarning, match="without `calibration`: a region has the probability that the learned law"):
        levels = trained.get_region_levels(points, score=score)
    assert levels.shape == (60, 20) and levels.min() >= 0 and levels.max() <= 1
    # 1200 draws ranked among 49 of the same law: a standard error of .014, and of .03 since a cell's share the 49.
    for level in (0.5, 0.8):
        assert abs((levels < level).mean() - level) < 0.09
    far = trained.adata.obsm["X_pca"][sources][:, None] + 50
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert (trained.get_region_levels(far, score=score) == 1).all()
        together = trained.get_region_levels(points[0], score=score, indices=sources[:1])
    np.testing.assert_array_equal(together, levels[:1])


def test_label_sets(trained):
    adata = trained.adata
    labels = np.where(adata.obsm["X_pca"][:, 1] > 0, "up", "down")
    other = adata.copy()
    other.obs["side"] = labels
    with pytest.warns(UserWarning, match="`get_label_sets` without `calibration`"):
        sets = trained.get_label_sets(other, label_key="side", target=other, level=0.8)
    probabilities = trained.get_label_probabilities(other, label_key="side", target=other).to_numpy()
    inside = sets.to_numpy()
    assert inside[np.arange(60), probabilities.argmax(1)].all()
    # Both labels where the likelier one has less than .8, one where it has more.
    np.testing.assert_array_equal(inside.sum(1) == 2, (probabilities.max(1) < 0.8))


def test_outliers(trained, sources, tmp_path):
    new = make_adata(seed=5)
    inside = trained.get_outlier_score(new)
    assert list(inside.columns) == ["distance", "p_value"] and len(inside) == 60
    # p-values of cells of the same law: not far from uniform.
    assert 0.25 < inside["p_value"].mean() < 0.75
    far = new.copy()
    far.obsm["X_pca"] = far.obsm["X_pca"] + 20
    outside = trained.get_outlier_score(far)
    known = len(trained.train_indices_) - trained._training.train_rows[1].size
    np.testing.assert_allclose(outside["p_value"], 1 / (known + 1))
    assert outside["distance"].min() > inside["distance"].max()
    trained.save(tmp_path / "model")
    again = GENOT.load(tmp_path / "model", adata=False)
    np.testing.assert_array_equal(again.get_outlier_score(new), inside)
    with pytest.raises(ValueError, match=r"`n_neighbors` must be below \d+, the training cells, got 500"):
        trained.get_outlier_score(new, n_neighbors=500)


def test_nothing_is_written(trained):
    before = snapshot(trained.adata)
    points = trained.adata.obsm["X_pca"][:2]
    trained.get_log_prob(points)
    trained.get_entropy(n_samples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        trained.get_region_levels(points, n_samples=9)
    trained.get_outlier_score()
    assert_same(trained.adata, before)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (np.zeros((4, 2)), ValueError, r"`target_points` must have shape \(points, 3\).*got \(4, 2\)"),
        (np.zeros(3), ValueError, r"got \(3,\)"),
        (np.zeros((4, 2, 3)), ValueError, "has points of 4 cells, and 60 are asked for"),
        (np.full((4, 3), np.nan), ValueError, "`target_points` has NaN or inf in 4 rows"),
        ("here", TypeError, "`target_points` must be an array of numbers, got str"),
    ],
)
def test_wrong_points(trained, points, error, message):
    with pytest.raises(error, match=message):
        trained.get_log_prob(points)


def test_wrong_options(trained):
    points = np.zeros((1, 3))
    with pytest.raises(TypeError, match="`divergence` must be a scgenot.flow.DivergenceConfig"):
        trained.get_log_prob(points, divergence="exact")
    with pytest.raises(ValueError, match="`calibration` must be what `scgenot.tl.calibrate` wrote"):
        trained.get_region_levels(points, calibration={"level": 0.9})
    with pytest.raises(ValueError, match="`level` must lie between 0 and 1, got 90"):
        trained.get_label_sets(label_key="condition", level=90)
    adata = make_adata()
    GENOT.setup_anndata(adata, **SETUP)
    with pytest.raises(RuntimeError, match="not trained"):
        GENOT(adata).get_log_prob(points)
