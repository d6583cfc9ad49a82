"""Which cells a question to a model is about, and how they are sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from scgenot._devices import Devices, DevicesLike
from scgenot._messages import check_count
from scgenot._rng import RNG, as_key
from scgenot.data import Data, check_names, read_representation, select_rows
from scgenot.flow import ODEConfig
from scgenot.methods import Method
from scgenot.model._way import Travellers, Way, follow_blocks

if TYPE_CHECKING:
    from scgenot.model._base import TransportModel


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How samples are drawn: what the arguments of all getters that draw some say together.

    Attributes
    ----------
    n_samples
        Samples a cell.
    batch_size
        Cells at once, or ``None``.
    rng
        A key, made from a seed or generator once, so that all that is drawn with one value is drawn alike.
    ode
        How the flow's equation is solved, or ``None``.
    devices
        Devices that share the samples, as users name them.
    """

    n_samples: int = 30
    batch_size: int | None = None
    rng: RNG = 0
    ode: ODEConfig | None = None
    devices: DevicesLike = "auto"

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        check_count("n_samples", self.n_samples)
        object.__setattr__(self, "n_samples", int(self.n_samples))
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
            object.__setattr__(self, "batch_size", int(self.batch_size))
        if not isinstance(self.ode, ODEConfig | None):
            raise TypeError(f"`ode` must be a scgenot.flow.ODEConfig or None, got {type(self.ode).__name__}.")
        object.__setattr__(self, "rng", as_key(self.rng))


@dataclasses.dataclass(frozen=True)
class Cells:
    """Cells that a question is about.

    Attributes
    ----------
    adata
        The AnnData that holds them.
    rows
        Their rows in it, in the order of the answer.
    values
        Their representation.
    condition
        The numbers of each one's condition; ``None`` without conditions.
    way
        From when to when they are taken, in a time course; `condition` is that of their first step.
    """

    adata: AnnData
    rows: Int[np.ndarray, " n"]
    values: Float[np.ndarray, "n d"]
    condition: Float[np.ndarray, "n c"] | None = None
    way: Way | None = None

    @property
    def names(self) -> pd.Index:
        """Their names."""
        return self.adata.obs_names[self.rows]

    def some(self, place: Int[np.ndarray, " k"]) -> Cells:
        """Return some of them, each once."""
        condition = None if self.condition is None else self.condition[place]
        way = None if self.way is None else self.way.some(place)
        return Cells(self.adata, self.rows[place], self.values[place], condition, way)

    @property
    def sample_ids(self) -> Int[np.ndarray, " n"]:
        """Numbers that tie samples to cells: the row, and another number each further time that a cell is asked for."""
        times = pd.Series(self.rows).groupby(self.rows).cumcount().to_numpy()
        return self.rows + times * self.adata.n_obs


def check_is_trained(model: TransportModel) -> None:
    """Raise a ``RuntimeError`` unless the model is trained."""
    model._check_if_trained(
        warn=False, message="this model is not trained: it has nothing to sample from. Call `model.train()` first."
    )


def some_data(model: TransportModel, adata: Data | None) -> Data:
    """Return `adata`, or the model's own data."""
    if adata is None:
        adata = model.adata
    if adata is None:
        raise ValueError("this model was loaded without data. Pass `adata` with the cells that you want to map.")
    return adata


def cells_of(model: TransportModel, side: str, adata: Data | None, indices: Any) -> Cells:
    """Return the cells that are asked for, seen as cells of a population."""
    check_is_trained(model)
    data, place = some_data(model, adata), getattr(model._spec, side)
    width = getattr(model._method, f"{side}_dim")
    held_by = place.cells(data)
    rows = select_rows(data, place, indices)
    if len(rows) == 0:
        raise ValueError(
            f"no cells to map: {place.name_of('obs')}[{place.population_key!r}] has no cell {place.label!r}. "
            "Name the cells with `indices`."
        )
    values = read_representation(held_by, place.rep, rows, f"{side}_rep", place)
    if values.shape[1] != width:
        raise ValueError(
            f"the model was trained with {width} features in {place.rep!r}, this adata has "
            f"{values.shape[1]}. Compute the representation as for the training data, on the same features, and pass that "
            "`adata`."
        )
    check_names(held_by, place, model._feature_names[side])
    return Cells(held_by, rows, values)


def sample_blocks(model: TransportModel, cells: Cells, sampling: Sampling) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield samples of a run of consecutive cells at a time."""
    rows = None if sampling.batch_size is None else sampling.batch_size * sampling.n_samples
    method = on_devices(model._method, sampling.devices)
    if cells.way is not None and cells.way.is_long:
        return follow_blocks(method, travellers(cells, sampling))
    options = {"ode": sampling.ode, "cell_ids": cells.sample_ids, "rows": rows, "condition": cells.condition}
    return method.sample_blocks(sampling.rng, cells.values, sampling.n_samples, **options)


def on_devices(method: Method, devices: DevicesLike, accelerator: str = "auto") -> Method:
    """Return the method as it learns and samples on some devices.

    Weights that :meth:`TransportModel.to_device` put on one device stay there, unless others are asked for.

    Raises
    ------
    ValueError
        If there are no such devices, or several are asked for and the method works on one.
    """
    found = Devices.of(devices, accelerator)
    if found is not None and devices == "auto":
        held = [leaf for leaf in jax.tree.leaves(method.weights) if isinstance(leaf, jax.Array)]
        found = None if not method.can.devices or any(leaf.committed for leaf in held) else found
    if found is not None and not method.can.devices:
        raise ValueError(f"`devices`={devices!r}: the method {method.name!r} works on one device. Leave `devices` out.")
    return method if found is method.devices else dataclasses.replace(method, devices=found)


def travellers(cells: Cells, sampling: Sampling) -> Travellers:
    """Return cells as they set out on several steps."""
    rows = None if sampling.batch_size is None else sampling.batch_size * sampling.n_samples
    how = {"n_samples": sampling.n_samples, "key": sampling.rng, "ode": sampling.ode, "rows": rows}
    return Travellers(cells.values, cells.sample_ids, cells.way, **how)
