"""Other public solvers behind the model class of GENOT: the same setup, epsilon, tools and plots."""

from scgenot.baselines._entropic_map import EntropicMap

__all__ = ["EntropicMap"]
