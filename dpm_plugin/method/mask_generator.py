"""Hierarchical Mask Generator (HMG): patch maps of several blocks to one channel mask an image (Eq. 3)."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpm_plugin.method.part_features import stripe_means
from dpm_plugin.utils.errors import DPMError

PAPER_BLOCKS = (2, 4, 10, 12)  # of ViT-B's 12 blocks, paper section 3.2
WIDE = 192  # channels from which a CPU's convolutions are faster on contiguous maps


def default_blocks(depth: int) -> tuple[int, ...]:
    """The paper's blocks 2, 4, 10, 12 of 12, at the same relative depths of ``depth`` blocks."""
    return tuple(dict.fromkeys(math.ceil(block * depth / 12) for block in PAPER_BLOCKS))


def check_blocks(blocks: Iterable[int], depth: int) -> tuple[int, ...]:
    """Return ``blocks`` as an ascending tuple: the binary gate G of Eq. 3, as the numbers of its open gates.

    Raises:
        DPMError: empty, repeated, or outside 1..depth.
    """
    blocks = tuple(blocks)
    if not blocks or len(set(blocks)) != len(blocks) or min(blocks) < 1 or max(blocks) > depth:
        raise DPMError(
            f"mask_blocks {blocks} must name one or more different blocks between 1 and {depth}, the backbone's depth"
        )
    return tuple(sorted(blocks))


class HierarchicalMaskGenerator(nn.Module):
    """M_p = sigmoid(pool(conv(G * (f_1, ..., f_L)))), Eq. 3.

    Three 3x3 convolutions with BatchNorm and ReLU, M*c -> 2c -> c -> c, each of the first two
    followed by a 2x2 max pooling, then global pooling and a linear layer that starts at
    zero: the mask starts at 0.5 in every channel. (The paper only says "convolutional
    layers"; this is the released architecture.)

    With parts (beyond the paper) the poolings leave the rows as they are, and beside the mask of the class token each
    stripe has one of its own, from the mean of the maps in it and one linear layer for all stripes.

    Args:
        dim: channels c of one patch map.
        num_maps: number M of patch maps, the open gates of G.
        pool: "avg" (the paper) or "max" (the released implementation). Default: "avg".
        parts: number K of stripes. Default: 0, the paper.
        part_dim: channels P of a part feature. Default: 0.

    Shape:
        list of M maps (B, c, h, w) -> mask (B, D = c + K * P), values in (0, 1), float32.
    """

    def __init__(self, dim: int, num_maps: int = 4, pool: str = "avg", parts: int = 0, part_dim: int = 0) -> None:
        super().__init__()
        if pool not in ("avg", "max"):
            raise DPMError(f"mask_pool '{pool}' is unknown; choose 'avg' or 'max'")
        self.pool = pool
        self.memory_format: torch.memory_format | None = None  # of the maps; None: the faster one
        self.conv1 = _conv_bn_relu(num_maps * dim, 2 * dim)
        self.conv2 = _conv_bn_relu(2 * dim, dim)
        self.conv3 = _conv_bn_relu(dim, dim)
        self.linear = nn.Linear(dim, dim)
        self.parts = parts
        self.part_linear = nn.Linear(dim, part_dim) if parts else None
        for linear in filter(None, (self.linear, self.part_linear)):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, patch_maps: Sequence[Tensor]) -> Tensor:
        return self.logits(patch_maps).sigmoid()  # Eq. 3

    def logits(self, patch_maps: Sequence[Tensor]) -> Tensor:
        """The mask before its sigmoid, (B, D) float32; a saturated mask no longer tells its logits apart."""
        x = torch.cat(list(patch_maps), dim=1)  # (B, M * c, h, w)
        memory_format = self.memory_format
        if memory_format is None and x.device.type == "cpu" and self.linear.in_features >= WIDE:
            memory_format = torch.contiguous_format
        if memory_format is not None:  # else as they come from the tokens, which is channels-last
            x = x.contiguous(memory_format=memory_format)
        rows = 1 if self.parts else 2  # that become one
        x = _pool(self.conv1(x), rows)  # (B, 2c, h / 2, w / 2); with parts (B, 2c, h, w / 2)
        x = _pool(self.conv2(x), rows)  # (B, c, h / 4, w / 4); with parts (B, c, h, w / 4)
        x = self.conv3(x)  # as before it
        pooled = x.mean(dim=(2, 3)) if self.pool == "avg" else x.amax(dim=(2, 3))  # (B, c)
        logits = self.linear(pooled)  # (B, c)
        if self.part_linear is not None:
            of_parts = self.part_linear(stripe_means(x, self.parts))  # (B, K, P)
            logits = torch.cat([logits, of_parts.flatten(1)], dim=1)  # (B, D)
        return logits.float()


def _conv_bn_relu(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)
    )


def _pool(x: Tensor, rows: int) -> Tensor:
    """Max pooling of ``rows`` x 2; an axis that is already one patch long stays (tiny grids)."""
    return F.max_pool2d(x, [min(rows, x.shape[-2]), min(2, x.shape[-1])])
