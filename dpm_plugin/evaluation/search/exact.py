"""Exact top-k under the query's mask, in bounded memory: the (Q, G) matrix is never built."""

import torch

from dpm_plugin.evaluation.search.gallery import Gallery
from dpm_plugin.method.masked_cosine import Side, distance_block, unit_rows
from dpm_plugin.utils.errors import DPMError

# Gallery rows in one block: on a CPU small enough for its caches (3 MB at D = 768), on a GPU large enough to fill it.
CHUNK_SIZES = {"cpu": 1024, "cuda": 32_768}
QUERY_BLOCK = 1024
PART = 64  # of a block's row, that is skipped where no distance in it is among the nearest
LAST = 0x7F80_0000_FFFF_FFFF  # the key of an infinite distance at the last place


@torch.no_grad()
def topk(query, gallery, query_mask, k=50, *, chunk_size=None):
    """The k gallery images nearest to each query, by :func:`dpm_plugin.query_mask_distance`.

    Equal to a stable sort of that matrix, up to the rounding of its values: ties come in gallery order.

    Args:
        query: (Q, D) float tensor; the work is done on its device, in float32.
        gallery: :class:`Gallery`, or what that takes: (G, D) tensor, array or memory-mapped array. Its chunks
            are moved to the query's device one at a time.
        query_mask: (Q, D) masks of the queries, or None for the plain cosine distance.
        k: images for each query, 1 to G. Default: 50.
        chunk_size: gallery rows in one block. Default: 1024 on a CPU, 32,768 on a GPU. Beside gallery and result,
            memory is bounded by about ``4 * (chunk_size * (4 * D + 7 * min(Q, 1024)) + 4 * Q * D + 12 * Q * k)``
            bytes: 17 MB for 100 queries at D = 768 on a CPU, however large the gallery.

    Returns:
        distances (Q, k) float32, ascending, and indices (Q, k) int64, on the query's device.

    Raises:
        DPMError: shapes that do not fit, values that are not finite (names the row), or a k beyond the gallery.
    """
    gallery = gallery if isinstance(gallery, Gallery) else Gallery(gallery)
    queries = ready_queries(query, query_mask, gallery.dim)
    if not 1 <= k <= len(gallery):
        raise DPMError(f"k is {k}, but must be between 1 and the {len(gallery)} images of the gallery")
    nearest = _Nearest(len(query), k, query.device)
    with torch.autocast(query.device.type, enabled=False):  # it would silently use half precision
        for rows, start, distance in blocks(queries, gallery, size_of_chunks(chunk_size, query.device)):
            nearest.add(rows, start, distance)
    return nearest.result()


def size_of_chunks(given, device):
    """Gallery rows in one block: as given, or by default what suits the device."""
    if given is None:
        return CHUNK_SIZES.get(device.type, CHUNK_SIZES["cuda"])
    if given < 1:
        raise DPMError(f"chunk_size must be at least 1, got {given}")
    return given


def blocks(queries, gallery, chunk_size, starts=None):
    """Yield (slice of the queries, number of the first gallery row, distances (q, c)).

    Args:
        queries: of :func:`ready_queries`.
        gallery: :class:`Gallery`; each of its chunks is read once.
        starts: numbers of the first rows of the chunks. Default: of all of them.
    """
    for start in range(0, len(gallery), chunk_size) if starts is None else starts:
        chunk = Side(gallery.unit_rows(slice(start, start + chunk_size), queries.unit.device))
        for first in range(0, len(queries), QUERY_BLOCK):
            rows = slice(first, first + QUERY_BLOCK)
            yield rows, start, distance_block(queries, chunk, rows)


def ready_queries(query, query_mask, dim):
    """The queries as a :class:`~dpm_plugin.method.masked_cosine.Side`, checked: (Q, dim), finite, mask alike."""
    for name, value in (("query", query), ("query_mask", query_mask)):
        if value is None and name == "query_mask":
            continue
        if not isinstance(value, torch.Tensor):
            raise DPMError(f"{name} must be a torch tensor, got {type(value).__name__}; use torch.from_numpy")
        if value.is_complex():
            raise DPMError(f"{name} must hold real numbers, got {value.dtype}")
        if value.dim() != 2 or value.shape != (len(query), dim) or value.device != query.device:
            raise DPMError(
                f"{name} is {tuple(value.shape)} on {value.device}; expected (Q, {dim}) as the gallery's "
                f"rows, on {query.device}"
            )
        bad = (~value.isfinite().all(dim=1)).nonzero().flatten()
        if len(bad):
            raise DPMError(f"{name} row {int(bad[0])} holds NaN or infinity; the model has diverged")
    return Side(unit_rows(query), query_mask)


class _Nearest:
    """The k nearest so far of every query.

    Distance and gallery index are one int64 key, the distance's float32 bits above, the index below: the bits of
    floats >= 0 are in the order of the values, so the order of keys is that of a stable sort. Few images of a
    later chunk are among the nearest; they wait until sorting them in is worth its while.
    """

    def __init__(self, queries, k, device):
        self.k = k
        self.keys = torch.full((queries, k), LAST, device=device)  # (Q, k), ascending
        self.farthest, _ = unpack(self.keys[:, -1:])  # (Q, 1), of the k-th when last sorted
        self.waiting = []  # pairs (query numbers, keys)

    def add(self, rows, start, distance):
        """Take in ``distance`` (q, c) of the queries ``rows``, a slice, to gallery images from ``start`` on."""
        if start == 0:  # all are among the nearest so far
            keys = pack(distance, torch.arange(distance.shape[1], device=distance.device))
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
        keys = pack(near[n, column], start + part[n] * width + column)
        self.waiting.append((query[n] + rows.start, keys))
        if sum(len(keys) for _, keys in self.waiting) > self.keys.numel() // 2:
            self.sort_in()

    def sort_in(self):
        """Sort in the images that wait."""
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

    def _keep(self, rows, keys):
        self.keys[rows] = keys.topk(self.k, dim=1, largest=False).values
        self.farthest[rows], _ = unpack(self.keys[rows, -1:])

    def result(self):
        """Distances (Q, k), ascending, and indices (Q, k)."""
        self.sort_in()
        return unpack(self.keys)


def pack(distances, indices):
    """Keys of float32 distances >= 0 and gallery indices: in the order of the distances, then of the indices."""
    return distances.view(torch.int32).long() << 32 | indices


def unpack(keys):
    """Distances, float32, and gallery indices, int64, of keys."""
    return (keys >> 32).int().view(torch.float32), keys & (2**32 - 1)
