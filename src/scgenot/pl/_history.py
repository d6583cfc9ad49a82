"""How training went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from scgenot.pl._common import SOURCE_COLOR, TARGET_COLOR, finish

if TYPE_CHECKING:
    from scgenot.model import GENOT

_LOSSES = {"train_loss": ("training", SOURCE_COLOR), "validation_loss": ("held-out", TARGET_COLOR)}
_DIVERGENCE = "validation_sinkhorn_divergence"


def history(
    model: GENOT,
    *,
    axes: list[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Draw losses and, where cells were held out, how close transported ones come to the target.

    Parameters
    ----------
    model
        A trained model.
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
        axes[1].set(xlabel="step", ylabel="Sinkhorn divergence", title="transported held-out against target")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return finish(axes[0].figure, axes, show, save)
