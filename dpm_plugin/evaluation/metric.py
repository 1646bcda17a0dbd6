"""CMC and mAP of a distance matrix: torchreid's numbers without its full sort in Python."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation.positives import Blocks, GalleryIds, positive_ranks
from dpm_plugin.method.retrieval import check_chunk_size
from dpm_plugin.utils.errors import DPMError

CHUNK_SIZE = 1024  # gallery images in one block


def evaluate_rank(
    distmat: np.ndarray,
    q_pids: ArrayLike,
    g_pids: ArrayLike,
    q_camids: ArrayLike,
    g_camids: ArrayLike,
    max_rank: int = 50,
    use_metric_cuhk03: bool = False,
    use_cython: bool = True,
) -> tuple[np.ndarray, float]:
    """Evaluate CMC and mAP as ``torchreid.metrics.evaluate_rank`` does (Market-1501 protocol by default).

    A query's gallery is every image but its junk, those with both its identity and its camera. Queries without a
    positive are left out, with a warning that counts them. Where distances all differ the results are torchreid's;
    where they tie, images come in gallery order (torchreid's order among ties is its sort's accident). A query
    with fewer gallery images than ``max_rank`` has found its match by its last one; torchreid fails there.

    Args:
        distmat: (Q, G) numpy array, smaller is nearer.
        q_pids, g_pids: (Q,) and (G,) identities.
        q_camids, g_camids: (Q,) and (G,) cameras.
        max_rank: length of the CMC curve, default 50; a smaller gallery shortens it, with a printed note.
        use_metric_cuhk03: torchreid's single-gallery-shot protocol, which draws from numpy's global random
            state (torchreid's Python form of it needs numpy >= 2).
        use_cython: use torchreid's compiled form where it is built (never on PyPI's layout), else ours.

    Returns:
        (cmc, mAP): cmc a (min(max_rank, G),) float32 array, mAP a float in [0, 1].

    Raises:
        DPMError: empty or mismatched input, distances that are not finite, or no query with a match.
    """
    distmat = np.asarray(distmat)
    ids = ready_labels((q_pids, g_pids, q_camids, g_camids), max_rank, distmat.shape)
    _check_finite(distmat)
    if use_metric_cuhk03 or (use_cython and torchreid_host.compiled_rank_available()):
        return torchreid_host.metrics.evaluate_rank(
            distmat, *ids, max_rank=max_rank, use_metric_cuhk03=use_metric_cuhk03, use_cython=use_cython
        )
    dtype = np.result_type(distmat, np.float32)

    def blocks(gallery_rows: slice | Tensor) -> Callable[[Tensor], Tensor]:
        columns = distmat[:, gallery_rows if isinstance(gallery_rows, slice) else gallery_rows.numpy()]
        return lambda queries: torch.from_numpy(columns[queries.numpy()].astype(dtype, copy=False))

    return _cmc_and_map(blocks, ids, max_rank, CHUNK_SIZE)


def streamed_evaluate_rank(
    blocks: Blocks,
    q_pids: ArrayLike,
    g_pids: ArrayLike,
    q_camids: ArrayLike,
    g_camids: ArrayLike,
    max_rank: int = 50,
    *,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[np.ndarray, float]:
    """:func:`evaluate_rank` by the Market-1501 protocol, in bounded memory: the (Q, G) matrix is never built.

    The result is that of the whole matrix up to rounding: matrix products of different shapes may round one value
    differently (by about 1e-7 for the masked cosine), so an image of another identity that is as near as that to a
    positive may come before or behind it.

    Args:
        blocks: function of gallery rows (a slice, or an int64 tensor of row numbers) that returns a function of
            query rows (an int64 tensor), which returns their (q, c) float tensor of distances, to be written
            over; such as :class:`~dpm_plugin.evaluation.search.MaskedBlocks`.
        chunk_size: gallery images in one block, default 1024. Memory is bounded by about
            ``20 * chunk_size * min(Q, 1024)`` bytes for a block and 60 bytes for each pair of a query and a
            positive, beside what ``blocks`` takes.
        Others, result and errors: as in :func:`evaluate_rank`.
    """
    ids = ready_labels((q_pids, g_pids, q_camids, g_camids), max_rank)
    check_chunk_size(chunk_size)
    return _cmc_and_map(blocks, ids, max_rank, chunk_size)


class MatchingCounts(NamedTuple):
    """Who can be found at all; ``unmatched_queries`` have no image of their identity under another camera."""

    query: int
    gallery: int
    query_ids: int
    gallery_ids: int
    unmatched_queries: int

    def unmatched_message(self) -> str:
        """The warning about queries without a match."""
        return (
            f"{self.unmatched_queries} of {self.query} queries have no gallery image of their identity "
            "under another camera; they are left out of CMC and mAP"
        )


def matching_counts(q_pids: ArrayLike, g_pids: ArrayLike, q_camids: ArrayLike, g_camids: ArrayLike) -> MatchingCounts:
    """Count queries, gallery images, identities and queries without a match.

    Raises:
        DPMError: no query has a match, so there is nothing to evaluate.
    """
    queries, gallery = np.asarray(q_pids), np.asarray(g_pids)
    unmatched = len(unmatched_queries(queries, gallery, q_camids, g_camids))
    if unmatched == len(queries):
        known = int(np.isin(queries, gallery).sum())
        why = (
            f"{known} of them have their identity in the gallery, but only under the query's own camera: "
            "are the camera ids right (without cameras, query and gallery need different ones)?"
            if known
            else "none of their identities is in the gallery: do query and gallery number them alike?"
        )
        raise DPMError(f"none of the {len(queries)} queries has a gallery image to find; {why}")
    identities = (len(np.unique(queries)), len(np.unique(gallery)))
    return MatchingCounts(len(queries), len(gallery), *identities, unmatched)


def unmatched_queries(q_pids: ArrayLike, g_pids: ArrayLike, q_camids: ArrayLike, g_camids: ArrayLike) -> list[int]:
    """Positions of the queries without a gallery image of their identity under another camera."""
    gallery = GalleryIds(g_pids, g_camids)
    queries = zip(np.asarray(q_pids), np.asarray(q_camids))
    return [index for index, query in enumerate(queries) if len(gallery.split(*query)[0]) == 0]


def _cmc_and_map(blocks: Blocks, ids: Sequence[np.ndarray], max_rank: int, chunk_size: int) -> tuple[np.ndarray, float]:
    if len(ids[1]) < max_rank:  # torchreid's note
        print(f"Note: number of gallery samples is quite small, got {len(ids[1])}")
        max_rank = len(ids[1])
    first_found = np.zeros(max_rank, dtype=np.int64)  # queries by the rank of their first match
    precisions = []
    for ranks in positive_ranks(blocks, ids, chunk_size):
        if ranks[0] <= max_rank:
            first_found[ranks[0] - 1] += 1
        precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    # Divided in float32, as torchreid does.
    cmc = first_found.cumsum().astype(np.float32) / np.float32(len(precisions))
    return cmc, np.mean(precisions)


def ready_labels(labels: Sequence[ArrayLike], max_rank: int, shape: tuple[int, ...] | None = None) -> list[np.ndarray]:
    """Identities and cameras as arrays, with a warning about queries without a match.

    Args:
        labels: q_pids (Q,), g_pids (G,), q_camids (Q,) and g_camids (G,).
        shape: of the distances. Default: (Q, G).

    Raises:
        DPMError: they do not fit, nothing is asked, or no query has a match.
    """
    ids = [np.asarray(values) for values in labels]
    expected = (len(ids[0]), len(ids[1]))
    shape = expected if shape is None else shape
    if shape != expected or ids[2].shape != ids[0].shape or ids[3].shape != ids[1].shape:
        shapes = "distmat {}, q_pids {}, g_pids {}, q_camids {}, g_camids {}".format(
            shape, *(each.shape for each in ids)
        )
        raise DPMError(f"shapes do not fit: {shapes}; expected (Q, G), (Q,), (G,), (Q,), (G,)")
    if 0 in expected:
        raise DPMError(f"nothing to evaluate: {expected[0]} queries, {expected[1]} gallery images")
    if max_rank < 1:
        raise DPMError(f"max_rank must be at least 1, got {max_rank}")
    counts = matching_counts(*ids)
    if counts.unmatched_queries:
        warnings.warn(counts.unmatched_message(), stacklevel=3)
    return ids


def _check_finite(distmat: np.ndarray) -> None:
    if not np.isfinite([distmat.min(), distmat.max()]).all():  # min and max pass NaN on; no (Q, G) temporary
        bad_rows = [i for i, row in enumerate(distmat) if not np.isfinite(row).all()]
        raise DPMError(
            f"distances of {len(bad_rows)} of {len(distmat)} queries are not finite, first query "
            f"{bad_rows[0]}; the features hold NaN or infinity"
        )
