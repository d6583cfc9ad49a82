"""What training leaves: weights, history, and why it ended."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, TypeAlias

Params: TypeAlias = Any


class Stopped(enum.StrEnum):
    """Why training ended. Members equal their names as strings, so ``stopped == "diverged"`` works."""

    MAX_STEPS = "max_steps"
    EARLY_STOPPING = "early_stopping"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"

    def told(self, steps: int) -> str:
        """Return what happened after which `steps` steps were kept, and what to do about it."""
        return _TOLD[self].format(steps=steps)


_TOLD = {
    Stopped.MAX_STEPS: "All {steps} steps were done. If the losses still fall, use a larger `max_steps`.",
    Stopped.EARLY_STOPPING: "The validation loss stopped improving within {steps} steps; the best weights are kept. To go on "
    "for longer, use a larger `patience`.",
    Stopped.INTERRUPTED: "Training was interrupted; the weights reached are kept, those after {steps} steps. Train again for "
    "more; it starts anew.",
    Stopped.DIVERGED: "The training loss exploded; the last good weights are kept, those after {steps} steps. Try a smaller "
    "`learning_rate`, or look for extreme values in the data.",
}


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Weights and what happened.

    Attributes
    ----------
    params
        The weights to use; ``None`` from methods that have no velocity field.
    history
        For each quantity, steps and values.
    steps
        Optimisation steps done. 0: nothing was learned.
    stopped
        Why training ended.
    """

    params: Params
    history: dict[str, tuple[list[int], list[float]]]
    steps: int
    stopped: Stopped
