"""CMC and mAP without the (Q, G) matrix: only the ranks of the positives are counted, chunk by chunk."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dpm_plugin.evaluation.metric import GalleryIds, cmc_and_map, curve_length, ready_labels
from dpm_plugin.evaluation.search.ranks import count_before, give_distances, take_distances
from dpm_plugin.method.retrieval import check_chunk_size
from dpm_plugin.utils.errors import DPMError

CHUNK_SIZE = 1024  # gallery images in one block
QUERY_BLOCK = 1024
PADDING = 2**53  # behind every gallery image

Blocks = Callable[[slice | Tensor], Callable[[Tensor], Tensor]]


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
    """CMC and mAP as :func:`dpm_plugin.evaluate_rank` (Market-1501 protocol) has them, in bounded memory.

    The distances of the positives are computed first. Then the gallery is read once, and of each chunk it is
    counted how many images come before each of them. A query's own identity is told by its number, so no
    distance is compared with itself.

    Equal to ``evaluate_rank`` of the whole matrix, ties in gallery order included, up to rounding: matrix products
    of different shapes may round one value differently (by about 1e-7 for the masked cosine), so an image of
    another identity that is as near as that to a positive may come before or behind it.

    Args:
        blocks: function of gallery rows (a slice, or an int64 tensor of row numbers) that returns a function of
            query rows (an int64 tensor), which returns their (q, c) float tensor of distances, to be written
            over; such as :class:`~dpm_plugin.evaluation.search.MaskedBlocks`.
        q_pids, g_pids: (Q,) and (G,) identities.
        q_camids, g_camids: (Q,) and (G,) cameras.
        max_rank: length of the CMC curve, default 50; a smaller gallery shortens it, with a printed note.
        chunk_size: gallery images in one block, default 1024. Memory is bounded by about
            ``20 * chunk_size * min(Q, 1024)`` bytes for a block and 60 bytes for each pair of a query and a
            positive, beside what ``blocks`` takes.

    Returns:
        (cmc, mAP): cmc a (min(max_rank, G),) float32 array, mAP a float in [0, 1].

    Raises:
        DPMError: empty or mismatched input, distances that are not finite, or no query with a match.
    """
    ids = ready_labels((q_pids, g_pids, q_camids, g_camids), max_rank)
    images = len(ids[1])
    check_chunk_size(chunk_size)
    max_rank = curve_length(max_rank, images)
    groups = _query_groups(*ids)
    for group in groups:
        group.measure(blocks, chunk_size)
    for start in range(0, images, chunk_size):
        rows = slice(start, min(start + chunk_size, images))
        chunk = blocks(rows)
        for group in groups:
            group.count(chunk(group.queries), start, ids[1][rows])
    ranks = {query: found for group in groups for query, found in group.ranks()}
    return cmc_and_map((ranks[query] for query in sorted(ranks)), max_rank)


def _query_groups(
    q_pids: np.ndarray, g_pids: np.ndarray, q_camids: np.ndarray, g_camids: np.ndarray
) -> list["_QueryGroup"]:
    """The matched queries in groups of one product: alike in the number of positives, then in identity."""
    gallery = GalleryIds(g_pids, g_camids)
    positives = [gallery.split(*query)[0] for query in zip(q_pids, q_camids)]
    counts = np.array([len(each) for each in positives])
    order = np.lexsort((q_pids, counts))[np.count_nonzero(counts == 0) :]
    parts = [order[first : first + QUERY_BLOCK] for first in range(0, len(order), QUERY_BLOCK)]
    return [_QueryGroup(part, q_pids[part], [positives[query] for query in part]) for part in parts]


class _QueryGroup:
    """Queries of one block with their positives.

    Attributes:
        queries: (q,) int64 tensor, numbers of the queries. pids: (q,) their identities.
        counts: numbers of positives.
        positives: (q, n) gallery numbers, padded with ``PADDING``.
        distance: (q, n) of them, once measured; padded with infinity.
        before: (q, n) how many images come before each, so far.
    """

    def __init__(self, queries: np.ndarray, pids: np.ndarray, positives: Sequence[np.ndarray]) -> None:
        self.queries = torch.from_numpy(queries)
        self.pids = pids
        self.counts = [len(each) for each in positives]
        self.positives = pad_sequence([torch.from_numpy(each) for each in positives], True, PADDING)

    def measure(self, blocks: Blocks, chunk_size: int) -> None:
        """Fill in ``distance``."""
        numbers = self.positives[self.positives != PADDING].unique()
        columns = torch.searchsorted(numbers, self.positives)  # (q, n), beyond all where padded
        distance = torch.full(columns.shape, float("inf"))
        for start in range(0, len(numbers), chunk_size):
            block = _checked(blocks(numbers[start : start + chunk_size])(self.queries))  # (q, c)
            columns, distance = columns.to(block.device), distance.to(block.device)
            take_distances(block, columns - start, distance)
        self.positives = self.positives.to(distance.device)
        self.distance = distance
        self.before = torch.zeros_like(self.positives)

    def count(self, block: Tensor, start: int, pids: np.ndarray) -> None:
        """Count the images of ``block`` (q, c), distances to the gallery from ``start`` on with identities ``pids``."""
        block = _checked(block)
        own = torch.from_numpy(self.pids[:, None] == pids)  # (q, c)
        block.masked_fill_(own.to(block.device), float("inf"))
        give_distances(block, self.positives - start, self.distance)
        self.before += count_before(block, start, self.positives, self.distance)

    def ranks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (query number, 1-based ranks of its positives, ascending)."""
        for query, count, before in zip(self.queries.tolist(), self.counts, self.before.cpu().numpy()):
            yield query, np.sort(before[:count]) + 1


def _checked(block: Tensor) -> Tensor:
    if not all(bound.isfinite() for bound in block.aminmax()):
        raise DPMError("distances are not finite; the features hold NaN or infinity")
    return block.float()
