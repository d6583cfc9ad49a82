"""Back to genes: predicted changes of held-out cells by type (Kang), and a held-out patient through an scVI latent space (GBM).

Kang: a fifth of both populations is held out. Changes are differences of mean log-normalised expression in the 2000 genes of the PCA. Of
each cell type: Pearson correlation with the observed change (against control: how the type responds; against the mean treated cell of
training: what is its own), how many of the 100 genes that change most are found, the summed variance of decoded cells as a share of that of
measured treated cells, and which share of genes the 90 % intervals of `tl.response` hold. Beside: the mean shift of all training cells, that of
training cells of the type (a replicate of five times the cells, which knows the labels), halves of the held-out cells, and what a perfect
prediction would reach given these. Splits 0 to 2 served for the one choice (which variance of target cells); figures are of splits 5 to 9.

GBM: raw counts of 300 genes of 5 patients. Of each patient in turn an SCVI and a GENOT in its latent space are trained on the other four.
Energy distances (unbiased) to the treated cells in percent of doing nothing, and the correlation of decoded with measured changes, of
log1p(10,000 counts / cell's counts). `decoded observed` is the decoder's own limit: the change of treated cells that are encoded and decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import scgenot
from benchmarks._common import data, parser, report
from benchmarks._tables import Row, Table, from_names
from benchmarks.perturbation import KEY, SOURCE, TARGET, trained
from scgenot.flow import FlowConfig
from scgenot.metrics import energy_distance

CELL_TYPE, TOP, DRAWS = "cell_type", 100, 10


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return len({*np.argsort(-np.abs(one))[:TOP]} & {*np.argsort(-np.abs(other))[:TOP]}) / TOP


def perfect(halves: float) -> float:
    """Return the correlation that the truth itself would have, from that of two halves (Spearman and Brown)."""
    return float(np.sqrt(2 * halves / (1 + halves))) if halves > 0 else np.nan


def split(adata, seed: int):
    """Hold out a fifth of both populations, as `benchmarks.perturbation` does."""
    rng = np.random.default_rng(seed)
    test = np.zeros(adata.n_obs, dtype=bool)
    for condition in (SOURCE, TARGET):
        population = np.flatnonzero(adata.obs[KEY] == condition)
        test[rng.choice(population, round(0.2 * len(population)), replace=False)] = True
    return adata[~test].copy(), adata[test].copy()


def model_of(train, options, seed: int) -> scgenot.GENOT:
    """Train a model, or take one that an earlier run kept."""
    path = None if options.models is None else options.models / f"model{seed}"
    if path is not None and path.exists():
        return scgenot.GENOT.load(path, adata=False)
    model = trained(train, options, seed)
    if path is not None:
        model.save(path)
    return model


def by_type(adata, options, seed: int) -> pd.DataFrame:
    train, left = split(adata, seed)
    model = model_of(train, options, seed)
    table = scgenot.tl.response(left, model, groupby=CELL_TYPE)
    plain, full = (
        scgenot.tl.decode(left, model, decoder=scgenot.tl.PCDecoder(reference=train), residual=residual)
        for residual in (None, "source")
    )
    genes = plain.var_names
    measured = {name: one[:, genes].to_df() for name, one in (("train", train), ("left", left))}
    means = {name: frame.groupby([one.obs[KEY], one.obs[CELL_TYPE]], observed=True).mean() for (name, frame), one in zip(measured.items(), (train, left), strict=True)}  # fmt: skip
    treated = measured["train"][train.obs[KEY] == TARGET].mean()
    shift = treated - measured["train"][train.obs[KEY] == SOURCE].mean()
    rows = {}
    for name, part in table.groupby("group", observed=True):
        part = part.set_index("names").loc[genes]
        before, after = (means["left"].loc[(condition, name)] for condition in (SOURCE, TARGET))
        of_type = means["train"].loc[(TARGET, name)] - means["train"].loc[(SOURCE, name)]
        row = {"cells": part["cells"].iloc[0], "observed cells": part["observed_cells"].iloc[0]}
        candidates = {"scgenot": part["change"], "shift": shift, "type's shift": of_type}
        observed = after - before
        for label, change in candidates.items():
            row[f"r, {label}"] = correlation(change, observed)
        row["r, halves"] = correlation(part["half_1"], part["half_2"])
        row["r, perfect"] = perfect(row["r, halves"])
        for label, change in candidates.items():
            row[f"r to treated, {label}"] = correlation(before + change - treated, after - treated)
        for label, change in candidates.items():
            row[f"top, {label}"] = overlap(change, observed)
        row["top, halves"] = overlap(part["half_1"], part["half_2"])
        there = left[((left.obs[KEY] == TARGET) & (left.obs[CELL_TYPE] == name)).to_numpy(), genes].to_df().var().sum()
        for label, cells in (("PCs", plain), ("with residual", full)):
            here = cells[(cells.obs[CELL_TYPE] == name).to_numpy()]
            row[f"variance, {label}"] = here.to_df().var().sum() / there
        controls = measured["left"][((left.obs[KEY] == SOURCE) & (left.obs[CELL_TYPE] == name)).to_numpy()]
        row["variance, controls"] = controls.var().sum() / there
        row["held by expected"] = part["observed"].between(part["expected_lower"], part["expected_upper"]).mean()
        row["held by lower, upper"] = part["observed"].between(part["lower"], part["upper"]).mean()
        rows[name] = row
    return pd.DataFrame(rows).T


def kang(adata, options) -> pd.DataFrame:
    parts = [by_type(adata, options, seed) for seed in range(options.first_seed, options.first_seed + options.seeds)]
    table = pd.concat(parts).groupby(level=0).mean()
    table.loc["mean"] = table.mean()
    if len(parts) > 1:
        table.loc["sd of splits"] = np.std([part.mean() for part in parts], axis=0, ddof=1)
    return table.T.rename_axis("by type")


def with_latent(train, left, options, seed: int):
    """Train an SCVI on the counts of `train`, and write its latent space into both."""
    import scvi

    scvi.settings.seed = seed
    own = train.copy()
    scvi.model.SCVI.setup_anndata(own, layer="counts")
    vae = scvi.model.SCVI(own, n_latent=10)
    vae.train(max_epochs=options.epochs, accelerator="cpu", enable_progress_bar=False, logger=False)
    train.obsm["X_scVI"] = vae.get_latent_representation()
    left.obsm["X_scVI"] = vae.get_latent_representation(left.copy())
    return vae


def normalized(adata) -> np.ndarray:
    counts = adata.layers["counts"].toarray()
    return np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def round_trip(adata, patient: str, options) -> dict[str, float]:
    train, left = (adata[(adata.obs["patient"] == patient).to_numpy() == out].copy() for out in (False, True))
    vae = with_latent(train, left, options, 0)
    names = {"source": "ctrl", "target": "panobinostat"}
    scgenot.GENOT.setup_anndata(train, population_key=KEY, source_rep="X_scVI", **names)
    # Flows that start at the source cell predicted this set's unseen patients better in PCs: docs/conditions.md.
    model = scgenot.GENOT(train, flow_config=FlowConfig(start="source"))
    model.train(max_steps=options.gbm_steps, validation_size=0.0, progress_bar=False, rng=0)
    places = {name: {one: cells.obsm["X_scVI"][(cells.obs[KEY] == category).to_numpy()] for one, category in names.items()} for name, cells in (("train", train), ("left", left))}  # fmt: skip
    source, truth = places["left"]["source"], places["left"]["target"]
    mixed = np.random.default_rng(0).permutation(truth)
    half = len(mixed) // 2
    samples = model.sample(left, n_samples=DRAWS)
    shift = places["train"]["target"].mean(axis=0) - places["train"]["source"].mean(axis=0)
    distance = lambda one, other=truth: energy_distance(one, other, unbiased=True)
    nothing = distance(source)
    row = {"E, scgenot": np.mean([distance(samples[:, draw]) for draw in range(DRAWS)]) / nothing}
    row |= {"E, mean shift": distance(source + shift) / nothing, "E, other patients": distance(places["train"]["target"]) / nothing}  # fmt: skip
    row["E, halves"] = distance(mixed[:half], mixed[half:]) / nothing
    row = {name: 100 * value for name, value in row.items()}

    means = {name: {one: normalized(cells)[(cells.obs[KEY] == category).to_numpy()].mean(axis=0) for one, category in names.items()} for name, cells in (("train", train), ("left", left))}  # fmt: skip
    before, after, treated = means["left"]["source"], means["left"]["target"], means["train"]["target"]
    table = scgenot.tl.response(left, model, decoder=vae).set_index("names").loc[left.var_names]
    candidates = {
        "scgenot": table["change"].to_numpy(),
        "mean shift": treated - means["train"]["source"],
        "decoded observed": table["observed"].to_numpy(),
    }
    for label, change in candidates.items():
        row[f"r, {label}"] = correlation(change, after - before)
    cells = normalized(left)
    halves = []
    rows = {one: np.random.default_rng(1).permutation(np.flatnonzero(left.obs[KEY] == category)) for one, category in names.items()}  # fmt: skip
    for part in (slice(None, None, 2), slice(1, None, 2)):
        halves.append(cells[rows["target"][part]].mean(axis=0) - cells[rows["source"][part]].mean(axis=0))
    row["r, halves"] = correlation(*halves)
    for label, change in (candidates | {"nothing": np.zeros(len(before))}).items():
        row[f"r to treated, {label}"] = correlation(before + change - treated, after - treated)
    row["held by expected"] = table["observed"].between(table["expected_lower"], table["expected_upper"]).mean()
    return row


def gbm(adata, options) -> pd.DataFrame:
    patients = sorted(adata.obs["patient"].unique())[: options.patients]
    rows = {}
    for patient in patients:
        rows[patient] = round_trip(adata, patient, options)
        if not options.json:
            # It takes minutes: what is known already is shown.
            print(
                f"{patient}: " + ", ".join(f"{name} {value:.3g}" for name, value in rows[patient].items()), flush=True
            )
    table = pd.DataFrame(rows)
    table["mean"] = table.mean(axis=1)
    return table.rename_axis("patient held out")


def options_of(words: list[str] | None = None):
    """Return what the command line says; an empty list: the defaults."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--first-seed", type=int, default=5, help="0 to 2 served for a choice")
    arguments.add_argument("--seeds", type=int, default=5, help="splits of Kang; 0 to skip it")
    arguments.add_argument("--max-steps", type=int, default=None, help="of Kang models; the default if not given")
    arguments.add_argument(
        "--models", type=Path, default=None, help="folder to keep Kang models in, and to take them from"
    )
    arguments.add_argument("--patients", type=int, default=5, help="how many to hold out in turn; 0 to skip")
    arguments.add_argument("--epochs", type=int, default=40, help="of SCVI")
    arguments.add_argument("--gbm-steps", type=int, default=500, help="of GENOT in the latent space")
    return arguments.parse_args(words)


_KANG = {"perfect": "floor", "halves": "reference", "shift": "baseline", "type's shift": "baseline"}
_GBM = {"halves": "floor", "decoded observed": "reference"}
_GBM |= dict.fromkeys(("mean shift", "other patients", "nothing"), "baseline")


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness; splits begin with 5, since 0 to 2 served for a choice."""
    small = "--max-steps 100 --epochs 2 --gbm-steps 50" if quick else ""
    options = options_of([*small.split(), "--first-seed", str(seed + 5), "--seeds", "1", "--json"])
    found = kang(data("kang_ifnb_pbmc"), options)["mean"].to_dict()
    title = "Kang, changes of held-out cells in 2000 genes, mean over types"
    note = "Of 'top', the share of the 100 genes that change most"
    yield from_names(found, title, ["r", "r to treated", "top"], _KANG, note=note)
    spread = {name.removeprefix("variance, "): value for name, value in found.items() if name.startswith("variance")}
    roles = {"controls": "baseline"}
    yield Table(
        "Kang, variance of decoded cells",
        [
            Row({"cells": name}, {"of the treated cells'": value}, roles.get(name, "solver"))
            for name, value in spread.items()
        ],
        no_floor="1: as much as treated cells have",
    )
    yield Table(
        "Kang, genes within 90 % intervals",
        [Row({"interval": name}, {"share": found[f"held by {name}"]}) for name in ("expected", "lower, upper")],
        no_floor=".9, the level itself",
        no_baseline="an interval of any width can hold 90 %",
    )
    options.patients = 1 if quick else options.patients
    found = gbm(data("gbm_panobinostat"), options)["mean"].to_dict()
    yield from_names(found, "GBM, SCVI round trip of a held-out patient", ["E", "r", "r to treated"], _GBM)


def main() -> None:
    options = options_of()
    if options.seeds:
        report(kang(data("kang_ifnb_pbmc"), options), "Kang, changes of held-out cells in 2000 genes", options.json)
    if options.patients:
        report(gbm(data("gbm_panobinostat"), options), "GBM, SCVI round trip of a held-out patient", options.json)


if __name__ == "__main__":
    main()
