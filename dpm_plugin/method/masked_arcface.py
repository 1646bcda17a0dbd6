"""Masked prototypes (Eq. 4) and the angular-margin head on them (Eq. 7), for a whole batch at once."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dpm_plugin.utils.errors import DPMError

MASK_VARIANTS = ("Pn", "Pn+Fn", "P", "P+F")  # the four rows of Table 5
_TINY = 1e-12
_SHORT = 1e-24  # squared length of a masked prototype, below which its cosine fades to 0


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
        (B, K) float32 in [-1, 1]. A zero feature, prototype or mask gives 0, never NaN; magnitudes do not count,
        however small or large. Without ``renormalise`` a mask's magnitude does, and it belongs in [0, 1].

    Raises:
        DPMError: an unknown variant, or shapes that do not fit.
    """
    if variant not in MASK_VARIANTS:
        raise DPMError(f"mask_variant '{variant}' is unknown; choose one of {', '.join(MASK_VARIANTS)}")
    _check_shapes(features, prototypes, mask)
    with torch.autocast(features.device.type, enabled=False):
        x = F.normalize(_near_one(features))  # (B, D)
        w = F.normalize(_near_one(prototypes))  # (K, D)
        if mask is None:
            return x @ w.T
        keep_length = renormalise or not variant.endswith("n")
        m = _near_one(mask) if keep_length else mask.float()
        if variant in ("Pn+Fn", "P+F"):
            x = F.normalize(x * m) if keep_length else x * m
        product = (x * m) @ w.T  # Eq. 4 inside the cosine: x . (m * W')
        if not keep_length:
            return product
        # clamped before the root, whose slope at 0 is infinite
        length = (m.square() @ w.square().T).clamp_min(_SHORT).sqrt()  # |m * W'|, (B, K)
        return product / length


def _near_one(rows):
    """``rows`` (n, D) in float32, each times the power of two that brings its largest magnitude to between 1 and 2.

    That is exact and changes no bit of a cosine; without it the squares of large rows would overflow and those of
    small ones vanish.
    """
    if rows.dtype == torch.float64:  # what is finite here need not be in float32
        largest = rows.detach().abs().amax(dim=1, keepdim=True)
        return (rows / torch.where(largest == 0, 1.0, largest)).float()
    rows = rows.float()
    largest = torch.linalg.vector_norm(rows.detach(), float("inf"), dim=1, keepdim=True)  # (n, 1)
    exponent = largest.view(torch.int32) >> 23  # of a float32 >= 0, from 0 to 254: its value plus 127
    scale = ((254 - exponent).clamp(1, 253) << 23).view(torch.float32)
    return rows * torch.where(largest == 0, 1.0, scale)


def _check_shapes(features, prototypes, mask):
    fits = features.dim() == prototypes.dim() == 2 and features.shape[1] == prototypes.shape[1] > 0
    if not fits or mask is not None and mask.shape != features.shape:
        shown = ", ".join(
            f"{name} {tuple(value.shape)}"
            for name, value in (("features", features), ("prototypes", prototypes), ("mask", mask))
            if value is not None
        )
        raise DPMError(f"shapes do not fit: {shown}; expected (B, D), (K, D) and, for a mask, (B, D)")


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
        if not 0 < scale < math.inf or not 0 <= margin < math.pi:
            raise DPMError(f"scale {scale} must be positive and margin {margin} between 0 and pi")
        self.scale = scale
        self.margin = margin
        self.variant = variant
        self.renormalise = renormalise

    def forward(self, features, prototypes, mask, labels):
        cosine = masked_cosine(features, prototypes, mask, self.variant, self.renormalise)
        return self.scale * add_angular_margin(cosine, labels, self.margin)
