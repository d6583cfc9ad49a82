"""The model class over AnnData and MuData."""

from scgenot.model._base import TransportModel
from scgenot.model._effects import condition_effects, dose_effects
from scgenot.model._genot import GENOT
from scgenot.model._labels import label_entropy
from scgenot.model._queries import Summary

__all__ = ["GENOT", "Summary", "TransportModel", "condition_effects", "dose_effects", "label_entropy"]
