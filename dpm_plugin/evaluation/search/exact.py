"""Exact top-k under the query's mask, in bounded memory: the (Q, G) matrix is never built."""

import torch
from torch import Tensor

from dpm_plugin.evaluation.search.blocks import MaskedBlocks
from dpm_plugin.evaluation.search.gallery import AnyGallery
from dpm_plugin.utils.errors import DPMError

PART = 64  # of a block's row, that is skipped where no distance in it is among the nearest
LAST = 0x7F80_0000_FFFF_FFFF  # the key of an infinite distance at the last place


@torch.no_grad()
def topk(
    query: Tensor, gallery: AnyGallery, query_mask: Tensor | None, k: int = 50, *, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k gallery images nearest to each query, by :func:`dpm_plugin.query_mask_distance`.

    Equal to a stable sort of that matrix, up to the rounding of its values: ties come in gallery order.

    Args:
        query, gallery, query_mask, chunk_size: as in :class:`MaskedBlocks`. Beside gallery and result, memory is
            bounded by about ``4 * (chunk_size * (4 * D + 7 * min(Q, 1024)) + 4 * Q * D + 12 * Q * k)`` bytes: 17 MB
            for 100 queries at D = 768 on a CPU, however large the gallery.
        k: images for each query, 1 to G. Default: 50.

    Returns:
        distances (Q, k) float32, ascending, and indices (Q, k) int64, on the query's device.

    Raises:
        DPMError: shapes that do not fit, values that are not finite (names the row), or a k beyond the gallery.
    """
    blocks = MaskedBlocks(query, gallery, query_mask, chunk_size)
    if not 1 <= k <= len(blocks.gallery):
        raise DPMError(f"k is {k}, but must be between 1 and the {len(blocks.gallery)} images of the gallery")
    nearest = _Nearest(len(query), k, query.device)
    for rows, start, distance in blocks.walk():
        nearest.add(rows, start, distance)
    return nearest.result()


class _Nearest:
    """The k nearest so far of every query, as keys (:func:`_pack`), whose order is that of a stable sort.

    Few images of a later chunk are among the nearest; they wait until sorting them in is worth its while.
    """

    def __init__(self, queries: int, k: int, device: torch.device) -> None:
        self.k = k
        self.keys = torch.full((queries, k), LAST, device=device)  # (Q, k), ascending
        self.farthest, _ = _unpack(self.keys[:, -1:])  # (Q, 1), of the k-th when last sorted
        self.waiting: list[tuple[Tensor, Tensor]] = []  # query numbers, keys

    def add(self, rows: slice, start: int, distance: Tensor) -> None:
        """Take in ``distance`` (q, c) of the queries ``rows`` to gallery images from ``start`` on."""
        if start == 0:  # all are among the nearest so far
            keys = _pack(distance, torch.arange(distance.shape[1], device=distance.device))
            self._keep(rows, torch.cat([self.keys[rows], keys], dim=1))
            return
        farthest = self.farthest[rows]
        width = PART if distance.shape[1] % PART == 0 else distance.shape[1]
        parts = distance.view(len(distance), -1, width)
        # An image as far as the k-th stays out: it is behind it in the gallery.
        query, part = (parts.amin(dim=2) < farthest).nonzero(as_tuple=True)
        if len(query) == 0:
            return
        near = parts[query, part]  # (n, width)
        n, column = (near < farthest[query]).nonzero(as_tuple=True)
        keys = _pack(near[n, column], start + part[n] * width + column)
        self.waiting.append((query[n] + rows.start, keys))
        if sum(len(keys) for _, keys in self.waiting) > self.keys.numel() // 2:
            self._sort_in()

    def _sort_in(self) -> None:
        if not self.waiting:
            return
        query, keys = (torch.cat(each) for each in zip(*self.waiting))
        self.waiting = []
        keys, order = keys.sort()
        query, order = query[order].sort(stable=True)
        keys = keys[order]  # ascending within each query
        count = query.bincount(minlength=len(self.keys))
        place = torch.arange(len(query), device=query.device) - (count.cumsum(0) - count)[query]
        kept = place < self.k
        nearer = torch.full_like(self.keys, LAST)
        nearer[query[kept], place[kept]] = keys[kept]
        self._keep(slice(0, len(self.keys)), torch.cat([self.keys, nearer], dim=1))

    def _keep(self, rows: slice, keys: Tensor) -> None:
        self.keys[rows] = keys.topk(self.k, dim=1, largest=False).values
        self.farthest[rows], _ = _unpack(self.keys[rows, -1:])

    def result(self) -> tuple[Tensor, Tensor]:
        """Distances (Q, k), ascending, and indices (Q, k)."""
        self._sort_in()
        return _unpack(self.keys)


def _pack(distances: Tensor, indices: Tensor) -> Tensor:
    """int64 keys in the order of float32 distances >= 0, whose bits ascend with them, then of gallery indices."""
    return distances.view(torch.int32).long() << 32 | indices


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Distances, float32, and gallery indices, int64, of keys."""
    return (keys >> 32).int().view(torch.float32), keys & (2**32 - 1)
