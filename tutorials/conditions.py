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
# # Conditions: four stimuli, eight cell types, one model
#
# A screen has many conditions, and each has few cells. Here, blood cells of one donor, measured by mass cytometry (30 markers): left alone,
# or under one of four stimuli, in eight cell types with 100 cells each. One model learns all 32 pairs of a stimulus and a type. To see whether it
# can say something about a pair that nobody measured, one pair is left out.

# %%
import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import scgenot

adata = scgenot.datasets.cytof_stimulation()
pd.crosstab(adata.obs["cell_type"], adata.obs["condition"])

# %% [markdown]
# ## Set up
#
# There is no `target`: all categories other than `control` are conditions. The cell type is a *context*: the model sees it, and controls of
# a type are coupled with treated cells of that type. Types are described by the means of their controls, so that the model knows which ones
# are alike. Nothing here looks at treated cells, so that the pair that is left out stays unknown.

# %%
scgenot.tl.context_means(adata, "cell_type", population_key="condition", source="control", source_rep="X")
scgenot.GENOT.setup_anndata(
    adata,
    population_key="condition",
    source="control",
    source_rep="X",
    context_keys=("cell_type",),
    condition_reps={"cell_type": "context_means"},
)
model = scgenot.GENOT(adata, flow_config=scgenot.flow.FlowConfig(hidden=(128, 128, 128)))
left_out = "A | CD11c CD14 CD38"
model.train(max_steps=1000, batch_size=512, validation_conditions=[left_out], progress_bar=False)
model

# %% [markdown]
# ## Read `model.conditions`
#
# One row a condition: is its plan converged, is all its mass transported, and over how many target cells is a row of it spread
# (`effective_targets`)? A value near 1 would mean that single cells are copied, one near the number of cells that the plan says nothing.

# %%
model.conditions[["cells", "controls", "trained", "converged", "mass", "effective_targets"]].head(10)

# %% [markdown]
# How far predictions of the pair that was left out are from its cells, as a share of what doing nothing leaves: 0 is as good as cells of that
# pair, 1 as bad as the controls.

# %%
ratio = model.history["validation_energy_ratio"]
ax = ratio.plot(legend=False, ylabel="energy distance, share of doing nothing")
ax.axhline(1.0, color="grey", linewidth=0.8)
ax.set_ylim(0, max(1.1, float(ratio.max().iloc[0])))
plt.show()

# %% [markdown]
# One number means little without something to compare it with. The simplest prediction is the mean shift of the stimulus over all other types.

# %%
X, obs = np.asarray(adata.X), adata.obs
stimulus, cell_type = left_out.split(" | ")
of = lambda condition, kind: X[((obs["condition"] == condition) & (obs["cell_type"] == kind)).to_numpy()]
others = [kind for kind in obs["cell_type"].unique() if kind != cell_type]
shift = np.mean([of(stimulus, kind).mean(axis=0) - of("control", kind).mean(axis=0) for kind in others], axis=0)
controls, truth = of("control", cell_type), of(stimulus, cell_type)
predicted = model.sample(conditions=left_out, n_samples=1)[:, 0]
energy = lambda cells: scgenot.metrics.energy_distance(cells, truth, unbiased=True)
nothing = energy(controls)
pd.Series(
    {"this model": energy(predicted) / nothing, "mean shift": energy(controls + shift) / nothing, "doing nothing": 1.0}
).round(2)

# %% [markdown]
# Of this pair the model says less than the mean shift does: monocytes answer this stimulus as other types do, and a network that saw them under
# other stimuli only makes them answer too little. Over all 32 pairs it is the other way round, and the nearest type's response is as good as
# either: see the page *Many conditions in one model*. That is why one compares.

# %% [markdown]
# ## All effects at a glance
#
# The distance between the mean of a condition's cells and that of its controls, predicted and observed. The pair that was left out is red.

# %%
fig, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
scgenot.pl.conditions(adata, model, ax=axes[0], show=False)
for text in list(axes[0].texts):
    text.set_visible(text.get_text() == left_out)
scgenot.pl.conditions(adata, model, kind="heatmap", ax=axes[1], show=False)
plt.show()

# %% [markdown]
# Transported cells are an AnnData of their own, in which scanpy's tools work: here, what the stimulus does to each marker in the type that was
# left out, predicted and observed.

# %%
cells = scgenot.tl.transported_cells(adata, model, conditions=left_out, n_samples=5)
change = pd.DataFrame(
    {
        "predicted": np.asarray(cells.X).mean(axis=0) - controls.mean(axis=0),
        "observed": truth.mean(axis=0) - controls.mean(axis=0),
    },
    index=adata.var_names,
)
change.loc[change["observed"].abs().sort_values(ascending=False).index[:8]].round(2)

# %% [markdown]
# ## Doses and combinations
#
# Columns of numbers are doses. Slots of one position belong together, and a dose of 0 is an empty slot. The law of this simulated screen is known:
# two drugs at three doses each, alone and together, but for one combination, which the model has to predict.

# %%
problem = scgenot.datasets.conditional_mixture(2, n_drugs=2)
doses = [(a, b) for a in (0.0, 1.0, 3.0) for b in (0.0, 1.0, 3.0) if (a, b) != (3.0, 3.0)]
parts, rows = [problem.sample_source(0, 600)], [("none", 0.0, "none", 0.0)] * 600
for number, (a, b) in enumerate(doses[1:]):
    parts.append(problem.sample_target(number + 1, 300, [a, b]))
    rows += [("a", a, "b", b)] * 300
screen = ad.AnnData(np.concatenate(parts).astype(np.float32))
screen.obs = pd.DataFrame(rows, columns=["drug1", "dose1", "drug2", "dose2"], index=screen.obs_names)
screen.obs["treated"] = np.where(screen.obs["drug1"] == "none", "none", "yes")
scgenot.GENOT.setup_anndata(
    screen,
    population_key="treated",
    source="none",
    source_rep="X",
    condition_keys={"drug": ("drug1", "drug2"), "dose": ("dose1", "dose2")},
)
doser = scgenot.GENOT(screen, flow_config=scgenot.flow.FlowConfig(hidden=(128, 128, 128)))
doser.train(max_steps=1500, batch_size=512, progress_bar=False)
list(doser.conditions.index)

# %% [markdown]
# Where do cells go on average as both doses rise together? At 3 + 3 the model has seen neither the combination nor anything beyond it.

# %%
frame = pd.DataFrame({"drug1": "a", "dose1": [0.5, 1.0, 2.0, 3.0], "drug2": "b", "dose2": [0.5, 1.0, 2.0, 3.0]})
asked = doser.sample(conditions=frame, n_samples=10)
known = {name: problem.target_moments([dose, dose])[0] for name, dose in zip(asked, frame["dose1"], strict=True)}
pd.DataFrame(
    {
        "predicted x": [samples[..., 0].mean() for samples in asked.values()],
        "true x": [mean[0] for mean in known.values()],
        "predicted y": [samples[..., 1].mean() for samples in asked.values()],
        "true y": [mean[1] for mean in known.values()],
    },
    index=list(asked),
).round(2)

# %% [markdown]
# ## What to keep in mind
#
# Leave out conditions that you know before you trust those that you do not, and compare with simple predictors: on these data the responses of the
# nearest other type are about as good as any network (the page *Many conditions in one model* has the figures). A network pays where there are
# doses, combinations or a context without neighbours, and where a distribution is needed.
