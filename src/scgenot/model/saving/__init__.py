"""Models as directories: files, and what is kept of costs."""

from scgenot.model.saving._persistence import PersistenceMixin

__all__ = ["PersistenceMixin"]
