"""CMC and mAP from the ranks of each query's positives: torchreid's numbers without its full sort in Python.

The gallery is read chunk by chunk, from a matrix or computed as it is needed; no list is sorted whole.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation.search.blocks import QUERY_BLOCK
from dpm_plugin.evaluation.search.ranks import count_before, inside, take_distances
from dpm_plugin.method.retrieval import check_chunk_size
from dpm_plugin.utils.errors import DPMError

CHUNK_SIZE = 1024  # gallery images in one block
PADDING = 2**53  # behind every gallery image

# Function of gallery rows that returns a function of query rows that returns their distances (q, c).
Blocks = Callable[[slice | Tensor], Callable[[Tensor], Tensor]]


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
        q_pids, g_pids, q_camids, g_camids: identities (Q,) and (G,), cameras (Q,) and (G,).
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
    labels = _checked_labels((q_pids, g_pids, q_camids, g_camids), max_rank, distmat.shape)
    if not np.isfinite([distmat.min(), distmat.max()]).all():  # min and max pass NaN on; no (Q, G) temporary
        bad = [index for index, row in enumerate(distmat) if not np.isfinite(row).all()]
        found = f"distances of {len(bad)} of {len(distmat)} queries are not finite, first query {bad[0]}"
        raise DPMError(f"{found}; the features hold NaN or infinity")
    if use_metric_cuhk03 or (use_cython and torchreid_host.compiled_rank_available()):
        options = dict(max_rank=max_rank, use_metric_cuhk03=use_metric_cuhk03, use_cython=use_cython)
        return torchreid_host.metrics.evaluate_rank(distmat, *labels, **options)
    dtype = np.result_type(distmat, np.float32)

    def blocks(gallery_rows: slice | Tensor) -> Callable[[Tensor], Tensor]:
        columns = distmat[:, gallery_rows if isinstance(gallery_rows, slice) else gallery_rows.numpy()]
        return lambda queries: torch.from_numpy(columns[queries.numpy()].astype(dtype, copy=False))

    return _cmc_and_map(blocks, labels, max_rank, CHUNK_SIZE)


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
    labels = _checked_labels((q_pids, g_pids, q_camids, g_camids), max_rank)
    check_chunk_size(chunk_size)
    return _cmc_and_map(blocks, labels, max_rank, chunk_size)


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
    """Count queries, gallery images, identities and queries without a match; DPMError where no query has one."""
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
    return MatchingCounts(len(queries), len(gallery), len(np.unique(queries)), len(np.unique(gallery)), unmatched)


def check_test_set(name: str, parts: Mapping[str, Sequence[tuple]], highest: int, cuhk03: bool) -> None:
    """Refuse a test set that cannot be evaluated.

    Args:
        parts: "query" and "gallery", entries (path, identity, camera, ...).
        highest: rank that will be asked for.
        cuhk03: whether the CUHK03 protocol ranks identities, not images.

    Raises:
        DPMError: names the data set and what is wrong.
    """
    for side, entries in parts.items():
        if not entries:
            raise DPMError(f"the {side} set of '{name}' is empty")
    sides = [parts["query"], parts["gallery"]]
    try:
        counts = matching_counts(*([entry[field] for entry in side] for field in (1, 2) for side in sides))
    except DPMError as error:
        raise DPMError(f"'{name}' cannot be evaluated: {error}") from error
    ranked, what = (counts.gallery_ids, "identities") if cuhk03 else (counts.gallery, "images")
    if highest > ranked:
        raise DPMError(f"test.ranks asks for rank {highest}, but '{name}' has {ranked} gallery {what}; lower it")


def unmatched_queries(q_pids: ArrayLike, g_pids: ArrayLike, q_camids: ArrayLike, g_camids: ArrayLike) -> list[int]:
    """Positions of the queries without a gallery image of their identity under another camera."""
    positives = _positives([np.asarray(values) for values in (q_pids, g_pids, q_camids, g_camids)])
    return [index for index, images in enumerate(positives) if len(images) == 0]


def _positives(labels: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Gallery numbers, ascending, of each query's identity under other cameras; without a (Q, G) comparison."""
    q_pids, g_pids, q_camids, g_camids = labels
    order = np.argsort(g_pids, kind="stable")
    starts, stops = (np.searchsorted(g_pids, q_pids, side, sorter=order) for side in ("left", "right"))
    for start, stop, camid in zip(starts, stops, q_camids):
        same_id = order[start:stop]
        yield same_id[g_camids[same_id] != camid]


def _checked_labels(
    labels: Sequence[ArrayLike], max_rank: int, shape: tuple[int, ...] | None = None
) -> list[np.ndarray]:
    """The four labels as arrays that fit each other and a matrix of ``shape``; warns about queries without a match."""
    ids = [np.asarray(values) for values in labels]
    expected = (len(ids[0]), len(ids[1]))
    shape = expected if shape is None else shape
    if shape != expected or ids[2].shape != ids[0].shape or ids[3].shape != ids[1].shape:
        names = ("distmat", "q_pids", "g_pids", "q_camids", "g_camids")
        shapes = ", ".join(f"{name} {found}" for name, found in zip(names, (shape, *(each.shape for each in ids))))
        raise DPMError(f"shapes do not fit: {shapes}; expected (Q, G), (Q,), (G,), (Q,), (G,)")
    if 0 in expected:
        raise DPMError(f"nothing to evaluate: {expected[0]} queries, {expected[1]} gallery images")
    if max_rank < 1:
        raise DPMError(f"max_rank must be at least 1, got {max_rank}")
    counts = matching_counts(*ids)
    if counts.unmatched_queries:
        warnings.warn(counts.unmatched_message(), stacklevel=3)
    return ids


def _cmc_and_map(
    blocks: Blocks, labels: Sequence[np.ndarray], max_rank: int, chunk_size: int
) -> tuple[np.ndarray, float]:
    gallery_size = len(labels[1])
    if gallery_size < max_rank:  # torchreid's note
        print(f"Note: number of gallery samples is quite small, got {gallery_size}")
        max_rank = gallery_size
    first_found = np.zeros(max_rank, dtype=np.int64)  # queries by the rank of their first match
    precisions = []
    for ranks in _positive_ranks(blocks, labels, chunk_size):
        if ranks[0] <= max_rank:
            first_found[ranks[0] - 1] += 1
        precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    # Divided in float32, as torchreid does.
    cmc = first_found.cumsum().astype(np.float32) / np.float32(len(precisions))
    return cmc, np.mean(precisions)


def _positive_ranks(blocks: Blocks, labels: Sequence[np.ndarray], chunk_size: int) -> Iterator[np.ndarray]:
    """For each query with positives, in order, their 1-based ranks, ascending, in the gallery without the query's junk.

    The distances of the positives are computed first. Then the gallery is read once, and of each chunk it is
    counted how many images come before each of them. A query's own identity is told by its number, so no
    distance is compared with itself.
    """
    q_pids, g_pids, *_ = labels
    positives = list(_positives(labels))
    counts = np.array([len(each) for each in positives])
    # Queries of one product are alike in the number of positives, for little padding, then in identity.
    order = np.lexsort((q_pids, counts))[np.count_nonzero(counts == 0) :]
    parts = [order[first : first + QUERY_BLOCK] for first in range(0, len(order), QUERY_BLOCK)]
    groups = [_QueryGroup(part, q_pids[part], [positives[query] for query in part]) for part in parts]
    for group in groups:
        group.measure(blocks, chunk_size)
    for start in range(0, len(g_pids), chunk_size):
        rows = slice(start, min(start + chunk_size, len(g_pids)))
        chunk = blocks(rows)
        for group in groups:
            group.count(chunk(group.queries), start, g_pids[rows])
    before = {query: row for group in groups for query, row in zip(group.queries.tolist(), group.before.cpu().numpy())}
    return (np.sort(before[query][: counts[query]]) + 1 for query in sorted(before))


class _QueryGroup:
    """Up to ``QUERY_BLOCK`` queries, by their numbers (q,), with their identities and the numbers of their positives.

    Attributes:
        positives: (q, n) gallery numbers, padded with ``PADDING``.
        distance: (q, n) of them, once measured; padded with infinity.
        before: (q, n) how many images come before each, so far.
    """

    def __init__(self, queries: np.ndarray, pids: np.ndarray, positives: Sequence[np.ndarray]) -> None:
        self.queries, self.pids = torch.from_numpy(queries), pids
        self.positives = pad_sequence([torch.from_numpy(each) for each in positives], True, PADDING)
        self.distance = torch.full(self.positives.shape, float("inf"))
        self.before = torch.zeros_like(self.positives)

    def measure(self, blocks: Blocks, chunk_size: int) -> None:
        """Fill in ``distance``; all moves to where the distances are."""
        numbers = self.positives[self.positives != PADDING].unique()
        columns = torch.searchsorted(numbers, self.positives)  # (q, n), beyond all where padded
        for start in range(0, len(numbers), chunk_size):
            block = _finite(blocks(numbers[start : start + chunk_size])(self.queries))  # (q, c)
            columns, self.distance = columns.to(block.device), self.distance.to(block)
            take_distances(block, columns - start, self.distance)
        self.positives, self.before = (each.to(columns.device) for each in (self.positives, self.before))

    def count(self, block: Tensor, start: int, pids: np.ndarray) -> None:
        """Count the images of ``block`` (q, c), distances to the gallery from ``start`` on with identities ``pids``."""
        block = _finite(block)
        own = torch.from_numpy(self.pids[:, None] == pids)  # (q, c)
        block.masked_fill_(own.to(block.device), float("inf"))
        columns = self.positives - start
        row, n = inside(columns, block)
        block[row, columns[row, n]] = self.distance[row, n]
        self.before += count_before(block, start, self.positives, self.distance)


def _finite(block: Tensor) -> Tensor:
    """Distances in float32 or float64, after a check."""
    if not all(bound.isfinite() for bound in block.aminmax()):
        raise DPMError("distances are not finite; the features hold NaN or infinity")
    return block if block.dtype == torch.float64 else block.float()
