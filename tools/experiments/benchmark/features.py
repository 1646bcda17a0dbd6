"""Drawn features of any number, for the parts that search or rank them."""

from typing import NamedTuple

import torch

ROWS = 10_000  # in one step


class Drawn(NamedTuple):
    """(n, D) float32 features and the identity of each, (n,)."""

    rows: torch.Tensor
    pids: torch.Tensor


def draw(
    count: int, dim: int, *, identities: int | None = None, seed: int = 0, device: torch.device | str = "cpu"
) -> Drawn:
    """Features of ``count`` images.

    Args:
        identities: features are the identity's centre plus noise of the same size, so two images of one identity
            have a cosine of about 0.5, others of about 0; the same centres for every seed. None: every image is its
            own identity, plain Gaussian noise.
        seed: of the images.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty(count, dim)
    for part in rows.split(ROWS):
        part.normal_(generator=generator)
    if identities is None:
        return Drawn(rows.to(device), torch.arange(count))
    centres = torch.randn(identities, dim, generator=torch.Generator().manual_seed(12_345))
    pids = torch.randint(identities, (count,), generator=generator)
    for part, numbers in zip(rows.split(ROWS), pids.split(ROWS)):
        part += centres[numbers]
    return Drawn(rows.to(device), pids)


def draw_masks(
    count: int, dim: int, *, spread: float = 0.1, seed: int = 1, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """(count, D) masks around 0.5, as the mask generator starts with them, within (0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + spread * torch.randn(count, dim, generator=generator)).clamp_(0.01, 0.99).to(device)
