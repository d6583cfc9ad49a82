"""The landscape that a time course runs down: a potential whose gradient explains where cells come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scgenot._blocks import not_finite
from scgenot._messages import check_positive
from scgenot._sampling import host_rng
from scgenot._sizes import pad_edge
from scgenot.coupling import Coupling
from scgenot.coupling._potential import PotentialCoupling
from scgenot.methods._potentials import (
    LinearPotential,
    PotentialConfig,
    blocks,
    fit_linear,
    fit_network,
    gradients,
    loss,
    value,
)

_DRAWS = 64
_BATCH = 1024
# Steps of Newton's method, and halvings of each.
_NEWTON, _HALVINGS = 20, 12


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """Cells of the later of two times, and where a plan says that they come from.

    Attributes
    ----------
    cells
        Cells of the later time.
    origins
        The mean of the earlier cells that the plan sends to each.
    mass
        What the plan sends to each: its column sums. Only their ratios matter, also between balanced and unbalanced plans.
    gap
        Time that passes in between, in any unit.
    """

    cells: Float[np.ndarray, "m d"]
    origins: Float[np.ndarray, "m d"]
    mass: Float[np.ndarray, " m"]
    gap: float = 1.0

    def __post_init__(self) -> None:
        """Check the values where they are given."""
        check_positive("gap", self.gap)
        for name in ("cells", "origins", "mass"):
            wrong = not_finite(getattr(self, name))
            if wrong:
                raise ValueError(f"`{name}` has NaN or inf in {wrong[0]} rows ({wrong[1]}). Drop these cells.")
        if len(self.mass) == 0 or self.mass.min() < 0 or not self.mass.sum() > 0:
            raise ValueError(
                f"`mass` must hold numbers of at least 0, not all 0, got {len(self.mass)} with sum {self.mass.sum():g}."
            )

    @classmethod
    def of_coupling(
        cls,
        key: jax.Array,
        coupling: Coupling,
        earlier: Float[np.ndarray, "n d"],
        later: Float[np.ndarray, "m d"],
        gap: float = 1.0,
    ) -> Arrivals:
        """Read a plan backwards: which earlier cells each later cell comes from, and how much mass it gets.

        Plans that are held as potentials tell it exactly. Of others pairs are drawn, 64 a cell.
        """
        if isinstance(coupling, PotentialCoupling):
            origins = np.asarray(coupling.swapped().barycentric(pad_edge(earlier, len(coupling.a))))[: len(later)]
            return cls(later, origins, np.asarray(coupling.target_marginal, np.float64)[: len(later)], gap)
        sums, mass = np.zeros((len(later), earlier.shape[1])), np.zeros(len(later))
        steps = -(-_DRAWS * max(len(later), len(earlier)) // _BATCH)
        i, j = (np.asarray(one).ravel() for one in next(coupling.pairs(key, batch_size=_BATCH, steps=steps))[:2])
        np.add.at(sums, j, earlier[i])
        np.add.at(mass, j, 1.0)
        return cls(later, (sums / np.maximum(mass, 1.0)[:, None]).astype(np.float32), mass / mass.sum(), gap)

    @property
    def velocities(self) -> Float[np.ndarray, "m d"]:
        """How fast each cell has come, on average over its origins."""
        return (np.asarray(self.cells, np.float64) - self.origins) / self.gap


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A potential V, down which cells move: ``dy / dt = -grad V(y)``.

    It is known up to a constant: its mean over the cells that it was fitted to is 0. It has the unit of squared features over time.

    Attributes
    ----------
    config
        Form of the potential.
    weights
        What it has learned.
    centre, unit
        Cells are shifted by the one and divided by the other.
    offset
        What is taken off V, in its own units.
    explained, held_out, by_drift
        Share of the mean squared velocity that the potential explains; the same for cells that were left out of the fit; and what
        one drift for all cells explains, the potential that is a plane.
    """

    config: PotentialConfig
    weights: Any
    centre: Float[np.ndarray, " d"]
    unit: float
    offset: float
    explained: float
    held_out: float
    by_drift: float

    def potential(self, y: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Return V of cells."""
        u = self._standard(y)
        return self.unit**2 * self._map(_values, u) - self.offset if len(u) else np.zeros(0)

    def drift(self, y: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Return ``-grad V`` of cells: features per time."""
        return -self.unit * self._map(_slopes, self._standard(y))

    def ahead(self, x: Float[Array | np.ndarray, "n d"], gap: float) -> Float[np.ndarray, "n d"]:
        """Return where cells are after some time: ``y = x - gap grad V(y)``, the step that the potential was fitted to.

        It is the minimum of ``|y - x|^2 / (2 gap) + V(y)`` that Newton's method reaches from ``x``: where gaps are long and V is not convex, one of
        several.

        Raises
        ------
        ValueError
            If `gap` is not above 0.
        """
        check_positive("gap", gap)
        found = self._map(_ahead, self._standard(x), np.float32(gap))
        return found * self.unit + self.centre

    def _standard(self, y) -> Float[np.ndarray, "n d"]:
        y = np.asarray(y)
        if y.ndim != 2 or y.shape[1] != len(self.centre):
            raise ValueError(f"cells must have {len(self.centre)} features, as those of the landscape, got {y.shape}.")
        return ((y - self.centre) / self.unit).astype(np.float32)

    def _map(self, function, u: np.ndarray, *options) -> np.ndarray:
        if not len(u):
            return np.zeros(u.shape)
        parts = [
            np.asarray(function(self.config, self.weights, block, *options), np.float64)[:n]
            for block, n in blocks(u, u.shape[1])
        ]
        return np.concatenate(parts)


def fit_landscape(
    key: jax.Array, arrivals: Sequence[Arrivals], config: PotentialConfig = LinearPotential()
) -> Landscape:
    r"""Fit a potential to the steps of a time course, as JKOnet* does (Terpin, Lanzetti and Doerfler 2024).

    A step of length tau down V from x ends where ``(y - x) / tau + grad V(y) = 0``: the gradient is that at the *later* cell. The loss is the mean
    of its square over the pairs of the plans; for a potential alone, it depends on the plans by their backward means only:
    ``sum_j m_j |(y_j - E[x | y_j]) / tau + grad V(y_j)|^2``. Each step counts alike, whatever the mass of its plan.

    An entropic plan blurs the origins, which pulls backward means towards that of all: use a small epsilon. Diffusion and interaction
    are not told apart from V.

    Parameters
    ----------
    key
        JAX key.
    arrivals
        One a step.
    config
        Form of the potential.

    Raises
    ------
    ValueError
        If there are no steps, or they have not the same features.
    FloatingPointError
        If a network diverges.

    Examples
    --------
    >>> import jax, numpy as np
    >>> y = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    >>> step = Arrivals(y, 1.5 * y, np.ones(200), gap=0.5)  # down |y|^2 / 2
    >>> found = fit_landscape(jax.random.key(0), [step], LinearPotential(n_centers=0))
    >>> bool(np.allclose(found.drift(y), -y, atol=1e-3))
    True
    """
    widths = {one.cells.shape[1] for one in arrivals} | {one.origins.shape[1] for one in arrivals}
    if len(widths) != 1:
        raise ValueError(
            f"`arrivals` must be steps between cells of the same features, got {sorted(widths) or 'none'}."
        )
    cells = np.concatenate([np.asarray(one.cells, np.float64) for one in arrivals])
    velocities = np.concatenate([one.velocities for one in arrivals])
    mass = np.concatenate([np.asarray(one.mass, np.float64) / np.sum(one.mass, dtype=np.float64) for one in arrivals])
    used = mass > 0
    cells, velocities, mass = cells[used], velocities[used], mass[used] / mass.sum()
    centre = mass @ cells
    # One number for all features: another one each would make another landscape.
    unit = float(np.sqrt((mass @ np.square(cells - centre)).mean())) or 1.0
    u, slopes = (cells - centre) / unit, -velocities / unit
    rng = host_rng(key)
    fit = fit_linear if isinstance(config, LinearPotential) else fit_network
    weights, held_out = fit(rng, config, u, slopes, mass)
    total = float(mass @ np.square(slopes).sum(axis=1)) or 1.0
    drift = float(np.square(mass @ slopes).sum())
    explained = 1.0 - loss(config, weights, u, slopes, mass) / total
    found = Landscape(config, weights, centre, unit, 0.0, explained, 1.0 - held_out / total, drift / total)
    return dataclasses.replace(found, offset=float(mass @ found.potential(cells)))


@partial(jax.jit, static_argnums=0)
def _values(config: PotentialConfig, weights: Any, u: Float[Array | np.ndarray, "n d"]) -> Float[Array, " n"]:
    return jax.vmap(partial(value, config, weights))(u)


_slopes = partial(jax.jit, static_argnums=0)(gradients)


@partial(jax.jit, static_argnums=0)
def _ahead(config: PotentialConfig, weights: Any, u: Float[Array | np.ndarray, "n d"], gap) -> Float[Array, "n d"]:
    """Minimise ``|w|^2 / (2 gap) + V(u + w)`` from ``w = 0`` by Newton's method.

    JAX's BFGS, in single precision, stopped .2 off on a quadratic. Directions of negative curvature are gone down (by the absolute eigenvalue), and the
    longest of a few steps that is best is taken.
    """
    shares = 0.5 ** jnp.arange(_HALVINGS)

    def one(start):
        objective = lambda way: 0.5 * jnp.square(way).sum() / gap + value(config, weights, start + way)

        def step(_, way):
            values, vectors = jnp.linalg.eigh(jax.hessian(objective)(way))
            turned = vectors.T @ jax.grad(objective)(way)
            # Near 0 curvature, no further than ten explicit steps.
            move = vectors @ (turned / jnp.maximum(jnp.abs(values), 0.1 / gap))
            tried = way[None] - jnp.append(shares, 0.0)[:, None] * move[None]
            found = jax.vmap(objective)(tried)
            # At the end all are equal up to rounding, and the whole step is right.
            close = found <= found.min() + 1e-6 * jnp.abs(found.min())
            return tried[jnp.argmax(close)]

        return start + jax.lax.fori_loop(0, _NEWTON, step, jnp.zeros_like(start))

    return jax.vmap(one)(u)
