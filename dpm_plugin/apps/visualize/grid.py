"""Where the patches of a ViT lie on its image, overlapping or not."""

from typing import NamedTuple

import torch


class PatchGrid(NamedTuple):
    """The pixel rows and columns that each of h x w patches sees.

    Attributes:
        rows: (h, H) bool.
        columns: (w, W) bool.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def __len__(self):
        return len(self.rows) * len(self.columns)

    def boxes(self):
        """The pixels of every patch, row by row: (h * w, H, W) bool."""
        return (self.rows[:, None, :, None] & self.columns[None, :, None, :]).flatten(0, 1)

    def to_pixels(self, values):
        """Give every pixel the mean of the patches that see it; NaN at a border that none sees.

        Args:
            values: (M, h * w) float, one value a patch.

        Returns:
            (M, H, W) float32.
        """
        rows, columns = self.rows.float(), self.columns.float()
        values = values.float().unflatten(1, (len(rows), len(columns)))  # (M, h, w)
        seen = rows.sum(dim=0)[:, None] * columns.sum(dim=0)  # (H, W) patches on each pixel
        return rows.T @ values @ columns / seen  # 0 / 0 is NaN


def patch_grid(model, image_size):
    """The grid of a :class:`~dpm_plugin.method.model.DPM` on images of (height, width) pixels (Eq. 1)."""
    embed = model.backbone.transformer.patch_embed
    counts = embed.dynamic_feat_size(image_size)
    return PatchGrid(*(_axis(*axis) for axis in zip(counts, embed.patch_size, embed.stride, image_size, strict=True)))


def _axis(count, patch, stride, size):
    starts = torch.arange(count)[:, None] * stride
    pixels = torch.arange(size)
    return (pixels >= starts) & (pixels < starts + patch)  # (count, size)
