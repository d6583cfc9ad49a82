"""What can be chosen about the velocity field, its training, and the solving of its equation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from scgenot._messages import check_count, check_positive, one_of

# Midpoint steps by default. Samples are then within .03 standard deviations of a law of where a fine solve takes them, where 30 samples leave the
# mean uncertain by .18; log-densities, which sum over features, within .1 nats, and with as few as samples take within .4 (`docs/scale.md`).
_SAMPLE_STEPS, _DENSITY_STEPS = 8, 16
PRECISIONS = ("float32", "bfloat16")
STARTS = ("auto", "noise", "source", "linear")
TARGETS = ("pair", "batch")
SOLVERS = ("midpoint", "heun", "euler", "tsit5", "distilled")
# Features up to which a divergence is exact unless told otherwise: the cost of the exact one grows with their number.
MOST_EXACT = 100


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    """Return layer widths as a tuple; raise unless there is one and all are whole numbers above zero."""
    if not tuple(hidden):
        raise ValueError("`hidden` must name at least one layer width, got (). Use, for example, (256, 256, 256).")
    for width in hidden:
        check_count("hidden", width)
    return tuple(hidden)


@dataclasses.dataclass(frozen=True)
class RescalingConfig:
    """The networks that learn growth where marginals are relaxed, and their training.

    Attributes
    ----------
    hidden
        Widths of the hidden layers.
    loss
        ``"deviance"``, ``eta - r log eta``: the divergence between measures, with errors weighed in proportion to mass.
        ``"squared"``, ``(eta - r)^2 / 2``: the paper's.
    steps
        Number of optimisation steps. The marginals of a plan between samples carry the samples' noise, which more steps
        reproduce more of, above all with few cells.
    batch_size
        Cells a step, drawn evenly over the prior mass; with fewer cells than this, each is drawn more than once.
    learning_rate
        Peak learning rate of Adam, which falls to zero along a cosine.
    neighbours
        Learn from ratios that are averaged over so many nearest cells, by prior mass; 0 for each cell's own. Few cells in many
        dimensions are learned by heart, noise included. Kang's cells, 748 controls in 50 PCs, one type removed: AUROC at
        held-out controls, median over four types that 15 was chosen on .917 without and .967 with, over three others .808 and
        .845, but the worst of these .686 and .635: a small type between two large ones drowns. Hence off by default.
    """

    hidden: Sequence[int] = (64, 64)
    loss: Literal["deviance", "squared"] = "deviance"
    steps: int = 500
    batch_size: int = 512
    learning_rate: float = 1e-2
    neighbours: int = 0

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        object.__setattr__(self, "hidden", _widths(self.hidden))
        for name in ("steps", "batch_size"):
            check_count(name, getattr(self, name))
        check_count("neighbours", self.neighbours, minimum=0)
        check_positive("learning_rate", self.learning_rate, remedy="Start from 1e-2.")
        if self.loss not in ("deviance", "squared"):
            raise ValueError(one_of("loss", self.loss, ("deviance", "squared")))


@dataclasses.dataclass(frozen=True)
class ConditionConfig:
    """How the velocity field takes in conditions that are made of slots; see :class:`scgenot.flow.ConditionLayout`.

    Attributes
    ----------
    width
        Length of the vector that a condition is encoded as.
    hidden
        Widths of the hidden layers that encode a slot.
    injection
        ``"film"``: the vector scales and shifts every hidden layer of the field. ``"concat"``: it stands beside the cell in
        the first layer.
    """

    width: int = 64
    hidden: Sequence[int] = (64,)
    injection: Literal["film", "concat"] = "film"

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        check_count("width", self.width)
        object.__setattr__(self, "hidden", _widths(self.hidden))
        if self.injection not in ("film", "concat"):
            raise ValueError(one_of("injection", self.injection, ("film", "concat")))


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """The velocity field.

    Attributes
    ----------
    hidden
        Widths of the hidden layers.
    time_frequencies
        Number of sine and cosine pairs that encode time.
    n_models
        Velocity fields that learn side by side from the same pairs, an ensemble: they differ in initial weights and noise. Samples of a
        cell come from them in turn, and how far their means lie apart tells what training has left open. Time and memory grow with it.
    standardize
        ``"global"`` shifts each space to mean 0 and divides all its features by one number, so that they keep their relative
        variances, as the cost sees them; ``"feature"`` brings each feature to variance 1; ``"none"`` changes nothing.
    rescaling
        The networks beside it that learn growth, used where a marginal is relaxed.
    conditions
        How it takes in conditions, where there are some.
    start
        Where flows start. The law that is learned is the same; how near one comes to it in so many steps differs, and what is predicted of
        cells and conditions that training did not see.

        ``"noise"``: at noise.

        ``"source"``: at noise around the source cell, within one space. What was not seen is predicted to move as what is like it does,
        rather than to go where that goes. Energy in % of doing nothing: from noise 77.0, from the source 64.9 for a new patient (GBM),
        25.0 and 14.6 for a new cell type (Kang); but 46.6 and 53.7 for a new pair of a stimulus and a type that are both seen in other
        pairs (CyTOF, 32 pairs; it was chosen on 8 of them, where it falls from 80.9 to 74.7). Known laws in 16 dimensions are learned less well.

        ``"linear"``: at noise around a linear prediction of the target, fitted to the coupling's pairs, with the covariance of what it
        leaves. cBW-UVP of known laws in 16 dimensions (floor, from noise, so): .47, 1.29, 1.02 on a curve (seed 1); in 2 .205, .229, .221.
        Meant for up to some 200 features: its products are as large as both spaces.

        ``"auto"``: models take the source where there are conditions within one space, and noise elsewhere.
    precision
        Of the field's products and activations; weights, their updates and the flow's steps are in single precision always.
        ``"float32"``: as the device multiplies single precision by default. ``"bfloat16"``: 8 bits of mantissa, for GPUs, on which its speed
        was not measured; CPUs are slower with it. Laws of a mixture (D = 16, 4096 cells, 1000 steps, seed 1): cBW-UVP 1.90 % for 1.89 %.
    """

    hidden: Sequence[int] = (256, 256, 256)
    time_frequencies: int = 16
    n_models: int = 1
    standardize: Literal["global", "feature", "none"] = "global"
    rescaling: RescalingConfig = RescalingConfig()
    conditions: ConditionConfig = ConditionConfig()
    start: Literal["auto", "noise", "source", "linear"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        object.__setattr__(self, "hidden", _widths(self.hidden))
        check_count("time_frequencies", self.time_frequencies)
        check_count("n_models", self.n_models)
        if self.standardize not in ("global", "feature", "none"):
            raise ValueError(one_of("standardize", self.standardize, ("global", "feature", "none")))
        if self.start not in STARTS:
            raise ValueError(one_of("start", self.start, STARTS))
        if self.precision not in PRECISIONS:
            raise ValueError(one_of("precision", self.precision, PRECISIONS))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> FlowConfig:
        """Return the config that ``dataclasses.asdict`` wrote, also in a version that had fewer fields."""
        parts = {"rescaling": RescalingConfig, "conditions": ConditionConfig}
        return cls(**dict(saved) | {name: part(**saved.get(name, {})) for name, part in parts.items()})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the velocity field is trained.

    Attributes
    ----------
    max_steps
        Number of optimisation steps.
    batch_size
        Pairs a step.
    learning_rate
        Peak learning rate of Adam.
    schedule
        ``"cosine"``: from the peak to zero over `max_steps`, after a short warm-up. ``"constant"``: warm-up only.
    warmup_steps
        Steps over which the learning rate rises to its peak.
    max_grad_norm
        Gradients with a larger global norm are scaled down to it.
    ema_decay
        Decay of an exponential moving average of the weights that replaces them at the end; ``None`` for none.
    targets
        What the velocity of a row is regressed on. ``"pair"``: its own pair's. ``"batch"``: the mean over all targets of the batch, each as
        likely as the plan and the noise make it that the row is on its way there. The expectation is the same and the variance lower, by
        more the more targets of a batch a source cell's mass is spread over; a step takes a third more time. cBW-UVP of known laws
        (seed 0, 2000 steps of 1e-2; floor, pair, batch): in 2 dimensions, 400 targets of a batch, .24, .272, .250; in 16, 140 and 46 targets,
        .50, 1.06, .92 and .71, 1.00, .97; in 64, one target, no gain. It needs a flow from noise and a coupling that tells how likely any
        pair is: over all cells or, up to what its marginals are off, extended; without conditions. Batches of more than 1024 rows are averaged over in parts.
    check_every
        Steps in one compiled call; losses are fetched and validation is run after each.
    early_stopping
        Stop once the validation loss has not improved for `patience` checks.
    patience
        Checks without improvement until early stopping.
    restore_best
        Keep the weights of the check with the lowest validation loss instead of the last ones.
    """

    max_steps: int = 3000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 50
    max_grad_norm: float = 1.0
    ema_decay: float | None = None
    targets: Literal["pair", "batch"] = "pair"
    check_every: int = 100
    early_stopping: bool = False
    patience: int = 10
    restore_best: bool = False

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        for name in ("max_steps", "batch_size", "check_every", "patience"):
            check_count(name, getattr(self, name))
        check_count("warmup_steps", self.warmup_steps, minimum=0)
        check_positive("learning_rate", self.learning_rate, remedy="Start from 1e-3.")
        check_positive("max_grad_norm", self.max_grad_norm)
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(one_of("schedule", self.schedule, ("cosine", "constant")))
        if self.targets not in TARGETS:
            raise ValueError(one_of("targets", self.targets, TARGETS))
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must lie in (0, 1) or be None, got {self.ema_decay!r}.")


@dataclasses.dataclass(frozen=True)
class ODEConfig:
    """How samples are computed from the velocity field.

    Attributes
    ----------
    solver
        ``"midpoint"``, ``"heun"`` or ``"euler"`` with a fixed number of steps, or the adaptive ``"tsit5"``. ``"distilled"``: few large
        steps of a field that was made for them, see :meth:`scgenot.GENOT.distill`. Densities need the field that it was made from, and
        are then solved as by default.
    n_steps
        Steps of the fixed-step solvers. ``None``: 8 for samples, 16 for densities, and 1 of the distilled field.
    rtol, atol
        Tolerances of the adaptive solver, in standardised units.
    """

    solver: Literal["midpoint", "heun", "euler", "tsit5", "distilled"] = "midpoint"
    n_steps: int | None = None
    rtol: float = 1e-4
    atol: float = 1e-4

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        if self.solver not in SOLVERS:
            raise ValueError(one_of("solver", self.solver, SOLVERS))
        if self.n_steps is not None:
            check_count("n_steps", self.n_steps)
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol)

    @property
    def for_samples(self) -> ODEConfig:
        """The same with the number of steps that samples are taken in."""
        return self._in(1 if self.solver == "distilled" else _SAMPLE_STEPS)

    @property
    def for_density(self) -> ODEConfig:
        """The same with the number of steps that densities are solved in; of the field itself, where the distilled one will not do."""
        return (ODEConfig() if self.solver == "distilled" else self)._in(_DENSITY_STEPS)

    def _in(self, steps: int) -> ODEConfig:
        return self if self.n_steps is not None else dataclasses.replace(self, n_steps=steps)


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """How a field for few large steps is learned from the trained one.

    Attributes
    ----------
    max_steps, batch_size, learning_rate
        Optimisation steps; pieces of trajectories a step; peak learning rate of Adam, which falls to zero along a cosine.
    teacher_steps
        Steps of Heun's method in which the trained field is solved; pieces begin and end at these times. A multiple of the steps that
        samples are taken in.
    pool_size
        Trajectories held at a time. In standardised units they take `pool_size` x (`teacher_steps` + 1) x features numbers.
    fresh
        Trajectories, of other cells and noise, that take the place of the oldest every `check_every` steps.
    whole
        Share of the pieces that are steps as samples will be taken in; the others go from any time to any later one. Mixture, 16
        features, distilled for two steps: what one and two steps have of the trained field's excess of cBW-UVP over the floor was
        1.15 and 1.04 at half and a peak rate of 1e-3, 1.10 and 1.03 at .9, and 1.00 and .99 at .9 and a rate of 2e-3.
    check_every
        Steps in one compiled call.
    """

    max_steps: int = 3000
    batch_size: int = 1024
    learning_rate: float = 2e-3
    teacher_steps: int = 16
    pool_size: int = 32768
    fresh: int = 8192
    whole: float = 0.9
    check_every: int = 100

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        for name in ("max_steps", "batch_size", "teacher_steps", "pool_size", "fresh", "check_every"):
            check_count(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate, remedy="Start from 2e-3.")
        if self.pool_size % self.fresh:
            raise ValueError(
                f"`pool_size` must be a multiple of `fresh`, got {self.pool_size} and {self.fresh}. For example four times."
            )
        if not 0 <= self.whole <= 1:
            raise ValueError(f"`whole` must lie in [0, 1], got {self.whole!r}. 0.9 is a good share.")


@dataclasses.dataclass(frozen=True)
class DivergenceConfig:
    """How the divergence of the velocity field is computed, of which a log-density is made.

    Attributes
    ----------
    method
        ``"exact"``: the trace of the Jacobian, one derivative a feature. ``"hutchinson"``: its mean over random probes
        (Hutchinson 1990; Grathwohl et al. 2019), unbiased. ``"auto"``: exact up to 100 features.
    n_probes
        Probes a point, of random signs, kept along its way. The error falls with their root.
    """

    method: Literal["auto", "exact", "hutchinson"] = "auto"
    n_probes: int = 16

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        if self.method not in ("auto", "exact", "hutchinson"):
            raise ValueError(one_of("method", self.method, ("auto", "exact", "hutchinson")))
        check_count("n_probes", self.n_probes)

    def probes(self, target_dim: int) -> int:
        """Return the number of probes for so many features; 0 for the exact trace."""
        exact = self.method == "exact" or (self.method == "auto" and target_dim <= MOST_EXACT)
        return 0 if exact else self.n_probes
