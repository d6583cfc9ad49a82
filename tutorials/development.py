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
# # Development: what becomes of a cell, where it came from, and which cells grow
#
# Weinreb et al. (2020) put a barcode into blood progenitors, let them divide, and sequenced some of the culture on days 2,
# 4 and 6. Cells with the same barcode are one clone, so a cell that was sequenced on day 4 has sisters on day 6: they show
# what it would have become. This notebook learns all three days in one model, without looking at the barcodes, and then asks them.
#
# You need an AnnData with the times in one column of `obs`, and a representation of all cells in `obsm`. Here: 781
# cells, 50 principal components.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.neighbors import NearestNeighbors

import scgenot

adata = scgenot.datasets.larry()
adata.obs["day"] = adata.obs["time"].astype(int)
pd.crosstab(adata.obs["cell_type"], adata.obs["day"])

# %%
fig, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
sc.pl.embedding(adata, "X_emb", color="day", ax=axes[0], show=False, frameon=False)
sc.pl.embedding(adata, "X_emb", color="cell_type", ax=axes[1], show=False, frameon=False)
plt.show()

# %% [markdown]
# ## How strictly must all cells be used?
#
# Some cells divide more than others between two days, and some die. A balanced plan knows nothing of that: every cell
# of day 4 sends the same mass and every cell of day 6 gets the same. `tau` below 1 lets marginals give way, and the lower it
# is, the more. How low may it be? `suggest_tau` splits each of two days into two random halves, which have nothing to lose to each
# other, and takes the lowest tau at which they still exchange 90 % of their mass. `epsilon`, the blur of the plan, is the
# largest at which a cell reaches at most one in twenty cells. It looks at no label; `label_key` only adds the panel on the
# right.

# %%
scgenot.tl.suggest_tau(adata, population_key="day", source=4, target=6, source_rep="X_pca", label_key="cell_type")
suggested = adata.uns["genot_taus"]
scgenot.pl.tau_scan(adata)
plt.show()
print(suggested["why"])

# %% [markdown]
# Left: transported mass, and dotted what halves of one day keep. A gap between the two would be cells without any
# counterpart. Here there is hardly one: day 6 has all types of day 4, in other proportions. So expect growth to be
# mild, and nothing to be left behind altogether. Middle: among how many cells the mass of one cell is spread. Right: how much mass stays within a cell type. (Cells
# that differentiate *should* leave theirs, so here more is not always better.)
#
# ## One model for all days
#
# With `time_key`, each day has a plan to the next one, and one network that knows the step learns both. `model.conditions` has one row a
# step; `converged` should be true, and `mass` is what the plan carries of all mass.

# %%
scgenot.GENOT.setup_anndata(adata, time_key="day", source_rep="X_pca")
tau = suggested["tau"]
model = scgenot.GENOT(adata, epsilon=suggested["epsilon"], tau_source=tau, tau_target=tau)
model.train(max_steps=1500, validation_size=0.0, progress_bar=False)
model.conditions

# %% [markdown]
# ## Fates
#
# Each sample of a cell goes through the days one after another and asks its nearest day 6 cells what they are. `tl.fates` writes the
# probability of each type to `obsm`, the most probable one and its entropy to `obs`.

# %%
scgenot.tl.fates(adata, model, "cell_type", until=6)
sc.pl.embedding(
    adata[adata.obs["day"] < 6], "X_emb", color=["genot_fates", "genot_fates_entropy"], frameon=False, wspace=0.4
)

# %% [markdown]
# By the type that a day 4 cell has already: most keep it. Groups of fewer than ten cells are grey.

# %%
early = adata[adata.obs["day"] == 4].copy()
scgenot.pl.fates(early, groupby="cell_type")
plt.show()

# %% [markdown]
# And all groups over all days. Bars are what was measured; bands are what goes from one to another.

# %%
scgenot.pl.sankey(adata, model, "cell_type", min_share=0.02)
plt.show()

# %% [markdown]
# ## Clones as truth
#
# For the cells of day 4 that have sisters on day 6: which share of their mass lands on the types of their sisters? Next to
# it, what one gets without any knowledge (the composition of day 6 for every cell). Many cells are undifferentiated on both
# days, which is easy; "decided" is the mass on differentiated cells alone. (These cells were trained on, their clones were not; the page
# *Time courses* has the figures for clones that were left out, next to the discrete plan.)

# %%
day = adata.obs["day"]
sisters = pd.crosstab(adata.obs["clone"][day == 6], adata.obs["cell_type"][day == 6])
composition = adata.obs["cell_type"][day == 6].value_counts(normalize=True)


def on_own_fates(cells, types):
    """Share of the mass on `types` that lands among the types of a cell's sisters: of the model, and of the composition of day 6."""
    own = sisters.loc[adata.obs.loc[cells, "clone"], types].gt(0).to_numpy()
    some = own.any(axis=1)
    shares = adata.obsm["genot_fates"].loc[cells, types].to_numpy()[some]
    everywhere = np.broadcast_to(composition[types].to_numpy(), shares.shape)
    return [(one * own[some]).sum() / one.sum() for one in (shares, everywhere)]


rows = {}
for start in (4, 2):
    cells = adata.obs_names[(day == start) & adata.obs["clone"].isin(sisters.index)]
    for name, types in {
        "all fates": list(sisters.columns),
        "decided": [one for one in sisters.columns if one != "undiff"],
    }.items():
        rows[f"from day {start} ({len(cells)} cells), {name}"] = on_own_fates(cells, types)
pd.DataFrame(rows, index=["scgenot", "composition of day 6"]).T.round(2)

# %% [markdown]
# From day 4 the model knows most fates. From day 2 it hardly knows more than the composition: almost all cells of day 2 look alike, and a
# dozen of them with sisters cannot tell whether that is the cells or the model.
#
# ## Ancestors
#
# `model.reverse()` trains the way back on the same plans. Which types of day 4 do the cells of day 6 come from?

# %%
backward = model.reverse(max_steps=1500, progress_bar=False)
scgenot.tl.ancestors(adata, backward, "cell_type", since=4, indices=np.flatnonzero(day == 6))
late = adata[day == 6].copy()
scgenot.pl.fates(late, key="genot_ancestors", groupby="cell_type")
plt.show()

# %% [markdown]
# ## Growth
#
# Two small networks beside the velocity field learn how much mass a cell sends and gets. `tl.transport` writes `obs["genot_growth"]`: the
# mass that a cell sends per unit of the mass that it was given. The figure
# shows its logarithm to base 2, of day 4. 0 is a cell that was used as it is; -1 one that sends half its mass, because few cells of
# day 6 are like it: it dies, is diluted by faster ones, or was missed by sampling. The numbers compare cells of one
# model. They are no division rates: how far they may move away from 0 is set by tau, and at a tau of 0.99 that is not far.
# Mast cells, for example, go from 3 % of the cells to 8 %, which would be 1.5 on this scale.

# %%
scgenot.tl.transport(adata, model, indices=np.flatnonzero(day == 4), n_samples=30)
scgenot.pl.growth(adata, basis="X_emb", groupby="cell_type")
plt.show()

# %% [markdown]
# The order is what to read: types whose shares rise are at the top, those whose shares fall at the bottom.
#
# ## Cells in between
#
# Day 5 was not measured. A cell of day 4 and a sample of where it is on day 6 are joined by a line; cells in between lie half way. Which
# measured cells do they look like? (Cells in between two types look like either; they scatter less than measured cells.)

# %%
between = scgenot.tl.interpolate(adata, model, 5)
nearest = NearestNeighbors(n_neighbors=1).fit(adata.obsm["X_pca"])
looks_like = adata.obs["cell_type"].to_numpy()[nearest.kneighbors(between.obsm["X_pca"], return_distance=False)[:, 0]]
types = {
    "day 4": adata.obs["cell_type"][day == 4],
    "day 5, interpolated": looks_like,
    "day 6": adata.obs["cell_type"][day == 6],
}
shares = pd.DataFrame({name: pd.Series(some).value_counts(normalize=True) for name, some in types.items()}).fillna(0)
shares[shares.max(axis=1) > 0.02].round(2)

# %% [markdown]
# ## What to beware of
#
# - **One lineage, without memory.** Steps are composed as if where a cell goes depended on where it is and not on where it came from. Snapshots
#   cannot tell otherwise; clones can.
# - **Probabilities are too sure.** On clones that were left out, the model is right about as often as the discrete plan's neighbours, but real clones
#   disperse more than its probabilities say (page *Time courses*).
# - **Growth** means *more than the other cells of this sample, as far as tau allows*. Cells that were lost in sampling look the
#   same as cells that died. `tl.growth_priors` brings what is known of division and death into the plans.
# - A type that turns into another one and a type that dies while the other one grows look alike. Clones can tell them
#   apart; two snapshots cannot.
# - `scgenot.tl.couplings` hands the plans to CellRank's `RealTimeKernel`.
