"""The ranks of each query's positives, counted chunk by chunk: no list is sorted whole, no (Q, G) matrix needed."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dpm_plugin.evaluation.search.blocks import QUERY_BLOCK
from dpm_plugin.evaluation.search.ranks import count_before, inside, take_distances
from dpm_plugin.utils.errors import DPMError

PADDING = 2**53  # behind every gallery image

# Function of gallery rows that returns a function of query rows that returns their distances (q, c).
Blocks = Callable[[slice | Tensor], Callable[[Tensor], Tensor]]


class GalleryIds:
    """Looks up the gallery images of one identity without a (Q, G) comparison.

    Args:
        pids, camids: (G,) identities and cameras.
    """

    def __init__(self, pids: ArrayLike, camids: ArrayLike) -> None:
        pids = np.asarray(pids)
        self.camids = np.asarray(camids)
        self.order = np.argsort(pids, kind="stable")
        self.sorted_pids = pids[self.order]

    def split(self, pid: int, camid: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices, ascending, of a query's positives and of its junk: its identity under its own camera."""
        start, stop = (np.searchsorted(self.sorted_pids, pid, side) for side in ("left", "right"))
        same_id = self.order[start:stop]
        same_camera = self.camids[same_id] == camid
        return same_id[~same_camera], same_id[same_camera]


def positive_ranks(blocks: Blocks, labels: Sequence[np.ndarray], chunk_size: int) -> Iterator[np.ndarray]:
    """For each query with positives, in order, their 1-based ranks, ascending, in the gallery without the query's junk.

    The distances of the positives are computed first. Then the gallery is read once, and of each chunk it is
    counted how many images come before each of them. A query's own identity is told by its number, so no
    distance is compared with itself.

    Args:
        blocks, chunk_size: see :func:`dpm_plugin.evaluation.metric.streamed_evaluate_rank`.
        labels: q_pids (Q,), g_pids (G,), q_camids (Q,) and g_camids (G,).

    Raises:
        DPMError: distances that are not finite.
    """
    q_pids, g_pids, q_camids, g_camids = labels
    gallery = GalleryIds(g_pids, g_camids)
    positives = [gallery.split(*query)[0] for query in zip(q_pids, q_camids)]
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
    """Up to ``QUERY_BLOCK`` queries with their positives.

    Attributes:
        queries: (q,) int64 tensor, numbers of the queries. pids: (q,) their identities.
        positives: (q, n) gallery numbers, padded with ``PADDING``.
        distance: (q, n) of them, once measured; padded with infinity.
        before: (q, n) how many images come before each, so far.
    """

    def __init__(self, queries: np.ndarray, pids: np.ndarray, positives: Sequence[np.ndarray]) -> None:
        self.queries = torch.from_numpy(queries)
        self.pids = pids
        self.positives = pad_sequence([torch.from_numpy(each) for each in positives], True, PADDING)
        self.distance = torch.full(self.positives.shape, float("inf"))
        self.before = torch.zeros_like(self.positives)

    def measure(self, blocks: Blocks, chunk_size: int) -> None:
        """Fill in ``distance``; all moves to where the distances are."""
        numbers = self.positives[self.positives != PADDING].unique()
        columns = torch.searchsorted(numbers, self.positives)  # (q, n), beyond all where padded
        for start in range(0, len(numbers), chunk_size):
            block = _checked(blocks(numbers[start : start + chunk_size])(self.queries))  # (q, c)
            columns, self.distance = columns.to(block.device), self.distance.to(block)
            take_distances(block, columns - start, self.distance)
        self.positives, self.before = (each.to(columns.device) for each in (self.positives, self.before))

    def count(self, block: Tensor, start: int, pids: np.ndarray) -> None:
        """Count the images of ``block`` (q, c), distances to the gallery from ``start`` on with identities ``pids``."""
        block = _checked(block)
        own = torch.from_numpy(self.pids[:, None] == pids)  # (q, c)
        block.masked_fill_(own.to(block.device), float("inf"))
        columns = self.positives - start
        row, n = inside(columns, block)
        block[row, columns[row, n]] = self.distance[row, n]
        self.before += count_before(block, start, self.positives, self.distance)


def _checked(block: Tensor) -> Tensor:
    if not all(bound.isfinite() for bound in block.aminmax()):
        raise DPMError("distances are not finite; the features hold NaN or infinity")
    return block if block.dtype == torch.float64 else block.float()
