# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Across modalities: which transcriptome goes with this chromatin?
#
# An ATAC cell has peaks, an RNA cell has genes. No distance between the two exists, and usually no cell was measured twice.
# What can be compared is the *shape* of the two populations: cells that are close in one space should go to cells that
# are close in the other. That is a quadratic (Gromov-Wasserstein) problem.
#
# SNARE-seq measured both in the same 1047 cells of four cell lines (Chen, Lake and Zhang, 2019). So the truth is known: we
# hide it from the model, and use it to score. The files are those of
# [SCOT](https://github.com/rsinghlab/SCOT), fetched once: 19 topics of ATAC, 10 principal components of RNA. `scgenot demo` does the same with cells
# that ship with scanpy, without a download.

# %%
import warnings

import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

import scgenot

if hasattr(mudata, "set_options"):  # before version 0.4
    mudata.set_options(pull_on_update=False)
modalities = {name: scgenot.datasets.snareseq(name) for name in ("atac", "rna")}
for name, one in modalities.items():
    one.var_names = [f"{name} {k}" for k in range(one.n_vars)]
    # Each cell scaled to length 1: depth says nothing about the kind of a cell.
    one.obsm["X_rep"] = normalize(one.X).astype(np.float32)
modalities["atac"].obsm["X_pc"] = PCA(2, random_state=0).fit_transform(modalities["atac"].obsm["X_rep"])  # for pictures
cells = mudata.MuData(modalities)
cells

# %% [markdown]
# A fifth of the cells is held out from **both** sides. The model sees neither their ATAC nor their RNA profile.

# %%
rng = np.random.default_rng(0)
held = np.zeros(cells.n_obs, dtype=bool)
held[rng.choice(cells.n_obs, cells.n_obs // 5, replace=False)] = True


def subset(mask):
    return mudata.MuData({name: one[mask].copy() for name, one in cells.mod.items()})


train, test = subset(~held), subset(held)

# %% [markdown]
# ## Set up, train
#
# Cells count as unpaired, although both modalities name them alike. `problem="auto"` sees two spaces and takes the quadratic
# problem. (We train shortly here; `python -m benchmarks.modalities` in the repository has the figures of full trainings over
# several seeds.)

# %%
setup = {"source_modality": "atac", "target_modality": "rna", "source_rep": "X_rep", "target_rep": "X_rep"}
scgenot.GENOT.setup_mudata(train, **setup)
model = scgenot.GENOT(train, cost="euclidean")
model.train(max_steps=800, validation_size=0.0, progress_bar=False)
model

# %% [markdown]
# ## First question: was the coupling found?
#
# Quadratic problems have many local optima: a plan that is right up to a reflection looks almost as good as the right one.
# So the problem is solved from several starts. The summary has a row for each, best first.

# %%
columns = ["objective", "effective_targets", "iterations", "polished", "converged"]
model.coupling_summary()[columns]

# %% [markdown]
# How to read it:
#
# - `objective`: how badly distances are kept; lower is better, and no label is needed to see it. The lowest is used.
#   Starts that agree reached one optimum. Those far above it are bad starts: mirror images, or clusters swapped. If *all*
#   starts differ, or two different optima tie, the shape alone does not settle the matching.
# - `effective_targets`: over how many RNA cells the mass of one ATAC cell is spread. Compare with the number of cells and with
#   the size of the smallest group that you want to tell apart.
# - `polished`: the best few starts are followed until the plan stands still; `converged` says whether it did.
#
# Here the best two starts reached one optimum or nearly so, by different ways; the others that were followed to the end, up to a third above it, are
# bad ones, and those without an objective were given up early. Had only a bad one been tried, nothing would have told: there would be no lower objective to compare with.
#
# Convergence alone says little, too. With a much larger epsilon all is "converged", but a cell's mass is spread over more
# RNA cells than a cell line has. `tl.suggest_epsilon` scans that before a model is built (the page on choosing has its picture).

# %% [markdown]
# ## Held-out cells
#
# Two scores. **FOSCTTM**: the share of cells that lie closer to a prediction than its true partner; 0 is perfect, 0.5 is
# chance. **Label transfer**: how often the five nearest training RNA cells of a prediction vote for the right cell line.

# %%
truth = test["rna"].obsm["X_rep"]
lines = test["atac"].obs["cell_type"].astype(str)
known, known_lines = train["rna"].obsm["X_rep"], train["rna"].obs["cell_type"].astype(str)


def score(cells):
    return {
        "FOSCTTM": scgenot.metrics.foscttm(cells, truth),
        "label transfer": scgenot.metrics.label_transfer_accuracy(cells, lines, known, known_lines),
    }


found = model.summarize(test, n_samples=30, keep_samples=True)
scores = {
    "chance: any RNA cell": score(known[rng.integers(len(known), size=len(truth))]),
    "scgenot, mean": score(found.mean),
    "scgenot, one sample": score(found.samples[:, 0]),
    "the true partner": score(truth),
}
pd.DataFrame(scores).T.round(3)

# %% [markdown]
# Where laws are narrow, as here for most cells, mean and sample say the same. Use samples to ask about distributions, means to ask about cells.
#
# From left to right: ATAC cells by their cell line; where the model puts them among the RNA cells, which are pale and in the colour of *their* line, which
# the model has not seen; and how sure it is.

# %%
scgenot.tl.transport(cells, model, n_samples=30)
scgenot.pl.modalities(cells, color="cell_type", source_basis="X_pc")
plt.show()

# %% [markdown]
# ## Labels with probabilities
#
# Each sample asks its nearest RNA cells for their label. The probabilities say how much the samples of a cell disagree; here their means over the held-out
# cells of each line.

# %%
probabilities = model.get_label_probabilities(test, label_key="cell_type", target=train)
shares = probabilities.groupby(lines.to_numpy()).mean().round(2)
shares.assign(cells=lines.value_counts()).rename_axis(index="true cell line", columns="mean probability")

# %% [markdown]
# ## What the uncertainty means
#
# Cos-var is the variance of the angle between the samples of a cell and their mean. If it means something, cells with more of
# it should be further from their true partner.

# %%
error = np.linalg.norm(found.mean - truth, axis=1)
fifths = pd.qcut(found.cos_var, 5, labels=["surest", "2", "3", "4", "least sure"])
by_fifth = pd.DataFrame({"error": error, "right line": probabilities.idxmax(axis=1).to_numpy() == lines.to_numpy()})
print(f"rank correlation of uncertainty and error: {spearmanr(found.cos_var, error).statistic:.2f}")
by_fifth.groupby(fifths, observed=True).mean().round(3).assign(cells=fifths.value_counts())

# %%
fig, ax = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
for name in np.unique(lines):
    ax.scatter(found.cos_var[lines == name], error[lines == name], s=14, label=name)
ax.set(xlabel="uncertainty (cos-var)", ylabel="distance to the true partner", xscale="log")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# Two limits. The spread contains the blur that epsilon put there, so compare cells of one model, not models. And it does not
# contain the doubt about the matching as a whole: where the plan swaps two clusters, the model is wrong *and* sure of it.
# That is what the table of starts is for.
#
# ## Regions that hold what they say
#
# A law has regions: its most probable part that has 90 % of it, say. Nothing says that the *true partner* lies in nine of ten such regions. Known
# partners can: here those of two fifths of the held-out cells, on which the model was **not** trained. `tl.calibrate` learns from them how far out a region has to go.

# %%
known_ones = rng.permutation(test.n_obs)[: test.n_obs * 2 // 5]
unknown = np.setdiff1d(np.arange(test.n_obs), known_ones)
for one in test.mod.values():
    partner = pd.Series(None, index=one.obs_names, dtype=object)
    partner.iloc[known_ones] = one.obs["pair_id"].astype(str).iloc[known_ones]
    one.obs["known_partner"] = partner
scgenot.tl.calibrate(test, model, pairs_key="known_partner", score="neighbours")
scgenot.pl.calibration(test)
plt.show()

# %% [markdown]
# Below the diagonal, regions promise too much. The grey band is what so few known partners leave open. Do the calibrated regions hold for the other held-out cells,
# of which nothing was known?

# %%
raw = np.array([0.5, 0.8, 0.9])
asked = {"indices": unknown, "score": "neighbours"}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that raw regions are not calibrated is what this shows
    before = model.get_region_levels(truth[unknown, None], test, **asked)[:, 0]
calibration = test.uns["genot_calibration"]
after = model.get_region_levels(truth[unknown, None], test, **asked, calibration=calibration)[:, 0]
held_by = {name: [(found < level).mean() for level in raw] for name, found in (("raw", before), ("calibrated", after))}
pd.DataFrame(held_by, index=pd.Index(raw, name="level")).round(2).assign(cells=len(unknown))

# %% [markdown]
# Cells of training would not do in their place: the model knows them. Calibrated on the partners of a tenth of them, the 90 % regions held .82 of the held-out cells.
#
# ## When to use a fused problem
#
# If anything ties the two modalities, say so; it removes the ambiguity of shape alone:
#
# - `shared_rep`: features that both have, such as gene activities beside expression, or marker genes (see the tutorial on
#   space);
# - `pairs_key`: a few cells that were measured in both. Here we reveal 10 % of the training pairs.
#
# `alpha` is the weight of shape against these ties (0.5).

# %%
revealed = rng.choice(train.n_obs, train.n_obs // 10, replace=False)
for one in train.mod.values():
    partner = pd.Series(None, index=one.obs_names, dtype=object)
    partner.iloc[revealed] = one.obs["pair_id"].astype(str).iloc[revealed]
    one.obs["known_partner"] = partner
scgenot.GENOT.setup_mudata(train, **setup, pairs_key="known_partner")
fused = scgenot.GENOT(train, cost="euclidean")
fused.train(max_steps=800, validation_size=0.0, progress_bar=False)
pd.DataFrame(
    {"shape alone": score(found.mean), "10 % of pairs known": score(fused.get_transported_mean(test))}
).T.round(3)

# %% [markdown]
# Here shape alone had found the right optimum already, so the known pairs change little. They matter where the best starts
# disagree: where groups are alike in shape, or one can be mirrored onto another. The tutorial on space is such a case.
#
# ## The other direction
#
# `model.reverse()` trains RNA to ATAC on the same coupling, so that the two directions describe one plan.
