"""The path: where a flow starts, how it goes to the target, and the velocity that is regressed on the way."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._random import Words, normal, random_bits, uniform

# A velocity of (times, positions, what is seen of the source cells); a condition is bound to it already.
Velocity: TypeAlias = Callable[..., Array]
# Rows of source and of target cells, and of conditions where there are some.
Pairs: TypeAlias = Iterator[tuple[Int[Array, "steps batch"], ...]]


def _leaves(path: Path) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    names = tuple(field.name for field in dataclasses.fields(path))
    return [(jax.tree_util.GetAttrKey(name), getattr(path, name)) for name in names], names


def _rebuilt(cls: type[Path], names: tuple[str, ...], leaves: Iterable[Any]) -> Path:
    path = object.__new__(cls)
    for name, leaf in zip(names, leaves, strict=True):
        object.__setattr__(path, name, leaf)
    return path


@dataclasses.dataclass(frozen=True)
class Path(abc.ABC):
    """What sets one flow apart from another. The trainer regresses along it, and the sampler starts where it starts.

    A path is a frozen dataclass; its fields, if it has any, are arrays that were learned, and travel with a flow's weights. Compiled
    functions take it as a tree of them.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Make the subclass a tree that JAX knows; its fields are looked up when they are there."""
        super().__init_subclass__(**options)
        jax.tree_util.register_pytree_with_keys(cls, _leaves, lambda names, leaves: _rebuilt(cls, names, leaves))

    def settled(
        self, cells: tuple[Float[np.ndarray, "n dx"], Float[np.ndarray, "m dy"]], pairs: Pairs
    ) -> tuple[Path, Pairs]:
        """Return the path with what it learns of pairs before training, and the pairs to train on. Most learn nothing.

        Parameters
        ----------
        cells
            Source and target cells in standardised units.
        pairs
            Rows of them, some training batches at a time, without end.
        """
        return self, pairs

    @abc.abstractmethod
    def start(self, z: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Return where rows start, given standard normal noise and source cells."""

    def noise(self, start: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Return the noise that rows started from: the inverse of :meth:`start`. Densities need it, and :meth:`log_volume`.

        Raises
        ------
        NotImplementedError
            If the path has none: where rows start is no density then.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no `noise`, the inverse of `start`: its flow has no density."
        )

    def log_volume(self) -> Float[Array, ""] | float:
        """Return the logarithm of how many times larger a volume of starts is than that of the noise they come from."""
        return 0.0

    @abc.abstractmethod
    def seen(self, x: Float[Array, "rows dx"]) -> Float[Array, "rows seen"]:
        """Return what the velocity sees of the source cells."""

    @abc.abstractmethod
    def position(
        self, t: Float[Array, " rows"], start: Float[Array, "rows dy"], y: Float[Array, "rows dy"]
    ) -> Float[Array, "rows dy"]:
        """Return where rows are at time `t`."""

    @abc.abstractmethod
    def velocity(
        self, t: Float[Array, " rows"], start: Float[Array, "rows dy"], y: Float[Array, "rows dy"]
    ) -> Float[Array, "rows dy"]:
        """Return the velocity that is regressed."""

    def loss(
        self,
        model: Velocity,
        x: Float[Array, "rows dx"],
        y: Float[Array, "rows dy"],
        z: Float[Array, "rows dy"],
        t: Float[Array, " rows"],
    ) -> Float[Array, ""]:
        """Return the mean squared error of a velocity over rows and features."""
        start = self.start(z, x)
        found = model(t, self.position(t, start, y), self.seen(x))
        return jnp.mean(jnp.square(found - self.velocity(t, start, y)))


@dataclasses.dataclass(frozen=True)
class NoiseToTarget(Path):
    """GENOT's: straight lines from noise to the target, given the source cell (Klein et al. 2024, equation 7).

    The regression target is y - z, from noise to target; not y - x.
    """

    def start(self, z: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Start at noise."""
        return z

    def noise(self, start: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Return the start, which is noise."""
        return start

    def seen(self, x: Float[Array, "rows dx"]) -> Float[Array, "rows seen"]:
        """See all of the source cell: the law is conditional on it."""
        return x

    def position(
        self, t: Float[Array, " rows"], start: Float[Array, "rows dy"], y: Float[Array, "rows dy"]
    ) -> Float[Array, "rows dy"]:
        """Return ``(1 - t) z + t y``."""
        return (1.0 - t[:, None]) * start + t[:, None] * y

    def velocity(
        self, t: Float[Array, " rows"], start: Float[Array, "rows dy"], y: Float[Array, "rows dy"]
    ) -> Float[Array, "rows dy"]:
        """Return ``y - z``."""
        return y - start


@dataclasses.dataclass(frozen=True)
class NoiseAroundSource(NoiseToTarget):
    """Straight lines from noise around the source cell to the target, given the source cell; in one space.

    The law that is learned is the same, since a flow may start anywhere that depends on what it is conditional on. What is regressed is
    y - (x + z): a move of the cell. A condition that was not seen is then predicted to move cells as those do that are like it, rather
    than to where their cells are.
    """

    def start(self, z: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Start at noise around the source cell."""
        return x + z

    def noise(self, start: Float[Array, "rows dy"], x: Float[Array, "rows dx"]) -> Float[Array, "rows dy"]:
        """Return how far the start is from the source cell."""
        return start - x


@partial(jax.jit, static_argnames=("rows", "target_dim"))
def noise_and_time(
    key: jax.Array | Words, rows: int, target_dim: int
) -> tuple[Float[Array, "rows dy"], Float[Array, " rows"]]:
    """Draw noise z ~ N(0, I) and times stratified over [0, 1], in random order over the rows."""
    # Two words of bits for each row and each pair of features, and one more pair for the time.
    pairs = -(-target_dim // 2)
    one, two = random_bits(key, jnp.arange(rows)[:, None], jnp.arange(pairs + 1)[None, :])
    noise = normal(jnp.concatenate([one[:, :pairs], two[:, :pairs]], axis=1)[:, :target_dim])
    # One time in each of `rows` equal intervals: the mean over times has little variance of its own. The order is
    # shuffled, since the rows of a batch are ordered by source cell.
    times = (jnp.arange(rows, dtype=jnp.float32) + uniform(one[:, pairs])) / rows
    return noise, jax.lax.sort((two[:, pairs], times), num_keys=1)[1]


def matching_loss(
    model: Velocity,
    x: Float[Array, "rows dx"],
    y: Float[Array, "rows dy"],
    z: Float[Array, "rows dy"],
    t: Float[Array, " rows"],
) -> Float[Array, ""]:
    """Return GENOT's loss, ``mean |v(t, (1 - t) z + t y | x) - (y - z)|^2`` over rows and features."""
    return NoiseToTarget().loss(model, x, y, z, t)
