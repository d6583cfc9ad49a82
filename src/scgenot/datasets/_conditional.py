"""Entropic transport under many conditions: drugs, doses, combinations and donors, conditional laws in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import softmax

from scgenot.datasets._checks import as_count, as_covariance, as_locations, as_positive

_QUADRATURE = 2**18  # draws behind `target_moments`; the relative error is about 1e-3
_BLOCK = 2**16


@dataclass(frozen=True, eq=False)
class ConditionalMixtureProblem:
    r"""Populations under drugs, at doses, alone or combined, from several donors; what becomes of each cell is known.

    A condition is a vector of doses, one for each drug. A cell at x becomes

    .. math::
        \pi_c(y | x) \propto v_c(y) \exp\Big(-\frac{|x - y|^2}{2 \varepsilon_b}\Big), \quad
        v_c(y) = \sum_k w_k N(y | \mu_k, s I)\, \exp\Big(\sum_j h(d_j)
        \big(\theta_j^\top y - \tfrac12 y^\top \Lambda_j y\big)\Big), \quad
        h(d) = \log(1 + d / d_\mathrm{ref}).

    For donors with source law :math:`\rho`, the joint law :math:`\rho(x)\, \pi_c(y | x)` has the form :math:`a(x)\, b(y)
    \exp(-|x - y|^2 / (2 \varepsilon_b))`, and only the entropic plan between a pair of marginals has it: this *is* the
    plan between :math:`\rho` and its push-forward, for every :math:`\rho`. The conditional law does not depend on the
    donor. A donor whom a model has never seen is another :math:`\rho` with the same truth, and so is known what unseen
    doses and combinations do.

    With :math:`\Lambda = \sum_j h(d_j) \Lambda_j` and :math:`\theta = \sum_j h(d_j) \theta_j`, the law stays a mixture,

    .. math::
        \pi_c(y | x) = \sum_k \gamma_k(x) N(y | A b_k, A), \quad
        A = (\varepsilon_b^{-1} I + s^{-1} I + \Lambda)^{-1}, \quad
        b_k = x / \varepsilon_b + \mu_k / s + \theta, \quad
        \gamma_k(x) \propto w_k \exp(\tfrac12 b_k^\top A b_k - \tfrac{1}{2 s} |\mu_k|^2).

    The weights are not linear in the doses and neither is A: with several components, or a curvature, drugs have true
    synergy. With one component and no curvature, means are shifted by :math:`A \theta`, so effects add up exactly.
    A drug at dose 0 is the same as no drug. All doses 0 are a condition of its own, the vehicle: cells move to
    :math:`v_0` there too.

    Parameters
    ----------
    potential_means
        The :math:`\mu_k`, shape (K, d). Not the means of the targets' modes.
    potential_weights
        The :math:`w_k`, positive, shape (K,); normalised to sum 1.
    covariance
        The scalar s.
    epsilon_b
        Regularisation for the cost :math:`\tfrac12 |x - y|^2`; :attr:`epsilon` is the same in this package's convention.
    slopes
        The :math:`\theta_j`, one row for each drug, shape (J, d).
    curvatures
        The :math:`\Lambda_j`, symmetric and positive semi-definite, shape (J, d, d).
    reference_dose
        The :math:`d_\mathrm{ref}`, in the unit of the doses.
    donor_means, donor_covs
        The source law of each donor is Gaussian with these moments, shapes (S, d) and (S, d, d).

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, a curvature is not positive semi-definite, a donor's covariance is not
        positive definite, or a number is not positive.

    References
    ----------
    Gushchin et al. (2023), "Building the bridge of Schrödinger: a continuous entropic optimal transport benchmark",
    arXiv 2306.10161, for the construction with a single condition.

    Examples
    --------
    >>> problem = scgenot.datasets.conditional_mixture(2)
    >>> isinstance(problem, scgenot.datasets.ConditionalMixtureProblem)
    True
    >>> cells = problem.sample_source(0, 5, donor=1)
    >>> problem.sample_conditional(1, cells, 10, problem.doses({0: 1.0})).shape
    (5, 10, 2)
    """

    potential_means: Float[np.ndarray, "K d"]
    potential_weights: Float[np.ndarray, " K"]
    covariance: float
    epsilon_b: float
    slopes: Float[np.ndarray, "J d"]
    curvatures: Float[np.ndarray, "J d d"]
    reference_dose: float
    donor_means: Float[np.ndarray, "S d"]
    donor_covs: Float[np.ndarray, "S d d"]

    def __post_init__(self) -> None:
        means = _finite("potential_means", self.potential_means, (None, None))
        width = means.shape[1]
        weights = np.asarray(self.potential_weights, dtype=np.float64)
        if weights.shape != (len(means),) or not np.all(np.isfinite(weights) & (weights > 0)):
            raise ValueError(
                f"`potential_weights` must be {len(means)} positive numbers, one for each mean, got {weights}. "
                "Drop the components without weight."
            )
        slopes = _finite("slopes", self.slopes, (None, width))
        curvatures = _finite("curvatures", self.curvatures, (len(slopes), width, width))
        for drug, matrix in enumerate(curvatures):
            _check_curvature(drug, matrix)
        donors = _finite("donor_means", self.donor_means, (None, width))
        covs = _finite("donor_covs", self.donor_covs, (len(donors), width, width))
        fields = {
            "potential_means": means,
            "potential_weights": weights / weights.sum(),
            "covariance": as_positive("covariance", self.covariance),
            "epsilon_b": as_positive("epsilon_b", self.epsilon_b),
            "slopes": slopes,
            "curvatures": curvatures,
            "reference_dose": as_positive("reference_dose", self.reference_dose),
            "donor_means": donors,
            "donor_covs": np.stack([as_covariance("donor_covs", cov) for cov in covs]),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def epsilon(self) -> float:
        """Factor of KL with the cost ``|x - y|^2``: twice ``epsilon_b``. Models take it with ``scale_cost=1.0``."""
        return 2 * self.epsilon_b

    @property
    def n_drugs(self) -> int:
        """Length of the vector of doses that a condition is."""
        return len(self.slopes)

    @property
    def n_donors(self) -> int:
        """How many source laws there are."""
        return len(self.donor_means)

    def doses(self, given: dict[int, float]) -> Float[np.ndarray, " J"]:
        """Vector of doses, shape (J,), from the doses of those drugs that are given, by number.

        Raises
        ------
        ValueError
            If there is no such drug, or a dose is negative or not finite.
        """
        if unknown := [drug for drug in given if drug not in range(self.n_drugs)]:
            raise ValueError(
                f"`given` must name drugs by their numbers, 0 to {self.n_drugs - 1}, got {unknown}. "
                "Leave out what is not given."
            )
        found = np.zeros(self.n_drugs)
        for drug, dose in given.items():
            found[drug] = dose
        self._strengths(found)
        return found

    def sample_source(self, rng: int | np.random.Generator, n: int, donor: int = 0) -> Float[np.ndarray, "n d"]:
        """Draw n untreated cells of a donor, shape (n, d).

        Raises
        ------
        ValueError
            If there is no such donor, or ``n`` is not a positive integer.
        """
        mean, cov = self._source(donor)
        noise = np.random.default_rng(rng).standard_normal((as_count("n", n), len(mean)))
        return mean + noise @ np.linalg.cholesky(cov).T

    def sample_target(
        self, rng: int | np.random.Generator, n: int, doses: ArrayLike, donor: int = 0
    ) -> Float[np.ndarray, "n d"]:
        """Draw n treated cells of a donor, shape (n, d): each from pi_c(. | x) of its own fresh x, which is not returned.

        Raises
        ------
        ValueError
            If there is no such donor, ``n`` is not a positive integer, or ``doses`` are not J finite numbers from 0 up.
        """
        rng = np.random.default_rng(rng)
        return self.sample_conditional(rng, self.sample_source(rng, n, donor), 1, doses)[:, 0]

    def conditional(
        self, x: Float[Array | np.ndarray, "n d"], doses: ArrayLike
    ) -> tuple[Float[np.ndarray, "n K"], Float[np.ndarray, "n K d"], Float[np.ndarray, "d d"]]:
        """Weights (n, K), means (n, K, d) and the shared covariance (d, d) of the components of pi_c(. | x).

        Raises
        ------
        ValueError
            If ``x`` does not have d columns, or ``doses`` are not J finite numbers from 0 up.
        """
        x = as_locations("x", x, self.potential_means.shape[1])
        cov, offset, pulls = self._law(doses)
        means = (x @ cov / self.epsilon_b + offset)[:, None, :] + pulls
        return self._weights(x @ pulls.T / self.epsilon_b, offset, pulls), means, cov

    def conditional_moments(
        self, x: Float[Array | np.ndarray, "n d"], doses: ArrayLike
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d d"]]:
        """Mean (n, d) and covariance (n, d, d) of pi_c(. | x), over all components.

        Raises
        ------
        ValueError
            If ``x`` does not have d columns, or ``doses`` are not J finite numbers from 0 up.
        """
        weights, means, cov = self.conditional(x, doses)
        mean = np.einsum("nk,nkd->nd", weights, means)
        centred = np.sqrt(weights)[..., None] * (means - mean[:, None, :])
        return mean, cov + np.swapaxes(centred, 1, 2) @ centred

    def sample_conditional(
        self, rng: int | np.random.Generator, x: Float[Array | np.ndarray, "n_x d"], n_samples: int, doses: ArrayLike
    ) -> Float[np.ndarray, "n_x n_samples d"]:
        """Draw targets for each row of x from pi_c(. | x), shape (len(x), n_samples, d).

        Raises
        ------
        ValueError
            If ``x`` does not have d columns, ``n_samples`` is not a positive integer, or ``doses`` are not J finite numbers
            from 0 up.
        """
        rng, n_samples = np.random.default_rng(rng), as_count("n_samples", n_samples)
        weights, means, cov = self.conditional(x, doses)
        edges = np.cumsum(weights, axis=1)[:, :-1]
        samples = rng.standard_normal((len(means), n_samples, len(cov))) @ np.linalg.cholesky(cov).T
        for row, (centres, edge) in enumerate(zip(means, edges, strict=True)):  # the one large array is the result
            samples[row] += centres[np.searchsorted(edge, rng.random(n_samples), side="right")]
        return samples

    def target_moments(
        self, doses: ArrayLike, donor: int = 0
    ) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        r"""Mean (d,) and covariance (d, d) of a donor's treated cells; the trace is the denominator of cBW-UVP.

        Exact but for :math:`E[\gamma]` and :math:`E[\gamma\gamma^\top]`, which are averaged over 262,144 source draws
        (fixed seed), so good to about 0.1 %. By Stein's lemma, :math:`E[(x - E x)\, \gamma_k] = C\, E[\nabla \gamma_k]`
        with the donor's covariance C, every moment of the target reduces to these two.

        Raises
        ------
        ValueError
            If there is no such donor, or ``doses`` are not J finite numbers from 0 up.
        """
        source_mean, source_cov = self._source(donor)
        cov, offset, pulls = self._law(doses)
        first, second = self._mean_weights(source_mean, source_cov, offset, pulls)
        shrink = cov / self.epsilon_b
        mean = shrink @ source_mean + offset + first @ pulls
        cross = shrink @ source_cov @ pulls.T @ (np.diag(first) - second) @ pulls / self.epsilon_b
        spread = pulls.T @ (np.diag(first) - np.outer(first, first)) @ pulls
        return mean, cov + shrink @ source_cov @ shrink + cross + cross.T + spread

    def mean_cost(self, doses: ArrayLike, donor: int = 0) -> float:
        """Mean of ``|x - y|^2`` between a donor's untreated and treated cells, paired independently.

        It has the accuracy of :meth:`target_moments`. :attr:`epsilon` divided by it is what models take with
        ``scale_cost="mean"``, if this is the only condition.

        Raises
        ------
        ValueError
            If there is no such donor, or ``doses`` are not J finite numbers from 0 up.
        """
        source_mean, source_cov = self._source(donor)
        mean, cov = self.target_moments(doses, donor)
        return float(np.trace(source_cov) + np.trace(cov) + np.sum((mean - source_mean) ** 2))

    def _source(self, donor: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of a donor's source law."""
        if as_count("donor", donor, minimum=0) >= self.n_donors:
            raise ValueError(
                f"`donor` must be one of 0 to {self.n_donors - 1}, got {donor}. Name a donor of the problem."
            )
        return self.donor_means[donor], self.donor_covs[donor]

    def _strengths(self, doses: ArrayLike) -> np.ndarray:
        """The h(d_j)."""
        found = np.asarray(doses, dtype=np.float64)
        if found.shape != (self.n_drugs,) or not np.all(np.isfinite(found) & (found >= 0)):
            raise ValueError(
                f"`doses` must be {self.n_drugs} finite numbers of at least 0, one for each drug, got {found}. "
                "A drug that is not given has dose 0."
            )
        return np.log1p(found / self.reference_dose)

    def _law(self, doses: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return A, A theta and the rows A mu_k / s: component k has mean A x / epsilon_b + A theta + A mu_k / s."""
        strengths = self._strengths(doses)
        precision = np.tensordot(strengths, self.curvatures, axes=1)
        precision += (1 / self.epsilon_b + 1 / self.covariance) * np.eye(len(precision))
        cov = np.linalg.inv(precision)
        cov = 0.5 * (cov + cov.T)
        return cov, cov @ (strengths @ self.slopes), self.potential_means @ cov / self.covariance

    def _weights(self, products: np.ndarray, offset: np.ndarray, pulls: np.ndarray) -> np.ndarray:
        """The gamma_k, from (A mu_k / s)' x / epsilon_b, which is all of x that they depend on, shape (n, K)."""
        scaled = self.potential_means / self.covariance
        # b_k' A b_k / 2 without what is the same for all k; A theta is `offset`.
        fixed = scaled @ offset + 0.5 * np.sum(scaled * (pulls - self.potential_means), axis=1)
        return softmax(products + np.log(self.potential_weights) + fixed, axis=1)

    def _mean_weights(
        self, source_mean: np.ndarray, source_cov: np.ndarray, offset: np.ndarray, pulls: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """E[gamma] and E[gamma gamma'], over x projected on the pulls: K numbers a draw, not d."""
        directions = pulls / self.epsilon_b
        values, vectors = np.linalg.eigh(directions @ source_cov @ directions.T)
        root = vectors * np.sqrt(np.clip(values, 0, None))
        rng, n = np.random.default_rng(0), len(root)
        first, second = np.zeros(n), np.zeros((n, n))
        for _ in range(_QUADRATURE // _BLOCK):
            products = directions @ source_mean + rng.standard_normal((_BLOCK, n)) @ root.T
            weights = self._weights(products, offset, pulls)
            first += weights.sum(axis=0) / _QUADRATURE
            second += weights.T @ weights / _QUADRATURE
        return first, second


def _finite(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return ``value`` as a finite float64 array of this shape, where ``None`` is any length above 0."""
    found = np.asarray(value, dtype=np.float64)
    fits = found.ndim == len(shape) and all(
        size > 0 and wanted in (None, size) for size, wanted in zip(found.shape, shape, strict=True)
    )
    if not fits or not np.isfinite(found).all():
        wanted = ", ".join("n" if one is None else str(one) for one in shape)
        said = f"shape {found.shape}" if not fits else "NaN or inf"
        raise ValueError(
            f"`{name}` must be finite, of shape ({wanted}) and not empty, got {said}. Pass one entry a row."
        )
    return found


def _check_curvature(drug: int, matrix: np.ndarray) -> None:
    tolerance = 1e-10 * max(np.abs(matrix).max(), 1e-300)
    if np.abs(matrix - matrix.T).max() > tolerance or np.linalg.eigvalsh(matrix)[0] < -1e-8 * np.abs(matrix).max():
        raise ValueError(
            f"`curvatures` must be symmetric and positive semi-definite, got another matrix for drug {drug}. "
            "Pass R @ R.T for a matrix R of your choice."
        )
