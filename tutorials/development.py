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
# # Development: which cells grow, and what becomes of them
#
# Weinreb et al. (2020) put a barcode into blood progenitors, let them divide, and sequenced some of the culture on days 2,
# 4 and 6. Cells with the same barcode are one clone, so a cell that was sequenced on day 4 has sisters on day 6: they show
# what it would have become. This notebook learns fates and growth without looking at the barcodes, and then asks them.
#
# You need an AnnData with the time points in one column of `obs`, and a representation of all cells in `obsm`. Here: 781
# cells, 50 principal components.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.stats import spearmanr

import scgenot

adata = scgenot.datasets.larry()
adata.obs["day"] = adata.obs["time"].astype(int).astype(str).astype("category")
pd.crosstab(adata.obs["cell_type"], adata.obs["day"])

# %%
fig, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
sc.pl.embedding(adata, "X_emb", color="day", ax=axes[0], show=False, frameon=False)
sc.pl.embedding(adata, "X_emb", color="cell_type", ax=axes[1], show=False, frameon=False)
plt.show()

# %% [markdown]
# ## How strictly must all cells be used?
#
# Some cells divide more than others between the two days, and some die. A balanced plan knows nothing of that: every cell
# of day 4 sends the same mass and every cell of day 6 gets the same. `tau` below 1 lets marginals give way, and the lower it
# is, the more. How low may it be? `suggest_tau` splits each day into two random halves, which have nothing to lose to each
# other, and takes the lowest tau at which they still exchange 90 % of their mass. `epsilon`, the blur of the plan, is the
# largest at which a cell reaches at most one in twenty cells. It looks at no label; `label_key` only adds the panel on the
# right.

# %%
days = {"population_key": "day", "source": "4", "target": "6", "source_rep": "X_pca"}
scgenot.tl.suggest_tau(adata, **days, label_key="cell_type")
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
# ## Set up, train
#
# Beside the velocity field, two small networks learn how much mass a cell sends (`eta`, of day 4 cells) and gets (`xi`, of
# day 6 cells).

# %%
scgenot.GENOT.setup_anndata(adata, **days)
tau = suggested["tau"]
model = scgenot.GENOT(adata, epsilon=suggested["epsilon"], tau_source=tau, tau_target=tau)
model.train(max_steps=1500, validation_size=0.0, progress_bar=False)
model.coupling_summary().T

# %% [markdown]
# `mass` is what the plan carries of all mass, `converged` should be true.
#
# ## Growth
#
# `tl.transport` writes `obs["genot_growth"]`: the mass that a cell sends per unit of the mass that it was given. The figure
# shows its logarithm to base 2. 0 is a cell that was used as it is; -1 one that sends half its mass, because few cells of
# day 6 are like it: it dies, is diluted by faster ones, or was missed by sampling. The numbers compare cells of one
# model. They are no division rates: how far they may move away from 0 is set by tau, and at a tau of 0.99 that is not far.
# Mast cells, for example, go from 3 % of the cells to 8 %, which would be 1.5 on this scale.

# %%
scgenot.tl.transport(adata, model, n_samples=30)
scgenot.pl.growth(adata, basis="X_emb", groupby="cell_type")
plt.show()

# %% [markdown]
# The order is what to read: mast cells, megakaryocytes and basophils, whose shares rise, are at the top; plasmacytoid
# dendritic cells and monocytes, whose shares fall, at the bottom.
#
# ## Fates
#
# Each sample of a day 4 cell asks its nearest day 6 cells what they are. `tl.transitions` averages that over the cells of
# a type, each weighted by the mass that it sends. A row says what becomes of a type.

# %%
scgenot.tl.transitions(adata, model, "cell_type")
scgenot.pl.transitions(adata)
plt.show()

# %% [markdown]
# The same for single cells: probabilities in `obsm`, the most probable fate and the entropy of the fates in `obs`.

# %%
scgenot.tl.transfer_labels(adata, model, "cell_type", key_added="fate")
sc.pl.embedding(adata, "X_emb", color=["fate", "fate_entropy"], frameon=False, wspace=0.4)

# %% [markdown]
# ## Clones as truth
#
# For the cells of day 4 that have sisters on day 6: which share of their mass lands on the types of their sisters? Next to
# it, what one gets without any knowledge (the composition of day 6 for every cell). Many cells are undifferentiated on both
# days, which is easy; "decided" is the mass on differentiated cells alone.

# %%
early, late = adata.obs["day"] == "4", adata.obs["day"] == "6"
sisters = pd.crosstab(adata.obs["clone"][late], adata.obs["cell_type"][late])
with_sisters = adata.obs_names[early & adata.obs["clone"].isin(sisters.index)]
own = sisters.loc[adata.obs.loc[with_sisters, "clone"]].gt(0)
fates = adata.obsm["fate"].loc[with_sisters, own.columns]
composition = adata.obs["cell_type"][late].value_counts(normalize=True)[own.columns]
growth = adata.obs.loc[with_sisters, "genot_growth"].to_numpy()


def on_own_fates(shares, types):
    """Share of the mass on `types` that lands among the types of a cell's sisters; cells whose sisters have none left out."""
    right = own[types].to_numpy()
    some = right.any(axis=1)
    mass = growth[some, None] * shares[types].to_numpy()[some]
    return (mass * right[some]).sum() / mass.sum()


everywhere = pd.DataFrame([composition] * len(fates), index=fates.index)
decided = [name for name in own.columns if name != "undiff"]
pd.DataFrame(
    {
        name: {"scgenot": on_own_fates(fates, types), "composition of day 6": on_own_fates(everywhere, types)}
        for name, types in {"all fates": list(own.columns), "decided": decided}.items()
    }
).round(2)

# %% [markdown]
# And growth: does a clone whose day 4 cells have a high growth have more cells on day 6? Most clones have one to three
# cells in this sample, so their expansion is mostly chance, and no correlation can be high. (Here it cannot be told from
# none at all.)

# %%
sizes = pd.crosstab(adata.obs["clone"], adata.obs["day"])
both = sizes[(sizes["4"] > 0) & (sizes["6"] > 0)]
of_clone = adata.obs.loc[early].groupby("clone")["genot_growth"].mean()[both.index]
spearman = spearmanr(of_clone, np.log2(both["6"] / both["4"]))
print(f"{len(both)} clones: Spearman correlation {spearman.statistic:.2f} (p = {spearman.pvalue:.2g})")

# %% [markdown]
# ## From day 2 to day 4 to day 6
#
# Models compose: what the first one draws is what the second one starts from. There are 34 cells on day 2, too few to say
# which of them have no counterpart, so the first model is balanced. It draws 20 cells of day 4 for each, and the second model
# draws 10 cells of day 6 for each of these.

# %%
scgenot.GENOT.setup_anndata(adata, **days | {"source": "2", "target": "4"})
first = scgenot.GENOT(adata, epsilon=suggested["epsilon"])
first.train(max_steps=1500, validation_size=0.0, progress_bar=False)
on_day_4 = scgenot.tl.transported_cells(adata, first, n_samples=20)
on_day_4

# %% [markdown]
# The fates of a day 2 cell are those of its day 4 samples. Samples that grow count more.

# %%
every = np.arange(on_day_4.n_obs)
fates_of_samples = model.get_label_probabilities("cell_type", on_day_4, indices=every, n_samples=10)
weights = pd.Series(model.get_growth(on_day_4, indices=every), index=on_day_4.obs_names)
weights /= weights.groupby(on_day_4.obs["source_cell"].to_numpy()).transform("sum")
fates_of_day_2 = fates_of_samples.mul(weights, axis=0).groupby(on_day_4.obs["source_cell"].to_numpy()).sum()
day_2_types = adata.obs.loc[fates_of_day_2.index, "cell_type"].astype(str)
fates_of_day_2.groupby(day_2_types.to_numpy()).mean().loc[:, lambda table: table.max() > 0.01].round(2)

# %% [markdown]
# Nearly all cells of day 2 are undifferentiated, and their average is not far from the composition of day 6, as it should
# be. What the models add is that these cells are not all alike: the spread between cells, fate by fate.

# %%
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
shown = fates_of_day_2.mean().nlargest(6).index
ax.boxplot([fates_of_day_2[name] for name in shown], tick_labels=list(shown), widths=0.5)
ax.scatter(np.arange(1, len(shown) + 1), composition.reindex(shown), marker="D", color="#c9892b", label="day 6")
ax.set(ylabel="probability, one value a day 2 cell")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What to beware of
#
# - Growth means *more than the other cells of this sample, as far as tau allows*. Cells that were lost in sampling look the
#   same as cells that died.
# - Where a perturbation moves all cells, take the common part off first: `suggest_tau(..., cost="cosine", displaced=True)`
#   and `GENOT(adata, cost=scgenot.coupling.displaced_cost("cosine", shift))` with the difference of the two means as
#   `shift`. On blood cells under interferon with one type removed, growth then found that type better than with plain
#   squared distances (median AUROC .94 against .86), except CD8 T cells, whose place CD4 T cells take (.53).
# - A type that turns into another one and a type that dies while the other one grows look alike. Clones can tell them
#   apart; two snapshots cannot.
