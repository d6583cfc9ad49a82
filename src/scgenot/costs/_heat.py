"""The heat kernel of a neighbour graph."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from scgenot._blocks import rows_per_block

_ACCURACY = 1e-7
# Weaker links than this would count as none after a few dozen steps.
_WEAKEST = 1e-12
_LARGE = 1e100


def bandwidth(lengths: sp.csr_array) -> float:
    """Return the root mean square length of the links, 1.0 where there are none."""
    if lengths.nnz == 0:
        return 1.0
    longest = float(lengths.data.max())
    return longest * float(np.sqrt(np.mean(np.square(lengths.data / longest))))


def heat_logs(lengths: sp.csr_array, ends: Int[np.ndarray, " k"], time: float) -> Float[np.ndarray, "u k"]:
    r"""Return the logarithm of the heat kernel between all nodes and `ends`; -inf where no heat arrives.

    :math:`\exp(-t L) = \sum_j e^{-t} t^j / j! \, S^j` with :math:`L = I - S`: a Poisson number of steps. No term is
    negative, so that even the smallest entries, of which the logarithm is taken, have all their digits.
    """
    if lengths.nnz == 0:
        # A single node, whose heat stays where it is; every other one has a neighbour.
        return np.zeros((lengths.shape[0], len(ends)), np.float32)
    weights = lengths.copy()
    weights.data = np.maximum(np.exp(-0.5 * np.square(lengths.data / bandwidth(lengths))), _WEAKEST)
    degrees = np.asarray(weights.sum(axis=1)).reshape(-1)
    roots = sp.diags_array(1.0 / np.sqrt(degrees))
    steps = (roots @ weights @ roots).tocsr()
    logs = np.empty((lengths.shape[0], len(ends)), np.float32)
    block = rows_per_block(lengths.shape[0])
    for i in range(0, len(ends), block):
        logs[:, i : i + block] = _logs(steps, ends[i : i + block], time)
    return logs


def _logs(steps: sp.csr_array, ends: Int[np.ndarray, " k"], time: float) -> Float[np.ndarray, "u k"]:
    term = np.zeros((steps.shape[0], len(ends)))
    term[ends, np.arange(len(ends))] = 1.0
    # exp(-t) comes in at the end, and what the terms are divided by: as logarithms, which neither under- nor overflow.
    logarithm = -time
    total, reached, j, settled = term.copy(), 0, 0, False
    while not settled:
        j += 1
        term = (time / j) * (steps @ term)
        total += term
        if total.max() > _LARGE:
            term, total, logarithm = term / _LARGE, total / _LARGE, logarithm + np.log(_LARGE)
        # Heat that reaches no new node in one more step never will.
        before, reached = reached, np.count_nonzero(total)
        settled = reached == before and bool((term <= _ACCURACY * total).all())
    with np.errstate(divide="ignore"):
        return np.log(total) + logarithm
