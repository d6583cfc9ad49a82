"""Which cells a model was trained on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from scgenot.data import Split, TransportData, digest_of, fingerprint, names_digest, population_rows, rows_of


@dataclasses.dataclass(frozen=True)
class TrainedOn:
    """Which cells a model was trained on, and how they were then.

    Attributes
    ----------
    train_rows, held_rows
        Rows of training and held-out cells in the source's and the target's AnnData, ascending.
    digests
        Hashes of the features of the training cells of both populations.
    names
        Hash of the names of all these cells: in data with the same, the rows mean the same cells.
    fingerprint
        Hash of all that the coupling rests on; ``None`` in a loaded model, which has no coupling.
    split
        The split; ``None`` in a loaded model.
    unseen
        Numbers of the conditions that were held out.
    """

    train_rows: tuple[np.ndarray, np.ndarray]
    held_rows: tuple[np.ndarray, np.ndarray]
    digests: tuple[str, str]
    names: str
    fingerprint: str | None = None
    split: Split | None = None
    unseen: tuple[int, ...] = ()

    @classmethod
    def of(cls, found: TransportData) -> TrainedOn:
        """Return what is kept of the data of a training."""
        train, held = rows_of(found, found.training), rows_of(found, found.held)
        cells = (
            digest_of(population.cells[some])
            for population, some in zip(found.populations, found.training, strict=True)
        )
        names = names_digest(found.data, found.spec, _all_rows(train, held))
        return cls(train, held, tuple(cells), names, fingerprint(found), found.split, found.unseen)

    def are_cells_of(self, data: Any, spec: Any) -> bool:
        """Whether the rows are those of both populations in other data, and of cells with the same names."""
        rows = _all_rows(self.train_rows, self.held_rows)
        found = (population_rows(data, place) for place in spec.places)
        same = all(np.array_equal(np.sort(own), there) for own, there in zip(rows, found, strict=True))
        return same and names_digest(data, spec, rows) == self.names


def _all_rows(train, held) -> tuple[np.ndarray, np.ndarray]:
    source, target = (np.concatenate(pair) for pair in zip(train, held, strict=True))
    return source, target
