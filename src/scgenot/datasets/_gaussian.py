"""Linear entropic transport between two Gaussians, solved in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jax import Array
from jaxtyping import Float

from scgenot.datasets._checks import (
    as_count,
    as_covariance,
    as_locations,
    as_positive,
    random_covariance,
    symmetric_power,
)


@dataclass(frozen=True, eq=False)
class GaussianProblem:
    r"""Entropic transport from N(0, A) to N(0, B) with cost :math:`|x - y|^2`.

    The plan that minimises :math:`E|x - y|^2 + \varepsilon\, KL(P | a \otimes b)` is Gaussian. With :math:`s =
    \varepsilon / 2` and :math:`D = (4 A^{1/2} B A^{1/2} + s^2 I)^{1/2}` its cross-covariance :math:`E[x y^\top]` is
    :math:`K = \tfrac12 (A^{1/2} D A^{-1/2} - s I)`, so :math:`\pi(y | x) = N(K^\top A^{-1} x,\; B - K^\top A^{-1} K)`.

    Parameters
    ----------
    source_cov, target_cov
        A and B, positive definite, shape (d, d).
    epsilon
        Factor of KL in the objective above, in squared units of the data. (For the cost :math:`\tfrac12 |x - y|^2` of
        Schrödinger-bridge papers, this is twice theirs.)

    Raises
    ------
    ValueError
        If a covariance is not positive definite, the shapes differ, or ``epsilon`` is not positive.

    References
    ----------
    Janati et al. (2020), "Entropic optimal transport between unbalanced Gaussian measures has a closed form",
    theorem 1 (their :math:`2\sigma^2` is this epsilon).

    Examples
    --------
    >>> import numpy as np
    >>> problem = scgenot.datasets.GaussianProblem(np.eye(2), 2 * np.eye(2), 0.5)
    >>> mean, cov = problem.conditional(np.ones((3, 2)))
    >>> mean.shape, cov.shape
    ((3, 2), (2, 2))
    """

    source_cov: Float[np.ndarray, "d d"]
    target_cov: Float[np.ndarray, "d d"]
    epsilon: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "source_cov", as_covariance("source_cov", self.source_cov))
        object.__setattr__(self, "target_cov", as_covariance("target_cov", self.target_cov))
        object.__setattr__(self, "epsilon", as_positive("epsilon", self.epsilon))
        if self.source_cov.shape != self.target_cov.shape:
            raise ValueError(
                f"`source_cov` and `target_cov` must have one shape, got {self.source_cov.shape} and "
                f"{self.target_cov.shape}. For spaces of different dimension use `quadratic_gaussian`."
            )

    @property
    def mean_cost(self) -> float:
        """Mean of the cost under independent pairing, tr A + tr B: what ``scale_cost="mean"`` divides by."""
        return float(np.trace(self.source_cov) + np.trace(self.target_cov))

    @cached_property
    def cross_cov(self) -> Float[np.ndarray, "d d"]:
        """Cross-covariance K = E[x y'] of the optimal plan, shape (d, d)."""
        half = self.epsilon / 2
        root, inverse_root = symmetric_power(self.source_cov, 0.5), symmetric_power(self.source_cov, -0.5)
        middle = symmetric_power(4 * root @ self.target_cov @ root + half**2 * np.eye(len(root)), 0.5)
        return 0.5 * (root @ middle @ inverse_root - half * np.eye(len(root)))

    @cached_property
    def conditional_cov(self) -> Float[np.ndarray, "d d"]:
        """Covariance of pi(. | x), the same for every x, shape (d, d)."""
        cov = self.target_cov - self.cross_cov.T @ np.linalg.solve(self.source_cov, self.cross_cov)
        return 0.5 * (cov + cov.T)

    @property
    def value(self) -> float:
        """Optimal value of the objective, the KL term included."""
        log_dets = np.linalg.slogdet(self.target_cov)[1] - np.linalg.slogdet(self.conditional_cov)[1]
        return float(self.mean_cost - 2 * np.trace(self.cross_cov) + self.epsilon * 0.5 * log_dets)

    def sample_source(self, rng: int | np.random.Generator, n: int) -> Float[np.ndarray, "n d"]:
        """Draw n source cells, shape (n, d)."""
        return _sample(rng, self.source_cov, n)

    def sample_target(self, rng: int | np.random.Generator, n: int) -> Float[np.ndarray, "n d"]:
        """Draw n target cells, independent of any source cells, shape (n, d)."""
        return _sample(rng, self.target_cov, n)

    def conditional(
        self, x: Float[Array | np.ndarray, "n d"]
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "d d"]]:
        """Mean of pi(. | x) for each row of x, shape (n, d), and its covariance, shape (d, d).

        Raises
        ------
        ValueError
            If ``x`` does not have d columns.
        """
        x = as_locations("x", x, len(self.source_cov))
        return x @ np.linalg.solve(self.source_cov, self.cross_cov), self.conditional_cov

    def sample_conditional(
        self, rng: int | np.random.Generator, x: Float[Array | np.ndarray, "n_x d"], n: int
    ) -> Float[np.ndarray, "n_x n d"]:
        """Draw n targets for each row of x from pi(. | x), shape (len(x), n, d).

        Raises
        ------
        ValueError
            If ``x`` does not have d columns or ``n`` is not a positive integer.
        """
        means, cov = self.conditional(x)
        noise = _sample(rng, cov, len(means) * as_count("n", n)).reshape(len(means), n, -1)
        noise += means[:, None, :]
        return noise


def gaussian_pair(d: int, *, epsilon_fraction: float = 0.05, rng: int | np.random.Generator = 0) -> GaussianProblem:
    """Two random well-conditioned Gaussians in d dimensions.

    Covariance eigenvalues are uniform in [0.3, 2], in independent random bases, so the two do not commute.

    Parameters
    ----------
    d
        Dimension, at least 1.
    epsilon_fraction
        Epsilon as a fraction of the mean cost tr A + tr B.
    rng
        Seed or generator of the covariances.

    Raises
    ------
    ValueError
        If ``d`` is not a positive integer or ``epsilon_fraction`` is not positive.

    Examples
    --------
    >>> problem = scgenot.datasets.gaussian_pair(3)
    >>> problem.sample_source(0, 100).shape, problem.sample_target(1, 80).shape
    ((100, 3), (80, 3))
    """
    d, fraction = as_count("d", d), as_positive("epsilon_fraction", epsilon_fraction)
    rng = np.random.default_rng(rng)
    source_cov, target_cov = random_covariance(rng, d), random_covariance(rng, d)
    return GaussianProblem(source_cov, target_cov, fraction * float(np.trace(source_cov + target_cov)))


def _sample(rng: int | np.random.Generator, cov: np.ndarray, n: int) -> np.ndarray:
    rng = np.random.default_rng(rng)
    return rng.standard_normal((as_count("n", n), len(cov))) @ np.linalg.cholesky(cov).T
