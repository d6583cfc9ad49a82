"""Units inside the model, and what is made of samples."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ortho_group

from scgenot.flow import (
    Standardizer,
    TargetRegions,
    conditional_mean,
    conditional_variance,
    cosine_variance,
    label_uncertainty,
    reference_rows,
)


@pytest.fixture
def cells(rng):
    return (rng.normal(size=(80, 3)) * [1.0, 30.0, 0.01] + [5.0, -100.0, 0.0]).astype(np.float32)


@pytest.mark.parametrize("how", ["feature", "global", "none"])
def test_round_trip(cells, how):
    units = Standardizer.fit(cells, np.ones(80), how)
    back = units.backward(units.forward(jnp.asarray(cells)))
    # One rounding of numbers up to 200.
    np.testing.assert_allclose(back, cells, rtol=1e-6, atol=2e-5)


def test_feature_units_have_mean_zero_and_variance_one(cells):
    found = np.asarray(Standardizer.fit(cells, np.ones(80), "feature").forward(jnp.asarray(cells)))
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-4)


def test_global_units_keep_relative_variances(cells):
    units = Standardizer.fit(cells, np.ones(80), "global")
    found = np.asarray(units.forward(jnp.asarray(cells)))
    np.testing.assert_allclose(found.std(0) / found.std(0)[1], cells.std(0) / cells.std(0)[1], rtol=1e-3)
    assert found.var(0).mean() == pytest.approx(1, rel=1e-4)


def test_no_units_change_nothing(cells):
    np.testing.assert_array_equal(Standardizer.fit(cells, np.ones(80), "none").forward(jnp.asarray(cells)), cells)


def test_weights_count(cells):
    weights = np.zeros(80)
    weights[:10] = 3.0
    units = Standardizer.fit(cells, weights, "feature")
    np.testing.assert_allclose(units.mean, cells[:10].mean(0), rtol=1e-5)
    np.testing.assert_allclose(units.scale, cells[:10].std(0), rtol=1e-4)


@pytest.mark.parametrize("how", ["feature", "global", "none"])
def test_constant_feature(cells, how):
    cells[:, 1] = 7.0
    units = Standardizer.fit(cells, np.ones(80), how)
    found = np.asarray(units.forward(jnp.asarray(cells)))
    assert np.isfinite(found).all()
    if how == "feature":
        np.testing.assert_array_equal(found[:, 1], 0.0)
    np.testing.assert_allclose(units.backward(jnp.asarray(found))[:, 1], 7.0, rtol=1e-6)


def test_all_features_constant():
    cells = np.full((5, 2), 3.0, np.float32)
    units = Standardizer.fit(cells, np.ones(5), "feature")
    np.testing.assert_array_equal(units.forward(jnp.asarray(cells)), 0.0)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_extreme_units(rng, scale):
    cells = (scale * rng.normal(size=(50, 2))).astype(np.float32)
    found = np.asarray(Standardizer.fit(cells, np.ones(50), "feature").forward(jnp.asarray(cells)))
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-4)


@pytest.fixture
def samples(rng):
    return (rng.normal(size=(7, 20, 3)) + [2.0, 0.0, 1.0]).astype(np.float32)


def test_mean_and_variance_by_hand(samples):
    for i in range(7):
        total = sum(sample.astype(np.float64) for sample in samples[i])
        np.testing.assert_allclose(conditional_mean(samples)[i], total / 20, rtol=1e-6)
        squares = sum((sample.astype(np.float64) - total / 20) ** 2 for sample in samples[i])
        np.testing.assert_allclose(conditional_variance(samples)[i], squares / 19, rtol=1e-5)


def test_one_sample_does_not_claim_certainty(samples):
    assert np.isnan(conditional_variance(samples[:, :1])).all()
    assert np.isnan(cosine_variance(samples[:, :1])).all()
    assert np.isnan(TargetRegions.of(samples[:, 0]).entropy(samples[:, :1])).all()


def by_hand(vectors):
    mean = vectors.mean(0)
    cosines = [v @ mean / np.linalg.norm(v) / np.linalg.norm(mean) for v in vectors]
    return np.var(cosines, ddof=1)


def test_cos_var_by_hand(samples):
    np.testing.assert_allclose(cosine_variance(samples), [by_hand(s.astype(float)) for s in samples], rtol=1e-5)


def test_cos_var_of_displacements_by_hand(samples, rng):
    origin = rng.normal(size=(7, 3)).astype(np.float32)
    expected = [by_hand(s.astype(float) - o) for s, o in zip(samples, origin, strict=True)]
    np.testing.assert_allclose(cosine_variance(samples, origin), expected, rtol=1e-5)


def test_cos_var_of_a_worked_example():
    # Samples (1, 0) and (0, 1): the mean is on the diagonal, all cosines are equal. With (1, 0) three times and
    # (-1, 0): the cosines are 1, -1, 1, 1, of mean 1/2, and squares about it sum to 3.
    cells = np.array([[[1, 0], [0, 1], [1, 0], [0, 1]], [[1, 0], [-1, 0], [1, 0], [1, 0]]], np.float32)
    np.testing.assert_allclose(cosine_variance(cells), [0, 3 / 3], atol=1e-6)


def test_cos_var_does_not_depend_on_rotation_or_scale(samples):
    rotation = ortho_group.rvs(3, random_state=0)
    turned = (1000 * samples @ rotation).astype(np.float32)
    np.testing.assert_allclose(cosine_variance(turned), cosine_variance(samples), rtol=1e-4)


def test_cos_var_depends_on_a_shift_so_it_is_no_correlation(samples):
    # The correlation, which is what centring each vector across features gives, does not change under this shift.
    assert (cosine_variance(samples + 10.0) < cosine_variance(samples) / 2).all()


def test_cos_var_is_zero_where_all_samples_agree_and_finite_at_zero():
    same = np.tile(np.array([1.0, 2.0, 3.0], np.float32), (2, 5, 1))
    same[1] = 0.0
    np.testing.assert_allclose(cosine_variance(same), 0, atol=1e-12)


def test_cos_var_grows_with_the_spread_of_directions(rng):
    noise = rng.normal(size=(1, 500, 4))
    found = [float(cosine_variance((np.eye(4)[0] + s * noise).astype(np.float32))[0]) for s in (0.1, 0.5, 2.0)]
    assert found == sorted(found) and found[2] > 10 * found[0]


def test_cos_var_of_few_samples_is_no_smaller_than_its_docstring_says(rng):
    vectors = np.eye(20)[0] * 3 + rng.normal(size=(2000, 30, 20))
    limit = cosine_variance((np.eye(20)[0] * 3 + rng.normal(size=(1, 60_000, 20))).astype(np.float32))[0]
    # Standard errors of these means are below .01.
    for count, low, high in ((5, 0.65, 0.90), (10, 0.80, 0.94), (30, 0.91, 0.98)):
        assert low < cosine_variance(vectors[:, :count].astype(np.float32)).mean() / limit < high


@pytest.fixture
def islands(rng):
    """Four islands of 60 target cells each."""
    cells = np.repeat(20.0 * np.eye(4, 5), 60, axis=0) + rng.normal(size=(240, 5))
    return cells.astype(np.float32)


def test_regions_measure_what_share_of_the_population_is_covered(islands, rng):
    cells, regions = islands, TargetRegions.of(islands)
    assert regions.regions.shape == (10, 240) and regions.n_regions == 20
    pick = lambda rows: cells[rng.choice(rows, 50)]
    one, two, all_four = np.arange(60, 120), np.arange(60, 180), np.arange(240)
    narrow = cells[60] + 0.01 * rng.normal(size=(50, 5))
    found = regions.entropy(np.stack([narrow, pick(one), pick(two), pick(all_four)]).astype(np.float32))
    assert 0 <= found[0] < 0.3 and found[3] <= 1.0
    assert found[0] < found[1] < found[2] < found[3]
    # Samples spread evenly over all regions have entropy 1.
    regions = TargetRegions(cells, np.repeat(np.arange(4), 60)[None], 4)
    even = regions.entropy(cells[::12][None])
    np.testing.assert_allclose(even, 1.0, rtol=1e-6)
    half = regions.entropy(cells[:120:6][None])
    np.testing.assert_allclose(half, np.log(2) / np.log(4), rtol=1e-6)


def test_regions_do_not_depend_on_units_or_on_other_cells_asked_for(islands, samples):
    cells, regions = islands, TargetRegions.of(islands)
    asked = np.stack([cells[k::24] for k in range(6)])
    np.testing.assert_array_equal(regions.entropy(asked)[2:4], regions.entropy(asked[2:4]))
    np.testing.assert_allclose(TargetRegions.of(2 * cells).entropy(2 * asked), regions.entropy(asked), atol=1e-6)


@pytest.mark.parametrize("cells", [np.ones((40, 3)), np.eye(3)], ids=["one place", "three cells"])
def test_regions_of_few_places(cells, samples):
    found = TargetRegions.of(cells.astype(np.float32)).entropy(samples)
    np.testing.assert_array_equal(found, 0.0)


def test_reference_rows_are_at_most_500_and_distinct(rng):
    rows = reference_rows(2000, rng)
    assert len(rows) == len(set(rows)) == 500 and rows.max() < 2000
    np.testing.assert_array_equal(reference_rows(7, rng), np.arange(7))


def test_label_uncertainty_levels_out_sizes():
    probabilities = np.array([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5]])
    np.testing.assert_allclose(label_uncertainty(probabilities, np.array([0.5, 0.5])), [0.0, 0.1, 0.5])
    # A label of a tenth of the cells that still gets a tenth of the samples: nearly as likely as the other.
    rare = np.array([0.9 / 0.9**0.75, 0.1 / 0.1**0.75])
    found = label_uncertainty(probabilities, np.array([0.9, 0.1]))
    assert found[0] == 0 and found[1] == pytest.approx(1 - rare.max() / rare.sum()) and found[1] > 0.35
