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
# # Space: where in the tissue was this cell?
#
# Dissociated cells have expression and no place; an in-situ map has places, and expression of a few genes only. To put cells
# back, `scgenot` combines two sources of information: cells that are alike should lie near each other (the quadratic part), and
# the few genes that both have should agree (the linear part). Both together are a *fused* problem.
#
# The fly embryo of the Berkeley Drosophila Transcription Network Project has 84 genes **and** a 3-D position for 3039 cells of
# one half (Fowlkes et al., 2008; the file is that of [novoSpaRc](https://github.com/rajewsky-lab/novosparc)). We pretend: one half
# of the cells is dissociated, the other half is the map. The true places of the first half are kept for scoring.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.neighbors import KNeighborsRegressor, NearestNeighbors

import scgenot

adata = scgenot.datasets.drosophila()
rng = np.random.default_rng(0)
dissociated = np.zeros(adata.n_obs, dtype=bool)
dissociated[rng.choice(adata.n_obs, adata.n_obs // 2, replace=False)] = True
adata.obs["sample"] = np.where(dissociated, "dissociated", "map")
adata.obs["sample"].value_counts()

# %% [markdown]
# Both populations lie in one AnnData, in different slots of `obsm`: expression for dissociated cells, positions for the map.
# Where a population has nothing, there is NaN; the model reads each slot in the rows of its own population only. Ten
# genes with clear patterns, known in both, go into a third slot.

# %%
markers = ["eve", "ftz", "h", "Kr", "kni", "gt", "hb", "twi", "sna", "zen"]
truth = adata.obsm["spatial"].astype(np.float32)
adata.obsm["position"] = np.where(dissociated[:, None], np.nan, truth)
adata.obsm["expression"] = np.where(dissociated[:, None], adata.obsm["X_pca"], np.nan).astype(np.float32)
adata.obsm["markers"] = np.asarray(adata[:, markers].X, dtype=np.float32)
adata.obsm["true_position"] = truth[:, [0, 2]]  # only for pictures: head to tail, belly to back

setup = {
    "population_key": "sample",
    "source": "dissociated",
    "target": "map",
    "source_rep": "expression",
    "target_rep": "position",
}

# %% [markdown]
# ## Shape alone, and with ten genes
#
# The embryo is nearly symmetric: head and tail, belly and back can be exchanged without changing distances much. So shape alone
# (a quadratic problem) may settle on a mirror image. Ten genes break the symmetry. The problem is solved over 500 cells a side
# (`landmarks`), and extended to the others.

# %%
warnings.filterwarnings("ignore", message="The quadratic coupling did not converge")  # the next table says so
models = {}
for name, more in {"shape alone": {}, "ten genes and shape": {"shared_rep": "markers"}}.items():
    scgenot.GENOT.setup_anndata(adata, **setup, **more)
    models[name] = scgenot.GENOT(adata, landmarks=500)
    models[name].train(max_steps=800, validation_size=0.0, progress_bar=False)
models["ten genes and shape"]

# %% [markdown]
# The starts tell it without any truth. `objective` cannot be compared between the two problems, only among the starts of one:
# where different optima of a problem nearly tie, the data do not choose between them. With shape alone the best two starts
# differ by one part in a thousand; with ten genes the best starts agree to five digits. (Starts that have `converged` False
# were not followed to the end; their objectives are rough.)

# %%
pd.concat({name: model.coupling_summary()[["objective", "converged"]].head(4) for name, model in models.items()})

# %% [markdown]
# ## How far off?
#
# Mean distance between predicted and true position, in the unit of the map (micrometres), next to two baselines: any place, and
# the mean place of the five map cells whose ten genes are most alike. The floor is the nearest cell of the map: it has a cell only so often.

# %%
places = truth[~dissociated]
neighbours = KNeighborsRegressor(5).fit(adata.obsm["markers"][~dissociated], places)
predictions = {"any place": places[rng.integers(len(places), size=dissociated.sum())]}
predictions["ten genes, 5 neighbours"] = neighbours.predict(adata.obsm["markers"][dissociated])
predictions |= {name: model.get_transported_mean() for name, model in models.items()}
nearest = NearestNeighbors(n_neighbors=1).fit(places).kneighbors(truth[dissociated], return_distance=False)[:, 0]
predictions["floor: nearest cell of the map"] = places[nearest]
distances = {name: np.linalg.norm(one - truth[dissociated], axis=1) for name, one in predictions.items()}
pd.DataFrame(distances).agg(["mean", "median"]).T.round(1).assign(cells=dissociated.sum())

# %% [markdown]
# ## A map with its uncertainty
#
# Cos-var measures directions, which mean nothing for places. Here the variance of the samples is the natural measure: its square root is the radius within which the model places a
# cell. Each dot is a dissociated cell at its *true* place.

# %%
best = models["ten genes and shape"]
scgenot.tl.transport(adata, best, n_samples=30)
source = adata[dissociated].copy()
source.obs["radius"] = np.sqrt(source.obs["genot_variance"])
source.obs["error"] = distances["ten genes and shape"]

fig, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", sharex=True, sharey=True)
for ax, value in zip(axes, ["radius", "error"], strict=True):
    drawn = ax.scatter(*source.obsm["true_position"].T, c=source.obs[value], s=9, cmap="viridis", linewidths=0)
    drawn.set_clim(*np.quantile(source.obs[value], [0.02, 0.98]))
    fig.colorbar(drawn, ax=ax, shrink=0.8)
    ax.set(title=f"{value} (micrometres)", aspect="equal", xlabel="head to tail")
axes[0].set_ylabel("belly to back")
plt.show()
print(f"rank correlation of radius and error: {spearmanr(source.obs['radius'], source.obs['error']).statistic:.2f}")

# %% [markdown]
# ## Genes that were not among the ten
#
# With a place for each cell, every gene of the dissociated cells becomes a map. Left: cells at their true places; right: at
# the places that the model gives them. None of these genes was among the ten that the map has. Broad patterns come back; stripes
# of a few cells' width are blurred, as a radius of 20 to 30 micrometres says.

# %%
genes = ["odd", "prd", "tll", "rho"]
guessed = source.obsm["genot"][:, [0, 2]]
fig, axes = plt.subplots(len(genes), 2, figsize=(9, 9), layout="constrained", sharex=True, sharey=True)
for row, gene in zip(axes, genes, strict=True):
    level = np.asarray(source[:, gene].X).ravel()
    for ax, xy, title in zip(row, (source.obsm["true_position"], guessed), ("true", "predicted"), strict=True):
        ax.scatter(*xy.T, c=level, s=6, cmap="viridis", linewidths=0)
        ax.set(title=f"{gene}, {title}", aspect="equal", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# In numbers, over all 74 genes that were not among the ten: the expression that each place of the map gets, as the mean of the five dissociated cells that lie
# nearest, against what was measured there. Beside it, for each map cell, the mean of the five dissociated cells whose ten genes are most alike; and as a floor
# dissociated cells at their *true* places, which is what smoothing over five cells leaves.

# %%
others = [gene for gene in adata.var_names if gene not in markers]
levels, measured = np.asarray(source[:, others].X), np.asarray(adata[~dissociated, others].X)


def on_the_map(where, at):
    guess = KNeighborsRegressor(5).fit(where, levels).predict(at)
    return np.mean([np.corrcoef(guess[:, k], measured[:, k])[0, 1] for k in range(len(others))])


ten = adata.obsm["markers"]
pd.Series(
    {
        "ten genes, 5 neighbours": on_the_map(ten[dissociated], ten[~dissociated]),
        "ten genes and shape": on_the_map(source.obsm["genot"], places),
        "floor: cells at their true places": on_the_map(truth[dissociated], places),
    },
    name=f"correlation, mean of {len(others)} genes",
).to_frame().round(2)

# %% [markdown]
# Cells are put nearer to their places than the ten genes alone put them, but to fill in *genes*, the five cells that are most alike in the ten are as good or better: cells
# that are taken for each other have the same genes, wherever they lie. Take the model for places and their uncertainty.
#
# Means shrink towards the middle where a cell has several possible places: the mean of two places may be neither. Look at
# the samples (`model.sample()`) of cells with a large radius before you trust their dot.
