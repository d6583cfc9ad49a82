"""Several devices: which take part, and how rows of cells are shared among them.

There is one mesh with one axis, of cells. Rows of costs, of a training batch and of samples are shared along it; all else is whole on
every device. Where there is one device, every function here does nothing, so that the same programs run as without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scgenot._messages import is_number, one_of

_AXIS = "cells"
_ALL = ("auto", -1, "-1")
_PLATFORMS = ("auto", "cpu", "gpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Devices:
    """Two or more devices that share rows of cells; where there is one, ``None`` stands in its place.

    Attributes
    ----------
    mesh
        The devices, along one axis.
    """

    mesh: Mesh

    @classmethod
    def of(cls, devices: DevicesLike = "auto", accelerator: str = "auto") -> Devices | None:
        """Return the devices that are asked for, see :func:`chosen_devices`; ``None`` where that is one."""
        if isinstance(devices, Devices | None):
            return devices
        found = chosen_devices(devices, accelerator)
        return cls(Mesh(np.array(found), (_AXIS,))) if len(found) > 1 else None

    @property
    def count(self) -> int:
        """How many they are."""
        return int(self.mesh.size)

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Return where an array lies of which these axes are shared; without any, whole on every device."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))


# "auto", how many, the numbers of those that are meant among all that JAX sees, or what they were turned into (``None``: one).
DevicesLike: TypeAlias = int | str | Sequence[int] | Devices | None


def chosen_devices(devices: int | str | Sequence[int] = "auto", accelerator: str = "auto") -> list[jax.Device]:
    """Return the devices that are asked for.

    Parameters
    ----------
    devices
        ``"auto"`` or -1: all that JAX sees; a number: the first so many; a sequence of numbers: these.
    accelerator
        ``"cpu"``, ``"gpu"``, ``"tpu"``, or ``"auto"`` for JAX's own choice.

    Raises
    ------
    ValueError
        If there are no such devices, or if several processes were joined and it is not all.
    """
    if accelerator not in _PLATFORMS:
        raise ValueError(one_of("accelerator", accelerator, _PLATFORMS))
    try:
        there = jax.devices(None if accelerator == "auto" else {"gpu": "cuda"}.get(accelerator, accelerator))
    except RuntimeError:
        known = ["auto", *sorted({device.platform for device in jax.devices()})]
        raise ValueError(one_of("accelerator", accelerator, known)) from None
    if not isinstance(devices, Sequence) or isinstance(devices, str):
        found = there if devices in _ALL else there[: _count(devices, len(there))]
    else:
        numbers = list(devices)
        if not numbers or len(set(numbers)) < len(numbers) or not all(_is_among(one, there) for one in numbers):
            raise ValueError(
                f"`devices` must be different numbers from 0 to {len(there) - 1}, got {devices!r}. For the first of them "
                "give how many."
            )
        found = [there[number] for number in numbers]
    if jax.process_count() > 1 and len(found) < len(there):
        raise ValueError(
            f"`devices`={devices!r} would leave out some of the {len(there)} devices of {jax.process_count()} joined processes, "
            "each of which has to take part. Leave `devices` out, or start fewer processes."
        )
    return found


def _count(devices: Any, there: int) -> int:
    number = int(devices) if isinstance(devices, str) and devices.isdigit() else devices
    if not is_number(number, "iu") or number < 1:
        raise ValueError(
            f"`devices` must be 'auto', a number of devices from 1 to {there}, or a list of their numbers, got {devices!r}. "
            "'auto' takes all."
        )
    if number > there:
        platform = jax.devices()[0].platform
        remedy = (
            "For a trial without others, set XLA_FLAGS=--xla_force_host_platform_device_count=8 before JAX is imported."
            if platform == "cpu"
            else "See `jax.devices()`; CUDA_VISIBLE_DEVICES may hide some."
        )
        raise ValueError(
            f"`devices`={devices!r}, and JAX sees {there} ({platform}). Use 'auto', which takes all. {remedy}"
        )
    return int(number)


def _is_among(number: Any, there: list[jax.Device]) -> bool:
    return is_number(number, "iu") and 0 <= number < len(there)


# ---- Outside of compiled code ----------------------------------------------------------------------------------------


def put_whole(devices: Devices | None, tree: Any) -> Any:
    """Put arrays on every device, each of which holds all of them."""
    if devices is None:
        return jax.device_put(tree)
    return jax.tree.map(lambda one: _put(np.asarray(one), devices.sharding()), tree)


def put_rows(devices: Devices | None, array: Any) -> jax.Array:
    """Put an array on the devices, each of which holds its share of the rows; all of them where they cannot be shared evenly."""
    if devices is None:
        return jax.device_put(array)
    array = np.asarray(array)
    return _put(array, devices.sharding(*(() if len(array) % devices.count else (_AXIS,))))


def _put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    # `jax.device_put` would have processes compare the whole array with each other's first.
    return jax.make_array_from_callback(array.shape, sharding, lambda place: array[place])


def brought_home(devices: Devices | None, tree: Any) -> Any:
    """Return arrays that are whole on every device on the default device alone, as if there were no others."""
    return tree if devices is None else jax.tree.map(lambda one: jax.device_put(np.asarray(one)), tree)


# ---- In compiled code ------------------------------------------------------------------------------------------------


def by_rows(devices: Devices | None, function: Callable[[Any, Any], Any], rows: Any, whole: Any) -> Any:
    """Return ``function(rows, whole)``, each device computing it for its share of the rows.

    Parameters
    ----------
    devices
        Which share them.
    function
        Makes of some rows as many rows, each by itself. It knows of one device only.
    rows
        A tree of arrays of equally many rows. Copies of the last one fill up what cannot be shared evenly.
    whole
        A tree of arrays that all see.

    Returns
    -------
    A tree of arrays of as many rows, which stay where they were made; see :func:`gathered`.
    """
    if devices is None:
        return function(rows, whole)
    n = jax.tree.leaves(rows)[0].shape[0]
    if more := -n % devices.count:
        rows = jax.tree.map(lambda one: jnp.pad(one, [(0, more)] + [(0, 0)] * (one.ndim - 1), mode="edge"), rows)
    shared, all_of_it = PartitionSpec(_AXIS), PartitionSpec()
    apart = jax.shard_map(function, mesh=devices.mesh, in_specs=(shared, all_of_it), out_specs=shared, check_vma=False)
    found = apart(rows, whole)
    return jax.tree.map(lambda one: one[:n], found) if more else found


def over_devices(devices: Devices | None, tree: Any) -> Any:
    """Let each device compute its share of the rows of arrays, and of all that follows from them row by row."""
    if devices is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, devices.sharding(_AXIS))


def gathered(devices: Devices | None, tree: Any) -> Any:
    """Let each device hold all of the arrays."""
    return tree if devices is None else jax.lax.with_sharding_constraint(tree, devices.sharding())
