"""What both scans do with their cells: check them, take some, halve them."""

from __future__ import annotations

import numpy as np

FEWEST = 4


def check_sides(sides: dict[str, tuple]) -> None:
    """Raise a ``ValueError`` unless each side has enough cells, and values (weights, labels) one a cell."""
    for name, (cells, weights, labels) in sides.items():
        if len(cells) < FEWEST:
            raise ValueError(f"`{name}` must have at least {FEWEST} cells, to be halved, got {len(cells)}.")
        for what, values in (("weights", weights), ("labels", labels)):
            if values is not None and np.shape(values) != (len(cells),):
                raise ValueError(
                    f"`{name}_{what}` must hold one value for each of the {len(cells)} cells, got shape "
                    f"{np.shape(values)}."
                )


def some_rows(rng: np.random.Generator, n: int, most: int) -> np.ndarray:
    """Return all rows, or `most` of them at random; ascending."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def normalised(weights: np.ndarray | None, rows: np.ndarray, name: str) -> np.ndarray:
    """Return the weights of some rows, with sum 1; uniform without any."""
    if weights is None:
        return np.full(len(rows), 1.0 / len(rows), np.float32)
    chosen = np.asarray(weights, np.float64)[rows]
    if not np.isfinite(chosen).all() or (chosen < 0).any() or chosen.sum() <= 0:
        raise ValueError(f"`{name}_weights` must be finite, not negative and not all zero among the cells used.")
    return (chosen / chosen.sum()).astype(np.float32)
