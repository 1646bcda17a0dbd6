"""What in an image drives a channel of its mask: painting patches over, or gradients.

``paint`` asks the question itself: by how much does the channel's logit fall when one patch of the image is
painted over? It costs one forward pass for each patch. ``gradient`` estimates that by one backward pass
through the mask generator: the gradient of the channel's logit by the patch maps of Eq. 3, times what the map
has there beyond the mean map of the queries. The bare gradient says how the logit would change with a patch's
features, not what they gave: on trained models it did not correlate with the effect of painting, while the
product did.
"""

import torch

DRIVERS = ("paint", "gradient")


def painted_drivers(logits_of, image, grid, channels, batch_size=64):
    """By how much a channel's logit falls when a patch is painted in the data set's mean colour.

    Args:
        logits_of: function from images (B, 3, H, W) to mask logits (B, D).
        image: (3, H, W), normalised, so that 0 is the mean colour.
        grid: PatchGrid of the image.
        channels: (K,) channel numbers.
        batch_size: images in one forward pass. Default: 64.

    Returns:
        (K, P): positive where the patch raises the channel.
    """
    kept = [logits_of(image[None])[:, channels]]  # (1, K)
    for boxes in grid.boxes().split(batch_size):  # (b, H, W)
        kept.append(logits_of(image.masked_fill(boxes[:, None].to(image.device), 0.0))[:, channels])
    whole, painted = kept[0], torch.cat(kept[1:])  # (1, K), (P, K)
    return (whole - painted).T


def gradient_drivers(generator, patch_maps, mean_maps, channels):
    """Gradient of a channel's logit by the patch maps, times map minus mean map; summed over features, maps.

    Args:
        generator: :class:`~dpm_plugin.method.mask_generator.HierarchicalMaskGenerator`, in eval mode.
        patch_maps: M maps of one image, (1, C, h, w).
        mean_maps: M maps (C, h, w), the mean over many images: what a patch there usually holds.
        channels: (K,) channel numbers.

    Returns:
        (K, P): positive where the patch raises the channel, to first order.
    """
    leaves = [patch_map.detach().float().requires_grad_() for patch_map in patch_maps]
    with torch.enable_grad():
        logits = generator.logits(leaves)[0]  # (D,)
    drivers = []
    for channel in channels:
        gradients = torch.autograd.grad(logits[channel], leaves, retain_graph=True)
        parts = [
            (gradient * (leaf - mean)).detach().sum(dim=1)
            for gradient, leaf, mean in zip(gradients, leaves, mean_maps, strict=True)
        ]
        drivers.append(sum(parts).flatten())  # (P,)
    return torch.stack(drivers)
