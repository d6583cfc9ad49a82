"""Models as directories: files, and what is kept of costs."""

from scgenot.model.saving._model import load_model, load_registry, save_model

__all__ = ["load_model", "load_registry", "save_model"]
