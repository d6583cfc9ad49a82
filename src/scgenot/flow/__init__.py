"""Conditional flow matching on a coupling: velocity field, trainer, sampler."""

from scgenot.flow._config import FlowConfig, ODEConfig, RescalingConfig, TrainConfig
from scgenot.flow._matching import matching_loss, noise_and_time
from scgenot.flow._rescaling import Rescaling
from scgenot.flow._sampler import FlowWeights
from scgenot.flow._scaling import Standardizer
from scgenot.flow._solver import GENOTSolver, HeldOut
from scgenot.flow._summaries import conditional_mean, conditional_variance, cosine_variance
from scgenot.flow._trainer import TrainResult
from scgenot.flow._velocity import VelocityField

__all__ = [
    "FlowConfig",
    "FlowWeights",
    "GENOTSolver",
    "HeldOut",
    "ODEConfig",
    "Rescaling",
    "RescalingConfig",
    "Standardizer",
    "TrainConfig",
    "TrainResult",
    "VelocityField",
    "conditional_mean",
    "conditional_variance",
    "cosine_variance",
    "matching_loss",
    "noise_and_time",
]
