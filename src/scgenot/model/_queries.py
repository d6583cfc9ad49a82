"""What a trained model answers about source cells. Nothing here writes to an AnnData. The functions are methods of models."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from scgenot._devices import DevicesLike
from scgenot._rng import RNG
from scgenot.data import Data, read_population
from scgenot.flow import (
    ODEConfig,
    TargetRegions,
    conditional_mean,
    conditional_variance,
    cosine_variance,
    label_uncertainty,
    model_variance,
    reference_rows,
)
from scgenot.model._cells import Cells, Sampling, check_is_trained, sample_blocks
from scgenot.model._conditions import answer
from scgenot.model._labels import label_entropy, label_frequencies, label_shares

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel

ConditionsLike: TypeAlias = str | Sequence[str] | pd.DataFrame | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the samples of some source cells say.

    Attributes
    ----------
    rows
        Rows of these cells in the AnnData.
    mean
        Mean of the samples of each cell.
    uncertainty
        How much of the target population the samples of each cell are spread over, from 0 to 1.
    cos_var
        Variance of the cosine between a sample and the mean sample.
    variance
        Variance of the samples, summed over features, in squared units of the target representation.
    model_variance
        How far the members of an ensemble disagree on the mean; ``None`` for one model.
    samples
        The samples, if they were to be kept.
    """

    rows: Int[np.ndarray, " n"]
    mean: Float[np.ndarray, "n d"]
    uncertainty: Float[np.ndarray, " n"]
    cos_var: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]
    model_variance: Float[np.ndarray, " n"] | None
    samples: Float[np.ndarray, "n s d"] | None


def sample(
    model: TransportModel,
    adata: Data | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: ConditionsLike = None,
    until: Hashable | None = None,
    devices: DevicesLike = "auto",
) -> Float[np.ndarray, "n s d"] | dict[str, Float[np.ndarray, "n s d"]]:
    """Draw target cells for source cells, from the learned conditional laws.

    Parameters
    ----------
    adata
        Cells with the source representation; the model's own data if ``None``. It need not be set up, is not
        changed, and may be a view. For a model of a MuData also the AnnData of the source modality alone.
    indices
        Which cells, as rows (of the source modality) or as a boolean mask. By default the source cells in their
        order, or all cells where `adata` has no population column.
    n_samples
        Samples a cell.
    batch_size
        Cells at once; memory is in proportion to it. By default chosen for the device.
    rng
        Seed or generator. With the same seed, a cell (its row in `adata`) gets the same samples, whichever other
        cells are asked for. A cell that stands in `indices` several times gets other samples each time.
    ode
        How the flow's equation is solved; 16 midpoint steps by default. ``ODEConfig("distilled")`` samples in one step, after
        :meth:`distill`.
    conditions
        Which conditions, in a model that has several: a name of ``model.conditions`` (of a perturbation: each cell is in its
        own context; of a row: its controls, in its context), several names, or a data frame with slots, and contexts that take
        the place of the cells' own: also doses, combinations and, where they have a representation, categories that training
        did not see. Several, or a data frame, give a dict by name.
    until
        In a model of a time course, the time that cells are taken to, through all times between: each sample goes its own way.
        By default each cell goes to its next time. Cells that are at this time or a later one already are not asked about. What
        is followed is one lineage: at times between, cells that grow count no more than others (see :meth:`get_growth`).
    devices
        Devices that share the samples: ``"auto"``, all that JAX sees; a number, the first so many; a list of numbers, these. Samples
        are the same up to rounding.

    Returns
    -------
    Array of shape (cells, `n_samples`, target features), in units of the target representation; a dict of them by name for
    several conditions.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError, ValueError
        If the representation is missing, not finite, or of another width than in training; if `until` is no time, or no later
        one for a cell in `indices`; if there are no such `devices`.

    Examples
    --------
    >>> samples = model.sample(adata, n_samples=10)  # doctest: +SKIP
    >>> samples.shape  # doctest: +SKIP
    (936, 10, 50)
    """
    check_is_trained(model)
    sampling = Sampling(n_samples, batch_size, rng, ode, devices)

    def drawn(cells: Cells) -> Float[np.ndarray, "n s d"]:
        samples = np.empty((len(cells.rows), sampling.n_samples, model._method.target_dim), np.float32)
        for place, block in sample_blocks(model, cells, sampling):
            samples[place] = block
        return samples

    return answer(model, drawn, adata, indices, conditions, until=until)


def summarize(
    model: TransportModel,
    adata: Data | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: ConditionsLike = None,
    until: Hashable | None = None,
    devices: DevicesLike = "auto",
    displacement: bool = False,
    keep_samples: bool = False,
) -> Summary | dict[str, Summary]:
    """Draw samples once and return all that they say: mean, uncertainty, and the samples if wanted.

    Parameters are those of :meth:`sample`; `displacement` as in :meth:`get_uncertainty`. Unless `keep_samples`,
    samples are summarised block by block and never held together.

    Examples
    --------
    >>> found = model.summarize(adata, keep_samples=True)  # doctest: +SKIP
    >>> found.mean, found.uncertainty, found.samples  # doctest: +SKIP
    """
    check_is_trained(model)
    sampling = Sampling(n_samples, batch_size, rng, ode, devices)

    def summary(cells: Cells) -> Summary:
        return _summary(model, cells, sampling, displacement, keep_samples)

    return answer(model, summary, adata, indices, conditions, until=until)


def get_transported_mean(
    model: TransportModel,
    adata: Data | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: ConditionsLike = None,
    until: Hashable | None = None,
    devices: DevicesLike = "auto",
) -> Float[np.ndarray, "n d"] | dict[str, Float[np.ndarray, "n d"]]:
    """Return the mean of the samples of each source cell, the barycentric projection of the learned plan.

    Parameters and exceptions are those of :meth:`sample`.

    Returns
    -------
    Array of shape (cells, target features), in units of the target representation.

    Examples
    --------
    >>> model.get_transported_mean(adata, n_samples=30)  # doctest: +SKIP
    """
    check_is_trained(model)
    sampling = Sampling(n_samples, batch_size, rng, ode, devices)

    def means(cells: Cells) -> Float[np.ndarray, "n d"]:
        mean = np.empty((len(cells.rows), model._method.target_dim), np.float32)
        for place, block in sample_blocks(model, cells, sampling):
            mean[place] = conditional_mean(block)
        return mean

    return answer(model, means, adata, indices, conditions, until=until)


def get_uncertainty(
    model: TransportModel,
    adata: Data | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    n_samples: int = 30,
    batch_size: int | None = None,
    rng: RNG = 0,
    ode: ODEConfig | None = None,
    conditions: ConditionsLike = None,
    until: Hashable | None = None,
    devices: DevicesLike = "auto",
    displacement: bool = False,
    label_key: str | None = None,
) -> pd.DataFrame | dict[str, pd.DataFrame]:
    """Return how uncertain the target of each source cell is.

    Parameters and exceptions are those of :meth:`sample`, and:

    displacement
        Take directions from the source cell instead of from zero. Needs one space for both populations.
    label_key
        Column of ``obs`` with labels of the target cells, for the entropy.

    Returns
    -------
    One row a cell, named as in ``adata.obs_names``:

    ``uncertainty``
        How evenly the samples are spread over regions of the target population, from 0 (all in one) to 1 (over all):
        see :class:`scgenot.flow.TargetRegions`. The same regions measure all cells, so that cells of different groups
        can be compared, at an equal number of samples. In a time course they are those of all times but the first.
    ``cos_var``
        Variance over samples of the cosine between a sample and the mean sample (Klein et al. 2024). It is measured
        from the origin of the target representation: cells whose mean lies near it look unsure, so it does not compare
        groups.
    ``variance``
        Variance of the samples summed over features, in squared units of the target representation. Large where the
        target population is spread out.
    ``model_variance``
        Of an ensemble (``GENOT(..., n_models=5)``): how far the models' means of a cell lie apart
        (:func:`scgenot.flow.model_variance`), in the same units. The columns before tell how many targets a cell has; this one tells how
        much training has left open. It needs two samples a model.
    ``entropy``
        With `label_key`, the entropy in nats of the labels as in :meth:`get_label_probabilities`.
    ``label_uncertainty``
        With `label_key`, 1 minus the largest probability of a label after the sizes of labels are levelled out
        (:func:`scgenot.flow.label_uncertainty`): with labels, the best measure of whether a cell goes to the wrong one.

    All but the two of labels are NaN for `n_samples=1`: one sample does not tell a spread. `uncertainty` is also NaN
    for a model that an earlier version saved and that is loaded without target cells.

    Examples
    --------
    >>> model.get_uncertainty(adata)["uncertainty"]  # doctest: +SKIP
    """
    check_is_trained(model)
    # One key for both passes: the labels are those of the same samples.
    sampling = Sampling(n_samples, batch_size, rng, ode, devices)

    def scores_of(cells: Cells) -> pd.DataFrame:
        found = _summary(model, cells, sampling, displacement)
        columns = {"uncertainty": found.uncertainty, "cos_var": found.cos_var, "variance": found.variance}
        if found.model_variance is not None:
            columns["model_variance"] = found.model_variance
        scores = pd.DataFrame(columns, index=cells.names)
        if label_key is not None:
            probabilities = label_shares(model, cells, sampling, label_key, adata).to_numpy()
            frequencies = label_frequencies(model, adata, label_key=label_key, until=until)
            scores["entropy"] = label_entropy(probabilities)
            scores["label_uncertainty"] = label_uncertainty(probabilities, frequencies)
        return scores

    return answer(model, scores_of, adata, indices, conditions, until=until)


def _summary(
    model: TransportModel, cells: Cells, sampling: Sampling, displacement: bool, keep_samples: bool = False
) -> Summary:
    method = model._method
    if displacement and method.source_dim != method.target_dim:
        raise ValueError(
            "`displacement=True` needs source and target in one space, got "
            f"{method.source_dim} and {method.target_dim} features. Leave it False."
        )
    n, d = len(cells.rows), method.target_dim
    mean = np.empty((n, d), np.float32)
    uncertainty, cos_var, variance, between = (np.empty(n, np.float32) for _ in range(4))
    regions = target_regions(model)
    samples = np.empty((n, sampling.n_samples, d), np.float32) if keep_samples else None
    for place, block in sample_blocks(model, cells, sampling):
        mean[place] = conditional_mean(block)
        uncertainty[place] = np.nan if regions is None else regions.entropy(block)
        cos_var[place] = cosine_variance(block, cells.values[place] if displacement else None)
        variance[place] = conditional_variance(block).sum(axis=1)
        between[place] = model_variance(block, method.n_models)
        if samples is not None:
            samples[place] = block
    disagreement = between if method.n_models > 1 else None
    return Summary(cells.rows, mean, uncertainty, cos_var, variance, disagreement, samples)


def target_regions(model: TransportModel) -> TargetRegions | None:
    """Return the regions of the target population, made when they are first asked for; ``None`` if it is not known."""
    if model._reference is None and model.adata_manager is not None:
        # A model of before regions were saved, with its data.
        target = read_population(model.adata, model._spec.target).cells
        model._reference = target[reference_rows(len(target), np.random.default_rng(0))]
    if model._regions is None and model._reference is not None:
        model._regions = TargetRegions.of(model._reference)
    return model._regions
