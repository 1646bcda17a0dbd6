"""A batch that is encoded in micro-batches while everything after the encoder still sees it whole."""

import torch
from torch.utils.checkpoint import checkpoint

from dpm_plugin.method.vit import EncoderOutput


def encode_in_micro_batches(encode, images, camids, count):
    """What ``encode`` gives for the whole batch, with the activations of one micro-batch in memory at a time.

    The triplet loss mines over the batch and the neck and the mask generator normalise over it, so losses of
    micro-batches would not add up to the batch's. Only the encoder is split, which looks at every image alone:
    first every micro-batch is encoded and its activations are dropped, then the loss of the whole batch is
    taken, and in the backward pass each micro-batch is encoded again, with the same random numbers, and adds
    its gradients (the gradient cache of Gao et al., "Scaling deep contrastive learning batch size under memory
    limited setup", 2021, by torch's checkpointing). The price is one more forward pass of the encoder.

    Args:
        encode: (images, camids) -> EncoderOutput.
        images, camids: (B, 3, H, W) and (B,), or None for no cameras.
        count: number of micro-batches; the last is smaller where B is no multiple of it.

    Returns:
        EncoderOutput of the B images, equal to ``encode(images, camids)`` up to rounding and the random draws
        of stochastic depth.
    """
    size = -(-len(images) // count)  # B / count, rounded up
    outputs = []
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        inputs = images[part], None if camids is None else camids[part]
        if torch.is_grad_enabled():
            outputs.append(checkpoint(encode, *inputs, use_reentrant=False))
        else:
            outputs.append(encode(*inputs))
    return _joined(outputs)


def _joined(outputs):
    cls, patch_maps, head_logits = zip(*outputs)
    return EncoderOutput(
        torch.cat(cls),
        [torch.cat(maps) for maps in zip(*patch_maps)],
        None if head_logits[0] is None else torch.cat(head_logits),
    )
