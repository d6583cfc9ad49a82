"""`scgenot.tl.response`: means, and intervals that know how many cells there are."""

import copy

import anndata as ad
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tests.conftest import assert_same, make_adata, snapshot
from tests.model.test_conditions import FITTED, SCREEN, make_screen
from tests.top.test_decode import GENES, in_genes

import scgenot
from scgenot.flow import FlowConfig

matplotlib.use("Agg")
LOADINGS = np.linalg.qr(np.random.default_rng(3).normal(size=(GENES, 3)))[0]
CHANGE = np.array([1.0, -0.5, 0.25])
SOURCE_SD, TARGET_SD, WITHIN_SD, NOISE_SD = 1.0, 1.5, 0.7, 0.4


def gaussian(n: int, m: int, seed: int) -> ad.AnnData:
    """Control and stimulated cells whose genes are three Gaussian factors and noise of their own."""
    rng = np.random.default_rng(seed)
    z = np.concatenate([SOURCE_SD * rng.normal(size=(n, 3)), CHANGE + TARGET_SD * rng.normal(size=(m, 3))])
    noise = NOISE_SD * rng.normal(size=(n + m, GENES))
    noise -= noise @ LOADINGS @ LOADINGS.T
    x = z @ LOADINGS.T + noise + 5
    labels = pd.Categorical(np.repeat(["control", "stimulated"], [n, m]))
    obs = pd.DataFrame({"condition": labels, "donor": "a", "kind": "k"}, index=[f"c{k}" for k in range(n + m)])
    adata = ad.AnnData(x.astype(np.float32), obs=obs)
    # As scanpy's PCA of these genes would have it: exactly the factors, up to a constant.
    adata.obsm["X_pca"] = z.astype(np.float32)
    adata.varm["PCs"] = LOADINGS
    return adata


def knowing(model):
    """A model whose law is known: N(shrunk source + change, within), so that targets have their standard deviation."""
    slope = np.sqrt(TARGET_SD**2 - WITHIN_SD**2) / SOURCE_SD

    class Knowing(type(model)):
        def sample(self, adata=None, *, indices=None, n_samples=30, rng=0, **_):
            z = adata.obsm["X_pca"][indices]
            # A cell gets the same samples whichever others are asked for.
            noise = np.random.default_rng(5).normal(size=(adata.n_obs, n_samples, 3))[indices]
            return (slope * z[:, None] + CHANGE + WITHIN_SD * noise).astype(np.float32)

    known = copy.copy(model)
    known.__class__ = Knowing
    return known


def widths(table):
    return (table["upper"] - table["lower"]).to_numpy(), (table["expected_upper"] - table["expected_lower"]).to_numpy()


def in_order(table, adata):
    return table.set_index("names").loc[adata.var_names]


def test_the_interval_is_that_of_a_mean_of_so_many_cells(trained):
    model = knowing(trained)
    slope = np.sqrt(TARGET_SD**2 - WITHIN_SD**2) / SOURCE_SD
    shares = np.square(LOADINGS).sum(axis=1)
    z = 1.645
    found = {}
    for n, m in ((100, 400), (400, 100), (1600, 1600)):
        adata = gaussian(n, m, seed=n)
        table = in_order(scgenot.tl.response(adata, model, n_samples=8), adata)
        within_pcs = (slope - 1) ** 2 * SOURCE_SD**2 + WITHIN_SD**2
        expected = 2 * z * np.sqrt(shares * within_pcs / n)
        lost = NOISE_SD**2 * (1 - shares)
        spread = shares * TARGET_SD**2 + lost
        about = 2 * z * np.sqrt(spread / n + spread / m)
        mine, observed = widths(table)
        # A sample's standard deviation is off by a few percent, Student's quantile by one.
        np.testing.assert_allclose(mine, expected, rtol=0.25)
        np.testing.assert_allclose(observed, about, rtol=0.2)
        np.testing.assert_allclose(np.mean(mine / expected), 1, atol=0.08)
        np.testing.assert_allclose(np.mean(observed / about), 1, atol=0.08)
        found[n, m] = np.mean(mine), np.mean(observed)
        assert (table["cells"] == n).all() and (table["observed_cells"] == m).all()
    # Four times the cells, half the width; and target cells count for what is observed only.
    assert found[100, 400][0] / found[400, 100][0] == pytest.approx(2, rel=0.1)
    assert found[100, 400][1] == pytest.approx(found[400, 100][1], rel=0.1)
    assert found[1600, 1600][1] < 0.4 * found[100, 400][1]


@pytest.mark.parametrize(("n", "m"), [(25, 60), (80, 30)])
def test_nine_in_ten_intervals_hold_the_change(trained, n, m):
    model, truth = knowing(trained), LOADINGS @ CHANGE
    held, seen = [], []
    for seed in range(60):
        adata = gaussian(n, m, seed=100 + seed)
        table = in_order(scgenot.tl.response(adata, model, n_samples=5), adata)
        held.append((table["lower"] <= truth) & (truth <= table["upper"]))
        seen.append((table["expected_lower"] <= table["observed"]) & (table["observed"] <= table["expected_upper"]))
    # Genes of one data set hang together: of 60 sets times three factors, 90 % are off by 2.2 points as often as not.
    assert abs(np.mean(seen) - 0.9) < 0.06
    # Where each cell goes one way of several, the interval of the mean change is wider than means of samples alone need.
    assert 0.88 < np.mean(held) <= 1.0


def test_moments_are_those_of_the_bootstrap(trained):
    """Cells drawn again with replacement, and one sample of each: the standard error without a formula."""
    adata = gaussian(40, 50, seed=2)
    model = knowing(trained)
    table = in_order(scgenot.tl.response(adata, model, n_samples=20), adata)
    rows = np.arange(40)
    ways = model.sample(adata, indices=rows, n_samples=20) @ LOADINGS.T
    own = (adata.obsm["X_pca"][rows] @ LOADINGS.T)[:, None]
    rng = np.random.default_rng(0)
    again, which = rng.integers(40, size=(4000, 40)), rng.integers(20, size=(4000, 40))
    error = (ways - own)[again, which].mean(axis=1).std(axis=0)
    # Student's 90 % with 39 degrees of freedom; the bootstrap's variance lacks the factor n / (n - 1).
    ours = widths(table)[0] / (2 * 1.685) * np.sqrt(39 / 40)
    np.testing.assert_allclose(ours, error, rtol=0.08)
    np.testing.assert_allclose(table["change"], (ways - own).mean(axis=(0, 1)), atol=1e-4)


def test_changes_are_those_of_decoded_cells(trained):
    adata = in_genes(noise=0.5)
    before = snapshot(adata)
    table = scgenot.tl.response(adata, trained, groupby="donor", n_samples=6, rng=2)
    written = adata.uns.pop("genot_response")
    assert_same(adata, before)
    pd.testing.assert_frame_equal(written["table"], table)
    assert written["params"]["groupby"] == "donor" and written["params"]["n_samples"] == 6
    cells = scgenot.tl.decode(adata, trained, n_samples=6, rng=2, include_source=True)
    columns = ["group", "names", "change", "lower", "upper", "observed", "expected_lower", "expected_upper"]
    assert list(table.columns) == [*columns, "half_1", "half_2", "cells", "observed_cells", "few_cells"]
    assert list(table["group"].unique()) == ["a", "b"] and len(table) == 2 * GENES
    for donor, part in table.groupby("group", observed=True):
        assert (np.diff(part["change"].abs()) <= 0).all()
        part = in_order(part, adata)
        means = {}
        for condition in ("control", "stimulated"):
            here = (cells.obs["donor"] == donor) & (cells.obs["condition"] == condition)
            means[condition] = cells.X[here.to_numpy()].mean(axis=0)
            here = (adata.obs["donor"] == donor) & (adata.obs["condition"] == condition)
            means[f"measured {condition}"] = adata.X[here.to_numpy()].mean(axis=0)
            count = part["cells" if condition == "control" else "observed_cells"]
            assert (count == here.sum()).all()
        np.testing.assert_allclose(part["change"], means["stimulated"] - means["control"], atol=1e-4)
        observed = means["measured stimulated"] - means["measured control"]
        np.testing.assert_allclose(part["observed"], observed, atol=1e-4)
        assert ((part["half_1"] != part["half_2"]) & (abs(part["half_1"] - observed) < 3)).all()


def test_what_is_not_there_is_not_observed_and_few_cells_are_marked(trained, tmp_path):
    adata = in_genes(noise=0.5)
    controls = adata[adata.obs["condition"] == "control"].copy()
    controls.obs["kind"] = ["rare/"] * 4 + ["single"] + [np.nan] * 10 + ["often"] * 45
    table = scgenot.tl.response(controls, trained, groupby="kind", n_genes=5, n_samples=2)
    assert table["observed"].isna().all() and table["expected_lower"].isna().all()
    assert table.groupby("group", observed=True)["few_cells"].first().to_dict() == {
        "often": False,
        "rare/": True,
        "single": True,
    }
    assert (table.groupby("group", observed=True).size() == 5).all()
    assert table.loc[table["group"] == "single", "lower"].isna().all()
    assert np.isfinite(table.loc[table["group"] == "rare/", ["lower", "upper"]]).all(axis=None)
    controls.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad").uns["genot_response"]["table"]
    pd.testing.assert_frame_equal(again, table, check_index_type=False, check_dtype=False, check_categorical=False)
    del controls.obs["condition"]
    assert scgenot.tl.response(controls, trained, n_samples=2)["observed_cells"].eq(0).all()


def test_an_ensemble_is_less_sure_where_its_models_differ(trained):
    adata = gaussian(200, 200, seed=1)
    one = knowing(trained)
    other = copy.copy(one)

    class Shifted(type(one)):
        def sample(self, *arguments, **named):
            return super().sample(*arguments, **named) + np.array([1.0, 0, 0], np.float32)

    other.__class__ = Shifted
    alone = in_order(scgenot.tl.response(adata, one, n_samples=4), adata)
    both = in_order(scgenot.tl.response(adata, [one, other], n_samples=4), adata)
    np.testing.assert_allclose(both["change"] - alone["change"], LOADINGS[:, 0] / 2, atol=1e-4)
    # Two values that lie 1 apart have the variance 1/2.
    reach = 1.65 * np.abs(LOADINGS[:, 0]) * np.sqrt(0.5)
    assert (widths(both)[0] / 2 > 0.97 * reach).all() and (widths(both)[0] > widths(alone)[0]).all()
    with pytest.raises(ValueError, match="empty list"):
        scgenot.tl.response(adata, [])


def test_members_of_an_ensemble_count_as_models(trained):
    # Sample k is of model k modulo 3, and the models' means lie 1 apart in the first factor: a variance of 1.
    one = knowing(trained)

    class Three(type(one)):
        n_models = 3

        def sample(self, adata=None, *, n_samples=30, **options):
            drawn = super().sample(adata, n_samples=n_samples, **options)
            drawn[:, :, 0] += np.arange(n_samples) % 3 - 1
            return drawn

    several = copy.copy(one)
    several.__class__ = Three
    adata = gaussian(200, 200, 0)
    tables = [in_order(scgenot.tl.response(adata, model, n_samples=30), adata) for model in (one, several)]
    np.testing.assert_allclose(tables[1]["change"], tables[0]["change"], atol=0.02)
    assert adata.uns["genot_response"]["params"]["models"] == 3
    reach = [(table["upper"] - table["lower"]).to_numpy() / 2 / 1.65 for table in tables]
    added = np.sqrt(np.maximum(reach[1] ** 2 - reach[0] ** 2, 0))
    np.testing.assert_allclose(added, np.abs(LOADINGS[:, 0]), rtol=0.15, atol=0.02)


def test_wrong_arguments_leave_the_object_as_it_was(trained):
    adata = in_genes()
    before = snapshot(adata)
    for arguments, error, message in (
        ({"groupby": "doner"}, KeyError, "`groupby`='doner' is no column.*Did you mean 'donor'"),
        ({"level": 1.5}, ValueError, r"`level` must lie in \(0, 1\]"),
        ({"n_samples": 0}, ValueError, "`n_samples`"),
        ({"key_added": "a/b"}, ValueError, "`key_added` must be a name without"),
        ({"conditions": "A"}, ValueError, "without any"),
        ({"indices": np.zeros(adata.n_obs, bool)}, ValueError, "no source cells"),
    ):
        with pytest.raises(error, match=message):
            scgenot.tl.response(adata, trained, **arguments)
    assert_same(adata, before)


@pytest.fixture(scope="module")
def screened():
    adata = make_screen()
    adata.X = (adata.obsm["X_pca"] @ LOADINGS.T + 5).astype(np.float32)[:, :2]
    genes = ad.AnnData((adata.obsm["X_pca"] @ LOADINGS.T + 5).astype(np.float32), obs=adata.obs)
    genes.obsm["X_pca"], genes.varm["PCs"] = adata.obsm["X_pca"], LOADINGS
    scgenot.GENOT.setup_anndata(genes, **SCREEN)
    model = scgenot.GENOT(genes, flow_config=FlowConfig(hidden=(64, 64)))
    model.train(validation_conditions=["A | b"], **FITTED)
    return genes, model


def test_conditions_have_their_own_cells(screened):
    adata, model = screened
    table = scgenot.tl.response(adata, model, groupby="donor", conditions=["A", "C | b"], n_samples=5)
    assert list(table["condition"].unique()) == ["A", "C | b"]
    assert table.groupby(["condition", "group"], observed=True).size().to_dict() == {
        ("A", "a"): GENES,
        ("A", "b"): GENES,
        ("C | b", "b"): GENES,
    }
    truth = {"A": LOADINGS @ [0, 3, 0], "C | b": LOADINGS @ [0, -3, -3]}
    for (condition, group), part in table.groupby(["condition", "group"], observed=True):
        part = in_order(part, adata)
        assert (part["cells"] == 70).all() and (part["observed_cells"] == 60).all()
        np.testing.assert_allclose(part["observed"], truth[condition], atol=0.25)
        # Drug A was never seen in donor b.
        np.testing.assert_allclose(
            part["change"], truth[condition], atol=1.5 if (condition, group) == ("A", "b") else 0.3
        )
    cells = scgenot.tl.decode(adata, model, conditions=["A", "C | b"], include_source=True)
    assert cells.obs["drug"].value_counts().to_dict() == {"control": 140, "A": 140, "C": 70}
    with pytest.raises(ValueError, match="`conditions` is needed"):
        scgenot.tl.response(adata, model)


def test_two_spaces_have_no_change(trained):
    adata = make_adata()
    adata.obsm["X_other"] = adata.obsm["X_pca"][:, :2] * 2
    scgenot.GENOT.setup_anndata(
        adata, population_key="condition", source="control", target="stimulated", target_rep="X_other"
    )
    model = scgenot.GENOT(adata)
    with pytest.raises(ValueError, match="populations in two spaces"):
        scgenot.tl.response(adata, model)


@pytest.fixture(scope="module")
def answered(trained):
    adata = in_genes(noise=0.5)
    adata.obs["kind"] = np.where(np.arange(adata.n_obs) < 12, "rare", "often")
    table = scgenot.tl.response(adata, trained, groupby="kind", n_samples=5)
    yield adata, table
    plt.close("all")


def test_dots_are_the_largest_changes_with_their_intervals(answered):
    adata, table = answered
    axes = scgenot.pl.response(adata, n_genes=4)
    assert [ax.get_title(loc="left").split(" (")[0] for ax in axes] == ["often", "rare"]
    assert "few" in axes[1].get_title(loc="left") and "few" not in axes[0].get_title(loc="left")
    for ax, (_, part) in zip(axes, table.groupby("group", observed=True), strict=True):
        top = part.iloc[:4].iloc[::-1]
        assert [label.get_text() for label in ax.get_yticklabels()] == top["names"].tolist()
        lines, dots, diamonds = ax.collections
        np.testing.assert_allclose(dots.get_offsets(), np.column_stack([top["change"], np.arange(4)]))
        np.testing.assert_allclose(diamonds.get_offsets()[:, 0], top["observed"])
        ends = np.array([segment[:, 0] for segment in lines.get_segments()])
        np.testing.assert_allclose(ends, top[["lower", "upper"]])
    assert len(scgenot.pl.response(adata, groups="rare", n_genes=50)[0].get_yticklabels()) == GENES


def test_predicted_stands_against_observed_beside_the_halves(answered, tmp_path):
    adata, table = answered
    ax = scgenot.pl.response(adata, kind="observed", groups=["often"], save=tmp_path / "a.png")[0]
    part = table[table["group"] == "often"]
    inside = part["observed"].between(part["expected_lower"], part["expected_upper"]).to_numpy()
    dots = [np.asarray(found.get_offsets()) for found in ax.collections[1:]]
    np.testing.assert_allclose(dots[0], part.loc[inside, ["observed", "change"]])
    np.testing.assert_allclose(dots[1], part.loc[~inside, ["observed", "change"]])
    halves = np.corrcoef(part["half_1"], part["half_2"])[0, 1]
    told = ax.texts[-1].get_text()
    assert f"r = {np.corrcoef(part['change'], part['observed'])[0, 1]:.2f}" in told
    assert f"halves of the cells: {halves:.2f}" in told
    assert f"perfect prediction: {np.sqrt(2 * halves / (1 + halves)):.2f}" in told
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_pictures_of_responses_answer_wrong_names(answered, screened):
    adata, _ = answered
    with pytest.raises(KeyError, match=r"no response of that name.*tl.response.*Did you mean 'genot_response'"):
        scgenot.pl.response(adata, key="genot_respons")
    with pytest.raises(ValueError, match="`groups` must be one of 'often', 'rare', got 'raer'"):
        scgenot.pl.response(adata, groups="raer")
    with pytest.raises(ValueError, match="`kind` must be one of"):
        scgenot.pl.response(adata, kind="volcano")
    with pytest.raises(ValueError, match="`axes` must hold 2 axes"):
        scgenot.pl.response(adata, axes=plt.subplots()[1])
    with pytest.raises(ValueError, match="of one condition"):
        scgenot.pl.response(adata, condition="A")
    unseen = adata[adata.obs["condition"] == "control"].copy()
    unseen.uns["genot_response"]["table"] = unseen.uns["genot_response"]["table"].assign(observed=np.nan)
    with pytest.raises(ValueError, match="nothing was observed of 'often', 'rare'"):
        scgenot.pl.response(unseen, kind="observed")
    screen, model = screened
    scgenot.tl.response(screen, model, conditions=["A", "B"], n_samples=2)
    with pytest.raises(ValueError, match="`condition` must be one of 'A', 'B'"):
        scgenot.pl.response(screen)
    assert len(scgenot.pl.response(screen, condition="B")) == 1
