"""Gradient cache: a batch that is encoded in parts, while everything after the encoder still sees it whole.

The triplet loss mines over the batch, and the neck and the mask generator normalise over it, so losses of
parts would not add up to the batch's. Only the encoder is split, which looks at every image alone: first every
part is encoded and its activations are dropped, then the loss of the whole batch is taken, and in the backward
pass each part is encoded again, with the same random numbers, and adds its gradients (Gao et al., "Scaling deep
contrastive learning batch size under memory limited setup", 2021). The price is one more forward pass of the encoder.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dpm_plugin.method.vit import EncoderOutput


def encode_with_cache(
    encode: Callable[..., EncoderOutput], count: int, images: Tensor, camids: Tensor | None
) -> EncoderOutput:
    """What ``encode`` gives for the whole batch, with the activations of one part in memory at a time.

    Args:
        count: number of parts; the last is smaller where B is no multiple of it.
        images, camids: (B, 3, H, W) and (B,), or None for no cameras.

    Returns:
        ``encode(images, camids)`` up to rounding and the random draws of stochastic depth.
    """
    size = -(-len(images) // count)  # B / count, rounded up
    pairs = zip(images.split(size), [None] * count if camids is None else camids.split(size))
    if torch.is_grad_enabled():
        outputs = [checkpoint(encode, *pair, use_reentrant=False) for pair in pairs]
    else:
        outputs = [encode(*pair) for pair in pairs]
    cls, patch_maps, head_logits = zip(*outputs)
    logits = None if head_logits[0] is None else torch.cat(head_logits)
    return EncoderOutput(torch.cat(cls), [torch.cat(maps) for maps in zip(*patch_maps)], logits)
