"""Inner-product entropic Gromov-Wasserstein between centred Gaussians, solved in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax import Array
from jaxtyping import Float

from scgenot.datasets._checks import as_count, as_locations, as_positive


@dataclass(frozen=True, eq=False)
class QuadraticGaussianProblem:
    r"""Quadratic transport between N(0, diag lx) and N(0, diag ly), which may differ in dimension.

    The objective is
    :math:`E |\langle x, x'\rangle - \langle y, y'\rangle|^2 + \varepsilon\, KL(P | a \otimes b)` over two independent
    draws from P. A Gaussian plan is optimal; its cross-covariance is diagonal with entries
    :math:`(\lambda^x_i \lambda^y_i - \varepsilon / 4)_+^{1/2}`. Only absolute values are determined: the sign of each
    (and the basis within equal eigenvalues) is free, so compare singular values, or align signs first.

    Parameters
    ----------
    source_eigenvalues, target_eigenvalues
        Variances along the axes, positive, from large to small, shapes (d_x,) and (d_y,).
    epsilon
        Factor of KL in the objective above, costs unscaled. (POT's entropic Gromov-Wasserstein takes this value, OTT's
        half of it.)

    Raises
    ------
    ValueError
        If eigenvalues are not positive and sorted, or ``epsilon`` is not positive.

    References
    ----------
    Le et al. (2022), "Entropic Gromov-Wasserstein between Gaussian distributions", ICML, arXiv 2108.10961.

    Examples
    --------
    >>> import numpy as np
    >>> problem = scgenot.datasets.QuadraticGaussianProblem(np.array([2.0, 1.0]), np.array([1.5, 0.5]), 1.0)
    >>> problem.cross_singular_values.round(3)
    array([1.658, 0.5  ])
    """

    source_eigenvalues: Float[np.ndarray, " d_x"]
    target_eigenvalues: Float[np.ndarray, " d_y"]
    epsilon: float

    def __post_init__(self) -> None:
        for name in ("source_eigenvalues", "target_eigenvalues"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.ndim != 1 or not values.size or not np.all(np.isfinite(values) & (values > 0)):
                raise ValueError(f"`{name}` must be a vector of positive numbers, got {values}. Drop the zero ones.")
            if np.any(np.diff(values) > 0):
                raise ValueError(
                    f"`{name}` must be sorted from large to small, got {values}. Pass `sorted(...)[::-1]`."
                )
            object.__setattr__(self, name, values)
        object.__setattr__(self, "epsilon", as_positive("epsilon", self.epsilon))

    @property
    def source_cov(self) -> Float[np.ndarray, "d_x d_x"]:
        """Covariance of the source, diagonal, shape (d_x, d_x)."""
        return np.diag(self.source_eigenvalues)

    @property
    def target_cov(self) -> Float[np.ndarray, "d_y d_y"]:
        """Covariance of the target, diagonal, shape (d_y, d_y)."""
        return np.diag(self.target_eigenvalues)

    @property
    def cross_singular_values(self) -> Float[np.ndarray, " d_min"]:
        """Singular values of the optimal plan's cross-covariance, from large to small; 0 where epsilon wins."""
        return np.sqrt(np.clip(self._products - self.epsilon / 4, 0, None))

    @property
    def value(self) -> float:
        """Optimal value of the objective, the KL term included."""
        constant = np.sum(self.source_eigenvalues**2) + np.sum(self.target_eigenvalues**2)
        kl = 0.5 * np.sum(np.clip(np.log(4 * self._products / self.epsilon), 0, None))
        return float(constant - 2 * np.sum(self.cross_singular_values**2) + self.epsilon * kl)

    def cross_cov(self, signs: Sequence[int | float] | np.ndarray | None = None) -> Float[np.ndarray, "d_x d_y"]:
        """Cross-covariance E[x y'] of an optimal plan, shape (d_x, d_y).

        Parameters
        ----------
        signs
            +1 or -1 for each of the min(d_x, d_y) axes: which of the equally good plans. All +1 by default.

        Raises
        ------
        ValueError
            If ``signs`` has another length or other entries.
        """
        singular = self.cross_singular_values
        signs = np.ones(len(singular)) if signs is None else np.asarray(signs, dtype=np.float64)
        if signs.shape != singular.shape or not np.all(np.abs(signs) == 1):
            raise ValueError(
                f"`signs` must be {len(singular)} entries of +1 or -1, got {signs}. Leave it out for all +1."
            )
        cross = np.zeros((len(self.source_eigenvalues), len(self.target_eigenvalues)))
        np.fill_diagonal(cross, signs * singular)
        return cross

    def conditional(
        self, x: Float[Array | np.ndarray, "n d_x"], signs: Sequence[int | float] | np.ndarray | None = None
    ) -> tuple[Float[np.ndarray, "n d_y"], Float[np.ndarray, "d_y d_y"]]:
        """Mean of pi(. | x) for each row of x, shape (n, d_y), and its covariance, shape (d_y, d_y).

        Parameters
        ----------
        x
            Source cells, shape (n, d_x).
        signs
            Which of the equally good plans, as for :meth:`cross_cov`. The covariance does not depend on it.

        Raises
        ------
        ValueError
            If ``x`` does not have d_x columns or ``signs`` does not fit.
        """
        x = as_locations("x", x, len(self.source_eigenvalues))
        cross = self.cross_cov(signs)
        slope = cross / self.source_eigenvalues[:, None]
        return x @ slope, self.target_cov - slope.T @ cross

    def sample_source(self, rng: int | np.random.Generator, n: int) -> Float[np.ndarray, "n d_x"]:
        """Draw n source cells, shape (n, d_x)."""
        return _sample(rng, self.source_eigenvalues, n)

    def sample_target(self, rng: int | np.random.Generator, n: int) -> Float[np.ndarray, "n d_y"]:
        """Draw n target cells, independent of any source cells, shape (n, d_y)."""
        return _sample(rng, self.target_eigenvalues, n)

    @property
    def _products(self) -> np.ndarray:
        shared = min(len(self.source_eigenvalues), len(self.target_eigenvalues))
        return self.source_eigenvalues[:shared] * self.target_eigenvalues[:shared]


def quadratic_gaussian(
    source_eigenvalues: Sequence[float] | np.ndarray = (2.0, 1.0, 0.5),
    target_eigenvalues: Sequence[float] | np.ndarray = (1.5, 0.6),
    *,
    epsilon: float = 1.0,
) -> QuadraticGaussianProblem:
    """Quadratic problem between Gaussians; by default from 3 to 2 dimensions, with value 3.3402.

    Parameters
    ----------
    source_eigenvalues, target_eigenvalues
        Variances along the axes, from large to small.
    epsilon
        Factor of KL, costs unscaled.

    Raises
    ------
    ValueError
        If eigenvalues are not positive and sorted, or ``epsilon`` is not positive.

    Examples
    --------
    >>> problem = scgenot.datasets.quadratic_gaussian()
    >>> round(problem.value, 4)
    3.3402
    """
    return QuadraticGaussianProblem(np.asarray(source_eigenvalues), np.asarray(target_eigenvalues), epsilon)


def _sample(rng: int | np.random.Generator, eigenvalues: np.ndarray, n: int) -> np.ndarray:
    rng = np.random.default_rng(rng)
    return rng.standard_normal((as_count("n", n), len(eigenvalues))) * np.sqrt(eigenvalues)
