"""Distances along the neighbour graph of a population."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int
from scipy.sparse.csgraph import dijkstra

from scgenot._blocks import rows_per_block
from scgenot._messages import check_count, check_positive, one_of
from scgenot.costs._anchored import Anchored, AnchoredCost, check_anchors
from scgenot.costs._graph import METRICS, Metric, Nodes, neighbour_graph
from scgenot.costs._heat import bandwidth, heat_logs
from scgenot.costs._registry import register_cost


@register_cost("geodesic")
@dataclasses.dataclass(frozen=True)
class Geodesic(AnchoredCost):
    r"""Distance along the neighbour graph of the population: the length of the manifold between two cells.

    Attributes
    ----------
    n_neighbors
        Nearest neighbours that each cell is linked to; links hold in both directions. Too many make shortcuts across
        gaps, which ruin all distances; too few leave the graph in pieces. None takes as few as keep it together: the
        least number from :math:`\log N` on from which more, up to :math:`3 \log N`, do not join any further components.
        (N uniform points in the plane are connected from about :math:`\log(N) / 2` neighbours on; cells on a
        curve, or of uneven density, need more of them.)
    metric
        Which cells are near: ``"euclidean"``, ``"cosine"`` or ``"correlation"``.
    lengths
        ``"distance"``: a link is as long as its cells are apart (an angle, in radians, for ``"cosine"`` and
        ``"correlation"``). ``"hops"``: every link has the length 1.
    method
        ``"shortest_path"``: the length of the shortest path, exactly 0 between equal cells. ``"heat"``:
        :math:`\sqrt{-4 t \log H_t}`, where :math:`H_t = \exp(-t L)` and L is the symmetric normalised Laplacian of the
        graph whose links weaken with length as :math:`\exp(-l^2 / 2 \sigma^2)`, with :math:`\sigma` the root mean square
        length (all weigh 1 with ``"hops"``). It averages over all paths, so that single wrong links matter less; it has
        no unit, and is small but not 0 between equal cells.
    heat_time
        Time t of the heat kernel. Below about 1, distances become those in hops, above about the squared number of hops
        across the graph they become all alike. The work grows with t.
    disconnected
        Between cells without a path: ``"max"`` takes the largest finite distance and warns, ``"error"`` raises.

    Raises
    ------
    ValueError
        If one of these is not allowed.
    """

    n_neighbors: int | None = None
    metric: Metric = "euclidean"
    lengths: Literal["distance", "hops"] = "distance"
    method: Literal["shortest_path", "heat"] = "shortest_path"
    heat_time: float = 10.0
    disconnected: Literal["max", "error"] = "max"

    def __post_init__(self) -> None:
        """Check what was given where it is given."""
        if self.n_neighbors is not None:
            check_count("n_neighbors", self.n_neighbors, remedy="None lets the population decide.")
        check_positive("heat_time", self.heat_time)
        allowed = {
            "metric": METRICS,
            "lengths": ("distance", "hops"),
            "method": ("shortest_path", "heat"),
            "disconnected": ("max", "error"),
        }
        for argument, options in allowed.items():
            if getattr(self, argument) not in options:
                raise ValueError(one_of(argument, getattr(self, argument), options))

    @property
    def name(self) -> str:
        """``"geodesic"``, with the settings that are not the default ones."""
        own = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"geodesic({', '.join(own)})" if own else "geodesic"

    def fit(self, cells: Float[Array | np.ndarray, "N d"], anchors: Int[np.ndarray, " k"]) -> Anchored:
        """Build the graph of `cells` and return the distances from any cells to the rows `anchors` of them.

        A new cell is linked to its nearest neighbours among `cells`; one that equals a cell of the graph has exactly
        its distances. Memory: N x k in single precision.

        Raises
        ------
        ValueError
            If cells are not finite, or the graph is not connected and `disconnected` is ``"error"``.
        """
        anchors = check_anchors(anchors, len(cells))
        graph = neighbour_graph(cells, self.n_neighbors, self.metric, hops=self.lengths == "hops")
        if graph.complaint and self.disconnected == "error":
            raise ValueError(graph.complaint)
        if graph.complaint:
            warnings.warn(
                f"{graph.complaint} Until then, the largest finite distance stands between them.",
                UserWarning,
                stacklevel=2,
            )
        ends = graph.node_of[anchors]
        if self.method == "heat":
            return _Heat.of(graph.nodes, heat_logs(graph.lengths, ends, self.heat_time), graph.lengths, self.heat_time)
        return _ShortestPaths.of(graph.nodes, _path_lengths(graph.lengths, ends))


def _path_lengths(lengths: sp.csr_array, ends: Int[np.ndarray, " k"]) -> Float[np.ndarray, "u k"]:
    """Return the lengths of the shortest paths from all nodes to `ends`; inf where there is none."""
    found = np.empty((lengths.shape[0], len(ends)), np.float32)
    step = rows_per_block(lengths.shape[0])
    for i in range(0, len(ends), step):
        found[:, i : i + step] = dijkstra(lengths, directed=True, indices=ends[i : i + step]).T
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _ShortestPaths(Anchored):
    """Path lengths from any cell to the anchors, through the nodes next to it.

    Attributes
    ----------
    nodes
        Distinct cells of the graph.
    table
        Path lengths from all nodes to the anchors; inf where there is no path.
    farthest
        What stands for inf.
    """

    nodes: Nodes
    table: Float[np.ndarray, "u k"]
    farthest: float

    @classmethod
    def of(cls, nodes: Nodes, table: Float[np.ndarray, "u k"]) -> _ShortestPaths:
        return cls(nodes, table, float(table[np.isfinite(table)].max()))

    def __call__(self, cells: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        nodes, lengths, known = self.nodes.links(cells)
        found = self.table[nodes[:, 0]]
        new = np.flatnonzero(~known)
        step = rows_per_block(self.table.shape[1])
        for i in range(0, len(new), step):
            some = new[i : i + step]
            best = np.full((len(some), self.table.shape[1]), np.inf, np.float32)
            for node, length in zip(nodes[some].T, lengths[some].T.astype(np.float32), strict=True):
                np.minimum(best, length[:, None] + self.table[node], out=best)
            found[some] = best
        found[np.isinf(found)] = self.farthest
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Heat(Anchored):
    """Varadhan's distances from any cell to the anchors; heat leaves a new cell through the nodes next to it.

    Attributes
    ----------
    nodes
        Distinct cells of the graph.
    logs
        Logarithm of the heat kernel between all nodes and the anchors; -inf where no heat arrives.
    bandwidth
        Length at which a link has weakened to exp(-1/2).
    time
        Heat time.
    least
        What stands for -inf.
    """

    nodes: Nodes
    logs: Float[np.ndarray, "u k"]
    bandwidth: float
    time: float
    least: float

    @classmethod
    def of(cls, nodes: Nodes, logs: Float[np.ndarray, "u k"], lengths: sp.csr_array, time: float) -> _Heat:
        return cls(nodes, logs, bandwidth(lengths), time, float(logs[np.isfinite(logs)].min()))

    def __call__(self, cells: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        nodes, lengths, known = self.nodes.links(cells)
        found = self.logs[nodes[:, 0]]
        new = np.flatnonzero(~known)
        step = rows_per_block(self.logs.shape[1])
        for i in range(0, len(new), step):
            some = new[i : i + step]
            exponents = -0.5 * np.square(lengths[some] / self.bandwidth)
            weights = exponents - np.logaddexp.reduce(exponents, axis=1, keepdims=True)
            mixed = np.full((len(some), self.logs.shape[1]), -np.inf, np.float32)
            for node, weight in zip(nodes[some].T, weights.T.astype(np.float32), strict=True):
                np.logaddexp(mixed, weight[:, None] + self.logs[node], out=mixed)
            found[some] = mixed
        found[np.isneginf(found)] = self.least
        # The kernel is at most 1; rounding may leave its logarithm just above 0.
        return np.sqrt(-4.0 * self.time * np.minimum(found, 0.0)).astype(np.float32)
