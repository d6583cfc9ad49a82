"""Conditional laws of pairs of drugs, doses and donors that training never saw, against the truth: cBW-UVP in %.

Six drugs. Of the 6 x 6 table, entry (i, j) is drug i at dose 1 with drug j at dose 2, or drug i alone at dose 3 if i = j. The six
neighbours on a ring, (1, 2), (2, 3), ... (6, 1), are left out in both orders, which leaves 24 of 36; each drug is seen in three
pairs. Unseen doses are 1.4 and 1.4 of pairs that were seen at (1, 2) and (2, 1). Three donors are seen, two are not. Every
population has cells of its own: no target cell belongs to a source cell. The ceiling is trained on all that the model is tested
on as well. Shifts are point masses at each cell: they cannot have the spread of a conditional law, so what they miss of it
counts, as it does in practice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd

from benchmarks.conditions import _models
from benchmarks.conditions._models import CONTROL, Training
from scgenot.datasets import ConditionalMixtureProblem, conditional_gaussian, conditional_mixture
from scgenot.metrics import bw_uvp, cbw_uvp

DRUGS, SEEN_DONORS, DONORS = 6, 3, 5
SETUP = {
    "population_key": "population",
    "source": CONTROL,
    "target": None,
    "condition_keys": {"drug": ("drug1", "drug2"), "dose": ("dose1", "dose2")},
    "match_keys": ("donor",),
}
Doses = dict[int, float]


def pairs() -> tuple[list[Doses], list[Doses]]:
    """Return the 24 conditions that are seen, and the 12 that are not."""
    entry = lambda i, j: {i: 3.0} if i == j else {i: 1.0, j: 2.0}
    table = list(itertools.product(range(DRUGS), repeat=2))
    neighbours = [(i, j) for i, j in table if (i - j) % DRUGS in (1, DRUGS - 1)]
    return [entry(*one) for one in table if one not in neighbours], [entry(*one) for one in neighbours]


def between() -> list[Doses]:
    """Return doses between those that are seen, of pairs that are seen."""
    return [
        {i: 1.4, j: 1.4} for i, j in itertools.combinations(range(DRUGS), 2) if (i - j) % DRUGS not in (1, DRUGS - 1)
    ]


def slots(doses: Doses) -> dict[str, object]:
    """Return the columns of a condition; an empty slot holds the name of the controls, and dose 0."""
    given = [*doses.items(), *[(None, 0.0)] * (2 - len(doses))]
    drugs = {f"drug{slot}": CONTROL if drug is None else f"drug{drug}" for slot, (drug, _) in enumerate(given, 1)}
    return drugs | {f"dose{slot}": dose for slot, (_, dose) in enumerate(given, 1)}


def populations(
    problem: ConditionalMixtureProblem, conditions: Sequence[Doses], donors: Sequence[int], cells: int, seed: int
) -> ad.AnnData:
    """Return untreated and treated cells of these donors; what is drawn for a condition does not depend on the others."""
    parts, columns = [], []
    for donor in donors:
        for number, doses in enumerate([{}, *conditions]):
            rng = np.random.default_rng([seed, donor, *np.round(10 * problem.doses(doses)).astype(int)])
            if number:
                parts.append(problem.sample_target(rng, cells, problem.doses(doses), donor))
            else:
                parts.append(problem.sample_source(rng, 4 * cells, donor))
            one = {"population": "treated" if number else CONTROL, "donor": f"donor{donor}"} | slots(doses)
            columns.append(pd.DataFrame([one] * len(parts[-1])))
    table = pd.concat(columns, ignore_index=True)
    return _models.adata_of(np.concatenate(parts), **{name: table[name].to_numpy() for name in table})


def mean_shifts(adata: ad.AnnData) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the shift of each (condition, donor) of an AnnData, and its columns."""
    cells, obs = adata.obsm["X_rep"], adata.obs
    control = {
        donor: cells[((obs["donor"] == donor) & (obs["population"] == CONTROL)).to_numpy()].mean(axis=0)
        for donor in obs["donor"].unique()
    }
    treated = obs[obs["population"] != CONTROL]
    groups = treated.groupby(["drug1", "dose1", "drug2", "dose2", "donor"], observed=True).indices
    rows = np.flatnonzero((obs["population"] != CONTROL).to_numpy())
    found = [cells[rows[own]].mean(axis=0) - control[name[-1]] for name, own in groups.items()]
    return np.array(found), pd.DataFrame(list(groups), columns=["drug1", "dose1", "drug2", "dose2", "donor"])


def strengths(columns: pd.DataFrame) -> np.ndarray:
    """Return log1p of doses by drug, one row a condition: the same scale as the truth's."""
    found = np.zeros((len(columns), DRUGS))
    for slot in ("1", "2"):
        for row, (drug, dose) in enumerate(zip(columns[f"drug{slot}"], columns[f"dose{slot}"], strict=True)):
            if drug != CONTROL:
                found[row, int(drug.removeprefix("drug"))] += np.log1p(dose)
    return found


def shift_baselines(shifts: np.ndarray, table: np.ndarray, doses: Doses) -> dict[str, np.ndarray]:
    """Return what is added to each cell: nothing, the mean of conditions that share a drug, and the additive fit.

    `table` holds the strengths of the conditions that were seen, whose shifts these are.
    """
    asked = strengths(pd.DataFrame([slots(doses)]))[0]
    design = np.column_stack([np.ones(len(table)), table])
    effects, *_ = np.linalg.lstsq(design, shifts, rcond=None)
    shared = (table[:, asked > 0] > 0).any(axis=1)
    return {
        "nothing": np.zeros(shifts.shape[1]),
        "mean shift": shifts[shared].mean(axis=0),
        "additive": np.concatenate([[1.0], asked]) @ effects,
    }


def measured(problem, models: dict, train: ad.AnnData, conditions, donor: int, options) -> pd.DataFrame:
    """Return sums over conditions, so that one that is easy does not count for more than it has."""
    n_cells, n_samples = (50, 50) if options.quick else (200, 200)
    rng = np.random.default_rng([17, donor])
    totals: dict[str, np.ndarray] = {}
    shifts, columns = mean_shifts(train)
    table = strengths(columns)
    for doses in conditions:
        vector = problem.doses(doses)
        x = problem.sample_source(rng, n_cells, donor).astype(np.float32)
        means, covs = problem.conditional_moments(x, vector)
        mean, cov = problem.target_moments(vector, donor)
        truth = problem.sample_conditional(rng, x, n_samples, vector)
        drawn = {"truth (floor)": truth}
        drawn["independent of the cell"] = problem.sample_target(rng, n_cells * n_samples, vector, donor).reshape(
            truth.shape
        )
        for name, shift in shift_baselines(shifts, table, doses).items():
            drawn[name] = np.repeat((x + shift)[:, None], n_samples, axis=1)
        query = pd.DataFrame([slots(doses)], index=["asked"])
        at = {"population": CONTROL, "donor": f"donor{donor}"} | slots({})
        cells = _models.adata_of(x, **{name: np.repeat(value, len(x)) for name, value in at.items()})
        for name, model in models.items():
            found = model.sample(cells, conditions=query, indices=np.arange(len(x)), n_samples=n_samples)
            drawn[name] = np.asarray(next(iter(found.values())))
        variance = float(np.trace(cov))
        for name, samples in drawn.items():
            # In units of variance, so that sums over conditions are one ratio in the end.
            whole = bw_uvp(samples.reshape(-1, samples.shape[-1]), mean, cov)
            own = variance * np.array([cbw_uvp(samples, means, covs, variance), whole])
            totals[name] = totals.get(name, 0) + np.append(own, variance)
    return {name: {"cBW-UVP": one[0] / one[2], "BW-UVP": one[1] / one[2]} for name, one in totals.items()}


def one_problem(name: str, problem, training: Training, options, seed: int) -> dict[str, pd.DataFrame]:
    seen, unseen = pairs()
    doses = between()
    cells = 60 if options.quick else 250
    # The truth is known at this epsilon, in raw units.
    training = replace(training, epsilon=problem.epsilon)
    train = populations(problem, seen, range(SEEN_DONORS), cells, seed)
    every = populations(problem, [*seen, *unseen, *doses], range(DONORS), cells, seed)
    models = {
        "GENOT": _models.fit(train, training, seed, setup=SETUP, scale_cost=1.0),
        "ceiling (seen)": _models.fit(every, training, seed, setup=SETUP, scale_cost=1.0),
    }
    asked = {
        "seen pairs": (seen, 0),
        "unseen pairs": (unseen, 0),
        "unseen doses": (doses, 0),
        "seen pairs, unseen donor": (seen, SEEN_DONORS),
        "unseen pairs, unseen donor": (unseen, SEEN_DONORS + 1),
    }
    if options.quick:
        asked = {what: (conditions[:2], donor) for what, (conditions, donor) in asked.items()}
    found = {}
    for what, (conditions, donor) in asked.items():
        scores = measured(problem, models, train, conditions, donor, options)
        table = pd.DataFrame(scores).T
        table["cBW-UVP / ceiling's"] = table["cBW-UVP"] / table.loc["ceiling (seen)", "cBW-UVP"]
        table["cBW-UVP / mean shift's"] = table["cBW-UVP"] / table.loc["mean shift", "cBW-UVP"]
        found[what] = table
    joined = pd.concat(found, names=["asked", "prediction"])
    return {f"simulated, {name}, seed {seed}: % of the target's variance": joined}


def run(options) -> dict[str, pd.DataFrame]:
    dims = [2] if options.quick else [8, 16]
    problems = {f"mixture, D = {d}": conditional_mixture(d, n_drugs=DRUGS, n_donors=DONORS) for d in dims}
    if not options.quick:
        problems[f"additive, D = {dims[0]}"] = conditional_gaussian(dims[0], n_drugs=DRUGS, n_donors=DONORS)
    tables = {}
    for seed in options.seeds:
        for name, problem in problems.items():
            tables |= one_problem(name, problem, options.training, options, seed)
    return tables
