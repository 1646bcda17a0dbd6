"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) under the query's mask; the algorithm is torchreid's."""

import os

import numpy as np
from torch import Tensor

from dpm_plugin import torchreid_host
from dpm_plugin.method.retrieval import mutual_mask_distance, query_mask_distance
from dpm_plugin.utils.errors import DPMError

# torchreid's re_ranking holds at once float32 distances and neighbour weights, int64 and int32 rankings of
# all Q + G images, beside the float32 distances handed in: 24.9 bytes a pair measured at 4,000 images.
BYTES_PER_PAIR = 25


def masked_reranking(query: Tensor, gallery: Tensor, query_mask: Tensor | None) -> np.ndarray:
    """Re-ranked distances under the query's mask.

    Re-ranking compares all images with each other, and a mask belongs to a query only. One rule covers the
    three kinds of pairs: cos(m_b * a, m_a * b), each image seen through the other's mask, with masks of ones
    for the gallery (the paper takes gallery images as whole bodies). So

    - query-gallery is cos(q, m_q * g), the very distance of plain retrieval;
    - query-query is masked by both queries. One-sided, cos(q, m_q * q') is not symmetric and not 1 even for
      an image with itself, while k-reciprocal neighbours take both for granted;
    - gallery-gallery is the plain cosine: no query is involved, and the gallery's own masks are used nowhere.

    What is passed on is the length of the chord, sqrt(2 (1 - cos)), the Euclidean distance of unit vectors as
    in the re-ranking paper: re_ranking squares it, which gives 2 (1 - cos) again.

    Args:
        query, gallery: (Q, D), (G, D) float tensors on one device.
        query_mask: (Q, D), or None for re-ranking by the plain cosine.

    Returns:
        (Q, G) float32 numpy array; see :func:`check_memory` for the memory it takes.
    """
    distances = (
        query_mask_distance(query, gallery, query_mask),  # (Q, G)
        mutual_mask_distance(query, query, query_mask, query_mask),  # (Q, Q)
        query_mask_distance(gallery, gallery, None),  # (G, G)
    )
    return rerank_distances(*(distance.mul_(2).sqrt_() for distance in distances))


def rerank_distances(query_gallery: Tensor, query_query: Tensor, gallery_gallery: Tensor) -> np.ndarray:
    """torchreid's ``re_ranking`` (k1 20, k2 6, lambda 0.3) of distances (Q, G), (Q, Q) and (G, G): (Q, G) float32."""
    blocks = (query_gallery, query_query, gallery_gallery)
    return torchreid_host.utils.re_ranking(*(block.cpu().numpy() for block in blocks))


def check_memory(images: int) -> None:
    """Raise DPMError where re-ranking ``images`` = Q + G images needs more than the memory of the machine.

    About 25 (Q + G)² bytes: 9.9 GB for Occluded-Duke, 9.3 GB for Market-1501, 220 GB for MSMT17.
    """
    try:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not known here (Windows): leave it to the user
        return
    needed = BYTES_PER_PAIR * images**2
    if needed > limit:
        raise DPMError(
            f"re-ranking {images} images needs about {needed / 1e9:.1f} GB of memory and {limit / 1e9:.1f} GB are"
            " there; switch re-ranking off (test.rerank False) or use a machine with more memory"
        )
