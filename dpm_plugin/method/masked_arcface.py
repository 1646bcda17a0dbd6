"""The angular-margin head on masked prototypes (Eq. 7), for a whole batch at once."""

import math

import torch
from torch import Tensor, nn

from dpm_plugin.method.masked_cosine import check_variant, masked_cosine
from dpm_plugin.utils.errors import DPMError

_TINY = 1e-12


class MaskedArcFace(nn.Module):
    """Scaled logits of Eq. 7; cross entropy on them is L_M-cls.

    Args:
        scale: s. Default: 30.
        margin: angular margin m in radians. Default: 0.5.
        variant, renormalise: see :func:`~dpm_plugin.method.masked_cosine.masked_cosine`. Default: "Pn", True.

    Shape:
        features (B, D), prototypes (K, D), mask (B, D) or None, labels (B,) -> (B, K) float32.

    Raises:
        DPMError: an unknown variant, or a scale or margin out of its range.
    """

    def __init__(self, scale: float = 30.0, margin: float = 0.5, variant: str = "Pn", renormalise: bool = True) -> None:
        super().__init__()
        check_variant(variant)
        if not 0 < scale < math.inf or not 0 <= margin < math.pi:
            raise DPMError(f"scale {scale} must be positive and margin {margin} between 0 and pi")
        self.scale = scale
        self.margin = margin
        self.variant = variant
        self.renormalise = renormalise

    def forward(self, features: Tensor, prototypes: Tensor, mask: Tensor | None, labels: Tensor) -> Tensor:
        cosine = masked_cosine(features, prototypes, mask, self.variant, self.renormalise)  # Eq. 4, (B, K)
        return self.scale * add_angular_margin(cosine, labels, self.margin)  # Eq. 7


def add_angular_margin(cosine: Tensor, labels: Tensor, margin: float) -> Tensor:
    """cos(theta + margin) in each row's own class, the other entries unchanged (Eq. 7).

    Where theta + margin would pass pi, and cos would rise again, ArcFace's linear
    continuation cos(theta) - margin * sin(margin) is used.

    Args:
        cosine: (B, K). labels: (B,) int64. margin: radians.

    Returns:
        (B, K).
    """
    target = cosine.gather(1, labels[:, None])  # (B, 1)
    # clamped: rounding may leave |cos| above 1, and the root has an infinite slope at 0
    sine = (1 - target.square()).clamp_min(_TINY).sqrt()
    shifted = target * math.cos(margin) - sine * math.sin(margin)  # cos(theta + margin), (B, 1)
    past_pi = target <= math.cos(math.pi - margin)
    shifted = torch.where(past_pi, target - margin * math.sin(margin), shifted)
    return cosine.scatter(1, labels[:, None], shifted)
