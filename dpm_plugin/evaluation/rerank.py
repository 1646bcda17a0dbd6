"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) under the query's mask, in memory that grows with the images.

The numbers are torchreid's ``re_ranking`` up to rounding. That holds several matrices over all pairs of the N = Q + G
images; here rows of distances are computed in blocks, twice, and what is kept of an image is its nearest neighbours and
the few weights that are not 0.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from dpm_plugin.method.retrieval import mutual_mask_distance, query_mask_distance
from dpm_plugin.utils.errors import DPMError

K1, K2, LAMBDA = 20, 6, 0.3  # of the paper, as in torchreid
BLOCK = 512  # rows of distances at once

# Squared distances of the images in a slice to all N, (n, N); queries first.
Rows = Callable[[slice], Tensor]


def masked_reranking(query: Tensor, gallery: Tensor, query_mask: Tensor | None) -> np.ndarray:
    """Re-ranked distances under the query's mask.

    Re-ranking compares all images with each other, and a mask belongs to a query only. One rule covers the
    three kinds of pairs: cos(m_b * a, m_a * b), each image seen through the other's mask, with masks of ones
    for the gallery (the paper takes gallery images as whole bodies). So

    - query-gallery is cos(q, m_q * g), the very distance of plain retrieval;
    - query-query is masked by both queries. One-sided, cos(q, m_q * q') is not symmetric and not 1 even for
      an image with itself, while k-reciprocal neighbours take both for granted;
    - gallery-gallery is the plain cosine: no query is involved, and the gallery's own masks are used nowhere.

    The distance is the chord's, the Euclidean one of unit vectors as in the paper: its square is 2 (1 - cos).

    Args:
        query, gallery: (Q, D), (G, D) float tensors on one device.
        query_mask: (Q, D), or None for re-ranking by the plain cosine.

    Returns:
        (Q, G) float32 numpy array.
    """
    count = len(query)

    def rows(part: slice) -> Tensor:
        if part.start < count:
            mask = None if query_mask is None else query_mask[part]
            to_queries = mutual_mask_distance(query[part], query, mask, query_mask)
            to_gallery = query_mask_distance(query[part], gallery, mask)
        else:
            own = gallery[part.start - count : part.stop - count]
            to_queries = query_mask_distance(query, own, query_mask).T
            to_gallery = query_mask_distance(own, gallery, None)
        return torch.cat([to_queries, to_gallery], dim=1).mul_(2)

    return k_reciprocal(rows, count, len(gallery))


def k_reciprocal(rows: Rows, queries: int, gallery: int) -> np.ndarray:
    """Re-ranked distances (Q, G), float32.

    Args:
        rows: a slice holds queries only or gallery images only. The distances are symmetric.
        queries, gallery: Q and G.
    """
    count = queries + gallery
    neighbours, largest = np.empty((count, min(K1 + 1, count)), np.int64), np.empty(count, np.float32)
    for part in _blocks(queries, count):
        block = rows(part)  # (n, N)
        largest[part] = block.amax(dim=1).cpu()
        nearest = block.topk(neighbours.shape[1], dim=1, largest=False)
        neighbours[part] = nearest.indices.cpu()
    sets = _reciprocal_sets(neighbours)
    distances, weights = np.empty((queries, gallery), np.float32), []
    for part in _blocks(queries, count):
        scaled = rows(part).cpu().numpy() / largest[part, None]
        if part.start < queries:
            distances[part] = scaled[:, queries:]
        for own, members in zip(scaled, sets[part]):
            weight = np.exp(-own[members])
            weights.append(weight / weight.sum())
    starts = np.cumsum([0, *map(len, sets)])
    encoded = scipy.sparse.csr_matrix((np.concatenate(weights), np.concatenate(sets), starts), shape=(count, count))
    return LAMBDA * distances + (1 - LAMBDA) * _jaccard(_expanded(encoded, neighbours), queries)


def _blocks(queries: int, count: int) -> Iterator[slice]:
    """Slices over the N images, none over queries and gallery at once."""
    for start, stop in ((0, queries), (queries, count)):
        for first in range(start, stop, BLOCK):
            yield slice(first, min(first + BLOCK, stop))


def _reciprocal_sets(neighbours: np.ndarray) -> list[np.ndarray]:
    """The expanded k-reciprocal neighbours of each image, ascending.

    Those who count each other among their k1 + 1 nearest, and of each of them the like of half that size, where two
    thirds of it are of them already.
    """
    halves = neighbours[:, : round(K1 / 2) + 1]
    whole, half = ([set(own) for own in _mutual(some)] for some in (neighbours, halves))
    sets = []
    for own in whole:
        expanded = set(own)
        for candidate in own:
            if len(half[candidate] & own) > 2 / 3 * len(half[candidate]):
                expanded |= half[candidate]
        sets.append(np.array(sorted(expanded)))
    return sets


def _mutual(neighbours: np.ndarray) -> Iterator[list[int]]:
    """Of each image's neighbours (N, k) those that it is a neighbour of."""
    for first in range(0, len(neighbours), BLOCK):
        own = neighbours[first : first + BLOCK]  # (n, k)
        images = np.arange(first, first + len(own))
        mutual = (neighbours[own] == images[:, None, None]).any(axis=2)  # (n, k)
        yield from (row[kept].tolist() for row, kept in zip(own, mutual))


def _expanded(encoded: scipy.sparse.csr_matrix, neighbours: np.ndarray) -> scipy.sparse.csc_matrix:
    """Local query expansion: each row becomes the mean of those of its k2 nearest images (its own among them)."""
    nearest = neighbours[:, :K2]
    count, k2 = nearest.shape
    shares = np.full(nearest.size, 1 / k2, np.float32)
    mean = scipy.sparse.csr_matrix((shares, nearest.ravel(), np.arange(0, nearest.size + 1, k2)), shape=(count, count))
    return (mean @ encoded).tocsc()


def _jaccard(encoded: scipy.sparse.csc_matrix, queries: int) -> np.ndarray:
    """Jaccard distances of the queries to the gallery, (Q, G) float32: 1 - (sum of minima) / (sum of maxima)."""
    count = encoded.shape[0]
    rows, distances = encoded.tocsr(), np.empty((queries, count - queries), np.float32)
    for query in range(queries):
        own = slice(rows.indptr[query], rows.indptr[query + 1])
        parts = [slice(*encoded.indptr[column : column + 2]) for column in rows.indices[own]]
        images = np.concatenate([encoded.indices[part] for part in parts])
        minima = np.concatenate([np.minimum(encoded.data[part], w) for part, w in zip(parts, rows.data[own])])
        shared = np.bincount(images, minima, count)[queries:]  # rows add up to 1: the maxima to 2 less that
        distances[query] = 1 - shared / (2 - shared)
    return distances


def check_memory(queries: int, gallery: int) -> None:
    """Raise DPMError where re-ranking needs more than the memory of the machine.

    About 8 Q G + 20 KB for each of the Q + G images: 0.7 GB for Occluded-Duke, 9.5 GB for MSMT17.
    """
    try:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not known here (Windows): leave it to the user
        return
    needed = 8 * queries * gallery + 20_000 * (queries + gallery)
    if needed > limit:
        takes = f"needs about {needed / 1e9:.1f} GB of memory and {limit / 1e9:.1f} GB are there"
        advice = "switch re-ranking off (test.rerank False) or use a machine with more memory"
        raise DPMError(f"re-ranking {queries + gallery} images {takes}; {advice}")
