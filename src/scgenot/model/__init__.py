"""The model class over AnnData."""

from scgenot.model._genot import GENOT
from scgenot.model._queries import Summary

__all__ = ["GENOT", "Summary"]
