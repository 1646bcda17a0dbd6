"""Masked prototypes (Eq. 4) and the angular-margin head on them (Eq. 7), for a whole batch at once."""
import math

import torch
from torch import nn
from torch.nn import functional as F

from dpm_plugin.errors import DPMError

MASK_VARIANTS = ("Pn", "Pn+Fn", "P", "P+F")  # the four rows of Table 5
_TINY = 1e-12


def masked_cosine(features, prototypes, mask=None, variant="Pn", renormalise=True):
    """Cosine between each feature and every prototype cut by that feature's mask, Eq. 4.

    With x' = x / |x| and unit rows W', cos(x, m * W') = (x' * m) W'^T / sqrt(m^2 (W'^2)^T): two
    matrix products instead of a (B, K, D) tensor of masked prototypes. Computed in float32.

    Args:
        features: x, (B, D).
        prototypes: W, (K, D), one row an identity.
        mask: m, (B, D), or None for no mask.
        variant: what the mask cuts, Table 5: the prototype ("P"), or prototype and feature
            ("P+F"), before or after (suffix n) their L2 normalisation. Default: "Pn".
        renormalise: whether a row masked after its normalisation is brought back to length
            1, as the released implementation does. A cosine does not see a row's length,
            so then "Pn" equals "P" and "Pn+Fn" equals "P+F" in exact arithmetic; with False
            the n variants keep the shortened rows. Default: True.

    Returns:
        (B, K) float32 in [-1, 1].
    """
    if variant not in MASK_VARIANTS:
        raise DPMError(f"mask_variant '{variant}' is unknown; choose one of {', '.join(MASK_VARIANTS)}")
    with torch.autocast(features.device.type, enabled=False):
        x = F.normalize(features.float())  # (B, D)
        w = F.normalize(prototypes.float())  # (K, D)
        if mask is None:
            return x @ w.T
        m = mask.float()
        keep_length = renormalise or not variant.endswith("n")
        if variant in ("Pn+Fn", "P+F"):
            x = F.normalize(x * m) if keep_length else x * m
        product = (x * m) @ w.T  # Eq. 4 inside the cosine: x . (m * W')
        if not keep_length:
            return product
        # clamped before the root, whose slope at 0 is infinite
        length = (m.square() @ w.square().T).clamp_min(_TINY).sqrt()  # |m * W'|, (B, K)
        return product / length


def add_angular_margin(cosine, labels, margin):
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
    shifted = target * math.cos(margin) - sine * math.sin(margin)
    past_pi = target <= math.cos(math.pi - margin)
    shifted = torch.where(past_pi, target - margin * math.sin(margin), shifted)
    return cosine.scatter(1, labels[:, None], shifted)


class MaskedArcFace(nn.Module):
    """Scaled logits of Eq. 7; cross entropy on them is L_M-cls.

    Args:
        scale: s. Default: 30.
        margin: angular margin m in radians. Default: 0.5.
        variant, renormalise: see :func:`masked_cosine`.

    Shape:
        features (B, D), prototypes (K, D), mask (B, D) or None, labels (B,) -> (B, K) float32.
    """

    def __init__(self, scale=30.0, margin=0.5, variant="Pn", renormalise=True):
        super().__init__()
        if variant not in MASK_VARIANTS:
            raise DPMError(f"mask_variant '{variant}' is unknown; choose one of {', '.join(MASK_VARIANTS)}")
        if scale <= 0 or not 0 <= margin < math.pi:
            raise DPMError(f"scale {scale} must be positive and margin {margin} between 0 and pi")
        self.scale = scale
        self.margin = margin
        self.variant = variant
        self.renormalise = renormalise

    def forward(self, features, prototypes, mask, labels):
        cosine = masked_cosine(features, prototypes, mask, self.variant, self.renormalise)
        return self.scale * add_angular_margin(cosine, labels, self.margin)
