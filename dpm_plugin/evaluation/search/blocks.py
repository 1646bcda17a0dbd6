"""Masked distances block by block, for galleries whose (Q, G) matrix is never built."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from dpm_plugin.evaluation.search.gallery import AnyGallery, Gallery
from dpm_plugin.method.masked_cosine import MaskedRows, check_rows, distance_block, masked_rows
from dpm_plugin.method.retrieval import check_chunk_size
from dpm_plugin.utils.errors import DPMError

# Gallery rows in one block: on a CPU small enough for its caches (3 MB at D = 768), on a GPU large enough to fill it.
CHUNK_SIZES = {"cpu": 1024, "cuda": 32_768}
QUERY_BLOCK = 1024


class MaskedBlocks:
    """Blocks of :func:`dpm_plugin.query_mask_distance`, computed on the query's device in float32.

    Args:
        query: (Q, D) float tensor.
        gallery: :class:`Gallery`, or what that takes: (G, D) tensor, array or memory-mapped array.
        query_mask: (Q, D) masks of the queries, or None for the plain cosine distance.
        chunk_size: gallery rows in one block of :meth:`walk`. Default: 1024 on a CPU, 32,768 on a GPU.

    Raises:
        DPMError: shapes that do not fit, or values that are not finite (those of the gallery when it is read).
    """

    @torch.no_grad()
    def __init__(
        self, query: Tensor, gallery: AnyGallery, query_mask: Tensor | None, chunk_size: int | None = None
    ) -> None:
        self.gallery = Gallery.of(gallery)
        check_rows(("query", query, "query_mask", query_mask))
        if query.shape[1] != self.gallery.dim:
            raise DPMError(f"query is {tuple(query.shape)}; expected (Q, {self.gallery.dim}) as the gallery's rows")
        for name, value in (("query", query), ("query_mask", query_mask)):
            if value is not None and len(bad := (~value.isfinite().all(dim=1)).nonzero()):
                raise DPMError(f"{name} row {int(bad[0])} holds NaN or infinity; the model has diverged")
        self.queries = masked_rows(query, query_mask)
        self.device = query.device
        self.chunk_size = CHUNK_SIZES.get(query.device.type, CHUNK_SIZES["cuda"]) if chunk_size is None else chunk_size
        check_chunk_size(self.chunk_size)

    def __call__(self, gallery_rows: slice | Tensor) -> Callable[[slice | Tensor], Tensor]:
        """Read a chunk of the gallery; returns a function of query rows that gives their distances (q, c) to it."""
        chunk = MaskedRows(self.gallery.unit_rows(gallery_rows, self.device))

        def distances(query_rows: slice | Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):  # it would use half precision
                return distance_block(self.queries, chunk, query_rows)

        return distances

    def walk(self, starts: Iterable[int] | None = None) -> Iterator[tuple[slice, int, Tensor]]:
        """Yield (query rows, first gallery row, distances (q, c)) for chunks from ``starts`` (default: all)."""
        for start in range(0, len(self.gallery), self.chunk_size) if starts is None else starts:
            distances = self(slice(start, start + self.chunk_size))
            for first in range(0, len(self.queries), QUERY_BLOCK):
                rows = slice(first, first + QUERY_BLOCK)
                yield rows, start, distances(rows)
