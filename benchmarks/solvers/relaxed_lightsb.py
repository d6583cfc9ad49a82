"""LightSB with relaxed marginals: of the target alone (semi-relaxed), or of both (U-LightSB; Gazdieva et al. 2024).

Cost ``|x - y|^2 / 2``, entropy against Lebesgue measure (not against the product of the marginals, as `tau` in the package):

    min_P E_P |x - y|^2 / 2 - e H(P) + lam KL(P 1 | p) + lam KL(P' 1 | q).

With ``v = sum_k alpha_k N(r_k, e S_k)`` and ``c(x) = int exp(x.y / e) v(y) dy``, potentials are ``psi = e log v + |y|^2 / 2`` and, where the source is
relaxed too, ``phi = e (log P1 - log c) + |x|^2 / 2``, with ``P1 = m sum_l beta_l N(mu_l, e Sigma_l)``. Losses:

    both:    e m + lam E_p [exp(-phi / lam) - 1] + lam E_q [exp(-psi / lam) - 1]
    target:  e E_p log c + lam E_q exp(-psi / lam)                                   (derived here: the source is kept)

At the optimum the marginals are ``p exp(-phi / lam)`` and ``q exp(-psi / lam)``. The total mass of the former depends on the unit of x.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

from benchmarks.solvers._base import Units, by_rows, checked, descend, draws, log_normal
from scgenot._sampling import host_rng
from scgenot.methods._lightsb import _log_c_terms, _log_v, _start


@dataclasses.dataclass(frozen=True)
class RelaxedLightSB:
    """The fitted plan.

    Attributes
    ----------
    params
        Of v, and of P1 where the source is relaxed.
    e, lam
        In units of the standardised cells.
    units
        These units.
    """

    params: dict[str, Any]
    e: float
    lam: float
    units: Units
    stochastic: ClassVar[bool] = True
    density: ClassVar[bool] = True

    def mean(self, x: np.ndarray) -> np.ndarray:
        """Return ``sum_k w_k(x) (r_k + S_k x)``."""
        return self.units.back(by_rows(partial(_mean, self.params, np.float32(self.e)), self.units.to(x)))

    def sample(self, key: jax.Array, x: np.ndarray, n: int) -> np.ndarray:
        """Draw a component, then from it."""
        u = np.repeat(self.units.to(x), n, axis=0)
        number = iter(range(len(u)))
        draw = lambda block: _draw(self.params, np.float32(self.e), jax.random.fold_in(key, next(number)), block)
        return self.units.back(by_rows(draw, u)).reshape(len(x), n, -1)

    def log_prob(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return ``log pi(y | x)`` of pairs of rows."""
        y, x = self.units.to(y), self.units.to(x)
        both = lambda block: _log_law(self.params, np.float32(self.e), *jnp.split(block, 2, axis=1))
        return by_rows(both, np.concatenate([y, x], axis=1)) - x.shape[1] * np.log(self.units.unit)

    def eta(self, x: np.ndarray) -> np.ndarray:
        """Return how much mass source cells send per unit of theirs; 1 where the source is kept."""
        if "mu" not in self.params:
            return np.ones(len(x))
        return np.exp(-by_rows(partial(_phi, self.params, self.e, self._shift), self.units.to(x)) / self.lam)

    def xi(self, y: np.ndarray) -> np.ndarray:
        """Return how much mass target cells get per unit of theirs."""
        return np.exp(-by_rows(partial(_psi, self.params, self.e, self._shift), self.units.to(y)) / self.lam)

    @property
    def _shift(self) -> float:
        return _entropy_of_unit(self.e, self.units)


def fit(
    key: jax.Array,
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    epsilon_b: float,
    lam: float = 1.0,
    relax_source: bool = False,
    n_components: int = 20,
    steps: int = 5000,
    batch_size: int = 512,
    learning_rate: float = 1e-2,
    warm_up: float = 0.1,
) -> RelaxedLightSB:
    """Fit the mixtures.

    Parameters
    ----------
    epsilon_b, lam
        Of the problem above, in squared units of the cells.
    relax_source
        Whether the source's marginal is relaxed as well.
    n_components
        Of v, and of P1.
    steps, batch_size, learning_rate
        Of Adam.
    warm_up
        Share of the steps with a lam that is 1000 times as large, hence nearly balanced: exponentials of a bad start overflow otherwise.
    """
    x, y, a, b = checked(x, y, a, b)
    units = Units.of(x, y, a, b)
    x, y = units.to(x), units.to(y)
    e, lam = epsilon_b / units.unit**2, lam / units.unit**2
    params: dict[str, Any] = dict(_start(host_rng(key), y, b, e, n_components))
    if relax_source:
        params |= _source_start(host_rng(key, 1), x, a, e, n_components)
    shift = _entropy_of_unit(e, units)
    rows = [draws(jax.random.fold_in(key, 2 + side), w, (steps, batch_size)) for side, w in enumerate((a, b))]
    lams = np.where(np.arange(steps) < warm_up * steps, 1000.0 * lam, lam).astype(np.float32)
    cells = jax.device_put((x, y))

    def loss(params, i, j, lam):
        x, y = cells[0][i], cells[1][j]
        # exp(s) - 1, not below: near balance it is the difference that counts.
        given = lam * jnp.expm1(-_psi(params, e, shift, y) / lam).mean()
        if not relax_source:
            return e * jax.nn.logsumexp(_log_c_terms(params, e, x), axis=1).mean() + given
        sent = lam * jnp.expm1(-_phi(params, e, shift, x) / lam).mean()
        return e * jnp.exp(jax.nn.logsumexp(params["log_m"])) + sent + given

    params, _ = descend(loss, params, (*rows, lams), steps, learning_rate)
    return RelaxedLightSB(params, e, lam, units)


def _entropy_of_unit(e: float, units: Units) -> float:
    """Return what a density loses by the change of the unit, for each of x and y."""
    return e * len(units.centre) * float(np.log(units.unit))


def _source_start(rng: np.random.Generator, x, a, e: float, k: int) -> dict[str, jax.Array]:
    """Return P1 of mass 1 around k-means centres of the source cells; the published notebook starts it far from them."""
    drawn = x[rng.choice(len(x), min(4000, max(len(x), 4 * k)), p=a)].astype(np.float64)
    mu, label = kmeans2(drawn, k, minit="++", seed=rng)
    shares = (np.bincount(label, minlength=k) + 1.0) / (len(label) + k)
    spread = np.maximum(np.square(drawn - mu[label]).mean(), 1e-3)
    log_s = np.full(mu.shape, np.log(spread / e))
    found = {"log_m": np.log(shares), "mu": mu, "log_sigma": log_s}
    return {name: jax.device_put(np.asarray(one, np.float32)) for name, one in found.items()}


def _psi(params, e, shift, y):
    return e * _log_v(params, e, y) + 0.5 * jnp.square(y).sum(1) - shift


def _phi(params, e, shift, x):
    away = x[:, None] - params["mu"][None]
    log_p = jax.nn.logsumexp(params["log_m"] + log_normal(away, params["log_sigma"] + jnp.log(e)), axis=1)
    log_c = jax.nn.logsumexp(_log_c_terms(params, e, x), axis=1)
    return e * (log_p - log_c) + 0.5 * jnp.square(x).sum(1) - shift


@jax.jit
def _mean(params, e, x):
    shares = jax.nn.softmax(_log_c_terms(params, e, x), axis=1)
    return shares @ params["r"] + (shares @ jnp.exp(params["log_s"])) * x


@jax.jit
def _draw(params, e, key, x):
    first, second = jax.random.split(key)
    k = jax.random.categorical(first, _log_c_terms(params, e, x))
    s = jnp.exp(params["log_s"])[k]
    return params["r"][k] + s * x + jnp.sqrt(e * s) * jax.random.normal(second, x.shape)


@jax.jit
def _log_law(params, e, y, x):
    return (x * y).sum(1) / e + _log_v(params, e, y) - jax.nn.logsumexp(_log_c_terms(params, e, x), axis=1)
