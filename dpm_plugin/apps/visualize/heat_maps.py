"""Values of a ViT's patches, overlapping or not, as pixels and as colours over the image."""

from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from dpm_plugin.method.model import DPM


class PatchGrid(NamedTuple):
    """Where h x w = P patches lie on an image; all sizes are (height, width) in pixels."""

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    stride: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows h and columns w of patches (Eq. 1)."""
        rows, columns = ((size - patch) // step + 1 for size, patch, step in zip(*self, strict=True))
        return rows, columns

    @property
    def patches(self) -> int:
        """P = h x w."""
        return self.shape[0] * self.shape[1]

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Every pixel's sum over the patches that see it: (M, P) float to (M, H, W)."""
        spread = values[:, None].expand(-1, self.patch_size[0] * self.patch_size[1], -1)  # (M, pixels of a patch, P)
        return F.fold(spread, self.image_size, self.patch_size, stride=self.stride)[:, 0]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Every pixel's mean over the patches that see it, NaN at a border that none sees: (M, P) to (M, H, W)."""
        return self.summed(values) / self.summed(torch.ones_like(values[:1]))  # 0 / 0 is NaN

    def boxes(self, patches: torch.Tensor) -> torch.Tensor:
        """The pixels of these patches, (b,) numbers row by row: (b, H, W) bool."""
        return self.summed(torch.eye(self.patches)[patches]) > 0


def patch_grid(model: DPM, image_size: tuple[int, int]) -> PatchGrid:
    """The grid of a model on images of (height, width) pixels."""
    embed = model.backbone.transformer.patch_embed
    return PatchGrid(image_size, embed.patch_size, embed.stride)


def overlay_drivers(image: Image.Image, values: np.ndarray) -> Image.Image:
    """Red where a patch raises the channel, blue where it lowers it; full colour at the largest magnitude.

    ``values`` (H, W) lie over the RGB image; NaN shows the image alone.
    """
    values = np.nan_to_num(values)
    share = values / (np.abs(values).max() or 1.0)  # -1 .. 1
    return _blend(image, "RdBu_r", (share + 1) / 2, 0.85 * np.abs(share))


def overlay_attention(image: Image.Image, values: np.ndarray) -> Image.Image:
    """Dark where a head does not look, bright yellow where it looks most; arguments as :func:`overlay_drivers`."""
    seen = np.isfinite(values)
    values = np.nan_to_num(values)
    share = values / (values.max() or 1.0)  # 0 .. 1
    return _blend(image, "inferno", share, (0.35 + 0.35 * share) * seen)


def _blend(image: Image.Image, name: str, share: np.ndarray, opacity: np.ndarray) -> Image.Image:
    """Colours of ``share`` (H, W) over the grey image. Nearest: the edges seen are those of the patches."""
    colours = matplotlib.colormaps[name](share, bytes=True)[..., :3]  # (H, W, 3) uint8
    layer, alpha = map(Image.fromarray, (colours, np.uint8(np.round(255 * opacity))))
    layer, alpha = (part.resize(image.size, Image.Resampling.NEAREST) for part in (layer, alpha))
    return Image.composite(layer, image.convert("L").convert("RGB"), alpha)
