"""The path: where a flow starts, how it goes to the target, and the velocity that is regressed on the way."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scgenot._blocks import matmul
from scgenot._random import Words, normal, random_bits, uniform
from scgenot.flow._candidates import Candidates

# A velocity of (times, positions, what is seen of the source cells); a condition is bound to it already.
Velocity: TypeAlias = Callable[..., Array]
# Above this time a row's own target is as good as the mean: what is divided by the time that is left would be rounding.
_LAST = 0.95
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

    # Whether it has a `mean_target`: positions are on straight lines then.
    averages: ClassVar[bool] = False

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

    def mean_target(
        self,
        t: Float[Array, " rows"],
        position: Float[Array, "rows dy"],
        x: Float[Array, "rows dx"],
        targets: Float[Array, "k dy"],
        scores: Float[Array, "rows k"],
    ) -> Float[Array, "rows dy"]:
        """Return the mean of the targets that rows may be on their way to, each as likely as its score and the start's noise make it.

        Raises
        ------
        NotImplementedError
            If where rows start is no density: `averages` is false then.
        """
        raise NotImplementedError(f"{type(self).__name__} starts from no density: a row has one target.")

    def regress(
        self,
        model: Velocity,
        x: Float[Array, "rows dx"],
        y: Float[Array, "rows dy"],
        z: Float[Array, "rows dy"],
        t: Float[Array, " rows"],
        candidates: Candidates | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the loss to minimise, and that against each row's own pair, which is the same without candidates.

        With candidates the regression target of a row is the mean of the velocities towards all of them. Where a row's own target is drawn from
        its row of the plan and the others from the target marginal, the expectation is that of one pair (to choose among these by their weights
        leaves the law of the own one as it is: iterated sampling importance resampling), and the variance is lower: Xu, Tong and Jaakkola 2023.
        """
        start = self.start(z, x)
        position = self.position(t, start, y)
        found, velocity = model(t, position, self.seen(x)), self.velocity(t, start, y)
        own = jnp.mean(jnp.square(found - velocity))
        if candidates is None:
            return own, own
        left = 1.0 - t[:, None]
        ahead = (candidates.means(self.mean_target, t, position, x) - y) / jnp.maximum(left, 1.0 - _LAST)
        velocity = velocity + jnp.where(left > 1.0 - _LAST, ahead, 0.0)
        return jnp.mean(jnp.square(found - velocity)), own

    def loss(
        self,
        model: Velocity,
        x: Float[Array, "rows dx"],
        y: Float[Array, "rows dy"],
        z: Float[Array, "rows dy"],
        t: Float[Array, " rows"],
    ) -> Float[Array, ""]:
        """Return the mean squared error of a velocity over rows and features, each row against its own pair."""
        return self.regress(model, x, y, z, t)[1]


@dataclasses.dataclass(frozen=True)
class NoiseToTarget(Path):
    """GENOT's: straight lines from noise to the target, given the source cell (Klein et al. 2024, equation 7).

    The regression target is y - z, from noise to target; not y - x.
    """

    averages: ClassVar[bool] = True

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

    def mean_target(
        self,
        t: Float[Array, " rows"],
        position: Float[Array, "rows dy"],
        x: Float[Array, "rows dx"],
        targets: Float[Array, "k dy"],
        scores: Float[Array, "rows k"],
    ) -> Float[Array, "rows dy"]:
        """Return the mean over targets: the noise that a row must have come from, were it on its way to one, tells how likely that is."""
        left = 1.0 - t[:, None]
        rows = self.whitened(position - left * self.start(jnp.zeros_like(position), x))
        towards, scale = self.whitened(targets), jnp.maximum(left, 1.0 - _LAST)
        product = matmul(rows, towards.T)
        # What is the same for all targets of a row is left out.
        ahead = product - 0.5 * t[:, None] * jnp.sum(jnp.square(towards), axis=1)[None, :]
        noise = t[:, None] * ahead / jnp.square(scale)
        return matmul(jax.nn.softmax(scores + noise, axis=1), targets)

    def whitened(self, points: Float[Array, "rows dy"]) -> Float[Array, "rows dy"]:
        """Return differences of starts of a source cell in units of the noise that they come from."""
        return points


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
