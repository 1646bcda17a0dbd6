"""CMC and mAP without the (Q, G) matrix: only the ranks of the images to find are counted, chunk by chunk."""

import warnings

import numpy as np
import torch

from dpm_plugin.evaluation.metric import GalleryIds, check_labels, cmc_and_map, curve_length, matching_counts
from dpm_plugin.evaluation.search.exact import ready_queries
from dpm_plugin.evaluation.search.gallery import Gallery
from dpm_plugin.method.masked_cosine import Side, distance_block
from dpm_plugin.utils.errors import DPMError

CHUNK_SIZE = 1024  # gallery images in one block
QUERY_BLOCK = 1024
PADDING = torch.iinfo(torch.int64).max  # behind every gallery image


def streamed_evaluate_rank(blocks, q_pids, g_pids, q_camids, g_camids, max_rank=50, *, chunk_size=CHUNK_SIZE):
    """CMC and mAP as :func:`dpm_plugin.evaluate_rank` (Market-1501 protocol) has them, in bounded memory.

    The distances of the images to find are computed first. Then the gallery is read once, and of each chunk it is
    counted how many images of other identities come before each of them. A query's own identity is told by the
    image's number, so no distance is compared with itself.

    Equal to ``evaluate_rank`` of the whole matrix, ties in gallery order included, up to rounding: matrix products
    of different shapes may round one value differently (by about 1e-7 for the masked cosine), so an image of
    another identity that is as near as that to one to find may come before or behind it.

    Args:
        blocks: function of gallery rows (a slice, or an int64 tensor of row numbers) that returns a function of
            query rows (an int64 tensor), which returns their (q, g) float tensor of distances, to be written
            over; such as :func:`masked_blocks`.
        q_pids, g_pids: (Q,) and (G,) identities.
        q_camids, g_camids: (Q,) and (G,) cameras.
        max_rank: length of the CMC curve, default 50; a smaller gallery shortens it, with a printed note.
        chunk_size: gallery images in one block, default 1024. Memory is bounded by about
            ``20 * chunk_size * min(Q, 1024)`` bytes for a block and 60 bytes for each pair of a query and a
            gallery image of its identity, beside what ``blocks`` takes.

    Returns:
        (cmc, mAP): cmc a (min(max_rank, G),) float32 array, mAP a float in [0, 1].

    Raises:
        DPMError: empty or mismatched input, distances that are not finite, or no query with a match.
    """
    ids = [np.asarray(values) for values in (q_pids, g_pids, q_camids, g_camids)]
    check_labels((len(ids[0]), len(ids[1])), *ids, max_rank)
    if chunk_size < 1:
        raise DPMError(f"chunk_size must be at least 1, got {chunk_size}")
    counts = matching_counts(*ids)
    if counts.unmatched_queries:
        warnings.warn(counts.unmatched_message(), stacklevel=2)
    max_rank = curve_length(max_rank, len(ids[1]))
    groups = _query_groups(*ids)
    for group in groups:
        group.measure_wanted(blocks, chunk_size)
    for start in range(0, len(ids[1]), chunk_size):
        stop = min(start + chunk_size, len(ids[1]))
        chunk = blocks(slice(start, stop))
        for group in groups:
            group.count_before(chunk(group.queries), start, stop)
    ranks = {query: found for group in groups for query, found in group.ranks()}
    return cmc_and_map((ranks[query] for query in sorted(ranks)), max_rank)


def masked_blocks(query, gallery, query_mask):
    """The ``blocks`` of :func:`dpm_plugin.query_mask_distance` for :func:`streamed_evaluate_rank`.

    Args:
        query: (Q, D) float tensor; the work is done on its device.
        gallery: :class:`~dpm_plugin.evaluation.search.Gallery`, or what that takes, memory-mapped arrays included.
        query_mask: (Q, D) masks, or None for the plain cosine distance.

    Raises:
        DPMError: shapes that do not fit, or values that are not finite (those of the gallery when it is read).
    """
    gallery = gallery if isinstance(gallery, Gallery) else Gallery(gallery)
    with torch.no_grad():
        queries = ready_queries(query, query_mask, gallery.dim)

    def chunk(gallery_rows):
        side = Side(gallery.unit_rows(gallery_rows, query.device))

        def distances(query_rows):
            with torch.no_grad(), torch.autocast(query.device.type, enabled=False):  # it would use half precision
                return distance_block(queries, side, query_rows)

        return distances

    return chunk


def _query_groups(q_pids, g_pids, q_camids, g_camids):
    """The matched queries in groups of one product: alike in the number of images to find, then in identity."""
    gallery = GalleryIds(g_pids, g_camids)
    splits = [gallery.split(*query) for query in zip(q_pids, q_camids)]
    wanted = np.array([len(found) for found, _ in splits])
    order = np.lexsort((q_pids, wanted))
    order = order[np.count_nonzero(wanted == 0) :]
    return [_QueryGroup(order[first : first + QUERY_BLOCK], splits) for first in range(0, len(order), QUERY_BLOCK)]


class _QueryGroup:
    """Queries of one block with the images to find for each.

    Attributes:
        queries: (q,) int64 tensor, numbers of the queries.
        wanted: (q, n) gallery numbers of the images to find, nearest first once measured; padded with ``PADDING``.
        distance: (q, n) of them; padded with infinity.
        before: (q, n) how many images of other identities come before each, so far.
    """

    def __init__(self, queries, splits):
        self.queries = torch.from_numpy(queries)
        found = [splits[query][0] for query in queries]
        same = [np.sort(np.concatenate(splits[query])) for query in queries]
        self.lengths = [len(each) for each in found]
        self.wanted = torch.full((len(found), max(self.lengths)), PADDING)
        for row, each in zip(self.wanted, found):
            row[: len(each)] = torch.from_numpy(each)
        # Pairs of a query (its row) and a gallery image (its column) of one identity, in the gallery's order.
        columns = np.concatenate(same)
        order = np.argsort(columns, kind="stable")
        self.same_columns = columns[order]
        self.same_rows = np.repeat(np.arange(len(same)), [len(each) for each in same])[order]

    def measure_wanted(self, blocks, chunk_size):
        """Fill in ``distance`` and order the images to find by it, ties in gallery order."""
        padding = self.wanted == PADDING
        columns = self.wanted[~padding].unique()
        place = torch.searchsorted(columns, self.wanted)  # (q, n)
        distance = torch.full(self.wanted.shape, float("inf"))
        for start in range(0, len(columns), chunk_size):
            block = _checked(blocks(columns[start : start + chunk_size])(self.queries))  # (q, c)
            distance = distance.to(block.device)
            row, n = ((place >= start) & (place < start + block.shape[1]) & ~padding).nonzero(as_tuple=True)
            distance[row, n] = block[row, place[row, n] - start]
        self.distance, order = distance.sort(dim=1, stable=True)
        self.wanted = self.wanted.to(order.device).gather(1, order)
        self.before = torch.zeros_like(self.wanted)

    def count_before(self, block, start, stop):
        """Count the images of ``block`` (q, c), distances to the gallery from ``start`` to ``stop``."""
        block = _checked(block)
        same = slice(*np.searchsorted(self.same_columns, (start, stop)))
        block[self.same_rows[same], self.same_columns[same] - start] = float("inf")
        ordered = _ascending(block)
        nearer = torch.searchsorted(ordered, self.distance)
        up_to = torch.searchsorted(ordered, self.distance, right=True)
        inside = (self.wanted >= start) & (self.wanted < stop) & (nearer < up_to)
        for row, n in inside.nonzero().tolist():  # ties within the chunk
            nearer[row, n] += (block[row, : self.wanted[row, n] - start] == self.distance[row, n]).sum()
        self.before += torch.where(self.wanted >= stop, up_to, nearer)

    def ranks(self):
        """Yield (query number, 1-based ranks of its images, ascending)."""
        for query, length, before in zip(self.queries.tolist(), self.lengths, self.before.cpu().numpy()):
            yield query, before[:length] + np.arange(1, length + 1)


def _checked(block):
    if not all(bound.isfinite() for bound in block.aminmax()):
        raise DPMError("distances are not finite; the features hold NaN or infinity")
    return block.float()


def _ascending(block):
    if block.device.type == "cpu":  # NumPy's sort of plain values is ten times faster there
        return torch.from_numpy(np.sort(block.numpy(), axis=1))
    return block.sort(dim=1).values
