"""How training went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from scgenot.data import read_representation
from scgenot.metrics import sinkhorn_divergence
from scgenot.pl._common import SOURCE_COLOR, TARGET_COLOR, category_mask, finish

if TYPE_CHECKING:
    from scgenot.model import GENOT

_LOSSES = {"train_loss": ("training", SOURCE_COLOR), "validation_loss": ("held-out", TARGET_COLOR)}
_DIVERGENCE = "validation_sinkhorn_divergence"
_LINES = {"floor": ":", "doing nothing": "--"}
# As many cells as training measures the divergence with, for the divergence of samples falls with their number.
_CELLS = 256


def history(
    model: GENOT,
    *,
    lines: bool = True,
    axes: list[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Draw losses and, where cells were held out, how close transported ones come to the target.

    A divergence alone does not say whether it is small. Two lines do: the floor, which training cells of the target have
    from the held-out ones (cells that are right differ by so much), and, where both populations are in one space, what doing
    nothing leaves.

    Parameters
    ----------
    model
        A trained model.
    lines
        Whether to draw them. Unless training has recorded them, they are computed from the model's data; without data there
        are none.
    axes
        Axes to draw on, as many as there are panels.
    show
        Whether to show the figure.
    save
        Path to write the figure to.

    Returns
    -------
    The axes, or ``None`` if shown.

    Raises
    ------
    RuntimeError
        If the model is not trained.

    Examples
    --------
    >>> model.train()  # doctest: +SKIP
    >>> scgenot.pl.history(model)  # doctest: +SKIP
    """
    recorded = model.history
    if not recorded:
        raise RuntimeError("there is no history yet. Call `model.train()` first.")
    panels = 2 if _DIVERGENCE in recorded else 1
    if axes is None:
        _, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 3.4), layout="constrained", squeeze=False)
    axes = list(np.ravel(axes))
    if len(axes) != panels:
        raise ValueError(f"`axes` must hold {panels} axes for this model, got {len(axes)}.")
    for name, (label, color) in _LOSSES.items():
        if name in recorded:
            axes[0].plot(recorded[name], color=color, label=label)
    axes[0].set(xlabel="step", ylabel="flow matching loss")
    axes[0].legend(frameon=False)
    if panels == 2:
        axes[1].plot(recorded[_DIVERGENCE], color=TARGET_COLOR)
        for name, value in (_lines(model) if lines else {}).items():
            axes[1].axhline(value, color="black", linewidth=0.8, linestyle=_LINES[name], label=name)
        if axes[1].get_legend_handles_labels()[0]:
            axes[1].legend(frameon=False)
        axes[1].set(xlabel="step", ylabel="Sinkhorn divergence", title="transported held-out against target")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return finish(axes[0].figure, axes, show, save)


def _lines(model: GENOT) -> dict[str, float]:
    """Return the divergences that the curve is to be compared with."""
    recorded = {name: f"{_DIVERGENCE}_{name.replace(' ', '_')}" for name in _LINES}
    found = {name: float(model.history[key].iloc[-1, 0]) for name, key in recorded.items() if key in model.history}
    if found or model.adata is None or model.adata_manager is None or model.validation_indices_ is None:
        return found
    held, train = _held_and_training_cells(model)
    if held is None:
        return found
    source, target = held
    found["floor"] = sinkhorn_divergence(_some(train, len(target)), target)
    if source.shape[1] == target.shape[1] and model.describe()["problem"] == "linear":
        found["doing nothing"] = sinkhorn_divergence(source, target)
    return found


def _some(cells: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` rows, evenly spread, as training chooses them."""
    return cells[np.linspace(0, len(cells) - 1, min(count, len(cells))).round().astype(int)]


def _held_and_training_cells(model: GENOT) -> tuple[tuple[np.ndarray, np.ndarray] | None, np.ndarray]:
    """Return held-out cells of both sides and training cells of the target, as the model sees them."""
    params, cells = model.describe(), {}
    for side in ("source", "target"):
        modality = params.get(f"{side}_modality")
        adata = model.adata if modality is None else model.adata.mod[modality]
        for name, rows in (("held", model.validation_indices_), ("train", model.train_indices_)):
            if isinstance(rows, dict):
                rows = rows[side]
            elif params.get("population_key") is not None:
                rows = rows[category_mask(adata.obs[params["population_key"]], params[side])[rows]]
            cells[side, name] = read_representation(adata, params[f"{side}_rep"], np.asarray(rows, int))
    if min(len(cells[side, "held"]) for side in ("source", "target")) < 2:
        return None, cells["target", "train"]
    held = tuple(_some(cells[side, "held"], _CELLS) for side in ("source", "target"))
    return held, cells["target", "train"]
