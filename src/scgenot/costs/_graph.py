"""Neighbour graphs: which cells are linked, how far apart they are, and how a new cell is linked to them."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from scgenot._blocks import rows_per_block
from scgenot.costs._anchored import check_cells

Metric = Literal["euclidean", "cosine", "correlation"]
METRICS: tuple[str, ...] = ("euclidean", "cosine", "correlation")
# Default numbers of neighbours, in units of log N: the fewest, and the most that are tried to connect the graph.
_FEWEST, _MOST = 1, 3


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """From cells to vectors whose Euclidean distance gives the metric, at any scale and far from the origin.

    Attributes
    ----------
    metric
        The metric.
    centre, unit
        What Euclidean coordinates are shifted and divided by.
    """

    metric: Metric
    centre: Float[np.ndarray, " d"]
    unit: float

    @classmethod
    def of(cls, metric: Metric, cells: Float[np.ndarray, "n d"]) -> Embedding:
        """Return the embedding that suits these cells."""
        centre = cells.mean(axis=0, dtype=np.float64)
        if metric != "euclidean":
            return cls(metric, np.zeros_like(centre), 1.0)
        return cls(metric, centre, float(np.abs(cells - centre).max()) or 1.0)

    def __call__(self, cells: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Return the vectors of cells, in double precision."""
        cells = (cells - self.centre) / self.unit
        if self.metric == "euclidean":
            return cells
        if self.metric == "correlation":
            cells = cells - cells.mean(axis=1, keepdims=True)
        largest = np.abs(cells).max(axis=1, keepdims=True)
        cells = cells / np.where(largest > 0, largest, 1.0)
        # Cells without a direction become the origin, which is equally far from all others.
        norm = np.sqrt((cells * cells).sum(axis=1, keepdims=True))
        return cells / np.where(norm > 0, norm, 1.0)

    def lengths(self, x: Float[np.ndarray, "... d"], y: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "..."]:
        """Return the distances between paired vectors: from their difference, so that no digits cancel.

        For cosine and correlation, the angle: one minus its cosine is half its square, and squared lengths add up to
        nothing along a path of many short edges.
        """
        chord = np.sqrt(np.square(x - y).sum(axis=-1))
        return self.unit * chord if self.metric == "euclidean" else 2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0))


@dataclasses.dataclass(frozen=True, eq=False)
class Nodes:
    """The distinct cells of a population, and the search for those next to any cell.

    Attributes
    ----------
    embedding
        From cells to vectors.
    vectors
        Those of the nodes.
    n_links
        How many nodes a new cell is linked to.
    hops
        Whether every link has the length 1.
    """

    embedding: Embedding
    vectors: Float[np.ndarray, "u d"]
    n_links: int
    hops: bool

    @cached_property
    def search(self) -> Any:
        """The fitted search of scikit-learn."""
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors(n_neighbors=min(self.n_links, len(self.vectors))).fit(self.vectors)

    def links(
        self, cells: Float[Array | np.ndarray, "n d"]
    ) -> tuple[Int[np.ndarray, "n q"], Float[np.ndarray, "n q"], Bool[np.ndarray, " n"]]:
        """Return the nodes next to each cell, the lengths of these links, and which cells equal their first node."""
        vectors = self.embedding(check_cells(cells, self.vectors.shape[1]))
        nodes = self.search.kneighbors(vectors, return_distance=False)
        lengths = np.empty(nodes.shape)
        step = rows_per_block(nodes.shape[1] * vectors.shape[1])
        for i in range(0, len(nodes), step):
            some = slice(i, i + step)
            lengths[some] = self.embedding.lengths(vectors[some, None, :], self.vectors[nodes[some]])
        # The search rounds; a cell of the graph has to find itself first.
        order = np.argsort(lengths, axis=1, kind="stable")
        nodes, lengths = (np.take_along_axis(one, order, axis=1) for one in (nodes, lengths))
        return nodes, np.where(lengths > 0, 1.0, 0.0) if self.hops else lengths, lengths[:, 0] == 0


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A neighbour graph, symmetric: two cells are linked if one of them is among the nearest of the other.

    Cells that are equal share one node. They are at distance 0 then, and do not crowd out each other's neighbours.

    Attributes
    ----------
    nodes
        The distinct cells.
    node_of
        The node of each cell.
    lengths
        Length of each link, above zero; stored in both directions.
    component_of
        The component of each node.
    n_neighbors
        Neighbours that were taken.
    """

    nodes: Nodes
    node_of: Int[np.ndarray, " n"]
    lengths: sp.csr_array
    component_of: Int[np.ndarray, " u"]
    n_neighbors: int

    @property
    def complaint(self) -> str | None:
        """What is wrong with a graph that is not connected, and what to do; None if it is."""
        sizes = np.sort(np.bincount(self.component_of[self.node_of]))[::-1]
        if len(sizes) <= 1:
            return None
        listed = ", ".join(map(str, sizes[:6])) + (", ..." if len(sizes) > 6 else "")
        return (
            f"the neighbour graph of {len(self.node_of)} cells has {len(sizes)} components without a path between "
            f"them, of {listed} cells, with `n_neighbors`={self.n_neighbors}. Increase `n_neighbors`, "
            "or remove the cells that stand apart."
        )


def neighbour_graph(
    cells: Float[Array | np.ndarray, "n d"], n_neighbors: int | None, metric: Metric, *, hops: bool
) -> Graph:
    """Build the graph.

    Parameters
    ----------
    cells
        The population.
    n_neighbors
        Neighbours of each cell, at most all others. None takes as few as keep the graph together: the least number from
        log n on from which more neighbours, up to 3 log n, do not join any further components.
    metric
        Between cells.
    hops
        Whether every link has the length 1.
    """
    cells = check_cells(cells)
    embedding = Embedding.of(metric, cells)
    # Adding zero turns -0 into 0.
    vectors, node_of = np.unique(embedding(cells) + 0.0, axis=0, return_inverse=True)
    node_of, u = node_of.reshape(-1), len(vectors)
    if u == 1:
        nodes = Nodes(embedding, vectors, 1, hops)
        return Graph(nodes, node_of, sp.csr_array((1, 1)), np.zeros(1, np.int32), 0)

    log = math.log(u)
    fewest, most = (
        (max(2, round(_FEWEST * log)), round(_MOST * log)) if n_neighbors is None else (int(n_neighbors),) * 2
    )
    fewest, most = (min(max(k, 1), u - 1) for k in (fewest, max(fewest, most)))
    neighbours = Nodes(embedding, vectors, most, hops).search.kneighbors(return_distance=False)
    n_components = _components(neighbours)[0]
    while fewest < most:
        middle = (fewest + most) // 2
        if _components(neighbours[:, :middle])[0] == n_components:
            most = middle
        else:
            fewest = middle + 1
    neighbours = neighbours[:, :most]
    lengths = _symmetric(embedding, vectors, neighbours, hops)
    return Graph(Nodes(embedding, vectors, most, hops), node_of, lengths, _components(neighbours)[1], most)


def _components(neighbours: Int[np.ndarray, "u k"]) -> tuple[int, Int[np.ndarray, " u"]]:
    u, k = neighbours.shape
    graph = sp.csr_array((np.ones(u * k, np.int8), neighbours.reshape(-1), np.arange(0, u * k + 1, k)), shape=(u, u))
    return connected_components(graph, directed=True, connection="weak")


def _symmetric(
    embedding: Embedding, vectors: Float[np.ndarray, "u d"], neighbours: Int[np.ndarray, "u k"], hops: bool
) -> sp.csr_array:
    """Return the lengths of all links, each pair once from either side."""
    u, k = neighbours.shape
    source, target = np.repeat(np.arange(u), k), neighbours.reshape(-1).astype(np.int64)
    pairs = np.unique(np.minimum(source, target) * u + np.maximum(source, target))
    low, high = pairs // u, pairs % u
    step = rows_per_block(vectors.shape[1])
    lengths = np.ones(len(pairs))
    if not hops:
        for i in range(0, len(pairs), step):
            some = slice(i, i + step)
            lengths[some] = embedding.lengths(vectors[low[some]], vectors[high[some]])
    # Sparse sums and maxima drop links of length zero, and a path must not be lost where a length underflows.
    lengths = np.maximum(lengths, np.finfo(np.float64).tiny)
    both = (np.concatenate([low, high]).astype(np.int32), np.concatenate([high, low]).astype(np.int32))
    return sp.csr_array((np.concatenate([lengths, lengths]), both), shape=(u, u))
