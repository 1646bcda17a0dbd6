"""Where chosen gallery images stand in a ranking, counted in bounded memory; shared by search and the metric."""

import numpy as np
import torch
from torch import Tensor

from dpm_plugin.evaluation.search.blocks import MaskedBlocks
from dpm_plugin.evaluation.search.gallery import AnyGallery
from dpm_plugin.utils.errors import DPMError


@torch.no_grad()
def ranks(
    query: Tensor, gallery: AnyGallery, query_mask: Tensor | None, indices: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    """Where chosen gallery images stand in the whole ranking of each query, without the ranking itself.

    Args:
        query, gallery, query_mask, chunk_size: as in :func:`dpm_plugin.evaluation.search.topk`.
        indices: (Q, k) int64, rows of the gallery.

    Returns:
        (Q, k) int64 ranks from 1, in the order of ``topk``: ties come in gallery order. So the ranks of what
        ``topk`` found by the same arguments are 1 to k.

    Raises:
        DPMError: as ``topk``, or ``indices`` that do not fit.
    """
    blocks = MaskedBlocks(query, gallery, query_mask, chunk_size)
    if indices.dim() != 2 or len(indices) != len(query) or indices.is_floating_point():
        got = f"{tuple(indices.shape)} {indices.dtype}"
        raise DPMError(f"indices must be (Q, k) integers of {len(query)} queries, got {got}")
    last = len(blocks.gallery) - 1
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) <= last:
        raise DPMError(f"indices must be between 0 and {last}, got {int(indices.min())} to {int(indices.max())}")
    distance = torch.empty(indices.shape, device=query.device)  # (Q, k)
    # From the very blocks that are compared with it afterwards: those of a block of another shape may be rounded
    # otherwise, and an image would come before its own copy.
    starts = (indices // blocks.chunk_size).unique() * blocks.chunk_size
    for rows, start, block in blocks.walk(starts.tolist()):
        take_distances(block, indices[rows] - start, distance[rows])
    before = torch.zeros_like(indices)
    for rows, start, block in blocks.walk():
        before[rows] += count_before(block, start, indices[rows], distance[rows])
    return before + 1


def take_distances(block: Tensor, columns: Tensor, distance: Tensor) -> None:
    """Write into ``distance`` (q, n) what ``block`` (q, c) has in ``columns`` (q, n); those beyond it stay."""
    row, n = inside(columns, block)
    distance[row, n] = block[row, columns[row, n]]


def inside(columns: Tensor, block: Tensor) -> tuple[Tensor, ...]:
    """Where ``columns`` (q, n) are columns of ``block`` (q, c): rows and places, (m,) each."""
    return ((columns >= 0) & (columns < block.shape[1])).nonzero(as_tuple=True)


def count_before(block: Tensor, start: int, images: Tensor, distance: Tensor) -> Tensor:
    """How many gallery images of a block come before each of ``images``: nearer, or as near and earlier.

    Args:
        block: (q, c) distances to the gallery from ``start`` on.
        images, distance: (q, n) gallery numbers and their distances; within the block, exactly as the block has them.
    """
    if block.device.type == "cpu":  # NumPy's sort of plain values is ten times faster there
        ordered = torch.from_numpy(np.sort(block.numpy(), axis=1))
    else:
        ordered = block.sort(dim=1).values
    nearer = torch.searchsorted(ordered, distance)
    up_to = torch.searchsorted(ordered, distance, right=True)
    columns = images - start
    tied = columns.where(up_to - nearer > 1, -1)
    for row, n in zip(*(each.tolist() for each in inside(tied, block))):
        nearer[row, n] += (block[row, : columns[row, n]] == distance[row, n]).sum()
    return torch.where(columns < block.shape[1], nearer, up_to)
