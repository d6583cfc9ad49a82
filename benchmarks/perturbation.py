"""Control to stimulated blood cells (Kang et al. 2018): held-out cells, and cell types that training never saw.

Energy distances to held-out stimulated cells, in % of the distance that doing nothing leaves. Held-out populations are
small (about 190 and 210 cells), and the usual estimate (V-statistic) counts their sampling noise as distance: even
training cells of the right population have 1.5 %. So the unbiased estimate (U-statistic) is given first, and the
V-statistic beside it. Each of ten draws takes one sample for each control, so that the transported cells are as many
and as independent as the controls are; figures are means over the draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd

import scgenot
from benchmarks._common import data, parser, report
from benchmarks._tables import Table, from_columns
from scgenot.metrics import energy_distance

KEY, SOURCE, TARGET = "condition", "control", "stimulated"
DRAWS = 10


def cells(adata, condition: str) -> np.ndarray:
    return adata.obsm["X_pca"][(adata.obs[KEY] == condition).to_numpy()]


def trained(train, options, rng: int) -> scgenot.GENOT:
    scgenot.GENOT.setup_anndata(train, population_key=KEY, source=SOURCE, target=TARGET, source_rep="X_pca")
    model = scgenot.GENOT(train)
    model.train(max_steps=options.max_steps, validation_size=0.0, progress_bar=False, rng=rng)
    return model


def compare(train, test, model) -> dict[str, float]:
    """Score transported test controls next to the baselines."""
    source, truth = cells(test, SOURCE), cells(test, TARGET)
    shift = cells(train, TARGET).mean(axis=0) - cells(train, SOURCE).mean(axis=0)
    samples = model.sample(test, n_samples=DRAWS)
    candidates = {
        "scgenot": [samples[:, draw] for draw in range(DRAWS)],
        "mean shift": [source + shift],
        "training target (floor)": [cells(train, TARGET)],
        "nothing": [source],
    }
    row = {}
    for suffix, unbiased in (("", True), (" (V)", False)):
        distances = {
            name: np.mean([energy_distance(x, truth, unbiased=unbiased) for x in drawn])
            for name, drawn in candidates.items()
        }
        nothing = distances.pop("nothing")
        row |= {f"{name}{suffix}": 100 * value / nothing for name, value in distances.items()}
    return row | {"controls": len(source), "stimulated": len(truth)}


def held_out(adata, options) -> pd.DataFrame:
    """Hold out 20 % of both populations, several times."""
    rows = {}
    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        test = np.zeros(adata.n_obs, dtype=bool)
        for condition in (SOURCE, TARGET):
            population = np.flatnonzero(adata.obs[KEY] == condition)
            test[rng.choice(population, round(0.2 * len(population)), replace=False)] = True
        train, left = adata[~test].copy(), adata[test].copy()
        rows[f"seed {seed}"] = compare(train, left, trained(train, options, seed))
    table = pd.DataFrame(rows).T
    table.loc["mean"] = table.mean()
    return table.rename_axis("20 % held out")


def left_out_types(adata, options, rng: int = 0, most: int | None = None) -> pd.DataFrame:
    """Leave each cell type out of training, in turn; or the first ones."""
    rows = {}
    for name in sorted(adata.obs["cell_type"].unique())[:most]:
        of_type = (adata.obs["cell_type"] == name).to_numpy()
        train, left = adata[~of_type].copy(), adata[of_type].copy()
        row = compare(train, left, trained(train, options, rng))
        # The training cells of the target are other types here: no floor.
        rows[name] = {key: value for key, value in row.items() if "floor" not in key}
    return pd.DataFrame(rows).T.rename_axis("type left out")


UNIT = "energy distance to held-out stimulated cells, % of doing nothing"


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness."""
    options = SimpleNamespace(seeds=[seed], max_steps=100 if quick else None)
    adata = data("kang_ifnb_pbmc")
    roles = {"scgenot": "solver", "mean shift": "baseline", "nothing": "baseline"}
    found = held_out(adata, options).drop(index="mean").rename(index={f"seed {seed}": "a fifth"})
    both = {"training target (floor)": "floor"} | roles
    yield from_columns(found.assign(nothing=100.0), "Kang, held-out cells", UNIT, both)
    found = left_out_types(adata, options, seed, 1 if quick else None)
    yield from_columns(
        found.assign(nothing=100.0),
        "Kang, unseen cell types",
        UNIT,
        roles,
        no_floor="treated training cells are of other types here; with the unbiased estimate the truth itself has 0",
    )


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--max-steps", type=int, default=None, help="the model's default if not given")
    arguments.add_argument("--no-types", action="store_true", help="skip the cell types left out")
    options = arguments.parse_args()
    adata = data("kang_ifnb_pbmc")
    options.seeds = range(options.seeds)
    report(held_out(adata, options), f"Kang, {UNIT}", options.json)
    if not options.no_types:
        report(left_out_types(adata, options), f"Kang, unseen cell types, {UNIT}", options.json)


if __name__ == "__main__":
    main()
