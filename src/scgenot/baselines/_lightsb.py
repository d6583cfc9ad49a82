"""LightSB over AnnData."""

from __future__ import annotations

import dataclasses
from typing import Any

from scgenot.baselines._checks import check_linear
from scgenot.data import Data
from scgenot.methods import LightSBConfig, LightSBSolver
from scgenot.model import TransportModel


class LightSB(TransportModel):
    """Entropic transport with a mixture of Gaussians as potential: laws, draws and densities in closed form.

    Korotin, Gushchin and Burnaev, "Light Schrödinger Bridge", ICLR 2024. It learns from the two samples, without a coupling, in seconds;
    few components blur what a small epsilon would show. In one space, for squared Euclidean costs, without conditions. With a tau
    below 1 an unbalanced coupling is solved first, and the plan is learned between its marginals.

    Parameters
    ----------
    adata
        AnnData that :meth:`setup_anndata` has seen.
    epsilon
        Strength of the entropy, in units of the mean cost. ``None``: 0.05.
    n_components
        Gaussians of the potential. ``None``: as in `light_config`.
    tau_source, tau_target
        In (0, 1]: how strictly each population must be used up; 1 is balanced.
    light_config
        The other options of the method.
    options
        As of :class:`scgenot.GENOT`, of the coupling of unbalanced problems.

    Raises
    ------
    ValueError
        If `adata` is not set up, or a value is not allowed; the message says which are.

    Examples
    --------
    >>> scgenot.baselines.LightSB.setup_anndata(
    ...     adata, population_key="condition", source="control", target="stimulated", source_rep="X_pca"
    ... )  # doctest: +SKIP
    >>> model = scgenot.baselines.LightSB(adata, epsilon=0.05)  # doctest: +SKIP
    >>> model.train(learning_rate=1e-2)  # doctest: +SKIP
    """

    method_class = LightSBSolver
    _config_argument = "light_config"

    def __init__(
        self,
        adata: Data | None = None,
        *,
        epsilon: float | None = None,
        n_components: int | None = None,
        tau_source: float = 1.0,
        tau_target: float = 1.0,
        light_config: LightSBConfig | None = None,
        **options: Any,
    ) -> None:
        given = (("epsilon", epsilon), ("n_components", n_components), ("scale_cost", options.get("scale_cost")))
        chosen: dict[str, Any] = {name: one for name, one in given if one is not None}
        chosen["marginals"] = "prior" if tau_source == tau_target == 1.0 else "coupling"
        config = dataclasses.replace(light_config or LightSBConfig(), **chosen)
        # One epsilon for the coupling and the mixture.
        options |= {"epsilon": config.epsilon, "scale_cost": config.scale_cost}
        super().__init__(adata, method_config=config, tau_source=tau_source, tau_target=tau_target, **options)
        check_linear(self, "sqeuclidean", "global")
