"""The query's mask on the gallery as written: every query masks all gallery rows for itself. Oracle and contender."""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_distance(query: Tensor, gallery: Tensor, query_mask: Tensor) -> Tensor:
    """(Q, G) of 1 - cos(q, m * g), one query at a time."""
    gallery = F.normalize(gallery)  # (G, D)
    rows = [1 - F.normalize(mask * gallery) @ F.normalize(q, dim=0) for q, mask in zip(query, query_mask)]
    return torch.stack(rows)


def nearest(distance: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and indices, (Q, k) each, of a stable sort of the whole matrix."""
    distance, indices = distance.sort(dim=1, stable=True)
    return distance[:, :k], indices[:, :k]
