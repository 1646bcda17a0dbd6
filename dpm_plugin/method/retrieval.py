"""Distances between queries and a gallery under the query's mask (paper section 4.1): 1 - Eq. 4 of gallery rows.

All are matrix products: no loop over queries, no (Q, G, D) tensor. For the nearest images only, see
:mod:`dpm_plugin.evaluation.search`.
"""

import numpy as np
import torch
from torch import Tensor

from dpm_plugin.method.masked_cosine import check_rows, distance_block, masked_rows
from dpm_plugin.utils.errors import DPMError

CHUNK_SIZE = 1024


def query_mask_distance(
    query: Tensor, gallery: Tensor, query_mask: Tensor | None, *, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    """1 - cos(q, m_q * g): the query's mask on every unit gallery row, renormalised; the query is unmasked.

    Args:
        query: (Q, D) float tensor of any float type; computed in float32, autocast or not.
        gallery: (G, D) float tensor on the same device.
        query_mask: (Q, D) masks of the queries, or None for the plain cosine distance. Only the direction of
            a mask counts: m and 2m give the same distance.
        chunk_size: rows of query and gallery in one block (default 1024). Beside the result, memory is
            bounded by about ``4 * (chunk_size * (2 * chunk_size + 6 * D) + 4 * Q * D)`` bytes (54 MB for
            the 2,210 queries of Occluded-Duke at D = 768).

    Returns:
        (Q, G) float32 tensor in [0, 2] on the query's device, without gradient. A zero query, gallery row or
        mask has distance 1 (no similarity), never NaN; below a length of 1e-12 of the masked gallery row the
        similarity fades to that. NaN and infinity in the inputs come out as NaN, which
        :func:`dpm_plugin.evaluate_rank` refuses.

    Raises:
        DPMError: the shapes or devices do not fit; the message names them.
    """
    return mutual_mask_distance(query, gallery, query_mask, None, chunk_size=chunk_size)


def cosine_distance(query: Tensor, gallery: Tensor, *, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """(Q, G) of 1 - cos(q, g); arguments, result and errors as in :func:`query_mask_distance`."""
    return mutual_mask_distance(query, gallery, None, None, chunk_size=chunk_size)


@torch.no_grad()
def mutual_mask_distance(
    query: Tensor,
    gallery: Tensor,
    query_mask: Tensor | None,
    gallery_mask: Tensor | None,
    *,
    chunk_size: int = CHUNK_SIZE,
) -> Tensor:
    """1 - cos(m_g * q, m_q * g): each side seen through the other's mask. Not the paper's retrieval.

    For analysis and for re-ranking. It is symmetric in its two sides, 0 between a row and itself, and is
    :func:`query_mask_distance` where the gallery's masks are all ones. Either mask may be None (all ones).
    Arguments, result and errors as there, with ``gallery_mask`` of shape (G, D).
    """
    check_rows(("query", query, "query_mask", query_mask), ("gallery", gallery, "gallery_mask", gallery_mask))
    check_chunk_size(chunk_size)
    out = torch.empty(len(query), len(gallery), device=query.device)  # (Q, G)
    with torch.autocast(query.device.type, enabled=False):
        queries = masked_rows(query, query_mask)
        for g in range(0, len(gallery), chunk_size):
            g_rows = slice(g, g + chunk_size)
            chunk = masked_rows(gallery[g_rows], None if gallery_mask is None else gallery_mask[g_rows])
            for q in range(0, len(query), chunk_size):
                q_rows = slice(q, q + chunk_size)
                distance_block(queries, chunk, q_rows, out=out[q_rows, g_rows])
    return out


def check_chunk_size(chunk_size: int) -> None:
    """Raise DPMError where ``chunk_size`` holds no row."""
    if chunk_size < 1:
        raise DPMError(f"chunk_size must be at least 1, got {chunk_size}")


def static_masks(mask: Tensor, gallery_mask: Tensor) -> Tensor:
    """Give every query the gallery's mean mask: the control for "is one mask for all images as good?".

    Args:
        mask, gallery_mask: (Q, D), (G, D).

    Returns:
        (Q, D), all rows equal.
    """
    return gallery_mask.mean(dim=0, keepdim=True).expand(len(mask), -1)


def shuffled_masks(mask: Tensor, seed: int = 0) -> Tensor:
    """Give every query another query's mask: the control for "does the mask see this image at all?".

    The permutation is one random cycle through all rows, so no row keeps its own mask. It is the same for one
    ``seed`` and number of rows everywhere, and leaves the global random states alone.

    Args:
        mask: (Q, D) tensor, Q >= 2.
        seed: any non-negative int, default 0.

    Returns:
        (Q, D) tensor, the rows of ``mask`` in another order.

    Raises:
        DPMError: fewer than two rows.
    """
    if mask.dim() != 2 or len(mask) < 2:
        raise DPMError(f"shuffling masks needs a (Q, D) tensor with Q >= 2, got shape {tuple(mask.shape)}")
    cycle = np.random.default_rng(seed).permutation(len(mask))
    source = np.empty_like(cycle)
    source[cycle] = np.roll(cycle, 1)
    return mask[torch.from_numpy(source).to(mask.device)]
