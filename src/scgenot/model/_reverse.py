"""The model of the opposite direction."""

from __future__ import annotations

from typing import Any, Self

from scgenot._rng import RNG, as_key
from scgenot.data import swapped_arguments
from scgenot.model._problem import swapped_config
from scgenot.model._scvi import make_current


class ReverseMixin:
    """``reverse``."""

    def reverse(
        self,
        *,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        progress_bar: bool = True,
        rng: RNG = 0,
        **train_options: Any,
    ) -> Self:
        """Train the model of the opposite direction, on the same coupling and with the same cells held out.

        The two models then describe one plan, from either side; two trainings could pick two optima of a quadratic
        problem.

        Parameters
        ----------
        max_epochs, max_steps, progress_bar
            As in :meth:`train`.
        rng
            Seed or generator.
        train_options
            Any other field of :class:`scgenot.flow.TrainConfig`, such as ``batch_size`` or ``early_stopping``.

        Returns
        -------
        A new model on the same data, with source and target exchanged. This model is left as it was, and so is its setup.

        Raises
        ------
        RuntimeError
            If this model has no coupling: it is not trained, or was loaded (couplings are not saved).
        """
        if self.coupling_ is None:
            raise RuntimeError(
                "there is no coupling to reverse: the model is not trained, or was loaded from a file, which holds no "
                "coupling. Call `model.train()` first."
            )
        populations = self._populations()
        setup = getattr(type(self), self.registry_["setup_method_name"])
        try:
            setup(self.adata, **swapped_arguments(self.registry_["setup_args"]))
            model = type(self)(self.adata, **self._reversed_arguments())
        finally:
            make_current(self)
        split = self._split.swapped()
        config = model._train_config(split, max_epochs, max_steps, train_options)
        model._learn(as_key(rng), self.coupling_.swapped(), split, config, progress_bar, *populations[::-1])
        return model

    def _reversed_arguments(self) -> dict[str, Any]:
        config = swapped_config(self._coupling_config, self._problem)
        options = {name: getattr(config, name) for name in type(config).__dataclass_fields__}
        return options | {
            "problem": self._problem,
            "coupling": self._coupling_kind,
            "flow_config": self._solver.config,
        }
