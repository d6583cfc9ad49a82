"""Accuracy of labels carried over by nearest neighbours."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Real
from numpy.typing import ArrayLike
from sklearn.neighbors import KNeighborsClassifier

from scgenot.metrics._checks import as_point_pair


def label_transfer_accuracy(
    x: Real[Array | np.ndarray, "n d"],
    x_labels: ArrayLike,
    y: Real[Array | np.ndarray, "m d"],
    y_labels: ArrayLike,
    k: int = 5,
) -> float:
    """Share of transported cells whose nearest target cells, by majority, carry the right label.

    A k-nearest-neighbour classifier is fitted on the measured target cells and predicts the transported ones. Distances
    are Euclidean, votes uniform.

    Parameters
    ----------
    x
        Transported (predicted) cells in target space, shape (n, d).
    x_labels
        Their true labels, n of them.
    y
        Measured target cells, shape (m, d).
    y_labels
        Their labels, m of them, in the same vocabulary. A label that only ``x_labels`` has can never be right.
    k
        How many neighbours vote, 1 to m.

    Returns
    -------
    Accuracy in [0, 1].

    Raises
    ------
    ValueError
        If an array is not a finite matrix, widths or lengths differ, a label is missing, the two vocabularies have
        nothing in common, or ``k`` is out of range.

    References
    ----------
    Demetci et al. (2022), "SCOT: single-cell multi-omics alignment with optimal transport", J. Comput. Biol. 29.

    Examples
    --------
    >>> import numpy as np
    >>> cells, labels = np.array([[0.0], [0.1], [5.0], [5.1]]), ["B", "B", "T", "T"]
    >>> scgenot.metrics.label_transfer_accuracy(cells + 0.2, labels, cells, labels, k=1)
    1.0
    """
    x, y = as_point_pair(x, y)
    x_labels, y_labels = _as_labels("x_labels", x_labels, len(x)), _as_labels("y_labels", y_labels, len(y))
    if not 1 <= k <= len(y):
        raise ValueError(f"`k` must lie in 1 .. {len(y)} (the rows of `y`), got {k}. Use 5, or fewer for small data.")
    if object in (x_labels.dtype, y_labels.dtype):
        # Both or none: whole numbers of one side would never equal the text of the other.
        x_labels, y_labels = x_labels.astype(str), y_labels.astype(str)
    if not np.isin(x_labels, y_labels).any():
        raise ValueError(
            f"`x_labels` must share labels with `y_labels`, got {np.unique(x_labels)[:5].tolist()} and "
            f"{np.unique(y_labels)[:5].tolist()}. Rename one of them."
        )
    predicted = KNeighborsClassifier(n_neighbors=int(k)).fit(y, y_labels).predict(x)
    return float(np.mean(predicted == x_labels))


def _as_labels(name: str, value: ArrayLike, n: int) -> np.ndarray:
    labels = np.asarray(value)
    if labels.shape != (n,):
        raise ValueError(
            f"`{name}` must have one label a row, shape {(n,)}, got {labels.shape}. Subset it like the cells."
        )
    missing = int(np.sum(pd.isna(labels)))
    if missing:
        raise ValueError(f"`{name}` must have no missing labels, got {missing} of {n}. Drop those cells.")
    return labels
