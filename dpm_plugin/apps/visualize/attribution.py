"""Which patches of an image drive a channel of its mask: occlusion sensitivity, or gradient x input.

Occlusion sensitivity asks the question itself: by how much does the channel's logit fall when one patch of the image
is painted over? It costs one forward pass for each patch. Gradient x input estimates that by one backward pass
through the mask generator; its input, the patch maps of Eq. 3, counts from the mean map of the queries. The bare
gradient says how the logit would change with a patch's features, not what they gave: on trained models it did not
correlate with the effect of painting, while the product did.
"""

from collections.abc import Callable, Sequence

import torch

from dpm_plugin.apps.visualize.heat_maps import PatchGrid
from dpm_plugin.method.mask_generator import HierarchicalMaskGenerator

#: The choices of ``--drivers``, and what each shows of a patch.
DRIVERS = {
    "paint": "by how much the channel's logit falls when a patch is painted over in the mean colour",
    "gradient": "gradient of the channel's logit by the patch maps, times their difference from the mean map",
}


@torch.no_grad()
def occlusion_sensitivity(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    grid: PatchGrid,
    channels: torch.Tensor,
    batch_size: int = 64,
) -> torch.Tensor:
    """By how much a channel's logit falls when a patch is painted in the data set's mean colour.

    Args:
        logits_of: images (B, 3, H, W) to mask logits (B, D).
        image: (3, H, W), normalised, so that 0 is the mean colour; ``grid`` is its own.
        channels: (K,) channel numbers.
        batch_size: images in one forward pass. Default: 64.

    Returns:
        (K, P): positive where the patch raises the channel.
    """
    painted = [
        logits_of(image.masked_fill(grid.boxes(patches)[:, None].to(image.device), 0.0))[:, channels]  # (b, K)
        for patches in torch.arange(grid.patches).split(batch_size)
    ]
    return (logits_of(image[None])[:, channels] - torch.cat(painted)).T


def gradient_times_input(
    generator: HierarchicalMaskGenerator,
    patch_maps: Sequence[torch.Tensor],
    mean_maps: Sequence[torch.Tensor] | torch.Tensor,
    channels: torch.Tensor,
) -> torch.Tensor:
    """Gradient of a channel's logit by the patch maps, times map minus mean map; summed over features and maps.

    Args:
        generator: in eval mode.
        patch_maps: M maps of one image, (1, C, h, w).
        mean_maps: M maps (C, h, w), the mean over many images: what a patch there usually holds.
        channels: (K,) channel numbers.

    Returns:
        (K, P): positive where the patch raises the channel, to first order.
    """
    leaves = [patch_map.detach().float().requires_grad_() for patch_map in patch_maps]
    gaps = [leaf.detach() - mean for leaf, mean in zip(leaves, mean_maps, strict=True)]
    with torch.enable_grad():
        logits = generator.logits(leaves)[0]  # (D,)
    rows = []
    for channel in channels:
        gradients = torch.autograd.grad(logits[channel], leaves, retain_graph=True)
        products = torch.cat([gradient * gap for gradient, gap in zip(gradients, gaps)])  # (M, C, h, w)
        rows.append(products.sum(dim=(0, 1)).flatten())  # (P,)
    return torch.stack(rows)
