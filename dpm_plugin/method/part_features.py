"""Beyond the paper: features of horizontal stripes beside the class token, so that a part of the body has channels.

Each channel of the class token mixes all parts of the body: hiding the legs silences none of them, and a mask finds
nothing to cut.
"""

import torch
from torch import Tensor, nn


def stripe_means(maps: Tensor, parts: int) -> Tensor:
    """The mean over each of K = ``parts`` equally high stripes, from the top: (B, C, h, w) to (B, K, C).

    A row of patches that lies in two stripes counts in each by its share, so any h and K go together.
    """
    rows = maps.shape[2]
    edges = torch.linspace(0, rows, parts + 1)
    row = torch.arange(rows)
    share = torch.minimum(edges[1:, None], row + 1) - torch.maximum(edges[:-1, None], row)  # (K, h)
    share = share.clamp_min(0) * parts / rows  # each stripe's add up to 1
    return (maps.mean(dim=3) @ share.to(maps).T).transpose(1, 2)


def part_masks(mask: Tensor, dim: int, parts: int) -> Tensor:
    """The mean mask of each of K = ``parts`` stripes, from the top: masks (n, D = C + K * P) to (n, K).

    Args:
        dim: channels C of the class token, which come first.
    """
    return mask[:, dim:].unflatten(1, (parts, -1)).mean(dim=2)


def part_weights(masks: Tensor, usual: Tensor) -> Tensor:
    """How much each part counts: part masks (n, K) over their mean in a gallery's (G, K); 1 is as much as usual.

    What is left of a part's channels is judged by its usual value: whole people's parts have different ones.
    """
    return masks / usual.mean(dim=0).clamp_min(1e-6)


class PartFeatures(nn.Module):
    """K part features: LayerNorm of the last block's mean patch token in a stripe, projected to fewer channels.

    Args:
        dim: channels C of a patch token.
        parts: number K of stripes.
        part_dim: channels P of a part feature; with P = C there is no projection. Default: 0, half of C.

    Shape:
        last block's patch map (B, C, h, w) -> (B, K * P), the top stripe's channels first.
    """

    def __init__(self, dim: int, parts: int, part_dim: int = 0) -> None:
        super().__init__()
        self.parts, self.part_dim = parts, part_dim or dim // 2
        self.norm = nn.LayerNorm(dim, eps=1e-6)  # eps of timm's ViT
        self.projection: nn.Parameter | None = None
        if self.part_dim != dim:
            self.projection = nn.Parameter(torch.empty(parts, dim, self.part_dim))  # each stripe has its own
            nn.init.trunc_normal_(self.projection, std=dim**-0.5)

    @property
    def width(self) -> int:
        """K * P."""
        return self.parts * self.part_dim

    def forward(self, last_map: Tensor) -> Tensor:
        features = self.norm(stripe_means(last_map, self.parts))  # (B, K, C)
        if self.projection is not None:
            features = torch.einsum("bkc,kcp->bkp", features, self.projection)
        return features.flatten(1)
