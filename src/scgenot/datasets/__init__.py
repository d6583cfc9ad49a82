"""Generated populations whose transport is known, to test solvers and to score them against the truth.

=============================  =======================================================================================
:func:`gaussian_pair`          linear problem, Gaussians: the entropic plan in closed form
:func:`gaussian_mixture`       linear problem, Gaussian to mixture: conditional laws in closed form, several modes
:func:`conditional_mixture`    many conditions: drugs, doses, combinations and donors, with synergy; laws in closed form
:func:`conditional_gaussian`   the same where the effects of drugs add up exactly
:func:`quadratic_gaussian`     inner-product Gromov-Wasserstein between Gaussians of different dimension
:func:`swiss_roll_spiral`      a roll in 3-D and a spiral in 2-D with known arc lengths, for the geodesic cost
=============================  =======================================================================================

Every ``epsilon`` here is this package's: the factor of KL with the cost :math:`|x - y|^2`, unscaled. Nothing is
downloaded.
"""

from scgenot.datasets._conditional import ConditionalMixtureProblem
from scgenot.datasets._conditional_draws import conditional_gaussian, conditional_mixture
from scgenot.datasets._gaussian import GaussianProblem, gaussian_pair
from scgenot.datasets._mixture import MixtureProblem, gaussian_mixture
from scgenot.datasets._quadratic import QuadraticGaussianProblem, quadratic_gaussian
from scgenot.datasets._swiss_roll import SwissRollSpiral, swiss_roll_spiral

__all__ = [
    "ConditionalMixtureProblem",
    "GaussianProblem",
    "MixtureProblem",
    "QuadraticGaussianProblem",
    "SwissRollSpiral",
    "conditional_gaussian",
    "conditional_mixture",
    "gaussian_mixture",
    "gaussian_pair",
    "quadratic_gaussian",
    "swiss_roll_spiral",
]
