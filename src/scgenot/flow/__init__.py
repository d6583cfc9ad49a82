"""Conditional flow matching on a coupling: velocity field, trainer, sampler."""

from scgenot.flow._conditions import ConditionEncoder, ConditionLayout
from scgenot.flow._config import (
    ConditionConfig,
    DistillConfig,
    DivergenceConfig,
    FlowConfig,
    ODEConfig,
    RescalingConfig,
    TrainConfig,
)
from scgenot.flow._density import log_density
from scgenot.flow._distill import distill_velocity
from scgenot.flow._linear_start import NoiseAroundMean
from scgenot.flow._path import NoiseAroundSource, NoiseToTarget, Path, matching_loss, noise_and_time
from scgenot.flow._prediction_regions import (
    conformal_levels,
    conformal_thresholds,
    coverage,
    cross_levels,
    label_scores,
    rank_scores,
)
from scgenot.flow._result import Stopped, TrainResult
from scgenot.flow._sampler import FlowWeights, sample_blocks
from scgenot.flow._scaling import Standardizer
from scgenot.flow._summaries import (
    TargetRegions,
    conditional_mean,
    conditional_variance,
    cosine_variance,
    label_uncertainty,
    model_variance,
    reference_rows,
)
from scgenot.flow._trainer import train_velocity
from scgenot.flow._validation import HeldOut, Unseen, validate_on
from scgenot.flow._velocity import VelocityField

__all__ = [
    "ConditionConfig",
    "ConditionEncoder",
    "ConditionLayout",
    "DistillConfig",
    "DivergenceConfig",
    "FlowConfig",
    "FlowWeights",
    "HeldOut",
    "NoiseAroundMean",
    "NoiseAroundSource",
    "NoiseToTarget",
    "ODEConfig",
    "Path",
    "RescalingConfig",
    "Standardizer",
    "Stopped",
    "TargetRegions",
    "TrainConfig",
    "TrainResult",
    "Unseen",
    "VelocityField",
    "conditional_mean",
    "conditional_variance",
    "conformal_levels",
    "conformal_thresholds",
    "cosine_variance",
    "coverage",
    "cross_levels",
    "distill_velocity",
    "label_scores",
    "label_uncertainty",
    "log_density",
    "matching_loss",
    "model_variance",
    "noise_and_time",
    "rank_scores",
    "reference_rows",
    "sample_blocks",
    "train_velocity",
    "validate_on",
]
