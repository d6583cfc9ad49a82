"""Generated populations whose transport is known, to test solvers and to score them against the truth.

=============================  =======================================================================================
:func:`gaussian_pair`          linear problem, Gaussians: the entropic plan in closed form
:func:`gaussian_mixture`       linear problem, Gaussian to mixture: conditional laws in closed form, several modes
:func:`gaussian_curve`         the same onto a bent tube: laws that are no mixture of a few Gaussians
:func:`conditional_mixture`    many conditions: drugs, doses, combinations and donors, with synergy; laws in closed form
:func:`conditional_gaussian`   the same where the effects of drugs add up exactly
:func:`quadratic_gaussian`     inner-product Gromov-Wasserstein between Gaussians of different dimension
:func:`swiss_roll_spiral`      a roll in 3-D and a spiral in 2-D with known arc lengths, for the geodesic cost
=============================  =======================================================================================

Every ``epsilon`` here is this package's: the factor of KL with the cost :math:`|x - y|^2`, unscaled.

:func:`kang`, :func:`larry`, :func:`schiebinger`, :func:`snareseq`, :func:`scicar`, :func:`drosophila`, :func:`gbm_panobinostat` and
:func:`cytof_stimulation` load public data, fetched once from the repositories that hold them, at fixed commits and checked. ``$SCGENOT_DATA``, a folder of prepared files, is looked at first, and
``$SCGENOT_CACHE`` says where fetched files are kept.
"""

from scgenot.datasets._conditional import ConditionalMixtureProblem
from scgenot.datasets._conditional_draws import conditional_gaussian, conditional_mixture
from scgenot.datasets._curve import gaussian_curve
from scgenot.datasets._gaussian import GaussianProblem, gaussian_pair
from scgenot.datasets._loaders import drosophila, kang, larry, schiebinger, snareseq
from scgenot.datasets._loaders_r import cytof_stimulation, gbm_panobinostat, scicar
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
    "cytof_stimulation",
    "drosophila",
    "gaussian_curve",
    "gaussian_mixture",
    "gaussian_pair",
    "gbm_panobinostat",
    "kang",
    "larry",
    "quadratic_gaussian",
    "schiebinger",
    "scicar",
    "snareseq",
    "swiss_roll_spiral",
]
