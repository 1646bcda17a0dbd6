"""Exact ranks of chosen gallery images under the query's mask, in bounded memory."""

import torch

from dpm_plugin.evaluation.search.exact import blocks, pack, ready_queries, size_of_chunks
from dpm_plugin.evaluation.search.gallery import Gallery
from dpm_plugin.utils.errors import DPMError


@torch.no_grad()
def ranks(query, gallery, query_mask, indices, *, chunk_size=None):
    """Where chosen gallery images stand in the whole ranking of each query, without the ranking itself.

    Args:
        query, gallery, query_mask, chunk_size: as of :func:`dpm_plugin.evaluation.search.topk`.
        indices: (Q, k) int64, rows of the gallery.

    Returns:
        (Q, k) int64 ranks from 1, in the order of ``topk``: ties come in gallery order. So the ranks of what
        ``topk`` found by the same arguments are 1 to k.

    Raises:
        DPMError: as ``topk``, or ``indices`` that do not fit.
    """
    gallery = gallery if isinstance(gallery, Gallery) else Gallery(gallery)
    queries = ready_queries(query, query_mask, gallery.dim)
    if indices.dim() != 2 or len(indices) != len(query) or indices.is_floating_point():
        raise DPMError(
            f"indices must be (Q, k) whole numbers of {len(query)} queries, got {tuple(indices.shape)} {indices.dtype}"
        )
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < len(gallery):
        raise DPMError(
            f"indices must be between 0 and {len(gallery) - 1}, got {int(indices.min())} to {int(indices.max())}"
        )
    chunk_size = size_of_chunks(chunk_size, query.device)
    with torch.autocast(query.device.type, enabled=False):  # it would silently use half precision
        keys, order = _keys(queries, gallery, indices, chunk_size).sort(dim=1)  # (Q, k)
        before = _count(queries, gallery, keys, chunk_size)
    return torch.empty_like(order).scatter_(1, order, before + 1)


def _keys(queries, gallery, indices, chunk_size):
    """The keys (Q, k) of the chosen images.

    Their distances are taken from the very blocks that are compared with them afterwards: those of a block of
    another shape may be rounded otherwise, and an image would come before its own copy.
    """
    keys = torch.zeros_like(indices)
    starts = ((indices // chunk_size).unique() * chunk_size).tolist()
    for rows, start, distance in blocks(queries, gallery, chunk_size, starts):
        column = indices[rows] - start  # (q, k)
        here = (column >= 0) & (column < distance.shape[1])
        found = pack(distance.gather(1, column.clamp(0, distance.shape[1] - 1)), indices[rows])
        keys[rows] = torch.where(here, found, keys[rows])
    return keys


def _count(queries, gallery, keys, chunk_size):
    """How many gallery images come before each of the ``keys`` (Q, k), which ascend."""
    places = torch.zeros(len(keys), keys.shape[1] + 1, dtype=torch.int64, device=keys.device)
    for rows, start, distance in blocks(queries, gallery, chunk_size):
        images = pack(distance, start + torch.arange(distance.shape[1], device=keys.device))  # (q, c)
        place = torch.searchsorted(keys[rows], images, right=True)  # behind the keys that are not larger
        places[rows] += torch.zeros_like(places[rows]).scatter_add_(1, place, torch.ones_like(place))
    return places.cumsum(dim=1)[:, :-1]
