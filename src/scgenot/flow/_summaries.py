"""What the samples of a source cell say: where it goes on average, and how sure that is."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

_TINY = 1e-12
# How target regions are made; settled on the Kang data, SNARE-seq, gene panels and mixtures (benchmarks.uncertainty, seeds 0
# and 1). 8 to 30 regions rank wrong cells alike (AUROC within .02); fewer than 8 do not see within cell types, more than 30
# begin to split noise. One clustering alone moves the AUROC by .03, the mean of ten by less than .01.
_REGIONS, _CLUSTERINGS, _NEIGHBORS = 20, 10, 3
_CELLS_PER_REGION = 5
# Cells that stand for the target population: 25 per region.
MOST_REFERENCE_CELLS = 500
# How far the sizes of labels are levelled out, from 0 (not) to 1 (wholly). See `label_uncertainty`.
_LEVELLED = 0.75


def conditional_mean(samples: Float[np.ndarray, "n s d"]) -> Float[np.ndarray, "n d"]:
    """Return the mean of the samples of each cell: the barycentric projection of the learned plan."""
    return samples.mean(axis=1, dtype=np.float64).astype(np.float32)


def conditional_variance(samples: Float[np.ndarray, "n s d"]) -> Float[np.ndarray, "n d"]:
    """Return the variance of the samples of each cell, per feature (unbiased; NaN for a single sample)."""
    if samples.shape[1] == 1:
        return np.full((samples.shape[0], samples.shape[2]), np.nan, np.float32)
    return samples.var(axis=1, ddof=1, dtype=np.float64).astype(np.float32)


def model_variance(samples: Float[np.ndarray, "n s d"], n_models: int) -> Float[np.ndarray, " n"]:
    """Return how far the members of an ensemble disagree on where each cell goes on average.

    Parameters
    ----------
    samples
        Samples of each cell; sample k is of member k modulo `n_models`.
    n_models
        Number of members.

    Returns
    -------
    The variance between the members' means, summed over features, without the part that their finite numbers of samples make
    up; not below 0. NaN unless each of at least two members has two samples.
    """
    if n_models < 2 or samples.shape[1] < 2 * n_models:
        return np.full(len(samples), np.nan, np.float32)
    own = [np.asarray(samples[:, member::n_models], np.float64) for member in range(n_models)]
    means = np.stack([one.mean(axis=1) for one in own])
    noise = np.mean([one.var(axis=1, ddof=1) / one.shape[1] for one in own], axis=0)
    return np.maximum((means.var(axis=0, ddof=1) - noise).sum(axis=1), 0.0).astype(np.float32)


def cosine_variance(
    samples: Float[np.ndarray, "n s d"], origin: Float[np.ndarray, "n d"] | None = None
) -> Float[np.ndarray, " n"]:
    """Return cos-var: the variance over samples of the cosine between a sample and the mean sample.

    Parameters
    ----------
    samples
        Samples of each cell.
    origin
        Subtracted first, where directions are wanted from somewhere else than zero; the source cells themselves give
        the uncertainty of displacements.

    Returns
    -------
    One number per cell, 0 where all samples point the same way and at most 1 in the limit of many samples; NaN for a
    single sample, which says nothing of a spread. Not centred across features, so it is the cosine and not the
    correlation (Klein et al. 2024, section 4).

    Notes
    -----
    The variance has n - 1 in its denominator. Since the mean direction is made of the same samples, few of them still
    point too much the same way: on Kang cells,
    mixtures and Gaussians the mean over cells was .1 to .5 of its limit with 2 samples, .7 to .9 with 5, .8 to .93 with 10
    and .92 to .97 with 30. Compare cells that have equally many samples.
    """
    if samples.shape[1] == 1:
        return np.full(samples.shape[0], np.nan, np.float32)
    vectors = np.asarray(samples, np.float64)
    if origin is not None:
        vectors = vectors - origin[:, None, :]
    mean = vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=2) * np.linalg.norm(mean, axis=2)
    cosines = (vectors * mean).sum(axis=2) / np.maximum(lengths, _TINY)
    return cosines.var(axis=1, ddof=1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class TargetRegions:
    """Target cells, dealt into regions several times over: a ruler for how much of the target population samples cover.

    Samples that differ within one region do not count, however wide it is; samples in several regions do, by how evenly
    they are spread. So the noise of single cells, which sums to a large variance over many features, does not hide what
    matters: whether a cell has one destination or several.

    Regions are k-means clusters, alike in spread rather than in number of cells. Regions of equally many cells (halved ten
    times over, by 2-means or by random pairs) rank wrong cells better within the types of the Kang data (AUROC .75 to .83
    against .65 to .71) and much worse over all (.43 to .67 against .81), since large types get more of them; regions of a
    spectral embedding lie between (.74 to .78 over all).

    Attributes
    ----------
    cells
        Cells that stand for the target population.
    regions
        The region of each cell in each clustering.
    n_regions
        How many regions each clustering has.
    """

    cells: Float[np.ndarray, "m d"]
    regions: Int[np.ndarray, "r m"]
    n_regions: int

    @classmethod
    def of(cls, cells: Float[np.ndarray, "m d"]) -> TargetRegions:
        """Cluster target cells by k-means, with seeds 0 to 9: the same cells give the same regions."""
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        cells = np.ascontiguousarray(cells, np.float32)
        distinct = len(np.unique(cells, axis=0))
        n_regions = max(1, min(_REGIONS, len(cells) // _CELLS_PER_REGION, distinct))
        # On one thread: 500 cells are so little work that threads cost ten times as much as they do (.09 s against .9 s).
        with threadpool_limits(1):
            regions = [
                KMeans(n_regions, n_init=1, random_state=seed).fit(cells).labels_ for seed in range(_CLUSTERINGS)
            ]
        return cls(cells, np.stack(regions).astype(np.int64), n_regions)

    def entropy(self, samples: Float[np.ndarray, "n s d"]) -> Float[np.ndarray, " n"]:
        """Return how evenly the samples of each cell are spread over the regions.

        Each sample asks its three nearest target cells for their region. The entropy of the shares, over the logarithm
        of the number of regions, is averaged over clusterings.

        Returns
        -------
        One number per cell: 0 where all samples lie in one region, 1 where they are spread evenly over all; NaN for a
        single sample. Few samples find fewer regions: on Kang cells and mixtures the mean
        over cells was half of its limit with 2 samples, .75 with 5, .86 with 10, .95 with 30.
        """
        from sklearn.neighbors import NearestNeighbors

        n, s, d = samples.shape
        if s == 1 or self.n_regions == 1:
            return np.full(n, np.nan if s == 1 else 0.0, np.float32)
        search = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(self.cells)), algorithm="brute").fit(self.cells)
        nearest = search.kneighbors(np.asarray(samples, np.float32).reshape(n * s, d), return_distance=False)
        found = np.zeros(n)
        for regions in self.regions:
            found += entropy(shares(regions[nearest].reshape(n, -1), self.n_regions))
        return (found / (len(self.regions) * np.log(self.n_regions))).astype(np.float32)


def reference_rows(n_cells: int, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """Return rows of up to 500 cells that stand for their population."""
    return np.sort(rng.permutation(n_cells)[:MOST_REFERENCE_CELLS])


def entropy(probabilities: Float[np.ndarray, "n l"]) -> Float[np.ndarray, " n"]:
    """Return the entropy of each row, in nats."""
    p = np.asarray(probabilities, np.float64)
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0), axis=1)


def shares(codes: Int[np.ndarray, "n k"], n_codes: int) -> Float[np.ndarray, "n l"]:
    """Return the share of each code, 0 to `n_codes` - 1, in each row."""
    n, k = codes.shape
    places = np.arange(n)[:, None] * n_codes + codes
    return np.bincount(places.ravel(), minlength=n * n_codes).reshape(n, n_codes) / k


def label_uncertainty(
    probabilities: Float[np.ndarray, "n l"], frequencies: Float[np.ndarray, " l"]
) -> Float[np.ndarray, " n"]:
    r"""Return how doubtful the label of each cell is: 1 minus its largest probability, sizes of labels levelled out.

    Parameters
    ----------
    probabilities
        Of each label, per cell; rows sum to 1.
    frequencies
        Share of each label among the labelled target cells, all above 0.

    Returns
    -------
    :math:`1 - \max_l q_l` per cell, where :math:`q_l \propto p_l / f_l^{3/4}`.

    Notes
    -----
    A plan sends mass to labels in proportion to their size: where two populations are composed differently, cells of a
    label that has become rare are sent, with little doubt, to a common neighbour of it. Samples that still find the rare
    label weigh more than its size lets them. Without levelling, AUROC for wrong cells was .74 and .83 on the Kang data (seeds
    1 and 0), with an exponent of .75 .87 on both, with 1 .84 and .86; .5 to 1 differ by less than .03.
    """
    levelled = np.asarray(probabilities, np.float64) / np.asarray(frequencies, np.float64) ** _LEVELLED
    return 1.0 - levelled.max(axis=1) / levelled.sum(axis=1)
