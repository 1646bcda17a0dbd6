"""Eq. 4 and Eq. 7 as written: every image masks all prototypes for itself. Oracle and benchmark contender."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_cosine(features: Tensor, prototypes: Tensor, mask: Tensor) -> Tensor:
    """(B, K) of cos(x, m * W / |W|), one image at a time."""
    rows = []
    for x, m in zip(features, mask):
        masked = F.normalize(m * F.normalize(prototypes))  # (K, D)
        rows.append(masked @ F.normalize(x, dim=0))
    return torch.stack(rows)


def masked_arcface(
    features: Tensor, prototypes: Tensor, mask: Tensor, labels: Tensor, scale: float = 30.0, margin: float = 0.5
) -> Tensor:
    """(B, K) logits of Eq. 7."""
    cosine = masked_cosine(features, prototypes, mask)
    rows = []
    for row, label in zip(cosine, labels):
        target = row[label]
        shifted = torch.cos(torch.acos(target.clamp(-1 + 1e-7, 1 - 1e-7)) + margin)
        if target <= math.cos(math.pi - margin):
            shifted = target - margin * math.sin(margin)
        rows.append(torch.where(F.one_hot(label, len(row)).bool(), shifted, row))
    return scale * torch.stack(rows)
