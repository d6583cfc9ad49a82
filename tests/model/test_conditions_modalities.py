"""Conditions and matched strata between two modalities: columns of theirs, plans within strata, one model."""

import jax
import numpy as np
import pytest
from tests.conftest import BRIEF
from tests.model.modalities import FEW, SETUP, build, make_mdata
from tests.model.test_modalities import assert_untouched, snapshots

from scgenot import GENOT


def test_cells_are_matched_within_their_stratum_and_answer_in_their_context(tmp_path):
    mdata = make_mdata()
    model = build(mdata, setup={"context_keys": "half"})
    model.train(**BRIEF | FEW | {"validation_size": 0.0})
    assert list(model.conditions.index) == ["rna | even", "rna | odd"]
    assert model.conditions["cells"].tolist() == [25, 25]
    i, j = (
        np.asarray(rows).ravel() for rows in next(model.coupling_.pairs(jax.random.key(0), batch_size=512, steps=1))[:2]
    )
    halves = [mdata[name].obs["half"].to_numpy() for name in ("atac", "rna")]
    assert (halves[0][i] == halves[1][j]).all()
    assert set(halves[0][i]) == {"even", "odd"}
    # A cell's own half is the context that it is asked in, unless another is named.
    own, odd = model.sample(n_samples=2), np.flatnonzero(halves[0] == "odd")
    np.testing.assert_array_equal(model.sample(n_samples=2, conditions="rna | even"), own[halves[0] == "even"])
    elsewhere = model.sample(n_samples=2, indices=odd, conditions="rna | even")
    assert (elsewhere != own[odd]).all()
    model.save(tmp_path / "kept")
    np.testing.assert_array_equal(GENOT.load(tmp_path / "kept", mdata).sample(n_samples=2), own)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"match_keys": "donor"}, KeyError, r"`match_keys`='donor'.*obs"),
        ({"match_keys": "name"}, ValueError, r"the stratum name='.*1 treated cells and 0 controls"),
        (
            {"match_keys": "half", "source_distances": "far"},
            ValueError,
            "`source_distances`='far'.*Leave the costs out",
        ),
        (
            {"condition_keys": {"dose": ("dose",)}},
            ValueError,
            "50 target cells have no perturbation.*are empty or have a dose of 0",
        ),
        (
            {"condition_reps": {"kind": "vectors"}},
            ValueError,
            "`condition_reps` has 'kind', which is no covariate and no context",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(changed, error, message):
    mdata = make_mdata()
    for one in mdata.mod.values():
        one.obs["name"], one.obs["dose"] = one.obs_names, 0.0
    before = snapshots(mdata)
    with pytest.raises(error, match=message):
        GENOT.setup_mudata(mdata, **SETUP | changed)
    assert_untouched(mdata, before, [name for name in mdata.uns if name.startswith("_scvi")])
